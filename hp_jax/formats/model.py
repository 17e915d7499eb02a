"""A model with its text side: loaded from a folder of hp_jax or of another library, and saved."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from hp_jax.architecture import ModelConfig
from hp_jax.formats import safetensors, stablehlo
from hp_jax.formats.families import (
    FAMILIES,
    Family,
    family_named,
    family_of,
    family_with,
    task_of,
)
from hp_jax.formats.reading import Options
from hp_jax.formats.tensors import find_folder
from hp_jax.sharding import place_params
from hp_jax.storage import checkpoint, fingerprint
from hp_jax.storage.files import is_ours, new_folder, read_json, sign
from hp_jax.task import ModelTask, Params
from hp_jax.typed import decode, located


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that can read text, without data; everything loads and saves models through this."""

    config: ModelConfig
    params: Params
    text: Any
    """A classifier's tokenizer, a translation model's codec."""

    @property
    def family(self) -> Family:
        """What kind of model it is."""
        return family_of(self.config)

    @property
    def task(self) -> ModelTask:
        """What can be computed with it."""
        return task_of(self.config)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the parameters."""
        return fingerprint.of_arrays(self.params)

    def save(self, folder: Path, about: Mapping[str, Any], *, flat: bool = False) -> None:
        """A model folder of hp_jax, config.json with `about` last; of several processes all call
        it.

        flat: parameters as model.safetensors in place of Orbax's folder.
        """
        first = jax.process_index() == 0
        ours = first and is_ours(folder)
        if first:
            self.family.save_text(folder, self.text)
        config, about = dataclasses.asdict(self.config), {"family": self.family.name, **about}
        if flat:
            safetensors.save_flat(folder, config, self.params, about=about)
        else:
            checkpoint.save_model(folder, config, self.params, about=about)
        if ours:
            sign(folder)


def load_model(name: str, options: Options = Options(), *, family: Family | None = None) -> Model:
    """Any trained model: a folder of hp_jax, or of another library that is supported, or a name on
    the Hugging Face hub.

    family: the only one that will do.  FileNotFoundError for a folder without a model; ValueError
    names what is broken, not supported, of another family or with other labels than
    `options.labels`.
    """
    folder = find_folder(name)
    file = folder / "config.json"
    raw = read_json(file) if file.is_file() else {}
    own = raw.get("format")
    if own == stablehlo.FORMAT:
        raise ValueError(
            f"{folder} has a compiled program: expected the model that it was exported from"
        )
    if own in (checkpoint.FORMAT, safetensors.FORMAT):
        return _own(folder, raw, options, family)
    if "format" in raw:
        raise ValueError(
            f"{file}: format is {own!r}; expected one of a model of hp_jax, {checkpoint.FORMAT!r} "
            f"or {safetensors.FORMAT!r}"
        )
    for found in FAMILIES:
        for reader in found.readers:
            if reader.knows(folder, raw):
                _check_family(found, family, folder)
                config, params, text = reader.read(folder, raw, options)
                found.check_text(text, config, folder)
                placed = place_params(params, options.mesh) if options.mesh else params
                return Model(config, placed, text)
    raise _unknown(folder, raw)


def _own(folder: Path, raw: Mapping[str, Any], options: Options, family: Family | None) -> Model:
    """A model folder of hp_jax, with parameters by Orbax or by safetensors."""
    settings = raw.get("config")
    if not isinstance(settings, dict):
        raise ValueError(f"{folder}/config.json does not describe a model: it has no config")
    with located(f"{folder}/config.json: family"):
        name = decode(str, raw.get("family", ""), "its name")
        found = family_named(name) if name else family_with(settings)
    _check_family(found, family, folder)
    compute = {"dtype": options.dtype, "kernel": options.kernel}
    saved = {name: value for name, value in settings.items() if name != "attention"}
    where = f"{folder}/config.json: config"  # `attention` is what version 0.1 called the kernel
    config = found.fit(decode(found.config, saved | compute, where, closed=True), options, folder)
    flat = raw["format"] == safetensors.FORMAT
    if not flat:
        checkpoint.check_files(folder, raw)
    _check_rows(config, (safetensors if flat else checkpoint).top_names(folder), folder)
    abstract = jax.eval_shape(found.task(config).init, jax.random.key(0))
    if flat:
        params = safetensors.load_flat(folder, abstract, options.mesh)
    else:
        params = checkpoint.load_params(folder, raw, abstract, options.mesh)
    text = found.load_text(folder)
    found.check_text(text, config, folder)
    return Model(config, params, text)


def _check_rows(config: ModelConfig, saved: set[str], folder: Path) -> None:
    """ValueError, before anything is built, if a layer of the config has no parameters."""
    for row, module in config.modules.items():
        if module.path[0] not in saved:
            raise ValueError(
                f"{folder} has no parameters of {module.path[0]} (row {row}), which config.json has"
            )


def _check_family(found: Family, expected: Family | None, folder: Path) -> None:
    if expected is not None and found is not expected:
        raise ValueError(f"{folder} has a {found.name}, but a {expected.name} was expected")


def _unknown(folder: Path, raw: Mapping[str, Any]) -> Exception:
    readers = [reader for family in FAMILIES for reader in family.readers]
    if raw:
        types = ", ".join(name for reader in readers for name in reader.model_types)
        return ValueError(
            f"{folder}/config.json says model_type {raw.get('model_type')!r}; supported are {types}"
        )
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    files = ", ".join(
        f"{' or '.join(reader.files)} ({reader.library})" for reader in readers if reader.files
    )
    return FileNotFoundError(
        f"{folder} has no model: expected a config.json (hp_jax, Hugging Face), {files}; found "
        f"{found}"
    )


def convert(name: str, folder: Path, *, force: bool = False) -> None:
    """A model of another library as a model folder of hp_jax; ValueError if there is something
    already, unless `force`."""
    with new_folder(folder, force=force) as new:
        load_model(name).save(new, {"converted from": name})

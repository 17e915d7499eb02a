"""A model with its tokenizer or codec, from a folder of hp_jax or of another library; and back into
a folder of hp_jax."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from tokenizers import Tokenizer

from hp_jax.architecture import BertConfig, Seq2SeqConfig
from hp_jax.formats import safetensors
from hp_jax.formats.fairseq.read import load_fairseq
from hp_jax.formats.huggingface.bert import load_hf_bert, match_labels
from hp_jax.formats.huggingface.marian import load_hf_marian
from hp_jax.formats.marian.read import load_marian
from hp_jax.formats.tensors import find_folder
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.storage import checkpoint
from hp_jax.storage.files import new_folder, read_json
from hp_jax.task import Params
from hp_jax.text.codec import Codec
from hp_jax.text.loading import load_codec
from hp_jax.text.tokenizer import load_tokenizer, save_tokenizer

Config = TypeVar("Config", BertConfig, Seq2SeqConfig)

PROGRAM = "hp_jax stablehlo 1"
"""The format of an exported program (`hp_jax.export`), which is no model to load."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A model that can read text, without data."""

    config: BertConfig | Seq2SeqConfig
    params: Params
    text: Tokenizer | Codec
    """A classifier's tokenizer, a translation model's codec."""

    @property
    def task(self) -> Classification | Translation:
        """What can be computed with it."""
        return task_of(self.config)

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """A model folder of hp_jax, config.json with `about` last."""
        self.save_text(folder)
        checkpoint.save_model(folder, dataclasses.asdict(self.config), self.params, about=about)

    def save_text(self, folder: Path) -> None:
        """The files of the text side alone."""
        if isinstance(self.text, Tokenizer):
            save_tokenizer(folder, self.text)
        else:
            self.text.save(folder)


def task_of(config: BertConfig | Seq2SeqConfig) -> Classification | Translation:
    """What can be computed with a model of that config."""
    return Classification(config) if isinstance(config, BertConfig) else Translation(config)


def load_model(model: str, *, dtype: str = "float32", kernel: str = "xla") -> Model:
    """Any trained model: a folder of hp_jax, or of another library that is supported, or a name on
    the Hugging Face hub."""
    folder = find_folder(model)
    raw = (
        read_json(folder / "config.json")
        if (folder / "config.json").is_file()
        else {"model_type": "marian"}
    )
    own = _described(folder)
    if "target_vocab" in own.get("config", {}) if own else raw.get("model_type") == "marian":
        return Model(*load_translator(model, dtype=dtype, kernel=kernel))
    return Model(
        *load_classifier(model, labels=(), seed=0, fresh=False, dtype=dtype, kernel=kernel)
    )


def load_classifier(
    model: str,
    *,
    labels: Sequence[str],
    seed: int,
    fresh: bool,
    dtype: str = "float32",
    kernel: str = "xla",
) -> tuple[BertConfig, Params, Tokenizer]:
    """Config, parameters and tokenizer of `model`.

    A Hugging Face model without a classifier gets a fresh one for `labels` (from `seed`) if
    `fresh`, and is refused if not. ValueError if the model's labels are not `labels`, those of the
    data; (): any will do.
    """
    folder = find_folder(model)
    described = _described(folder)
    if not described:
        key = jax.random.key(seed)
        config, params = load_hf_bert(
            folder, labels=labels, key=key, fresh=fresh, dtype=dtype, kernel=kernel
        )
        return config, params, load_tokenizer(folder)
    config = _config(BertConfig, described, folder, dtype=dtype, kernel=kernel)
    config = dataclasses.replace(config, labels=match_labels(config.labels, labels, folder))
    abstract = jax.eval_shape(Classification(config).init, jax.random.key(0))
    return config, _params(folder, described, abstract), load_tokenizer(folder)


def load_translator(
    model: str, *, dtype: str = "float32", kernel: str = "xla"
) -> tuple[Seq2SeqConfig, Params, Codec]:
    """Config, parameters and codec of `model`: a folder of hp_jax, of Hugging Face's Marian, of
    Marian or of fairseq."""
    folder = find_folder(model)
    described = _described(folder)
    if described:
        config = _config(Seq2SeqConfig, described, folder, dtype=dtype, kernel=kernel)
        abstract = jax.eval_shape(Translation(config).init, jax.random.key(0))
        return config, _params(folder, described, abstract), load_codec(folder)
    if (folder / "config.json").is_file():
        return load_hf_marian(folder, dtype=dtype, kernel=kernel)
    if list(folder.glob("*.pt")):
        return load_fairseq(folder, dtype=dtype, kernel=kernel)
    if list(folder.glob("*.npz")) + list(folder.glob("*.bin")):
        return load_marian(folder, dtype=dtype, kernel=kernel)
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise FileNotFoundError(
        f"{folder} has no translation model: expected a config.json (hp_jax, Hugging Face), a .pt "
        "file (fairseq), or a .npz or "
        f".bin file (Marian), but found {found}"
    )


def _described(folder: Path) -> dict[str, Any]:
    """config.json of a folder that hp_jax made, with parameters by Orbax or by safetensors; {} for
    another library's."""
    raw = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    kind = str(raw.get("format"))
    if kind == PROGRAM:
        raise ValueError(
            f"{folder} has a compiled program: expected the model that it was exported from"
        )
    return raw if kind in (checkpoint.FORMAT, safetensors.FORMAT) else {}


def _params(folder: Path, described: dict[str, Any], abstract: Params) -> Params:
    if described["format"] == safetensors.FORMAT:
        return safetensors.load_flat(folder, abstract)
    return checkpoint.load_params(folder, described, abstract)


def _config(kind: type[Config], described: dict[str, Any], folder: Path, **compute: str) -> Config:
    """The model's config as its config.json has it, lists as tuples, for another computation."""
    try:
        saved = described["config"].items()
        raw: dict[str, Any] = {name: _as_tuple(value) for name, value in saved}
        return kind(**raw | compute)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = {BertConfig: "classifier", Seq2SeqConfig: "translation model"}[kind]
        raise ValueError(f"{folder}/config.json does not describe a {what}: {error}") from error


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def convert(model: str, folder: Path, *, force: bool = False) -> None:
    """A model of another library as a model folder of hp_jax; ValueError if there is something
    already, unless `force`."""
    with new_folder(folder, force=force) as new:
        load_model(model).save(new, {"converted from": model})

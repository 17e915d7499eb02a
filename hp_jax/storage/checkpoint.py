"""Models and training states on disk, by Orbax; nothing else in hp_jax knows Orbax."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from orbax.checkpoint import v1 as ocp

from hp_jax.sharding import params_specs, wait_for_all
from hp_jax.storage import fingerprint
from hp_jax.storage.files import inside, write_json
from hp_jax.task import Params
from hp_jax.typed import Natural, decode

FORMAT = "hp_jax model 1"
LEAST = 2**20
"""Bytes of an array from which on devices that all have it write a part each; for small arrays
cutting them up takes much longer than writing them."""


def save_model(
    folder: Path, config: dict[str, Any], params: Params, *, about: dict[str, Any]
) -> None:
    """A model folder: `params/` (Orbax) and, written last, `config.json`; of several processes all
    call it.

    config.json holds the config, `about`, and what is needed to tell damaged parameters: their hash
    and the size of every file.
    """
    first = jax.process_index() == 0
    if first:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
    with _one_sentence(f"cannot save {folder / 'params'}"), _saving():
        ocp.save(folder.absolute() / "params", params, overwrite=True)
    if first:
        sizes = {
            str(file.relative_to(folder)): file.stat().st_size
            for file in sorted(folder.glob("params/**/*"))
            if file.is_file()
        }
        described = {"format": FORMAT, "config": config, **about}
        write_json(
            folder / "config.json",
            described | {"params": fingerprint.of_arrays(params), "files": sizes},
        )
    wait_for_all(str(folder))


def is_model(folder: Path) -> bool:
    """Whether `folder` is a complete model folder of hp_jax."""
    path = folder / "config.json"
    return path.is_file() and FORMAT.encode() in path.read_bytes()


@dataclasses.dataclass(frozen=True)
class _Saved:
    """What config.json says of how parameters are stored."""

    params: str
    files: dict[str, Natural]


def check_files(folder: Path, described: Mapping[str, Any]) -> _Saved:
    """ValueError if a file of a model folder is missing or has another size than `described`, its
    config.json, says."""
    saved = decode(_Saved, described, folder / "config.json")
    for name, size in saved.files.items():
        file = inside(folder, name)
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            raise ValueError(
                f"{folder / name} is damaged: {size} bytes were written, {found or 'none'} are "
                "there"
            )
    return saved


def top_names(folder: Path) -> set[str]:
    """The first parts of the names of all parameters in a model folder."""
    tree = _metadata(folder)
    return set(tree) if isinstance(tree, dict) else set()


def _metadata(folder: Path) -> Any:
    with _one_sentence(f"cannot read {folder / 'params'}"):
        return ocp.metadata(folder.absolute() / "params").metadata


def load_params(
    folder: Path, described: Mapping[str, Any], abstract: Params, mesh: Mesh | None = None
) -> Params:
    """The parameters of a model folder, with the shapes of `abstract`; `described` is its
    config.json.

    mesh: the devices among which they are split, of which each host reads what belongs to its own;
        None: they are whole.

    ValueError, before Orbax reads anything, if a file is missing or has another size or a parameter
    another shape than expected.
    """
    saved = check_files(folder, described)
    path = folder.absolute() / "params"
    there = _shapes(_metadata(folder))
    for name, shape in _shapes(abstract).items():
        if there.get(name) != shape:
            raise ValueError(
                f"{folder}: parameter {name} has shape {there.get(name)}, but config.json implies "
                f"{shape}"
            )
    with _one_sentence(f"cannot read {path}"):
        wanted = _split(abstract, mesh) if mesh else _on_host(abstract)
        params = jax.tree.map(jnp.asarray, ocp.load(path, wanted))
    if fingerprint.of_arrays(params) != saved.params:
        raise ValueError(
            f"{path} is damaged: its parameters are not those that were saved (their hashes differ)"
        )
    return params


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {
        jax.tree_util.keystr(path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _on_host(abstract: Any) -> Any:
    """Makes Orbax read NumPy arrays, in each of several processes all of them."""
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), abstract)


def _split(abstract: Any, mesh: Mesh) -> Any:
    """Makes Orbax read arrays that are split over a mesh's devices."""
    return jax.tree.map(
        lambda leaf, spec: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec)
        ),
        abstract,
        params_specs(abstract, mesh),
    )


def _saving() -> ocp.Context:
    """How arrays are written."""
    saving = ocp.options.ArrayOptions.Saving(min_slice_bytes_for_replica_parallel=LEAST)
    return ocp.Context(array_options=ocp.options.ArrayOptions(saving=saving))


@contextmanager
def _one_sentence(what: str) -> Iterator[None]:
    """Orbax's and tensorstore's errors of many types as one OSError that says what could not be
    done."""
    try:
        yield
    except Exception as error:
        raise OSError(
            f"{what}: {str(error).partition('[os_error_code')[0].strip().splitlines()[0]}"
        ) from error


class TrainingStates:
    """The last states of a training run, one folder a step; a save is whole or absent.  Use as a
    context manager."""

    def __init__(self, folder: Path, *, keep: int = 2) -> None:
        policy = ocp.training.preservation_policies.LatestN(keep)
        self._checkpointer = ocp.training.Checkpointer(
            folder.absolute(), preservation_policy=policy, cleanup_tmp_directories=True
        )

    def __enter__(self) -> TrainingStates:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # A failed save fails once more when it is closed.
        with nullcontext() if kind is None else suppress(Exception):
            self._checkpointer.close()

    def save(self, step: int, state: Any, about: dict[str, Any]) -> None:
        """Writes the state after `step` steps with a small JSON object beside it; nothing if that
        step is there already."""
        if self._checkpointer.latest is None or self._checkpointer.latest.step != step:
            what = f"cannot save step {step} in {self._checkpointer.directory}"
            with _one_sentence(f"{what} (earlier steps are kept)"), _saving():
                self._checkpointer.save(step, state, custom_metadata=about, force=True)

    def restore(self, abstract: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest state and its JSON object, or None if there is none."""
        latest = self._checkpointer.latest
        if latest is None:
            return None
        folder = f"{self._checkpointer.directory}/{latest.step}"
        with _one_sentence(f"cannot restore {folder} (delete it to go on from the step before)"):
            about = self._checkpointer.metadata(latest.step).custom_metadata
            return self._checkpointer.load(latest.step, _on_host(abstract)), about

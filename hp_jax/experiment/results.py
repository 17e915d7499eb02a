"""Results in the experiment's folder, with how they came about."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hp_jax.config import Experiment
from hp_jax.experiment.setup import Setup
from hp_jax.sharding import agreed, wait_for_all
from hp_jax.storage import fingerprint
from hp_jax.storage.checkpoint import save_model
from hp_jax.storage.store import Axes, Items, Store, create_store
from hp_jax.task import Params


def _write(store: Store, start: int, values: Mapping[str, np.ndarray]) -> None:
    """Of several processes, which all have the values, the first writes them."""
    if jax.process_index() == 0:
        store.write(start, values)
    wait_for_all(store.path)


def save_setup(folder: Path, setup: Setup, params: Params, about: Mapping[str, Any]) -> None:
    """A model folder of hp_jax with other parameters: the text side's files, `params/` and, last,
    config.json with `about`."""
    if jax.process_index() == 0:
        setup.corpus.save(folder)
    model = dataclasses.asdict(setup.task.config)
    save_model(folder, model, params, about=provenance(setup.config) | dict(about))


def results(
    setup: Setup,
    where: str,
    kind: str,
    *,
    splits: dict[str, str],
    inputs: dict[str, str],
    fixed: Mapping[str, tuple[Axes, np.ndarray]],
    items: Mapping[str, Items],
    chunk: int | Callable[[], int],
    masks: str = "",
) -> Store:
    """The store out/`where`: new, or continued if the model, the code and the other `inputs`
    (hashes) are the same.

    splits: which split had which job; masks: the name of a grid's set of masks; the rest as in
    `create_store`.
    """
    about = provenance(setup.config) | setup.corpus.about()
    about |= {
        "rows": list(setup.task.rows),
        "heads": setup.task.present_AH.astype(int).tolist(),
        "splits": splits,
        "masks": masks,
    }
    model = {"model": setup.digest, "architecture": fingerprint.of_json(setup.task.config)}
    code = {"version of hp_jax": importlib.metadata.version("hp_jax")}
    path = f"{setup.config.out.rstrip('/')}/{where}"  # a folder or a bucket
    store = create_store(
        path,
        kind,
        fingerprint=model | code | inputs,
        about=about,
        fixed=fixed,
        items=items,
        chunk=chunk,
    )
    maker = np.array(store.manifest.get("process", 0))
    if agreed(maker) != maker:
        raise OSError(
            f"{path} is another folder here than on the first host: `out` must be on a disk that "
            "all share, or a bucket"
        )
    return store


def provenance(config: Experiment) -> dict[str, Any]:
    """Config, versions, devices, seed, command, process and time of a computation."""
    packages = (
        "hp_jax",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "tokenizers",
        "sentencepiece",
        "sacrebleu",
        "numpy",
    )
    return {
        "experiment": dataclasses.asdict(config),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in packages},
        "devices": [device.device_kind for device in jax.devices()],
        "seed": config.seed,
        "command": sys.argv,
        "process": jax.process_index(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _check_same(found: dict[str, str], expected: dict[str, str], path: Path) -> None:
    differ = fingerprint.differing(found, expected)
    if differ:
        raise ValueError(
            f"{path} was made from other input (different {', '.join(differ)}); choose another "
            "--out or delete it"
        )

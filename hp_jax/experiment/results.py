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
from hp_jax.storage.store import Store, create_store
from hp_jax.storage.zarr import Axes, Items

PACKAGES = (
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
"""Whose versions are kept with results."""


@dataclasses.dataclass(frozen=True)
class Results:
    """A store below the experiment's folder, to be made or gone on with."""

    folder: str
    kind: str
    """What it holds: importance, gradients, grid, estimate, linear, ranking or shapley."""
    splits: Mapping[str, str]
    """Which split had which job."""
    inputs: Mapping[str, str]
    """Hashes of what it depends on besides the model and the code."""
    fixed: Mapping[str, tuple[Axes, np.ndarray]]
    items: Mapping[str, Items]
    chunk: int | Callable[[], int]
    masks: str = ""
    """The name of a grid's set of masks."""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What else its manifest says."""


def open_results(setup: Setup, results: Results) -> Store:
    """The store out/`folder`: new, or continued if the model, the code and the other inputs are the
    same; otherwise ValueError.  See `create_store` for `fixed`, `items` and `chunk`."""
    about = provenance(setup.config) | setup.corpus.about()
    part, parts = setup.part
    only = f", part {part} of {parts}" * (parts > 1)
    about |= {
        "rows": list(setup.rows),
        "heads": setup.present_AH.astype(int).tolist(),
        "splits": {job: f"{split}{only}" for job, split in results.splits.items()},
        "masks": results.masks,
        **results.about,
    }
    own = {
        "version of hp_jax": importlib.metadata.version("hp_jax"),
        "model": setup.model.digest,
        "architecture": fingerprint.of_json(setup.model.config),
    }
    path = f"{setup.config.out.rstrip('/')}/{results.folder}"  # a folder or a bucket
    store = create_store(
        path,
        results.kind,
        fingerprint=own | dict(results.inputs),
        about=about,
        fixed=results.fixed,
        items=results.items,
        chunk=results.chunk,
    )
    maker = np.array(store.manifest.get("process", 0))
    if agreed(maker) != maker:
        raise OSError(
            f"{path} is another folder here than on the first host: `out` must be on a disk that "
            "all share, or a bucket"
        )
    return store


def write(store: Store, start: int, values: Mapping[str, np.ndarray]) -> None:
    """Of several processes, which all have the values, the first writes them."""
    if jax.process_index() == 0:
        store.write(start, values)
    wait_for_all(store.path)


def check_same(found: Mapping[str, str], expected: Mapping[str, str], path: Path) -> None:
    """ValueError if what is at `path` was made from other input: hashes that differ are named."""
    differ = fingerprint.differing(found, expected)
    if differ:
        raise ValueError(
            f"{path} was made from other input (different {', '.join(differ)}); choose another "
            "--out or delete it"
        )


def provenance(config: Experiment) -> dict[str, Any]:
    """Config, versions, devices, seed, command, process and time of a computation."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "experiment": dataclasses.asdict(config),
        "versions": {"python": platform.python_version()} | versions,
        "devices": [device.device_kind for device in jax.devices()],
        "seed": config.seed,
        "command": sys.argv,
        "process": jax.process_index(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }

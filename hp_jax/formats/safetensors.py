"""The neutral format: model.safetensors with one tensor a parameter, named by its path, and a small
config.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hp_jax.formats.slots import check_values
from hp_jax.formats.tensors import read_tensors
from hp_jax.formats.writing import write_tensors
from hp_jax.sharding import place_param
from hp_jax.storage.files import write_json
from hp_jax.task import Params

FORMAT = "hp_jax safetensors 1"


def flat(params: Params) -> dict[str, Any]:
    """Parameters by their paths, such as `layer_0/attention/query/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nested(tensors: Mapping[str, Any]) -> Params:
    """The inverse of `flat`."""
    params: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *modules, leaf = name.split("/")
        at = params
        for module in modules:
            at = at.setdefault(module, {})
        at[leaf] = tensor
    return params


def save_flat(
    folder: Path, config: dict[str, Any], params: Params, *, about: Mapping[str, Any]
) -> None:
    """model.safetensors and, last, config.json; `config` is the model's, `about` is kept as it
    is."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(
        folder / "model.safetensors",
        {name: np.asarray(leaf) for name, leaf in flat(params).items()},
        format="np",
    )
    write_json(folder / "config.json", {"format": FORMAT, "config": config, **about})


def top_names(folder: Path) -> set[str]:
    """The first parts of the names of all parameters in a folder."""
    return {name.partition("/")[0] for name in read_tensors(folder)}


def load_flat(folder: Path, abstract: Params, mesh: Mesh | None = None) -> Params:
    """The parameters of such a folder, split over a mesh's devices if one is given; ValueError
    names one that is missing, unknown, or has another shape than `abstract`."""
    found = read_tensors(folder)
    expected = {name: leaf.shape for name, leaf in flat(abstract).items()}
    for name in sorted(set(found) | set(expected)):
        shape = found[name].shape if name in found else None
        if shape != expected.get(name):
            raise ValueError(
                f"{folder}: parameter {name} has shape {shape}, but config.json implies "
                f"{expected.get(name)}"
            )
        check_values(name, found[name], folder)

    def read(name: str) -> jax.Array:
        array = np.array(found[name], np.float32)
        return place_param(array, mesh, name.split("/")) if mesh else jnp.asarray(array)

    return nested({name: read(name) for name in expected})

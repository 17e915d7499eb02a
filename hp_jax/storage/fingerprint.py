"""Hashes that tell whether two computations have the same input."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from hp_jax.sharding import on_host


def differing(found: Mapping[str, str], expected: Mapping[str, str]) -> list[str]:
    """The names of the expected hashes that `found` does not have, or has with another value."""
    return [name for name, value in expected.items() if found.get(name) != value]


def of_json(value: Any) -> str:
    """SHA-256 (first 16 hex digits) of plain data and config dataclasses; the order of keys does
    not matter."""
    return hashlib.sha256(
        json.dumps(value, sort_keys=True, default=dataclasses.asdict).encode()
    ).hexdigest()[:16]


def of_arrays(tree: Any) -> str:
    """SHA-256 (first 16 hex digits) of every array's path, type, shape and bytes."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(on_host(leaf))
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()[:16]

"""Zarr arrays and small files through tensorstore: a local disk or a bucket."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

Axes = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Items:
    """One array that is filled item by item: its axes, the first being the items', its shape and
    dtype."""

    axes: Axes
    shape: tuple[int, ...]
    dtype: str


def metadata_of(item: Items, chunk: Sequence[int], own: Mapping[str, Any]) -> dict[str, Any]:
    """What Zarr keeps of an array in zarr.json."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(item.shape),
        "data_type": item.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [max(size, 1) for size in chunk]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "dimension_names": list(item.axes),
        "fill_value": False if item.dtype == "bool" else 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 3}},
            {"name": "crc32c"},
        ],
        "attributes": dict(own),
    }


@functools.cache
def _context() -> ts.Context:
    return ts.Context()


def _location(path: str, name: str = "") -> str | dict[str, str]:
    """A key-value store of tensorstore: a URL such as gs://bucket/folder, or a local folder."""
    below = f"{name}/" if name else ""
    if "://" in path:
        return f"{path.rstrip('/')}/{below}"
    return {"driver": "file", "path": f"{Path(path).resolve()}/{below}"}


PATIENCE = 20
"""Seconds within which a bucket must answer for the first time."""


@functools.cache
def reach(path: str) -> None:
    """OSError if a bucket does not answer soon; a local folder always does."""
    if "://" not in path or path.startswith("file://"):
        return
    few = {"max_retries": 3}  # all else is tried for many minutes
    context = ts.Context({"gcs_request_retries": few, "s3_request_retries": few})
    folder = ts.KvStore.open(_location(path), context=context).result()
    try:
        folder.read("manifest.json").result(timeout=PATIENCE)
    except TimeoutError as error:
        raise OSError(
            f"{path} did not answer within {PATIENCE} seconds: is there a network, and are there "
            "credentials (such as those of gcloud auth application-default login)?"
        ) from error
    except ValueError as error:
        raise OSError(f"cannot reach {path}: {str(error).partition(' [')[0]}") from error


def folder_of(path: str, name: str = "") -> ts.KvStore:
    """The files of a folder, or of what is in it under `name`; see `reach`."""
    reach(path)
    return ts.KvStore.open(_location(path, name), context=_context()).result()


def check_plain(path: str, name: str) -> None:
    """OSError if a local file, or one below a local folder, is a pipe or a device, which would be
    waited for, or a link that leads nowhere."""
    if "://" in path:
        return
    top = Path(path) / name
    for one in (top, *top.rglob("*")):
        if not (one.is_file() or one.is_dir()) and (one.is_symlink() or one.exists()):
            raise OSError(f"cannot read {path}: {one.relative_to(path)} is not a file")


def open_array(path: str, name: str, **more: Any) -> ts.TensorStore:
    """An array, whose files are written even if they hold nothing but zeros, so that a lost one can
    be told."""
    spec = {
        "driver": "zarr3",
        "kvstore": _location(path, name),
        "store_data_equal_to_fill_value": True,
        "open": True,
        **more,
    }
    return ts.open(spec, context=_context()).result()

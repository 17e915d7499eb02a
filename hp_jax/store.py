"""A computation's results on disk: Zarr arrays, filled item by item, and a JSON manifest of how they came about.

Layout of a folder (or bucket path), a Zarr v3 group:

    manifest.json   {"format", "kind", "fingerprint", "arrays": {name: axes}, "items": n, ...}, written last at creation
    zarr.json       the Zarr group
    NAME/           an array; fixed ones (labels, masks) are whole from the start,
                    the others have the items (masks, steps) as first axis
    done/           [items] uint8, 1 where an item's values are all there; written after them

All files are written whole or not at all (tensorstore) and carry checksums.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts

from hp_jax.fingerprint import differing

FORMAT = "hp_jax results 1"
Axes = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Items:
    """One array that is filled item by item: its axes, the first being the items', its shape and dtype."""

    axes: Axes
    shape: tuple[int, ...]
    dtype: str


@dataclasses.dataclass(frozen=True)
class Store:
    """An open results folder; `create_store` and `open_store` make one."""

    path: str
    manifest: dict[str, Any]

    def done(self) -> np.ndarray:
        """Which items are there: `[items]`, bool."""
        return self.read("done") != 0

    def write(self, start: int, values: Mapping[str, np.ndarray]) -> None:
        """Puts the values of the items from `start` on, every item array at once, and then marks these items as done."""
        if set(values) != set(self.manifest["filled"]):
            raise ValueError(f"{self.path} holds {sorted(self.manifest['filled'])}, but {sorted(values)} were given")
        count = len(next(iter(values.values())))
        with _clear_errors(self.path, "write"):
            writes = [_open(self.path, name)[start : start + count].write(value) for name, value in values.items()]
            for write in writes:
                write.result()
            _open(self.path, "done")[start : start + count].write(np.ones(count, np.uint8)).result()

    def read(self, name: str) -> np.ndarray:
        """One whole array; items that are not done hold zeros."""
        if name != "done" and name not in self.manifest["arrays"]:
            raise ValueError(f"{self.path} has no array {name!r}; it has {', '.join(self.manifest['arrays'])}")
        with _clear_errors(self.path, "read"):
            return _open(self.path, name).read().result()

    def read_items(self) -> dict[str, np.ndarray]:
        """All arrays that are filled item by item; ValueError if items are missing."""
        missing = int((~self.done()).sum())
        if missing:
            raise ValueError(f"{self.path} is not finished: {missing} of {self.manifest['items']} items are missing")
        return {name: self.read(name) for name in self.manifest["filled"]}


def create_store(
    path: str | Path,
    kind: str,
    *,
    fingerprint: Mapping[str, str],
    about: Mapping[str, Any],
    fixed: Mapping[str, tuple[Axes, np.ndarray]],
    items: Mapping[str, Items],
    chunk: int,
) -> Store:
    """A new store, or the one that is there if it has the same fingerprint.

    `fingerprint` names what the results depend on (config, params, data, ...); ValueError names the parts that differ.
    `about` goes into the manifest as it is. `chunk` items share a file.
    """
    existing = _read_manifest(str(path))
    if existing is not None:
        differ = differing(existing["fingerprint"], fingerprint)
        if existing["kind"] != kind or differ:
            what = ", ".join(differ) or f"kind {existing['kind']!r}, not {kind!r}"
            raise ValueError(
                f"{path} holds results of another computation (different {what}); choose another folder or delete it"
            )
        return Store(str(path), existing)
    count = next(iter(items.values())).shape[0]
    everything = dict(items) | {"done": Items((next(iter(items.values())).axes[0],), (count,), "uint8")}
    axes = {name: list(axes) for name, (axes, _) in fixed.items()} | {name: list(item.axes) for name, item in items.items()}
    manifest = {
        "format": FORMAT,
        "kind": kind,
        "fingerprint": dict(fingerprint),
        "items": count,
        "filled": list(items),
        "arrays": axes,
        **about,
    }
    with _clear_errors(str(path), "write"):
        for name, (names, array) in fixed.items():
            _create(str(path), name, Items(names, array.shape, str(array.dtype)), array.shape).write(array).result()
        for name, item in everything.items():
            _create(str(path), name, item, (min(chunk, count), *item.shape[1:]))
        _write_text(str(path), "zarr.json", json.dumps({"zarr_format": 3, "node_type": "group", "attributes": {"kind": kind}}))
        _write_text(str(path), "manifest.json", json.dumps(manifest, indent=1))
    return Store(str(path), manifest)


def open_store(path: str | Path) -> Store:
    """The store at `path`; FileNotFoundError if there is none."""
    manifest = _read_manifest(str(path))
    if manifest is None:
        raise FileNotFoundError(f"{path} holds no results: it has no manifest.json")
    return Store(str(path), manifest)


def find_stores(path: str | Path) -> Sequence[Store]:
    """All stores in the folders below `path`, in the order of their names; other programs' manifests are passed over."""
    files = sorted(Path(path).glob("**/manifest.json"))
    return [open_store(file.parent) for file in files if FORMAT in file.read_text(encoding="utf-8", errors="replace")]


# --- tensorstore ---------------------------------------------------------------------------------------------------------


def _url(path: str) -> str:
    return path.rstrip("/") + "/" if "://" in path else f"file://{Path(path).absolute()}/"


def _open(path: str, name: str) -> ts.TensorStore:
    return ts.open({"driver": "zarr3", "kvstore": f"{_url(path)}{name}/"}, open=True).result()


def _create(path: str, name: str, item: Items, chunk: Sequence[int]) -> ts.TensorStore:
    metadata = {
        "shape": list(item.shape),
        "data_type": item.dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(size, 1) for size in chunk]}},
        "dimension_names": list(item.axes),
        "fill_value": False if item.dtype == "bool" else 0,
        "codecs": [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "zstd", "configuration": {"level": 3}},
            {"name": "crc32c"},
        ],
    }
    spec = {"driver": "zarr3", "kvstore": f"{_url(path)}{name}/", "metadata": metadata}
    return ts.open(spec, create=True, delete_existing=True).result()


def _read_manifest(path: str) -> dict[str, Any] | None:
    with _clear_errors(path, "read"):
        found = ts.KvStore.open(_url(path)).result().read("manifest.json").result()
    if found.state != "value":
        return None
    try:
        manifest = json.loads(found.value)
    except ValueError as error:
        raise ValueError(f"{path}/manifest.json is not valid JSON: {error}") from error
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{path}/manifest.json has the format {manifest.get('format')!r}, but {FORMAT!r} was expected")
    return manifest


def _write_text(path: str, name: str, text: str) -> None:
    ts.KvStore.open(_url(path)).result().write(name, text.encode()).result()


@contextmanager
def _clear_errors(path: str, verb: str) -> Iterator[None]:
    """tensorstore's errors as one sentence: full or read-only disks, truncated or altered files."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error).partition("holds")[0] and "Error" not in str(error):
            raise
        raise OSError(f"cannot {verb} {path}: {str(error).partition('[')[0].strip()}") from error

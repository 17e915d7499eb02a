"""A computation's results on disk: Zarr arrays, filled item by item, and a JSON manifest of how
they came about.

Layout of a folder (or bucket path), a Zarr v3 group:

    manifest.json   {"format", "kind", "fingerprint", "arrays": {name: axes}, "items": n,
                    "chunk": k, ...}, written last
    zarr.json       the Zarr group
    NAME/           an array; fixed ones (labels, masks) are whole from the start,
                    the others have the items (masks, steps) as first axis, k items in a file
    done/           [items] uint8, 1 where an item's values are all there; written after them

All files are written whole or not at all (tensorstore) and carry checksums.  Several jobs may
create and fill one store at the same time: the first manifest stays, and each job writes whole
files.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

import numpy as np
import tensorstore as ts

from hp_jax.metrics import MetricName
from hp_jax.storage.files import parse_json
from hp_jax.storage.fingerprint import differing
from hp_jax.storage.zarr import (
    Axes,
    Items,
    check_plain,
    folder_of,
    metadata_of,
    open_array,
)
from hp_jax.typed import Count, Natural, decode

FORMAT = "hp_jax results 1"
GROUP = "done/zarr.json"
"""What every store has, also one whose manifest is damaged."""
RENAMED = {
    "importance": {"kind": "measure", "order": "norm"},
    "ablation": {"attention": "rows"},
    "pruning": {"attention": "rows"},
}
"""Settings of an experiment that had other names in manifests of version 0.1."""


class _Manifest(TypedDict):
    """What every manifest has, and what some have, for importance, grids and rankings."""

    format: str
    kind: str
    fingerprint: dict[str, str]
    items: Natural
    chunk: Count
    filled: tuple[str, ...]
    arrays: dict[str, tuple[str, ...]]
    rows: NotRequired[tuple[str, ...]]
    heads: NotRequired[tuple[tuple[Literal[0, 1], ...], ...]]
    splits: NotRequired[dict[str, str]]
    masks: NotRequired[str]
    metric: NotRequired[MetricName]
    example: NotRequired[str]
    tokenize: NotRequired[str]
    signatures: NotRequired[dict[str, str]]
    labels: NotRequired[tuple[str, ...]]
    positive: NotRequired[Natural]
    task: NotRequired[str]
    seed: NotRequired[int]
    process: NotRequired[Natural]
    created: NotRequired[str]
    command: NotRequired[tuple[str, ...]]
    devices: NotRequired[tuple[str, ...]]
    versions: NotRequired[dict[str, str]]
    experiment: NotRequired[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Store:
    """An open results folder; `create_store` and `open_store` make one."""

    path: str
    manifest: dict[str, Any]

    @property
    def chunk(self) -> int:
        """How many items share a file."""
        return int(self.manifest["chunk"])

    def done(self) -> np.ndarray:
        """Which items are there: `[items]`, bool."""
        with _clear_errors(self.path, "read"):
            return self._open("done").read().result() != 0

    def write(self, start: int, values: Mapping[str, np.ndarray]) -> None:
        """Puts the values of the items from `start` on, every item array at once, and then marks
        these items as done.

        ValueError if they do not fill whole chunks: another job may be writing the rest of a file.
        """
        if set(values) != set(self.manifest["filled"]):
            raise ValueError(
                f"{self.path} holds {sorted(self.manifest['filled'])}, but {sorted(values)} were "
                "given"
            )
        count, items = len(next(iter(values.values()))), self.manifest["items"]
        if start % self.chunk or (count % self.chunk and start + count != items):
            raise ValueError(
                f"{self.path} is written in whole chunks of {self.chunk} of its {items} items, "
                f"but got {count} from {start} on"
            )
        with _clear_errors(self.path, "write"):
            writes = [
                open_array(self.path, name)[start : start + count].write(value)
                for name, value in values.items()
            ]
            for write in writes:
                write.result()
            open_array(self.path, "done")[start : start + count].write(
                np.ones(count, np.uint8)
            ).result()

    def read(self, name: str) -> np.ndarray:
        """One whole array; items that are not done hold zeros.  OSError names a file that is
        damaged or lost."""
        if name not in self.manifest["arrays"]:
            raise ValueError(
                f"{self.path} has no array {name!r}; it has {', '.join(self.manifest['arrays'])}"
            )
        filled = name in self.manifest["filled"]
        chunks = np.unique(np.flatnonzero(self.done()) // self.chunk) if filled else [0]
        with _clear_errors(self.path, "read"):
            array = self._open(name)
            files = [
                "/".join(["c", *[str(first), *["0"] * (array.ndim - 1)][: array.ndim]])
                for first in chunks
                if array.size
            ]
            lost = set(files) - {key.decode() for key in folder_of(self.path, name).list().result()}
            if lost:
                raise OSError(f"cannot read {self.path}: {name}/{min(lost)} is missing")
            found = array.read().result()
        wrong = 0 if found.dtype.kind != "f" else int(np.sum(~np.isfinite(found)))
        if wrong:
            raise ValueError(f"{self.path}: {name} holds {wrong} numbers that are not finite")
        return found

    def _open(self, name: str) -> Any:
        """An array, whose shape is as the manifest has it; OSError if not."""
        check_plain(self.path, name)
        array = open_array(self.path, name)
        axes, items = self.manifest["arrays"].get(name, ("item",)), self.manifest["items"]
        own = name == "done" or name in self.manifest["filled"]
        if array.ndim != len(axes) or (own and array.shape[0] != items):
            raise OSError(
                f"cannot read {self.path}: {name}/zarr.json says that it has shape {array.shape}, "
                f"but manifest.json that its axes are {', '.join(axes)}, of {items} items"
            )
        return array

    def read_items(self) -> dict[str, np.ndarray]:
        """All arrays that are filled item by item; ValueError if items are missing."""
        missing = int((~self.done()).sum())
        if missing:
            raise ValueError(
                f"{self.path} is not finished: {missing} of {self.manifest['items']} items are "
                "missing"
            )
        return {name: self.read(name) for name in self.manifest["filled"]}


def create_store(
    path: str | Path,
    kind: str,
    *,
    fingerprint: Mapping[str, str],
    about: Mapping[str, Any],
    fixed: Mapping[str, tuple[Axes, np.ndarray]],
    items: Mapping[str, Items],
    chunk: int | Callable[[], int],
) -> Store:
    """A new store, or the one that is there if it has the same fingerprint.

    `fingerprint` names what the results depend on (config, params, data, ...); ValueError names the
    parts that differ.  A finished store may have other arrays than `items`; ValueError if one that
    is not finished has.  `about` goes into the manifest as it is.  `chunk` items share a file; a
    store that is there keeps its own, and a function is asked for it only if there is none.
    """
    path = str(path)
    if _read_manifest(path) is None:
        size = chunk() if callable(chunk) else chunk
        try:
            _make(path, {"kind": kind, "fingerprint": dict(fingerprint)}, about, fixed, items, size)
        except OSError:
            if _read_manifest(path) is None:
                raise  # else another job has made another store meanwhile
    store = open_store(path)
    differ = differing(store.manifest["fingerprint"], fingerprint)
    if store.manifest["kind"] != kind or differ:
        what = ", ".join(differ) or f"kind {store.manifest['kind']!r}, not {kind!r}"
        raise ValueError(
            f"{path} holds results of another computation (different {what}); choose another "
            "folder or delete it"
        )
    kept = store.manifest["filled"]
    if set(kept) != set(items) and not store.done().all():
        raise ValueError(
            f"{path} is not finished, and was begun to keep {', '.join(sorted(kept))}, but now "
            f"{', '.join(sorted(items))} are kept: delete it to begin again, or finish it with the "
            "version that began it"
        )
    return store


def open_store(path: str | Path) -> Store:
    """The store at `path`; FileNotFoundError if there is none."""
    manifest = _read_manifest(str(path))
    if manifest is None:
        raise FileNotFoundError(f"{path} holds no results: it has no manifest.json")
    return Store(str(path), manifest)


def find_stores(path: str | Path) -> Sequence[Store]:
    """All stores in `path` and the folders below it, in the order of their names."""
    return [open_store(folder) for folder in find_folders(path)]


def find_folders(path: str | Path) -> Sequence[str]:
    """Where the stores in `path` and below it are, readable or not; other programs' manifests are
    passed over."""
    with _clear_errors(str(path), "read"):
        below = folder_of(str(path))
        names = [
            key.decode()
            for key in below.list().result()
            if re.search(rb"(^|/)(manifest\.json|done/zarr\.json)$", key)
        ]
        ours = [
            name
            for name in names
            if name.endswith("manifest.json") and _ours(str(path), name, names)
        ]
    return sorted(f"{str(path).rstrip('/')}/{name}".removesuffix("/manifest.json") for name in ours)


def _ours(path: str, name: str, names: Sequence[str]) -> bool:
    """Whether a manifest is one of ours, whatever has become of it."""
    check_plain(path, name)
    whole = FORMAT.encode() in folder_of(path).read(name).result().value
    return whole or name.replace("manifest.json", GROUP) in names


# --- making a store ------------------------------------------------------------------------------


def _make(
    path: str,
    own: Mapping[str, Any],
    about: Mapping[str, Any],
    fixed: Mapping[str, tuple[Axes, np.ndarray]],
    items: Mapping[str, Items],
    chunk: int,
) -> None:
    """The arrays, and then the manifest: `own`, which is in every array too, and `about`.

    Other jobs may be making the same: who makes `done` first decides the chunk, and the first
    manifest stays.
    """
    first = next(iter(items.values()))
    with _clear_errors(path, "write"):
        done = _make_array(
            path,
            "done",
            Items(first.axes[:1], first.shape[:1], "uint8"),
            (min(chunk, first.shape[0]),),
            own,
        )
        chunk = int(done.chunk_layout.write_chunk_template.shape[0])
        for name, (axes, array) in fixed.items():
            _make_array(
                path, name, Items(axes, array.shape, str(array.dtype)), array.shape, own
            ).write(array).result()
        for name, item in items.items():
            _make_array(path, name, item, (chunk, *item.shape[1:]), own)
        _write_json(
            path,
            "zarr.json",
            {"zarr_format": 3, "node_type": "group", "attributes": {"kind": own["kind"]}},
        )
        arrays = {name: list(axes) for name, (axes, _) in fixed.items()} | {
            name: list(item.axes) for name, item in items.items()
        }
        counts = {"items": first.shape[0], "chunk": chunk, "filled": list(items), "arrays": arrays}
        absent = folder_of(path).read("manifest.json").result()
        if absent.state == "missing":
            _write_json(
                path,
                "manifest.json",
                {"format": FORMAT, **own, **counts, **about},
                if_equal=absent.stamp.generation,
            )


def _make_array(
    path: str, name: str, item: Items, chunk: Sequence[int], own: Mapping[str, Any]
) -> ts.TensorStore:
    """Opens or creates an array; one of another computation, whose creation was interrupted,
    becomes this one."""
    metadata = metadata_of(item, chunk, own)
    any_chunk = {key: value for key, value in metadata.items() if key != "chunk_grid"}
    try:
        return open_array(path, name, metadata=metadata, create=True)
    except ValueError:
        found = folder_of(path, name).read("zarr.json").result()
    try:
        return open_array(path, name, metadata=any_chunk)
    except ValueError:
        filled = any(key.startswith(b"c/") for key in folder_of(path, "done").list().result())
        if folder_of(path).read("manifest.json").result().state != "missing":
            raise
        if filled:
            raise OSError(
                f"{path} holds other results without a manifest.json; choose another folder or "
                "delete it"
            ) from None
        _write_json(path, f"{name}/zarr.json", metadata, if_equal=found.stamp.generation)
        return open_array(path, name, metadata=any_chunk)


# --- the manifest --------------------------------------------------------------------------------


def _read_manifest(path: str) -> dict[str, Any] | None:
    check_plain(path, "manifest.json")
    with _clear_errors(path, "read"):
        found = folder_of(path).read("manifest.json").result()
    if found.state != "value":
        return None
    where = f"{path}/manifest.json"
    manifest = decode(dict[str, Any], parse_json(found.value, where), where)
    if manifest.get("format") != FORMAT:
        raise ValueError(
            f"{where} has the format {manifest.get('format')!r}, but {FORMAT!r} was expected"
        )
    decode(_Manifest, manifest, where)
    unknown = [name for name in manifest["filled"] if name not in manifest["arrays"]]
    if unknown or not manifest["filled"]:
        raise ValueError(f"{where}: filled: expected some of the arrays, but found {unknown}")
    for part, names in RENAMED.items():
        settings = manifest.get("experiment", {}).get(part)
        if not isinstance(settings, dict):
            continue
        for old, new in names.items():
            if old in settings:
                settings[new] = settings.pop(old)
    return manifest


def _write_json(
    path: str, name: str, value: Mapping[str, Any], if_equal: bytes | None = None
) -> None:
    """Writes a file; if_equal: only if it is still of this generation."""
    folder_of(path).write(name, json.dumps(value, indent=1), if_equal=if_equal).result()


@contextmanager
def _clear_errors(path: str, verb: str) -> Iterator[None]:
    """tensorstore's errors as one sentence: full or read-only disks, truncated or altered files."""
    try:
        yield
    except ValueError as error:
        sentence = re.sub(
            r"^[A-Z_]+: ", "", re.split(r" \[[\w ]+='", " ".join(str(error).split()))[0]
        )
        sentence = re.sub(
            r"\\x(..)", lambda code: chr(int(code[1], 16) or ord("/")), sentence
        )  # /a/b may be "/a\x00\x62"
        raise OSError(f"cannot {verb} {path}: {sentence}") from error

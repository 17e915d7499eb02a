"""What a folder of results holds: which stores there are, what is done and what is missing in each,
and how it came about."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hp_jax.storage.store import find_folders, open_store
from hp_jax.typed import check_place

WIDTH = 120


def statuses(folder: str, *, verify: bool = False) -> list[dict[str, Any]]:
    """One dict for each store in `folder` and below, with `error` if it is damaged.
    FileNotFoundError if there is none.

    verify: reads every array, so that all damage is found; otherwise only the manifest and what is
    marked as done are read.
    """
    check_place(folder)
    paths = find_folders(folder)
    if not paths:
        raise FileNotFoundError(
            f"{folder} holds no results: no folder in it has a manifest.json of hp_jax"
        )
    return [_status(path, verify) for path in paths]


def _status(path: str, verify: bool) -> dict[str, Any]:
    try:
        store = open_store(path)
        done = store.done()
        for name in store.manifest["arrays"] if verify else ():
            store.read(name)
    except (OSError, ValueError) as error:
        return {"path": path, "error": str(error)}
    manifest = store.manifest
    return {
        "path": path,
        "kind": manifest["kind"],
        "masks": manifest.get("masks", ""),
        "items": len(done),
        "done": int(done.sum()),
        "chunk": store.chunk,
        "missing": _ranges(np.flatnonzero(~done)),
        "bytes": _size(path),
        "created": manifest.get("created"),
        "devices": manifest.get("devices", []),
        "fingerprint": manifest["fingerprint"],
        "command": shlex.join(manifest.get("command", [])),
    }


def _ranges(numbers: np.ndarray) -> list[tuple[int, int]]:
    """The first and last number of each run of consecutive ones."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [(int(run[0]), int(run[-1])) for run in runs if len(run)]


def _size(path: str) -> int | None:
    """Bytes in the files of a local folder."""
    if "://" in path:
        return None
    size = 0
    for file in Path(path).rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a job that writes renames its files
            size += file.stat().st_size if file.is_file() else 0
    return size


# --- as text -------------------------------------------------------------------------------------


def as_text(found: Sequence[dict[str, Any]], folder: str) -> str:
    """A line for each store with what is there, and indented ones below with what is missing and
    how it was made."""
    names = [status["path"].removeprefix(folder.rstrip("/")).strip("/") or "." for status in found]
    cells = [[name, *_cells(status)] for name, status in zip(names, found, strict=True)]
    widths = [max(map(len, column)) for column in itertools.zip_longest(*cells, fillvalue="")]
    lines = []
    for row, status in zip(cells, found, strict=True):
        lines.append(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        )
        for label, text in _details(status):
            lines.append(
                textwrap.fill(
                    f"    {label:<8}{text}",
                    WIDTH,
                    subsequent_indent=" " * 12,
                    break_on_hyphens=False,
                )
            )
    return "\n".join(lines)


def _cells(status: dict[str, Any]) -> list[str]:
    if "error" in status:
        return ["damaged"]
    size = [] if status["bytes"] is None else [_bytes(status["bytes"])]
    kind = f"{status['kind']} {status['masks']}".strip()
    return [kind, f"{status['done']}/{status['items']} done", f"chunks of {status['chunk']}", *size]


def _details(status: dict[str, Any]) -> list[tuple[str, str]]:
    if "error" in status:
        return [("error", status["error"])]
    missing = ", ".join(
        str(first) if first == last else f"{first}-{last}" for first, last in status["missing"]
    )
    devices = ", ".join(f"{count} x {name}" for name, count in Counter(status["devices"]).items())
    short = [
        f"{name} {status['fingerprint'][name][:8]}"
        for name in ("model", "data")
        if name in status["fingerprint"]
    ]
    made = "; ".join(part for part in (status["created"], devices, *short) if part)
    return [
        (label, text)
        for label, text in (("missing", missing), ("made", made), ("by", status["command"]))
        if text
    ]


def _bytes(size: float) -> str:
    """`872 B`, `1.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"

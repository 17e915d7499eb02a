"""Files of masks, and of orders in which heads go, read."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hp_jax import heads
from hp_jax.storage.files import read_bytes
from hp_jax.typed import located


def prefixes(path: Path, mask_AH: np.ndarray, rows: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """The heads of an order file removed one after another, a line more each time, each mask with
    where it stands."""
    named = []
    for where, line in _lines(path):
        row, _, head = line.rpartition(".")
        if row not in rows or not head.isdecimal():
            raise ValueError(
                f"{where}: expected one head a line as row.head, such as {rows[0]}.0, but got "
                f"{line!r}"
            )
        with located(where):
            mask_AH = heads.remove(mask_AH, {row: [int(head)]}, rows)
        named.append((where, mask_AH))
    return named


def file_masks(
    path: Path, present_AH: np.ndarray, rows: Sequence[str]
) -> list[tuple[str, np.ndarray]]:
    """The masks of a .npy file `[A, H]` or `[M, A, H]`, or of a text file with a line a mask, each
    with where it stands."""
    return (
        _array_masks(path, present_AH)
        if path.suffix == ".npy"
        else _text_masks(path, present_AH, rows)
    )


def _array_masks(path: Path, present_AH: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The masks of a .npy file, each with where it stands."""
    try:
        masks_MAH = np.lib.format.read_array(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except ValueError as error:
        raise ValueError(
            f"{path} is not a .npy file of plain booleans or integers: {error}"
        ) from error
    if masks_MAH.dtype.kind not in "biu" or not np.isin(masks_MAH, (0, 1)).all():
        raise ValueError(
            f"{path} holds {masks_MAH.dtype} values, but booleans, or integers that are all 0 or "
            "1, were expected"
        )
    if (
        masks_MAH.ndim not in (2, 3)
        or masks_MAH.shape[-2:] != present_AH.shape
        or not len(masks_MAH)
    ):
        many = "(masks, {}, {})".format(*present_AH.shape)
        raise ValueError(
            f"{path} has shape {masks_MAH.shape}, but {present_AH.shape} or {many} was expected "
            "(rows, heads)"
        )
    named = []
    for place, mask_AH in enumerate(masks_MAH.reshape(-1, *present_AH.shape)):
        where = f"{path}, mask {place}"
        with located(where):
            named.append((where, heads.check_mask(mask_AH, present_AH)))
    return named


def _text_masks(
    path: Path, present_AH: np.ndarray, rows: Sequence[str]
) -> list[tuple[str, np.ndarray]]:
    """The masks of a text file, each with where it stands: a line names the heads that are removed,
    `-` none."""
    named = []
    for where, line in _lines(path, blank=True):
        with located(where):
            gone = heads.parse_descriptor("" if line == "-" else line)
            named.append((where, heads.remove(present_AH, gone, rows)))
    return named


def _lines(path: Path, *, blank: bool = False) -> list[tuple[str, str]]:
    """The lines of a file, but its comments and, unless `blank`, empty ones, each with where it
    stands."""
    lines = [line.strip() for line in read_bytes(path).decode(errors="replace").splitlines()]
    kept = [
        (f"{path}:{number}", line)
        for number, line in enumerate(lines, 1)
        if (line or blank) and not line.startswith("#")
    ]
    if not kept:
        raise ValueError(f"{path} is empty: expected at least one line")
    return kept

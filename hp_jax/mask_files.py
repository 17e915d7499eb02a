"""Files of masks, and of orders in which heads go, read."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hp_jax import heads
from hp_jax.descriptors import parse_descriptor, parse_heads
from hp_jax.storage.files import read_bytes
from hp_jax.typed import located


def prefixes(path: Path, mask_AH: np.ndarray, rows: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """The heads of an order file removed one after another, a head more each time, each mask with
    where it stands.

    path: text, which names heads in the order in which they go (`hp_jax.descriptors`), a line or
    many; or a .npy file of scores `[A, H]`, such as run_bertology's head_importance.npy, of which
    the lowest goes first.
    """
    named = []
    order = _scored(path, mask_AH, rows) if path.suffix == ".npy" else _named(path, rows)
    for where, row, head in order:
        with located(where):
            mask_AH = heads.remove(mask_AH, {row: [head]}, rows)
        named.append((where, mask_AH))
    return named


def _named(path: Path, rows: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    for where, line in _lines(path):
        with located(where):
            yield from ((where, *one) for one in parse_heads(line, rows))


def _scored(path: Path, mask_AH: np.ndarray, rows: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    score_AH = _array(path)
    _check_shape(path, score_AH, mask_AH, (2,))
    if np.isin(score_AH, (0, 1)).all():
        raise ValueError(f"{path} holds 0 and 1 alone, so it is a mask, but scores were expected")
    if len(bad := np.argwhere(~np.isfinite(score_AH))):
        row, head = bad[0].tolist()
        raise ValueError(
            f"{path} holds {score_AH[row, head]} for {rows[row]}.{head}, but a finite number was "
            "expected"
        )
    for row, head in heads.lowest_first(mask_AH, score_AH):
        yield str(path), rows[row], head


def file_masks(
    path: Path, present_AH: np.ndarray, rows: Sequence[str]
) -> list[tuple[str, np.ndarray]]:
    """The masks of a .npy file `[A, H]` or `[M, A, H]`, 1 where a head stays, such as
    run_bertology's head_mask.npy; or of a text file with a line a mask, which names the heads that
    go (`hp_jax.descriptors`).  Each with where it stands."""
    return (
        _array_masks(path, present_AH)
        if path.suffix == ".npy"
        else _text_masks(path, present_AH, rows)
    )


def _array_masks(path: Path, present_AH: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """The masks of a .npy file, each with where it stands."""
    masks_MAH = _array(path)
    _check_shape(path, masks_MAH, present_AH, (2, 3))
    with located(str(path)):
        masks_MAH = heads.as_boolean(masks_MAH)
    named = []
    for place, mask_AH in enumerate(masks_MAH.reshape(-1, *present_AH.shape)):
        where = f"{path}, mask {place}"
        with located(where):
            named.append((where, heads.check_mask(mask_AH, present_AH)))
    return named


def _array(path: Path) -> np.ndarray:
    """The booleans or numbers of a .npy file."""
    try:
        array = np.lib.format.read_array(io.BytesIO(read_bytes(path)), allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is not a .npy file of plain numbers: {error}") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path} holds {array.dtype} values, but numbers were expected")
    return array


def _check_shape(
    path: Path, array: np.ndarray, present_AH: np.ndarray, axes: tuple[int, ...]
) -> None:
    if array.ndim not in axes or array.shape[-2:] != present_AH.shape or not len(array):
        many = " or (masks, {}, {})".format(*present_AH.shape) if 3 in axes else ""
        raise ValueError(
            f"{path} has shape {array.shape}, but {present_AH.shape}{many} was expected (rows, "
            "heads)"
        )


def _text_masks(
    path: Path, present_AH: np.ndarray, rows: Sequence[str]
) -> list[tuple[str, np.ndarray]]:
    """The masks of a text file, each with where it stands: a line names the heads that are removed,
    `-` none."""
    named = []
    for where, line in _lines(path, blank=True):
        with located(where):
            named.append((where, heads.remove(present_AH, parse_descriptor(line, rows), rows)))
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

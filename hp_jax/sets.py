"""The sets of masks that grids are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax import heads
from hp_jax.config import Ablation, RandomSets
from hp_jax.pruning import prune

ENUMERATED: Mapping[str, Callable[[jax.Array], jax.Array]] = {
    "one_off": heads.one_off,
    "one_on": heads.one_on,
    "pairs": heads.pairs,
    "rows_off": heads.rows_off,
}
"""Sets of which a mask alone says everything."""


def masks_of(
    name: str,
    settings: Ablation,
    full_AH: jax.Array,
    part_AH: jax.Array,
    rows: Sequence[str],
    importance: Callable[[], np.ndarray],
) -> np.ndarray:
    """The full mask, and then those of the set `name` about the heads of `part_AH` alone: `[M, A, H]`.

    importance: gives the scores `[A, H]`, if they are needed.  ValueError for settings, and for files' contents, that do not
    fit the model; FileNotFoundError.
    """
    masks_MAH: heads.Array
    if name == "file":
        path = _file(settings.masks, "masks")
        masks_MAH = _within(file_masks(path, full_AH, rows), full_AH, part_AH, rows)
        masks_MAH = masks_MAH[1:] if (masks_MAH[0] == full_AH).all() else masks_MAH
    elif name == "random":
        masks_MAH = random_sets(settings.random, part_AH)
    elif name == "prefixes" and settings.order == "importance":
        score_AH = importance()
        masks_MAH = prune(lambda mask_AH: score_AH, part_AH, range(1, len(heads.living_heads(part_AH)) + 1))
    elif name == "prefixes":
        masks_MAH = _within(prefixes(_file(settings.order, "order"), full_AH, rows), full_AH, part_AH, rows)
    else:
        masks_MAH = ENUMERATED[name](part_AH)
    return np.concatenate([full_AH[None], masks_MAH | (full_AH & ~part_AH)[None]])


def random_sets(settings: RandomSets, mask_AH: jax.Array) -> jax.Array:
    """Random subsets of the living heads removed, `[M, A, H]`; one that is drawn twice is there once.

    The seed, how many heads go and the subset's number decide which these are, whatever else is drawn.  ValueError if no head
    would go.
    """
    living = len(heads.living_heads(mask_AH))
    counts = set(heads.removal_counts(living, settings.shares)) - {0}
    if not counts:
        raise ValueError(f"the shares {settings.shares} of {living} heads remove none: expected a share of at least 1/{living}")
    drawn: dict[bytes, np.ndarray] = {}
    for count in sorted(counts):
        key = jax.random.fold_in(jax.random.key(settings.seed), count)
        keys_M = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(settings.count))
        off = functools.partial(heads.random_off, mask_AH=mask_AH, n=count, count=1)
        drawn |= {off_AH.tobytes(): off_AH for off_AH in np.asarray(jax.vmap(off)(keys_M)[:, 0])}
    return jnp.stack(list(drawn.values()))


def _within(named: Sequence[tuple[str, jax.Array]], full_AH: jax.Array, part_AH: jax.Array, rows: Sequence[str]) -> np.ndarray:
    """A file's masks `[M, A, H]`, if they are without heads of `part_AH` alone."""
    for where, mask_AH in named:
        if np.any(full_AH & ~part_AH & ~mask_AH):
            gone = ", ".join(heads.removed(mask_AH | part_AH, full_AH, rows))
            raise ValueError(f"{where} removes heads of {gone}, which ablation.attention leaves as they are")
    return np.stack([np.asarray(mask_AH) for _, mask_AH in named])


def prefixes(path: Path, mask_AH: jax.Array, rows: Sequence[str]) -> list[tuple[str, jax.Array]]:
    """The heads of an order file removed one after another, a line more each time, each mask with where it stands."""
    named = []
    for where, line in _lines(path):
        row, _, head = line.rpartition(".")
        if row not in rows or not head.isdecimal():
            raise ValueError(f"{where}: expected one head a line as row.head, such as {rows[0]}.0, but got {line!r}")
        with _told(where):
            mask_AH = heads.remove(mask_AH, {row: [int(head)]}, rows)
        named.append((where, mask_AH))
    return named


def file_masks(path: Path, full_AH: jax.Array, rows: Sequence[str]) -> list[tuple[str, jax.Array]]:
    """The masks of a .npy file `[A, H]` or `[M, A, H]`, or of a text file with a line a mask, each with where it stands."""
    return _array_masks(path, full_AH) if path.suffix == ".npy" else _text_masks(path, full_AH, rows)


def _array_masks(path: Path, full_AH: jax.Array) -> list[tuple[str, jax.Array]]:
    """The masks of a .npy file, each with where it stands."""
    try:
        with path.open("rb") as file:
            masks_MAH = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is not a .npy file of plain booleans or integers: {error}") from error
    if masks_MAH.dtype.kind not in "biu" or not np.isin(masks_MAH, (0, 1)).all():
        raise ValueError(f"{path} holds {masks_MAH.dtype} values, but booleans, or integers that are all 0 or 1, were expected")
    if masks_MAH.ndim not in (2, 3) or masks_MAH.shape[-2:] != full_AH.shape or not len(masks_MAH):
        many = "(masks, {}, {})".format(*full_AH.shape)
        raise ValueError(f"{path} has shape {masks_MAH.shape}, but {full_AH.shape} or {many} was expected (rows, heads)")
    named = []
    for place, mask_AH in enumerate(masks_MAH.reshape(-1, *full_AH.shape)):
        where = f"{path}, mask {place}"
        with _told(where):
            named.append((where, heads.check_mask(mask_AH, full_AH)))
    return named


def _text_masks(path: Path, full_AH: jax.Array, rows: Sequence[str]) -> list[tuple[str, jax.Array]]:
    """The masks of a text file, each with where it stands: a line names the heads that are removed, `-` none."""
    named = []
    for where, line in _lines(path, blank=True):
        with _told(where):
            gone = heads.parse_descriptor("" if line == "-" else line)
            named.append((where, heads.remove(full_AH, gone, rows)))
    return named


def _file(name: str, field: str) -> Path:
    """The file that a field of the settings names; FileNotFoundError if it is not there."""
    if not Path(name).is_file():
        raise FileNotFoundError(f"ablation.{field} is {name!r}, which is not a file")
    return Path(name)


def _lines(path: Path, *, blank: bool = False) -> list[tuple[str, str]]:
    """The lines of a file, but its comments and, unless `blank`, empty ones, each with where it stands."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    kept = [(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if (line or blank) and not line.startswith("#")]
    if not kept:
        raise ValueError(f"{path} is empty: expected at least one line")
    return kept


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Errors say where."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error

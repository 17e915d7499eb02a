"""Head masks: which attention heads of a model are on, as one boolean array `[A, H]`.

A row is one attention module (BERT-base has 12; a 6+6 Transformer has 18: encoder self, decoder
self and cross-attention), a column is one head.  Rows may have different numbers of heads: the
array is as wide as the widest row, and the heads that a narrower row does not have are simply off
from the start.  So are heads that were removed: the others keep their numbers.  Nothing here knows
a model; nothing is changed in place.

Masks are NumPy arrays on the host until they are placed on devices.  `keep_top` also works on JAX
arrays, and can be jitted and vmapped.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


def all_on(rows: int, heads: int | Sequence[int]) -> np.ndarray:
    """The mask `[A, H]` with every head on; `heads` is one number for all rows or one a row."""
    widths = [heads] * rows if isinstance(heads, int) else list(heads)
    if len(widths) != rows:
        raise ValueError(
            f"{rows} rows need {rows} head counts, but there are {len(widths)}: {widths}"
        )
    if rows < 1 or min(widths) < 0 or max(widths) < 1:
        raise ValueError(
            f"a mask needs at least one row with a head, but got {rows} rows with heads {widths}"
        )
    return np.arange(max(widths))[None] < np.array(widths)[:, None]


# --- at the border -------------------------------------------------------------------------------


def as_boolean(masks: Array) -> np.ndarray:
    """A mask, or several, as booleans; ValueError for a value other than 0 and 1."""
    masks = np.asarray(masks)
    if masks.dtype == bool:
        return masks
    other = np.argwhere((masks != 0) & (masks != 1))
    if len(other):
        place = tuple(other[0].tolist())
        raise ValueError(
            f"the head mask holds {masks[place]} at {place}, but every value must be 0 or 1 "
            "(a head is on or off)"
        )
    return masks != 0


def check_mask(mask_AH: Array, present_AH: Array) -> np.ndarray:
    """`mask_AH` as a boolean array, if it fits a model that has the heads of `present_AH`.

    ValueError for another shape, a value other than 0 and 1, or a head that is not there.
    """
    return _fitting(as_boolean(mask_AH), present_AH, "head mask")


def check_gates(gate_AH: Array, present_AH: Array) -> np.ndarray:
    """`gate_AH` as float32, if it fits a model that has the heads of `present_AH`.

    Unlike a mask it may hold any finite numbers: the model multiplies each head's context by its
    gate.  Otherwise ValueError as in `check_mask`.
    """
    gate_AH = np.asarray(gate_AH, np.float32)
    if not np.isfinite(gate_AH).all():
        place = tuple(np.argwhere(~np.isfinite(gate_AH))[0].tolist())
        raise ValueError(
            f"the gate at {place} is {gate_AH[place]}, but a finite number was expected"
        )
    return _fitting(gate_AH, present_AH, "array of gates")


def _fitting(gate_AH: np.ndarray, present_AH: Array, what: str) -> np.ndarray:
    present_AH = as_boolean(present_AH)
    if gate_AH.shape != present_AH.shape:
        raise ValueError(
            f"the {what} has shape {gate_AH.shape}, but the model has shape {present_AH.shape} "
            "(rows, heads)"
        )
    absent = np.argwhere((gate_AH != 0) & ~present_AH)
    if len(absent):
        row, head = absent[0].tolist()
        has = ", ".join(map(str, np.flatnonzero(present_AH[row]))) or "none"
        raise ValueError(
            f"the {what} turns on head {head} of row {row}, but the heads of that row are {has}"
        )
    return gate_AH


# --- between a mask and a model ------------------------------------------------------------------


def rows_named(rows: Sequence[str], names: Collection[str]) -> np.ndarray:
    """Which rows `[A]` are among `names`, or of a type of attention that is: `enc` names `enc.0`
    and all others that begin so."""
    return np.array([row in names or row.partition(".")[0] in names for row in rows])


def gates(gate_AH: Array, present_AH: np.ndarray) -> tuple[jax.Array, ...]:
    """The rows of a mask, or of other gates, as what models take: for each row the float32 gates
    `[H_row]` of the heads it has; a mask's are 1 on and 0 off."""
    rows = zip(jnp.asarray(gate_AH), present_AH, strict=True)
    return tuple(
        gate_H[np.flatnonzero(present_H)].astype(jnp.float32) for gate_H, present_H in rows
    )


def as_mask_row(x: jax.Array, present_H: np.ndarray) -> jax.Array:
    """Numbers `[..., H_row]` of the heads that a row has, at their places in the mask: `[..., H]`,
    0 elsewhere."""
    if present_H.all():
        return x
    whole = jnp.zeros((*x.shape[:-1], len(present_H)), x.dtype)
    return whole.at[..., np.flatnonzero(present_H)].set(x)


# --- sets of masks -------------------------------------------------------------------------------


def _living(mask_AH: Array) -> np.ndarray:
    """(row, head) of every living head, in order: `[n, 2]`."""
    if np.ndim(mask_AH) != 2:
        raise ValueError(
            f"a head mask has two axes (rows, heads), but this one has shape {np.shape(mask_AH)}"
        )
    return np.argwhere(as_boolean(mask_AH))


def living_heads(mask_AH: Array) -> list[tuple[int, int]]:
    """(row, head) of every living head, 0-based, in the order in which `one_off` and `one_on` take
    them."""
    return [(int(row), int(head)) for row, head in _living(mask_AH)]


def lowest_first(mask_AH: Array, score_AH: Array) -> list[tuple[int, int]]:
    """(row, head) of every living head, the lowest score first; of equal ones the lower (row,
    head), as in `keep_top`."""
    return sorted(living_heads(mask_AH), key=lambda head: float(score_AH[head]))


def one_off(mask_AH: Array) -> np.ndarray:
    """Every living head removed alone: `[M, A, H]`, in the order of `living_heads`."""
    living = _living(mask_AH)
    off_MAH = np.zeros((len(living), *np.shape(mask_AH)), bool)
    off_MAH[np.arange(len(living)), living[:, 0], living[:, 1]] = True
    return as_boolean(mask_AH) & ~off_MAH


def one_on(mask_AH: Array) -> np.ndarray:
    """Every living head alone in its row, the other rows as they are (Table 2, Table 3): `[M, A,
    H]`."""
    living = _living(mask_AH)
    off_MAH = np.zeros((len(living), *np.shape(mask_AH)), bool)
    index = np.arange(len(living))
    off_MAH[index, living[:, 0]] = True
    off_MAH[index, living[:, 0], living[:, 1]] = False
    return as_boolean(mask_AH) & ~off_MAH


def pairs(mask_AH: Array) -> np.ndarray:
    """Every unordered pair of living heads removed together: `[n (n - 1) / 2, A, H]`."""
    living = _living(mask_AH)
    first, second = np.triu_indices(len(living), k=1)
    off_MAH = np.zeros((len(first), *np.shape(mask_AH)), bool)
    for side in (first, second):
        off_MAH[np.arange(len(side)), living[side, 0], living[side, 1]] = True
    return as_boolean(mask_AH) & ~off_MAH


def rows_off(mask_AH: Array) -> np.ndarray:
    """Every row that has a living head removed whole: `[M, A, H]`."""
    rows = np.unique(_living(mask_AH)[:, 0])
    off_MAH = np.zeros((len(rows), *np.shape(mask_AH)), bool)
    off_MAH[np.arange(len(rows)), rows] = True
    return as_boolean(mask_AH) & ~off_MAH


def groups_off(mask_AH: Array, sizes: Sequence[int]) -> np.ndarray:
    """Every group that has a living head removed whole: `[M, A, H]`, in reading order.

    sizes: of each row, how many query heads share keys and values; heads 0 to size - 1 are its
    first group (grouped-query attention, Ainslie et al. 2023).  ValueError if there is not one for
    each row.
    """
    return as_boolean(mask_AH) & ~_groups(mask_AH, sizes)


def group_on(mask_AH: Array, sizes: Sequence[int]) -> np.ndarray:
    """Every group that has a living head alone in its row, the other rows as they are: `[M, A,
    H]`; see `groups_off`."""
    group_MAH = _groups(mask_AH, sizes)
    others_MAH = group_MAH.any(2, keepdims=True) & ~group_MAH
    return as_boolean(mask_AH) & ~others_MAH


def by_group(score_AH: Array, mask_AH: Array, sizes: Sequence[int]) -> np.ndarray:
    """The sum of the scores of the living heads of each head's group `[A, H]`; see `groups_off`."""
    group_MAH, summed_AH = _groups(mask_AH, sizes), np.zeros(np.shape(mask_AH))
    for group_AH in group_MAH & as_boolean(mask_AH):
        summed_AH[group_AH] = np.sum(score_AH, where=group_AH, dtype=np.float64)
    return summed_AH


def sum_groups(x_AH: Array, sizes: Sequence[int]) -> np.ndarray:
    """Numbers `[..., A, H]` of heads, added up in each group `[..., A, G]`; see `groups_off`."""
    x_AH, most = np.asarray(x_AH), -(-np.shape(x_AH)[-1] // min(sizes))
    found_AG = np.zeros((*x_AH.shape[:-1], most), x_AH.dtype)
    for row, size in enumerate(sizes):
        summed_G = np.add.reduceat(x_AH[..., row, :], range(0, x_AH.shape[-1], size), axis=-1)
        found_AG[..., row, : summed_G.shape[-1]] = summed_G
    return found_AG


def spread_groups(x_AG: Array, sizes: Sequence[int], heads: int) -> np.ndarray:
    """To each of so many heads what its group has `[..., A, H]`, from `[..., A, G]`."""
    rows = [
        np.repeat(np.asarray(x_AG)[..., row, :], size, axis=-1)[..., :heads]
        for row, size in enumerate(sizes)
    ]
    return np.stack(rows, -2)


def _groups(mask_AH: Array, sizes: Sequence[int]) -> np.ndarray:
    """Which heads are of each group that has a living one, `[M, A, H]`."""
    living, (rows, heads) = _living(mask_AH), np.shape(mask_AH)
    if len(sizes) != rows or min(sizes) < 1:
        raise ValueError(f"expected a size of groups for each of {rows} rows, but got {sizes}")
    number_AH = np.arange(heads)[None] // np.array(sizes)[:, None]
    found = np.unique(np.stack([living[:, 0], number_AH[tuple(living.T)]], 1), axis=0)
    own_MA = found[:, :1] == np.arange(rows)
    return own_MA[:, :, None] & (number_AH[None] == found[:, 1, None, None])


def random_off(key: jax.Array, mask_AH: Array, n: int, count: int) -> np.ndarray:
    """`count` random masks, each with `n` living heads removed uniformly without replacement:
    `[count, A, H]`."""
    living = len(_living(mask_AH))
    if not 0 <= n <= living:
        raise ValueError(f"cannot remove {n} heads: {living} are alive")
    score_MAH = np.asarray(jax.random.uniform(key, (count, *np.shape(mask_AH))))
    masks = [keep_top(np.asarray(mask_AH), score_AH, living - n) for score_AH in score_MAH]
    return np.stack(masks) if masks else np.zeros(score_MAH.shape, bool)


def keep_top(mask_AH: Array, score_AH: Array, n: int | jax.Array, *, floor: int = 0) -> Any:
    """The `n` living heads with the highest score, as a mask `[A, H]`.

    Dead heads stay dead whatever their score.  Of equal scores the lower (row, head) goes first, as
    in the authors' stable sort.  The best `floor` living heads of each row always stay, even if
    that keeps more than `n`.  A NumPy array of NumPy arrays; of JAX arrays a JAX array, under jit
    and vmap too, `n` traced or not.  Scores must be finite.
    """
    traced = any(isinstance(part, jax.Array) for part in (mask_AH, score_AH, n))
    xp = jnp if traced else np
    alive_AH = jnp.asarray(mask_AH) != 0 if traced else as_boolean(mask_AH)
    score_AH = xp.asarray(score_AH)
    if alive_AH.shape != score_AH.shape:
        raise ValueError(
            f"the scores have shape {score_AH.shape}, but the mask has shape {alive_AH.shape}"
        )
    score_AH = xp.where(alive_AH, score_AH.astype(xp.float32), -xp.inf)
    place_AH = xp.argsort(xp.argsort(score_AH, axis=1, stable=True), axis=1)
    safe_AH = alive_AH & (place_AH >= score_AH.shape[1] - floor)
    # Protected heads lead the order, so that they are part of the n and not extra to it.
    place = xp.argsort(xp.lexsort((score_AH.ravel(), safe_AH.ravel()))).reshape(alive_AH.shape)
    return alive_AH & (safe_AH | (place >= alive_AH.size - n))


def removal_counts(
    total: int, shares: Iterable[float], *, rounding: Literal["floor", "ceil"] = "floor"
) -> list[int]:
    """How many of `total` heads a share removes: `floor(p * total)` in the authors' BERT script,
    `ceil` in their MT script.

    Shares are read as the decimals that were written, so that 0.29 of 100 is 29 and not 28.
    """
    counts = []
    for share in shares:
        if not 0 <= share <= 1:
            raise ValueError(f"a share of heads lies between 0 and 1, but got {share}")
        exact = Fraction(str(share)) * total
        counts.append(math.floor(exact) if rounding == "floor" else math.ceil(exact))
    return counts


# --- names and dicts -----------------------------------------------------------------------------


def _off(mask_AH: Array, chosen: Iterable[tuple[int, int]], rows: Sequence[str]) -> np.ndarray:
    """`mask_AH` without the chosen (row, head) pairs, 0-based."""
    alive_AH = as_boolean(mask_AH)
    off_AH = np.zeros_like(alive_AH)
    for row, head in chosen:
        if not 0 <= head < alive_AH.shape[1]:
            raise ValueError(
                f"head {head} of row {rows[row]!r} (0-based) is out of range: rows have "
                f"{alive_AH.shape[1]} heads"
            )
        if off_AH[row, head]:
            raise ValueError(f"head {head} of row {rows[row]!r} (0-based) is named twice")
        if not alive_AH[row, head]:
            raise ValueError(
                f"head {head} of row {rows[row]!r} (0-based) cannot be removed: it is not there "
                "any more"
            )
        off_AH[row, head] = True
    return alive_AH & ~off_AH


def _row_index(name: str, rows: Sequence[str]) -> int:
    if name not in rows:
        raise ValueError(f"there is no row {name!r}; the rows are {', '.join(rows)}")
    return list(rows).index(name)


def remove(mask_AH: Array, heads: Mapping[str, Sequence[int]], rows: Sequence[str]) -> np.ndarray:
    """`mask_AH` without the heads of a dict `{row name: [head, ...]}`, heads 0-based.

    ValueError for an unknown row, and for a head that is out of range, named twice or already
    removed.
    """
    _check_rows(mask_AH, rows)
    return _off(
        mask_AH,
        [(_row_index(name, rows), int(head)) for name, heads_ in heads.items() for head in heads_],
        rows,
    )


def removed(mask_AH: Array, present_AH: Array, rows: Sequence[str]) -> dict[str, list[int]]:
    """The heads of `present_AH` that `mask_AH` does not have, as `{row name: [head, ...]}`; the
    inverse of `remove`."""
    _check_rows(mask_AH, rows)
    gone_AH = as_boolean(present_AH) & ~as_boolean(mask_AH)
    return {
        name: np.flatnonzero(gone).tolist()
        for name, gone in zip(rows, gone_AH, strict=True)
        if gone.any()
    }


def _check_rows(mask_AH: Array, rows: Sequence[str]) -> None:
    if np.ndim(mask_AH) != 2 or len(rows) != np.shape(mask_AH)[0]:
        raise ValueError(
            f"there are {len(rows)} row names, but the mask has shape {np.shape(mask_AH)}"
        )

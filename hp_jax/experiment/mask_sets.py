"""The sets of masks that grids are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from hp_jax import heads
from hp_jax.config import Ablation, RandomSets
from hp_jax.mask_files import file_masks, prefixes
from hp_jax.pruning import prune
from hp_jax.storage.files import check_file, local

ENUMERATED: Mapping[str, Callable[[heads.Array], np.ndarray]] = {
    "one_off": heads.one_off,
    "one_on": heads.one_on,
    "pairs": heads.pairs,
    "rows_off": heads.rows_off,
}
"""Sets of which a mask alone says everything."""
GROUPED: Mapping[str, Callable[[heads.Array, Sequence[int]], np.ndarray]] = {
    "groups_off": heads.groups_off,
    "group_on": heads.group_on,
}
"""Sets of which a mask and the sizes of groups do."""


def masks_of(
    name: str,
    settings: Ablation,
    present_AH: np.ndarray,
    scope_AH: np.ndarray,
    rows: Sequence[str],
    importance: Callable[[], np.ndarray],
    groups: Sequence[int] = (),
) -> np.ndarray:
    """The full mask, and then those of the set `name` about the heads of `scope_AH` alone: `[M, A,
    H]`.

    importance: gives the scores `[A, H]`, if they are needed.
    groups: of each row, how many query heads share keys and values; none: each has its own.

    ValueError for settings, and for files' contents, that do not fit the model; FileNotFoundError.
    """
    if name == "file":
        path = _file(settings.masks, "masks")
        masks_MAH = _within(file_masks(path, present_AH, rows), present_AH, scope_AH, rows)
        masks_MAH = masks_MAH[1:] if (masks_MAH[0] == present_AH).all() else masks_MAH
    elif name == "random":
        masks_MAH = random_sets(settings.random, scope_AH)
    elif name == "prefixes" and settings.order == "importance":
        score_AH = importance()
        masks_MAH = prune(
            lambda mask_AH: score_AH, scope_AH, range(1, len(heads.living_heads(scope_AH)) + 1)
        )
    elif name == "prefixes":
        masks_MAH = _within(
            prefixes(_file(settings.order, "order"), present_AH, rows), present_AH, scope_AH, rows
        )
    elif name in GROUPED:
        if max(groups, default=1) == 1:
            raise ValueError(
                f"the set {name} is of query heads that share keys and values, but each head of "
                "this model has its own: take one_off or one_on"
            )
        masks_MAH = GROUPED[name](scope_AH, groups)
    else:
        masks_MAH = ENUMERATED[name](scope_AH)
    return np.concatenate([present_AH[None], masks_MAH | (present_AH & ~scope_AH)[None]])


def random_sets(settings: RandomSets, mask_AH: np.ndarray) -> np.ndarray:
    """Random subsets of the living heads removed, `[M, A, H]`; one that is drawn twice is there
    once.

    The seed, how many heads go and the subset's number decide which these are, whatever else is
    drawn.  ValueError if no head would go.
    """
    living = len(heads.living_heads(mask_AH))
    counts = set(heads.removal_counts(living, settings.shares)) - {0}
    if not counts:
        raise ValueError(
            f"the shares {settings.shares} of {living} heads remove none: expected a share of at "
            f"least 1/{living}"
        )
    drawn: dict[bytes, np.ndarray] = {}
    for count in sorted(counts):
        key = jax.random.fold_in(jax.random.key(settings.seed), count)
        for number in range(settings.count):
            (off_AH,) = heads.random_off(jax.random.fold_in(key, number), mask_AH, count, 1)
            drawn[off_AH.tobytes()] = off_AH
    return np.stack(list(drawn.values()))


def _within(
    named: Sequence[tuple[str, np.ndarray]],
    present_AH: np.ndarray,
    scope_AH: np.ndarray,
    rows: Sequence[str],
) -> np.ndarray:
    """A file's masks `[M, A, H]`, if they are without heads of `scope_AH` alone."""
    for where, mask_AH in named:
        if np.any(present_AH & ~scope_AH & ~mask_AH):
            gone = ", ".join(heads.removed(mask_AH | scope_AH, present_AH, rows))
            raise ValueError(
                f"{where} removes heads of {gone}, which ablation.rows leaves as they are"
            )
    return np.stack([np.asarray(mask_AH) for _, mask_AH in named])


def _file(name: str, field: str) -> Path:
    """The file that a field of the settings names; FileNotFoundError if it is not there."""
    try:
        return check_file(local(name, f"ablation.{field}"))
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"ablation.{field} is {name!r}: {error}") from error

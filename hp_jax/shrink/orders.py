"""In which order heads go: that of a file, of importance, or of a pruning that was done."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hp_jax.heads import living_heads
from hp_jax.importance import stored_scores
from hp_jax.mask_files import prefixes
from hp_jax.shrink.budget import Order
from hp_jax.storage.store import find_stores


def read_order(path: str, present_AH: np.ndarray, rows: Sequence[str], *, model: str) -> Order:
    """The order in which a model's heads go.

    path: a file with a head a line, such as `cross.0.3`; a folder of importance (`out/importance`):
    the least important first; or of a pruning (`out/pruning/re_estimated`): as they went there.  A
    folder's results must be finished, and of this `model` (the hash of its parameters).  ValueError
    or FileNotFoundError says what is wrong.
    """
    if Path(path).is_file():
        masks = [
            present_AH,
            *(np.asarray(mask_AH) for _, mask_AH in prefixes(Path(path), present_AH, rows)),
        ]
        return [living_heads(before & ~after)[0] for before, after in itertools.pairwise(masks)]
    found = {store.manifest["kind"]: store for store in find_stores(path)}
    kinds = [kind for kind in ("importance", "ranking") if kind in found]
    if len(kinds) != 1:
        have = ", ".join(sorted(found)) or "no results"
        raise ValueError(
            f"{path}: expected a file, or a folder with importance or with one pruning order, but "
            f"it has {have}"
        )
    store = found[kinds[0]]
    own = store.manifest["fingerprint"]["model"]
    if own != model:
        raise ValueError(
            f"{store.path} is about another model (its parameters have the hash {own}, this "
            f"model's {model})"
        )
    if not store.done().all():
        raise ValueError(
            f"{store.path} is not finished: {int((~store.done()).sum())} of {len(store.done())} "
            "parts are missing"
        )
    if kinds[0] == "importance":
        norm = store.manifest["experiment"]["importance"]["norm"]
        sums = store.read("total"), store.read("count")
        return _ascending(present_AH, stored_scores(*sums, store.read("mask"), norm=norm)[1])
    kind = Path(store.path).parent.name.partition(".")[
        2
    ]  # of a pruning of one type of attention, its type
    chosen_A = np.array([not kind or row.split(".")[0] == kind for row in rows])
    masks_SAH, score_SAH = (store.read("mask") != 0) & chosen_A[:, None], store.read("score")
    order: list[tuple[int, int]] = []
    for mask_AH, after_AH, score_AH in zip(
        masks_SAH, [*masks_SAH[1:], None], score_SAH, strict=True
    ):
        order += _ascending(mask_AH if after_AH is None else mask_AH & ~after_AH, score_AH)
    return order


def _ascending(mask_AH: np.ndarray, score_AH: np.ndarray) -> list[tuple[int, int]]:
    """The living heads, the lowest score first; of equal ones the lower (row, head), as in
    `keep_top`."""
    return sorted(living_heads(mask_AH), key=lambda head: float(score_AH[head]))

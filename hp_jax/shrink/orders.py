"""In which order heads go: that of a file, of importance, or of a pruning that was done."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np

from hp_jax.heads import living_heads, lowest_first, rows_named
from hp_jax.importance import stored_scores
from hp_jax.mask_files import prefixes
from hp_jax.orders import Order as OrderName
from hp_jax.shrink.budget import Order
from hp_jax.storage.kinds import check_kind
from hp_jax.storage.store import Store, find_stores

KINDS = ("importance", "ranking")
"""Stores that have an order."""


def read_order(path: str, present_AH: np.ndarray, rows: Sequence[str], *, model: str) -> Order:
    """The order in which a model's heads go.

    path: a file with a head a line, such as `cross.0.3`; a folder of importance (`out/importance`):
    the least important first; or of a pruning (`out/pruning/re_estimated`, or
    `out/pruning/re_estimated/retrain`): as they went there.  A folder's results must be finished,
    and of this `model` (the hash of its parameters).  ValueError or FileNotFoundError says what is
    wrong.
    """
    if Path(path).is_file():
        masks = [
            present_AH,
            *(np.asarray(mask_AH) for _, mask_AH in prefixes(Path(path), present_AH, rows)),
        ]
        return [living_heads(before & ~after)[0] for before, after in itertools.pairwise(masks)]
    store = _store_of(path)
    check_kind(store)
    if store.manifest.get("removed") == "counterfactual":
        raise ValueError(
            f"{store.path} is of heads whose contexts come from a counterfactual (data.removed), "
            "which does not say which can be removed: expected results with data.removed 'zero'"
        )
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
    if store.manifest["kind"] == "importance":
        norm = store.manifest["experiment"]["importance"]["norm"]
        score_AH = stored_scores(store.read_items(), store.read("mask"), norm=norm)[1]
        return lowest_first(present_AH, score_AH)
    masks_SAH, score_SAH = store.read("mask") != 0, store.read("score")
    if scope := _scope_of(store):
        masks_SAH &= rows_named(rows, [scope])[:, None]
    order: list[tuple[int, int]] = []
    for mask_AH, after_AH, score_AH in zip(
        masks_SAH, [*masks_SAH[1:], None], score_SAH, strict=True
    ):
        order += lowest_first(mask_AH if after_AH is None else mask_AH & ~after_AH, score_AH)
    return order


def _store_of(path: str) -> Store:
    """The importance, or the ranking, that the folder itself is about."""
    found = [store for store in find_stores(path) if store.manifest["kind"] in KINDS]
    here = Path(path), Path(path) / "ranking"
    own = [store for store in found if Path(store.path) in here]
    if not own:
        folders = [str(Path(store.path)).removesuffix("/ranking") for store in found]
        have = f"; below it there are {', '.join(folders)}: name one" if folders else ""
        raise ValueError(
            f"{path}: expected a file, or a folder with importance or with one pruning order, but "
            f"it has neither{have}"
        )
    return own[0]


def _scope_of(store: Store) -> str:
    """The type of attention, or the row, in which a pruning went on alone, from the name of its
    folder, such as `one_shot.cross`; empty: everywhere."""
    names = [part.partition(".") for part in Path(store.path).parts]
    return next((scope for order, _, scope in reversed(names) if order in get_args(OrderName)), "")

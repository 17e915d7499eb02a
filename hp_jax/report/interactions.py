"""What two heads are worth together beyond what each is worth alone, in nats of the mean loss."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from hp_jax.heads import living_heads
from hp_jax.metrics import MeanLoss, scores
from hp_jax.report.comparison import Comparison, touched
from hp_jax.report.html import Rows
from hp_jax.report.row_types import sorted_by_type
from hp_jax.report.tables import mask_row, p_name
from hp_jax.storage.store import Store


def comparable(pairs: Store, one_off: Store) -> bool:
    """Whether both hold losses of the same model on the same data, with each head of the pairs
    alone."""
    same = all(
        pairs.manifest["fingerprint"].get(of) == one_off.manifest["fingerprint"].get(of)
        for of in ("model", "data")
    )
    pairs_AH, alone_AH = _scopes(pairs, one_off)
    lossy = all("loss" in store.manifest["filled"] for store in (pairs, one_off))
    return same and lossy and bool(pairs_AH.any()) and not (pairs_AH & ~alone_AH).any()


def interactions(pairs: Store, one_off: Store) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Increase of the mean loss (nats) without two heads beyond the sum of what each alone adds:
    `[n, n]`, NaN diagonal.

    And the n heads (row, head), types of attention as they are shown.
    """
    single, double = (_mean_loss(store) for store in (one_off, pairs))
    pairs_AH, alone_AH = _scopes(pairs, one_off)
    alone = (single[1:] - single[0])[pairs_AH[alone_AH]]
    first, second = np.triu_indices(len(alone), k=1)
    together = np.full((len(alone), len(alone)), np.nan)
    together[first, second] = together[second, first] = (
        double[1:] - double[0] - alone[first] - alone[second]
    )
    heads = living_heads(pairs_AH)
    shown = sorted_by_type([pairs.manifest["rows"][row] for row, _ in heads])
    return together[np.ix_(shown, shown)], [heads[index] for index in shown]


def _scopes(pairs: Store, one_off: Store) -> tuple[np.ndarray, np.ndarray]:
    """The heads `[A, H]` in the scope of each."""
    pairs_AH, alone_AH = (
        touched(store.read("masks"), store.manifest) for store in (pairs, one_off)
    )
    return pairs_AH, alone_AH


def pair_table(
    comparison: Comparison, together: np.ndarray, heads: Sequence[tuple[int, int]]
) -> Rows:
    """Every pair with its interaction (`together`, of `heads`) and what its removal does, the
    strongest interaction first."""
    indices = [heads.index(head) for head in comparison.heads]
    pairs = itertools.combinations(range(len(indices)), 2)
    table = []
    for mask, (first, second) in enumerate(pairs, 1):
        found = mask_row(comparison, mask)
        shown = (name for name in ("change", p_name(comparison), "loss_change") if name in found)
        table.append(
            {"mask": mask, "first": comparison.names[first], "second": comparison.names[second]}
            | {name: found[name] for name in shown}
            | {"extra": float(together[indices[first], indices[second]])}
        )
    return sorted(table, key=lambda row: -abs(row["extra"]))


def _mean_loss(store: Store) -> np.ndarray:
    """Of an example, or of a document in several windows, under each mask `[M]`."""
    names = {"loss", "origin"} & set(store.manifest["arrays"])
    return scores(MeanLoss(), {name: store.read(name) for name in names})

"""What a step of an experiment found, in a line or two."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hp_jax.report import results
from hp_jax.report.comparison import compare
from hp_jax.report.scale import SCALES
from hp_jax.report.sections import estimates, orders, pruning
from hp_jax.storage.store import Store, open_store

MOST = 3
"""Heads that are named."""


def training(out: str) -> list[str]:
    """The trained model's metric and loss."""
    made = results.trained_model(Path(out))
    if "training" not in made:  # another model was trained already
        return []
    final = made["training"]["final"]
    split = made["experiment"]["train"]["evaluate"]
    values = ", ".join(f"{name} {value:.4g}" for name, value in final.items())
    return [f"{out}/model: {values} on {split}"]


def importance(out: str) -> list[str]:
    """The heads with the highest and the lowest scores."""
    store = open_store(f"{out}/importance")
    score_AH, _ = results.importance_scores(store)
    rows, heads_AH = store.manifest["rows"], np.array(store.manifest["heads"]) != 0
    named = sorted(
        ((score_AH[row, head], f"{rows[row]}.{head}") for row, head in np.argwhere(heads_AH)),
        reverse=True,
    )
    high, low = (
        ", ".join(f"{name} ({score:.3g})" for score, name in some)
        for some in (named[:MOST], named[: -MOST - 1 : -1])
    )
    split = store.manifest["splits"]["score"]
    return [f"{store.path}: on {split} the highest scores have {high}; the lowest {low}"]


def ablation(path: str) -> list[str]:
    """The whole model, and the masks under which it is worst."""
    store = open_store(path)
    found = compare(store)
    if found.full is None:
        return [f"{path}: {len(found.masks_MAH)} masks {found.where}"]
    scale, change = found.scale, found.change
    lacks_M = (found.scope_AH & ~found.masks_MAH).any((1, 2))
    worst = int(np.nanargmax(np.where(lacks_M, found.drop_M, -np.inf)))
    gone = int((found.scope_AH & ~found.masks_MAH[worst]).sum())
    values = [scale.signed(float(part[worst])) for part in change[:3]]
    return [
        f"{path}: {scale.name} {found.metric_M[found.full]:.4g} {found.where}; of "
        f"{len(found.masks_MAH)} masks the worst ({gone} heads off) changes it by {values[0]} "
        f"{scale.unit}, 95 % interval {values[1]} to {values[2]} (of one mask, not of the worst of "
        "many)"
    ]


def estimate(store: Store) -> str:
    """The mask under which the model is worst, and how much of the examples that took."""
    rows, scale = estimates.table(store), SCALES[store.manifest["metric"]]
    total, worst = len(store.read("label")), rows[0]
    low, high = scale.signed(worst["all: from"]), scale.signed(worst["all: to"])
    word = store.manifest.get("example", "example")
    return (
        f"{store.path}: {int(store.done().sum())} of {total} {word}s measured, under as many of "
        f"{len(rows)} masks as were undecided; the worst (without {worst['without']}) changes "
        f"{scale.name} on all {total} by {low} to {high} {scale.unit} (95 % for all masks together)"
    )


def curves(stores: dict[str, Store]) -> list[str]:
    """How the pruning curves go."""
    found = pruning.read_curves(stores)
    return pruning.how_far(found) + orders.verdicts(found)

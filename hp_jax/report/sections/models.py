"""Sections about several models of one experiment: those of its epochs (Figure 5), and of other
seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hp_jax.report import results, tables
from hp_jax.report.comparison import Comparison
from hp_jax.report.html import CHANGES, Item, Listing
from hp_jax.report.pictures import epochs as pictures
from hp_jax.report.pictures.style import picture
from hp_jax.report.sections import paper, pruning
from hp_jax.report.sections.pruning import full_metric
from hp_jax.report.tables import listing
from hp_jax.storage.store import Store

ORDER = "one_shot"
"""That in which the models of epochs are pruned."""


def is_part(root: str) -> bool:
    """Whether the results below a folder of an experiment are of another model of the same."""
    return re.fullmatch(r"(epochs|seeds)/\d+", root) is not None


def epochs(finished: Mapping[str, Store]) -> dict[int, Comparison]:
    """The curve of each epoch's model, from the stores of an experiment by their path."""
    found = {}
    for path, store in finished.items():
        if match := re.fullmatch(rf"epochs/(\d+)/pruning/{ORDER}/test", path):
            found[int(match[1])] = pruning.compare_in(store, pruning.ALL)
    return dict(sorted(found.items()))


def epochs_section(curves: Mapping[int, Comparison]) -> list[Item]:
    """How many heads can go at each epoch of the training (Figure 5)."""
    first = next(iter(curves.values()))
    rows = {epoch: tables.curve_table(comparison) for epoch, comparison in curves.items()}
    scale = first.scale
    return [
        results.jobs(first.manifest),
        *([first.signature] if first.signature else []),
        picture(
            "epochs",
            pictures.epochs(rows, scale),
            f"{scale.name} of the model after each epoch as heads are removed in the {ORDER} "
            "order, without more training, and what share of the same epoch's full model is left "
            "(the paper's Figure 5). The table has the intervals.",
        ),
        Listing(
            "epochs",
            [_epoch(epoch, comparison) for epoch, comparison in curves.items()],
            "How far each epoch's model can be pruned: without a loss of "
            f"{first.margin:g} {scale.unit} (non-inferiority, one-sided 2.5 %, step by step; not "
            "corrected for the number of epochs).",
            scale=scale,
        ),
        listing(
            first,
            "epochs_curves",
            [{"epoch": epoch} | row for epoch, lines in rows.items() for row in lines],
            "The curve of each epoch, each line against the same epoch's full model.",
            folded=True,
        ),
        paper.epochs(first.manifest, _early(curves)),
    ]


def _epoch(epoch: int, comparison: Comparison) -> dict[str, Any]:
    last, _ = tables.removable(comparison)
    half = _nearest_half(comparison)
    change = {name: half[name] for name in CHANGES}
    return {
        "epoch": epoch,
        "metric": full_metric(comparison),
        "heads that can go": last["removed"],
        "share": last["share"],
        "at share": f"{half['share']:.0f} %",
        **change,
    }


def _nearest_half(comparison: Comparison) -> dict[str, Any]:
    """The row of the curve with about half of the heads removed."""
    return min(tables.curve_table(comparison), key=lambda row: abs(row["share"] - 50))


def _early(curves: Mapping[int, Comparison]) -> str:
    """How the first epoch compares with the last, in words."""
    parts = []
    for epoch in sorted({min(curves), max(curves)}):
        last, _ = tables.removable(curves[epoch])
        half = _nearest_half(curves[epoch])
        full = full_metric(curves[epoch])
        rest = f", {100 * half['metric'] / full:.0f} % of it" if full > 0 else ""
        parts.append(
            f"epoch {epoch}: {full:.4g} with all heads, {half['metric']:.4g} without "
            f"{half['share']:.0f} % of them{rest}; {last['share']:.0f} % can go without harm"
        )
    return "; ".join(parts)

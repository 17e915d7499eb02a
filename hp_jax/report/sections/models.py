"""Sections about several models of one experiment: those of its epochs (Figure 5), and those of
several seeds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hp_jax.report import results, tables
from hp_jax.report.comparison import Comparison, present
from hp_jax.report.curves import Curve, as_rows, between_all
from hp_jax.report.html import CHANGES, Item, Listing, Rows
from hp_jax.report.pictures import epochs as pictures
from hp_jax.report.pictures import plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.sections import paper, pruning, recovery
from hp_jax.report.sections.pruning import full_metric
from hp_jax.report.tables import listing
from hp_jax.stats import bands
from hp_jax.storage.store import Store

ORDER = "one_shot"
"""That in which the models of epochs are pruned."""


def is_part(root: str) -> bool:
    """Whether the results below a folder of an experiment are of another model of the same."""
    return re.fullmatch(r"(epochs|seeds|halves)/\d+", root) is not None


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
        *paper.epochs(first.manifest, _early(curves)),
    ]


def _epoch(epoch: int, comparison: Comparison) -> dict[str, Any]:
    last, _ = tables.removable(comparison)
    half = _nearest_half(comparison)
    change = {name: half[name] for name in CHANGES}
    return {
        "epoch": epoch,
        "metric": full_metric(comparison),
        "shown to do no harm": last["removed"],
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
            f"{half['share']:.0f} % of them{rest}; {last['share']:.0f} % are shown to do no harm"
        )
    return "; ".join(parts)


# --- seeds ---------------------------------------------------------------------------------------


def seeds(finished: Mapping[str, Store]) -> dict[str, Curve]:
    """The mean curve of each order that there is of several seeds, also of recovered models, from
    the stores of an experiment by their path."""
    found: dict[str, dict[int, Store]] = {}
    for path, store in finished.items():
        if match := re.fullmatch(r"(?:seeds/\d+/)?pruning/([a-z_]+)(?:/([a-z]+))?/test", path):
            name = recovery.called(match[1], recovery.RECOVERIES.get(match[2] or ""))
            found.setdefault(name, {})[int(store.manifest.get("seed", 0))] = store
    return {
        name: Curve({seed: pruning.compare_in(store, pruning.ALL) for seed, store in of.items()})
        for name, of in found.items()
        if len(of) > 1 and _alike([*of.values()])
    }


def _alike(stores: Sequence[Store]) -> bool:
    """Whether curves are measured on the same examples at the same points, from the full model
    on."""
    counts = [present(store.manifest).sum() - store.read("masks").sum((1, 2)) for store in stores]
    return (
        len({store.manifest["fingerprint"].get("data") for store in stores}) == 1
        and all(np.array_equal(count, counts[0]) for count in counts)
        and counts[0][0] == 0
    )


def seeds_section(curves: Mapping[str, Curve]) -> list[Item]:
    """Each order's curve over seeds, and the area between each two orders'."""
    some = next(iter(curves.values()))
    first, scale, count = some.first, some.first.scale, len(some.by_seed)
    full = float(
        np.mean([full_metric(one) for of in curves.values() for one in of.by_seed.values()])
    )
    rows = {name: _over_seeds(found) for name, found in curves.items()}
    areas = as_rows(between_all(curves))
    items: list[Item] = [
        f"{count} models, each trained with its own seed, {first.where}. Intervals are of the "
        f"mean over seeds, by {first.resamples:,} resamples of seeds and of examples (hierarchical "
        f"bootstrap); of {count} seeds they are too narrow, as normal ones are beside Student's.",
        picture(
            "seeds",
            plots.curves({"": rows}, full, first.constant, scale, len(first.heads)),
            f"{scale.name} as heads are removed, mean of {count} seeds. Bands: 95 % simultaneous "
            "bands of the change against the full models.",
        ),
    ]
    for name, lines in rows.items():
        caption = (
            f"The {name} order over {count} seeds: the mean change against each seed's full "
            "model, from and to its simultaneous 95 % band, and each seed's own metric."
        )
        file = f"seeds_{name.replace(' ', '_')}"
        items.append(listing(first, file, lines, caption, folded=True))
    if areas:
        caption = (
            f"The mean difference of two orders' curves over the shares removed (order - beside), "
            f"in {scale.unit}, with its 95 % interval over seeds and examples. Not corrected for "
            "the number of lines."
        )
        folded = len(areas) > pruning.MOST
        items.append(Listing("seeds_areas", areas, caption, folded=folded, scale=scale))
    return items


def _over_seeds(found: Curve) -> Rows:
    """A row a point: the mean over seeds, its simultaneous band, and each seed's own metric."""
    low_M, high_M = bands(found.differences)
    return [
        {"removed": int(removed), "share": float(share), "metric": float(metric)}
        | {
            "change": float(found.differences.measured_M[point]),
            "low": float(low_M[point]),
            "high": float(high_M[point]),
        }
        | {f"seed {seed}": float(one.metric_M[point]) for seed, one in found.by_seed.items()}
        for point, (removed, share, metric) in enumerate(
            zip(found.removed_M, found.share_M, found.metric_M, strict=True)
        )
    ]

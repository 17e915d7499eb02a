"""What the linear map predicts of masks, beside what grids measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hp_jax.linear import LinearMap, stored_map
from hp_jax.metrics import scores
from hp_jax.report import tables
from hp_jax.report.ablations import Measured
from hp_jax.report.comparison import present
from hp_jax.report.html import Item, Listing, Section
from hp_jax.report.pictures import plots
from hp_jax.report.pictures.style import picture
from hp_jax.stats import pearson
from hp_jax.storage.store import Store

WORDS = {
    "one_off": "without one head",
    "one_on": "one head alone in its row",
    "groups_off": "without a group of heads",
    "group_on": "one group alone in its row",
    "pairs": "without two heads",
    "rows_off": "without a row",
    "random": "random subsets",
    "prefixes": "heads in one order",
    "file": "masks of a file",
}
"""Sets of masks, by name."""


def sections(
    finished: Mapping[str, Store], grids: Mapping[str, Sequence[Measured]]
) -> list[Section]:
    """A section for each split with a linear map and a grid of the same model on the same data."""
    made: list[Section] = []
    for path, store in finished.items():
        if store.manifest["kind"] != "linear":
            continue
        split = store.manifest["splits"]["test"]
        beside = {
            name: [one for one in measured if _same(store, one.store)]
            for name, measured in grids.items()
        }
        if any(beside.values()):
            made.append(
                (f"Predicted and measured, on {split}", _section(store, beside, Path(path).name))
            )
    return made


def _same(linear: Store, grid: Store) -> bool:
    found, expected = linear.manifest["fingerprint"], grid.manifest["fingerprint"]
    return all(found.get(of) == expected.get(of) for of in ("model", "data"))


def _section(store: Store, beside: Mapping[str, Sequence[Measured]], place: str) -> list[Item]:
    arrays = {name: store.read(name) for name in store.manifest["arrays"]}
    mapped = stored_map(arrays, present(store.manifest))
    rows = [_row(mapped, name, one) for name, measured in beside.items() for one in measured]
    single = next(iter(beside["one_off"]), None)
    what = "log-odds" if mapped.label_N is not None else "loss"
    listing = Listing(
        f"predicted-{place}",
        rows,
        f"What the linear map of each example's {what} predicts, taken with all heads on, against "
        "what was measured. Over examples: the correlation of the change of the loss, predicted "
        "and measured, and the share of its variance that the prediction leaves; medians over "
        "masks, of these examples. Over masks: the correlation of the mean change of the loss, and "
        "of the change of the metric, with 95 % intervals as if the masks were a sample of many. "
        "Far from all heads on a prediction by first derivatives stops to hold: the "
        "lines say where.",
    )
    return ([_drawn(mapped, single, place)] if single else []) + [listing]


def _row(mapped: LinearMap, name: str, one: Measured) -> dict[str, Any]:
    """How well the prediction does, for one grid."""
    comparison, store = one.comparison, one.store
    measured = {array: store.read(array) for array in store.manifest["filled"]}
    others = np.arange(len(comparison.masks_MAH)) != comparison.full
    masks_MAH = comparison.masks_MAH[others]
    forecast = mapped.values(masks_MAH)
    base = mapped.values(mapped.gate_AH[None])
    found_MN = measured["loss"][others] - base["loss"]
    foretold_MN = forecast["loss"] - base["loss"]
    pairs = zip(foretold_MN, found_MN, strict=True)
    row: dict[str, Any] = {
        "masks": WORDS.get(name, name) + (f" ({comparison.scope})" if comparison.scope else ""),
        "number": int(others.sum()),
        "r over examples": _median(pearson(*pair).r for pair in pairs),
        "variance left": _median(map(_left, foretold_MN, found_MN)),
    } | _over_masks("loss", foretold_MN.mean(1), found_MN.mean(1))
    if mapped.label_N is None:
        return row
    label = {"label": mapped.label_N}
    metric = comparison.metric
    change_M, foretold_M = (
        scores(metric, {**values, **label})
        for values in ({name: of[others] for name, of in measured.items()}, forecast)
    )
    right = forecast["prediction"] == measured["prediction"][others]
    changed = measured["prediction"][others] != base["prediction"]
    return (
        row
        | _over_masks(comparison.scale.name, foretold_M, change_M)
        | {
            "labels predicted right (%)": 100 * float(right.mean()),
            "labels that change (%)": 100 * float(changed.mean()),
        }
    )


def _over_masks(of: str, x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """The correlation over masks with its interval, as if they were a sample of many."""
    found = pearson(x, y)
    names = f"r over masks, {of}", f"{of}: 95 % from", f"{of}: to"
    return dict(zip(names, (found.r, found.low, found.high), strict=True))


def _drawn(mapped: LinearMap, one: Measured, place: str) -> Item:
    """The mean change of the loss without each head, predicted and measured."""
    comparison = one.comparison
    base = mapped.values(mapped.gate_AH[None])["loss"].sum()
    x = (mapped.values(comparison.masks_MAH[1:])["loss"].sum(1) - base) / comparison.examples
    per = f"nats per {comparison.example_word}"
    figure = plots.scatter(
        x,
        {f"measured increase of loss ({per})": comparison.loss_change_M[1:]},
        [f"Pearson r = {pearson(x, comparison.loss_change_M[1:]).r:z.2f}, n = {len(x)}"],
        comparison.names,
        f"predicted increase of loss ({per})",
        [
            f"predicted {value:.4g} nats; {words}"
            for value, words in zip(x, tables.judgements(comparison), strict=True)
        ],
    )
    caption = (
        "Each point is a head, named as row.head: what the linear map predicts of the loss "
        "without it, and what was measured."
    )
    return picture(f"predicted-{place}", figure, caption)


def _median(values: Any) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan


def _left(predicted_N: np.ndarray, measured_N: np.ndarray) -> float:
    """The share of the variance that is left when the prediction is taken off."""
    spread = float(np.var(measured_N))
    return float(np.var(measured_N - predicted_N)) / spread if spread else math.nan

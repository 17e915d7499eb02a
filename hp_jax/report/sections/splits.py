"""The same masks on two splits, side by side: do effects agree, and what is a choice worth where it
was not made?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from hp_jax.metrics import Metric, metric_of, statistics_of
from hp_jax.report import tables
from hp_jax.report.ablations import Measured
from hp_jax.report.html import Item, Listing, Rows, Section, renamed
from hp_jax.report.pictures import plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.sections import paper
from hp_jax.report.tables import listing
from hp_jax.stats import percentile, split_half

APART = 2**32
"""Origins of examples are places in their split; in the n-th of several that are joined, from 0,
plus n times this (`hp_jax.data.splits`, which a report does not need)."""


def effects(grids: Mapping[str, Sequence[Measured]]) -> list[Section]:
    """A section for every two splits on which heads were removed one by one (Figure 2)."""
    return [
        (f"Without one head, on {first.split} and {second.split}", _effects(first, second))
        for first, second in pairs(grids["one_off"])
    ]


def choices(grids: Mapping[str, Sequence[Measured]]) -> list[Section]:
    """A section for every two splits on which heads were alone in their rows (Tables 5 and 6)."""
    return [
        (f"One head alone, on {first.split} and {second.split}", _choices(first, second))
        for first, second in pairs(grids["one_on"])
    ]


def pairs(grids: Sequence[Measured]) -> Iterator[tuple[Measured, Measured]]:
    """Grids of the same masks, model and metric on two splits that share no example."""
    for first, second in itertools.combinations(grids, 2):
        if _subject(first) == _subject(second) and not _overlap(first, second):
            yield first, second


def _subject(measured: Measured) -> tuple[object, ...]:
    """What has to be the same of two grids that stand side by side."""
    manifest, masks_MAH = measured.store.manifest, measured.comparison.masks_MAH
    return manifest["metric"], manifest["fingerprint"].get("model"), masks_MAH.tolist()


def _overlap(first: Measured, second: Measured) -> bool:
    """Whether two splits have an example in common."""
    shared = set(_names(first.split)) & set(_names(second.split))
    if shared and any("origin" not in one.store.manifest["arrays"] for one in (first, second)):
        return True  # it cannot be told
    return any(np.isin(_places(first, name), _places(second, name)).any() for name in shared)


def _names(split: str) -> list[str]:
    """The splits that one is of, without slices, in the order of their numbers."""
    return list(dict.fromkeys(part.partition("[")[0] for part in split.split("+")))


def _places(measured: Measured, name: str) -> np.ndarray:
    """The places in one of its splits of the examples that come from it; see `APART`."""
    number_N, place_N = np.divmod(measured.store.read("origin"), APART)
    return place_N[number_N == _names(measured.split).index(name)]


# --- without one head ----------------------------------------------------------------------------


def _effects(first: Measured, second: Measured) -> list[Item]:
    """Whether a head's removal does the same on both (Figure 2)."""
    one, other = first.comparison, second.comparison
    names = [f"{one.drop_word} of {one.scale.name} on {of.split}" for of in (first, second)]
    x, y = one.drop_M[1:], other.drop_M[1:]
    fit = tables.correlations(x, y)
    title = f"Pearson r = {fit['pearson']:z.2f}, Spearman ρ = {fit['spearman']:z.2f}, n = {len(x)}"
    suffix = f"-{first.place}-{second.place}"
    items: list[Item] = [one.measured, other.measured]
    if not math.isnan(fit["pearson"]):
        unit = one.scale.unit
        figure = plots.scatter(
            x,
            {f"{names[1]} ({unit})": y},
            [title],
            one.names,
            f"{names[0]} ({unit})",
            [
                f"{first.split}: {here}. {second.split}: {there}"
                for here, there in zip(*map(tables.judgements, (one, other)), strict=True)
            ],
        )
        caption = "Each point is a head, named as row.head, removed alone (the paper's Figure 2)."
        items.append(picture(f"two_splits{suffix}", figure, caption))
    return [
        *items,
        Listing(
            f"two_splits{suffix}",
            _agreement(first, second),
            "Correlation over heads of what each one's removal does on the two splits, with 95 % "
            "intervals as if the heads were a sample of many; p is not corrected for the number "
            "of lines. Reliability: how far each split agrees with itself, between halves of its "
            "examples, stepped up to all of them; the correlation can be about as high as "
            "'at most', the root of their product.",
        ),
        listing(
            one,
            f"two_splits_heads{suffix}",
            _each_head(first, second),
            f"Change of {one.scale.name} in {one.scale.unit} without each head, with its 95 % "
            f"interval; {one.stars}.",
            folded=True,
        ),
        *renamed([paper.effects(second.store.manifest, fit, first.split, second.split)], suffix),
    ]


def _agreement(first: Measured, second: Measured) -> Rows:
    rows = []
    effects = [tables.effects(one.comparison) for one in (first, second)]
    for name, (_, x) in effects[0].items():
        loss = name == "increase of loss"
        metric = metric_of({"metric": "loss"}) if loss else first.comparison.metric
        reliability = {
            f"reliability on {one.split}": _reliability(one, metric) for one in (first, second)
        }
        product = math.prod(reliability.values())
        most = {"at most": math.sqrt(product) if product > 0 else math.nan}
        numbers = tables.correlations(x, effects[1][name][1]) | reliability | most
        rows.append({"effect": name, **numbers})
    return rows


def _reliability(measured: Measured, metric: Metric) -> float:
    manifest = measured.store.manifest
    values = {name: measured.store.read(name) for name in manifest["arrays"]}
    full = measured.comparison.full
    if ("loss" not in values and metric.name == "loss") or full is None:
        return math.nan
    statistics_MNS = statistics_of(metric, values)
    return split_half(statistics_MNS[1:], statistics_MNS[full], metric)


def _each_head(first: Measured, second: Measured) -> Rows:
    def cell(measured: Measured, mask: int) -> str:
        comparison = measured.comparison
        scale, change = comparison.scale, comparison.change
        value, low, high = (scale.signed(float(part[mask])) for part in change[:3])
        return f"{value} ({low} to {high}){comparison.star(mask)}"

    rows = first.comparison.manifest["rows"]
    return [
        {"row": rows[row], "head": head, **{one.split: cell(one, mask) for one in (first, second)}}
        for mask, (row, head) in enumerate(first.comparison.heads, 1)
    ]


# --- one head alone ------------------------------------------------------------------------------


def _choices(first: Measured, second: Measured) -> list[Item]:
    """What the best single head of each row is worth on the split on which it was not chosen
    (Tables 5 and 6), beside that of the split on which it was (Tables 2 and 3)."""
    items: list[Item] = []
    for chosen, tested in ((first, second), (second, first)):
        items += _chosen(chosen, tested)
    return items


def _chosen(chosen: Measured, tested: Measured) -> list[Item]:
    one, other = chosen.comparison, tested.comparison
    here, where = tables.best_per_row(other), tables.best_per_row(one)
    best = tables.best_per_row(other, one)
    rows = [
        {name: row[name] for name in ("row", "head")}
        | {"chosen": there["change"]}
        | {name: value for name, value in row.items() if name not in ("row", "head")}
        | {"best there": own["head"], "its change": other.scale.signed(own["change"])}
        for row, there, own in zip(best, where, here, strict=True)
    ]
    scale = other.scale
    suffix, layout = f"-{chosen.place}-{tested.place}", tables.layer_table(other, one)
    words = (
        f"The best single head of each row, chosen on {chosen.split} and measured on {tested.split}"
    )
    items: list[Item] = [_optimism(chosen, tested, here, best)]
    if len(layout[0]) > 2:
        caption = f"{words}: change of {scale.name} in {scale.unit}, laid out as the paper's Table "
        items.append(
            listing(other, f"one_on_layers{suffix}", layout, f"{caption}5; {other.stars}.")
        )
    items.append(
        listing(
            other,
            f"one_on_chosen{suffix}",
            rows,
            f"{words}, as in the paper's Tables 5 and 6: the change of {scale.name} in "
            f"{scale.unit} where it was chosen, which is optimistic, and then, with 95 % interval "
            "and p, where it was not; corrected for all heads that were measured. Last, the head "
            f"that is best on {tested.split} itself, as in Tables 2 and 3.",
        )
    )
    return [*items, *renamed(paper.chosen(other, rows, chosen.split), suffix)]


def _optimism(chosen: Measured, tested: Measured, here: Rows, best: Rows) -> str:
    """How much better heads look on the split that chose them, as a sentence; `here` are those that
    the split itself chose, `best` the others."""
    comparison, scale = tested.comparison, tested.comparison.scale
    masks = {name: mask for mask, name in enumerate(comparison.names, 1)}
    own, others = ([masks[f"{row['row']}.{row['head']}"] for row in rows] for rows in (here, best))
    worse = comparison.worse
    mean = float(np.mean(worse.measured_M[others] - worse.measured_M[own]))
    low, high = percentile((worse.resampled_MR[others] - worse.resampled_MR[own]).mean(0))
    differ = sum(one != other for one, other in zip(own, others, strict=True))
    mean_, low_, high_ = (f"{float(part):.{scale.decimals}f}" for part in (mean, low, high))
    return (
        f"On {tested.split}, the best heads by {tested.split} itself look {mean_} {scale.unit} "
        f"better on average over {len(here)} rows than those that {chosen.split} chose (95 % "
        f"interval {low_} to {high_}, the choices held fixed); {differ} of the choices differ. So "
        "much of Tables 2 and 3 is optimism, and what else differs between the splits."
    )

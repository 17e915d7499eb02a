"""What the paper claims of attention heads, and whether it holds for the model that is reported:
each claim with the number that decides it, its interval and its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hp_jax.report import tables
from hp_jax.report.ablations import Measured
from hp_jax.report.comparison import Comparison, patching
from hp_jax.report.html import Listing
from hp_jax.report.scale import ONE_SIDED, SIGNIFICANT
from hp_jax.report.sections import paper, pruning, splits
from hp_jax.stats import area_between, percentile

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "cannot be told"
TYPES = ("enc", "dec", "cross")
LEAST = 20
"""The least share of heads (%) that the paper finds can go."""
LARGE = 16
"""Examples in a batch from which the paper finds that."""
EARLY = 40
"""The share of heads (%) at whose removal epochs are compared."""


class Claim(NamedTuple):
    """A claim of the paper's, and what is found here."""

    claim: str
    exhibit: str
    """The paper's table or figure."""
    verdict: str
    here: str
    splits: str
    """What was chosen and measured where."""


def listing(
    grids: Mapping[str, Sequence[Measured]],
    curves: pruning.Curves,
    epochs: Mapping[int, Comparison],
    speed: Mapping[str, Any],
) -> list[Listing]:
    """A line for each claim that something was measured for; none of patched heads, of which the
    paper claims nothing."""
    if any(patching(one.comparison.manifest) for some in grids.values() for one in some):
        return []
    one_shot = curves.get("one_shot", {})
    found = [
        *[_alone(one.comparison) for one in grids["one_off"][:1]],
        *_one_head(grids["one_on"]),
        *_across(grids["one_off"]),
        *_orders(curves),
        *[_at_once(one) for scope, one in one_shot.items() if scope == pruning.ALL],
        *_cross(one_shot),
        *(_early(epochs) if len(epochs) > 1 else []),
        *(_faster(speed) if speed else []),
    ]
    if not found:
        return []
    caption = (
        "What the paper claims, and whether it holds for this model. A verdict has an interval or "
        "a test on its side (95 %, or one-sided 2.5 %, for each claim by itself); without one it "
        "cannot be told."
    )
    measured = [one.comparison for one in grids["one_off"]] + list(one_shot.values())
    notes = [one.signature for one in measured]
    return [
        Listing("claims", [line._asdict() for line in found], caption, note=max(notes, default=""))
    ]


def _verdict(low: float, high: float) -> str:
    """Of a claim that something is above 0."""
    return HOLDS if low > 0 else FAILS if high < 0 else UNKNOWN


def _most(harmless: int, worse: int, total: int) -> str:
    """Of a claim that most of them do no harm."""
    return HOLDS if 2 * harmless > total else FAILS if 2 * worse >= total else UNKNOWN


# --- single heads --------------------------------------------------------------------------------


def _alone(comparison: Comparison) -> Claim:
    total = len(comparison.heads)
    harmless = int((comparison.no_harm.adjusted[1:] <= ONE_SIDED).sum())
    worse = len(tables.greatest_drops(comparison))
    here = (
        f"{harmless} of {total} heads are shown to cost less than {_margin(comparison)} when "
        f"removed alone; {worse} are missed significantly (p < {SIGNIFICANT}), both after "
        "correction"
    )
    return Claim(
        "Most heads can be removed, one at a time, without harm",
        "Table 1, Figure 1",
        _most(harmless, worse, total),
        here,
        comparison.where,
    )


def _margin(comparison: Comparison) -> str:
    return f"{comparison.margin:g} {comparison.scale.unit}"


def _one_head(grids: Sequence[Measured]) -> list[Claim]:
    """Measured on the first split; chosen on the one that the oracle order is, or else on the next
    one."""
    both = [second for first, second in splits.pairs(grids) if first is grids[0]]
    if not both:
        return []
    comparison = grids[0].comparison
    select = comparison.manifest.get("experiment", {}).get("pruning", {}).get("select")
    chosen = next((other for other in both if other.split == select), both[0])
    masks = {name: mask for mask, name in enumerate(comparison.names, 1)}
    best = [
        masks[f"{row['row']}.{row['head']}"]
        for row in tables.best_per_row(comparison, chosen.comparison)
    ]
    scale, drops_M = comparison.scale, comparison.drop_M
    harmless_M = comparison.no_harm.adjusted <= ONE_SIDED
    harmless = int(harmless_M[best].sum())
    worse = int(((comparison.adjusted_M[best] < SIGNIFICANT) & (drops_M[best] > 0)).sum())
    here = (
        f"with its best head {harmless} of {len(best)} rows are shown to lose less than "
        f"{_margin(comparison)}; {worse} lose significantly, both corrected for all heads; the "
        f"greatest {comparison.drop_word} is {max(drops_M[best]) + 0.0:.{scale.decimals}f}"
    )
    verdict = _most(harmless, worse, len(best))
    where = f"chosen on {chosen.split}, measured {comparison.where}"
    claim = "Most layers can do with one head"
    return [Claim(claim, "Tables 2, 3, 5 and 6", verdict, here, where)]


def _across(grids: Sequence[Measured]) -> list[Claim]:
    found = []
    for first, second in list(splits.pairs(grids))[:1]:
        fit = tables.correlations(first.comparison.drop_M[1:], second.comparison.drop_M[1:])
        here = paper.said(fit)
        verdict = _verdict(fit["pearson_low"], fit["pearson_high"])
        where = f"on {first.split} and {second.split}"
        claim = "What a head's removal does agrees across splits or domains"
        found.append(Claim(claim, "Figure 2", verdict, here, where))
    return found


# --- curves --------------------------------------------------------------------------------------


def _shares(comparison: Comparison) -> np.ndarray:
    return np.array([row["share"] for row in tables.curve_table(comparison)])


def _worse_by(one: Comparison, other: Comparison) -> tuple[float, float, float] | None:
    """How much worse `one` is than `other` in the mean over the shares removed, with its interval;
    None if the points differ."""
    shares = _shares(one), _shares(other)
    if one.full != 0 or other.full != 0 or len(shares[0]) != len(shares[1]):
        return None
    if len(shares[0]) < 2 or np.abs(shares[0] - shares[1]).max() > 5:
        return None
    return area_between(one.worse, other.worse, shares[0])[:3]


def _orders(curves: pruning.Curves) -> list[Claim]:
    scopes = [curves.get(order, {}).get(pruning.ALL) for order in ("oracle", "one_shot")]
    if scopes[0] is None or scopes[1] is None or not (area := _worse_by(scopes[0], scopes[1])):
        return []
    return [
        Claim(
            "The order of importance is better than the oracle order",
            "Figures 3 and 6",
            _verdict(*area[1:]),
            f"by {_area(area, scopes[1])} on average over the shares removed",
            f"oracle: {_jobs(scopes[0])}; importance: {_jobs(scopes[1])}",
        )
    ]


def _area(area: Sequence[float], comparison: Comparison) -> str:
    value, low, high = (comparison.scale.signed(float(part)) for part in area)
    return f"{value} {comparison.scale.unit} ({low} to {high})"


def _jobs(comparison: Comparison) -> str:
    return ", ".join(f"{job} {split}" for job, split in comparison.manifest["splits"].items())


def _at_once(comparison: Comparison) -> Claim:
    """Decided at the last point up to LEAST: whether the curve gets there without harm, or has lost
    more than the margin by then."""
    last, _ = tables.removable(comparison)
    share_M = _shares(comparison)
    point = int(np.flatnonzero(share_M <= LEAST)[-1])
    low, _ = percentile(comparison.worse.resampled_MR[point])
    reached = 0 < share_M[point] <= last["share"]
    verdict = HOLDS if reached else FAILS if low > comparison.margin else UNKNOWN
    signed = comparison.scale.signed
    change = comparison.change
    here = (
        f"up to {last['removed']} of {len(comparison.heads)} heads ({last['share']:.0f} %) are "
        f"shown to cost less than {_margin(comparison)} (non-inferiority, step by step); without "
        f"{share_M[point]:.0f} % the change is {signed(float(change.difference[point]))} "
        f"({signed(float(change.low[point]))} to {signed(float(change.high[point]))})"
    )
    claim = f"{LEAST} to 60 % of the heads can go at once"
    return Claim(claim, "Figures 3 and 6", verdict, here, _jobs(comparison))


def _cross(scopes: Mapping[str, Comparison]) -> list[Claim]:
    found = []
    for name in TYPES[:2]:
        if "cross" not in scopes or name not in scopes:
            continue
        if area := _worse_by(scopes["cross"], scopes[name]):
            here = f"{_area(area, scopes['cross'])} worse on average over the shares removed"
            claim = f"Cross-attention needs its heads more than {pruning.named(name)}"
            where = _jobs(scopes["cross"])
            found.append(Claim(claim, "Figure 4", _verdict(*area[1:]), here, where))
    return found


def _early(epochs: Mapping[int, Comparison]) -> list[Claim]:
    """Whether the first epoch loses a greater part of its metric than the last; it cannot be told
    of a model that is not shown to lose anything without all its heads."""
    lost, words, something = [], [], True
    for epoch in (min(epochs), max(epochs)):
        one = epochs[epoch]
        full, share_M = pruning.full_metric(one) * one.scale.factor, _shares(one)
        mask = int(np.abs(share_M - EARLY).argmin())
        if one.full != 0 or mask == 0 or not full > 0 or not one.metric.larger_is_better:
            return []
        something &= bool(percentile(one.worse.resampled_MR[-1])[0] > 0)
        lost.append(100 * one.worse.resampled_MR[mask] / full)
        part = round(100 * one.worse.measured_M[mask] / full)
        words.append(f"{part} % of what epoch {epoch} has with all")
    low, high = (round(float(end)) for end in percentile(lost[0] - lost[1]))
    here = (
        f"without {share_M[mask]:.0f} % of the heads the metric loses {words[0]}, and {words[1]} "
        f"(difference {low} to {high})"
    )
    if not something:
        here += "; one of these models is not shown to need any of its heads"
    verdict = _verdict(low, high) if something else UNKNOWN
    claim = "Early in training there are no unimportant heads"
    return [Claim(claim, "Figure 5", verdict, here, _jobs(epochs[min(epochs)]))]


# --- speed ---------------------------------------------------------------------------------------


def _faster(speed: Mapping[str, Any]) -> list[Claim]:
    forward = [row for row in speed["rows"] if row["mode"] == "forward" and row["heads_removed"]]
    if not forward:
        return []
    largest = max(forward, key=lambda row: row["batch"])
    ratio = largest["ratio"]
    gain, low, high = (100 * (ratio[name] - 1) for name in ("median", "low", "high"))
    here = (
        f"{gain:+.1f} % ({low:+.1f} to {high:+.1f}) examples a second in batches of "
        f"{largest['batch']}, without {largest['heads_removed']} heads, on {speed['device']}; over "
        f"{len(ratio['rounds'])} rounds"
    )
    verdict = _verdict(low, high) if largest["batch"] >= LARGE else UNKNOWN
    claim = f"Without half of its heads the model is faster, in batches of {LARGE} or more"
    return [Claim(claim, "Table 4", verdict, here, "random tokens")]

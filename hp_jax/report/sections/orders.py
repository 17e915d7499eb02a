"""The section about all orders beside the paper's: the mean of the metric over each curve, how much
it differs, how many heads can go, what an order costs, and how reliable its scores are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hp_jax.config import Pruning
from hp_jax.metrics import MeanLoss, metric_of, totals, worth
from hp_jax.orders import OF_IMPORTANCE
from hp_jax.report.comparison import Comparison, present
from hp_jax.report.curves import Between, Curve, as_rows, beside
from hp_jax.report.html import Item, Listing, Rows
from hp_jax.report.scale import SIGNIFICANT
from hp_jax.report.sections import pruning
from hp_jax.report.sections.recovery import NONE, Recovered, called
from hp_jax.stats import spearman
from hp_jax.storage.store import Store

FIRST = {"re_estimated": "one_shot"}
"""Orders whose first scores are another's."""


def section(
    curves: pruning.Curves,
    recovered: Recovered,
    seeds: Mapping[str, Curve],
    finished: Mapping[str, Store],
) -> list[Item]:
    """Every order, with and without recovery, beside the paper's; nothing if there is none of
    these, or no other."""
    lines: Rows = []
    areas: Rows = []
    items: list[Item] = []
    for scope in pruning.scopes_of(curves):
        contest = _contest(curves, recovered, scope)
        found = _beside_papers(contest)
        heads = {"heads": pruning.named(scope)}
        items += [
            f"{pruning.named(scope)}: {said}" if scope != pruning.ALL else said
            for said in _verdicts(contest, found)
        ]
        areas += [heads | row for row in as_rows(found)]
        lines += [heads | row for row in _lines(contest, finished, scope)] if found else []
    if not areas:
        return []
    first = next(comparison for scopes in curves.values() for comparison in scopes.values())
    items += [
        Listing("orders", lines, _about_lines(first), scale=first.scale),
        Listing("orders_areas", areas, _about_areas(first), scale=first.scale),
    ]
    return items + _over_seeds(seeds)


def verdicts(curves: pruning.Curves) -> list[str]:
    """How more orders than `pruning.how_far` compares two by two do beside the paper's, as
    sentences."""
    contest = pruning.in_scope(curves, pruning.ALL)
    return _verdicts(contest, _beside_papers(contest)) if len(contest) > pruning.FEW else []


def _contest(curves: pruning.Curves, recovered: Recovered, scope: str) -> dict[str, Curve]:
    """Each order's curve in a scope, and after all of them those with a recovery, by name."""
    contest = pruning.in_scope(curves, scope)
    for order in list(contest):
        for name, comparison in recovered.get((order, scope), {}).items():
            if name != NONE:
                contest[called(order, name)] = pruning.single(comparison)
    return contest


def _beside_papers(contest: Mapping[str, Curve]) -> list[Between]:
    """Everyone beside each of the paper's orders as it is, and those with a recovery beside the
    paper's orders with the same."""
    found = []
    for name in contest:
        recovery, _, order = name.rpartition(" ")
        if order in OF_IMPORTANCE:
            alike = [other for other in contest if other.startswith(recovery)]
            found += beside(contest, name, alike)
    return found


def _verdicts(contest: Mapping[str, Curve], found: list[Between]) -> list[str]:
    """What is shown to be better and worse than each of the paper's orders, as sentences."""
    sentences = []
    for other in dict.fromkeys(one.other for one in found):
        first, against = contest[other].first, [one for one in found if one.other == other]
        said: dict[str, list[str]] = {"better": [], "worse": [], "not shown to differ": []}
        for one in against:
            better = worth(first.metric, one.area.value) > 0
            shown = one.corrected < SIGNIFICANT
            verdict = ("better" if better else "worse") if shown else "not shown to differ"
            value, low, high = (first.scale.signed(part) for part in one.area[:3])
            said[verdict].append(f"{one.order} ({value}, {low} to {high})")
        parts = [f"{verdict}: {', '.join(names)}" for verdict, names in said.items() if names]
        sentences.append(
            f"Beside the {other} order, in the mean of {first.scale.name} over the shares removed "
            f"({first.scale.unit}, with the paired 95 % interval of each alone): "
            f"{'; '.join(parts)}. Better and worse are those with p < {SIGNIFICANT} after Holm's "
            f"correction for {len(against)} tests."
        )
    return sentences


# --- each order ----------------------------------------------------------------------------------


def _lines(contest: Mapping[str, Curve], finished: Mapping[str, Store], scope: str) -> Rows:
    """A line an order; what it costs and how reliable its scores are stands where there is no
    recovery."""
    return [
        _judged(name, curve)
        | _passes(finished.get(f"{_folder(name, scope)}/ranking"))
        | _reliability(finished, name, scope, curve.first.scope_AH)
        for name, curve in contest.items()
    ]


def _judged(name: str, curve: Curve) -> dict[str, Any]:
    most = curve.most_removed(_tolerance(curve.first))
    total = int(curve.first.scope_AH.sum())
    return {
        "order": name,
        f"mean {curve.first.scale.name}": curve.mean,
        "heads that can go": math.nan if most is None else most,
        "share": math.nan if most is None else 100 * most / total,
    }


def _tolerance(comparison: Comparison) -> float:
    """The share of the full model's metric that may be lost, as the experiment has it."""
    settings = comparison.manifest.get("experiment", {}).get("pruning", {})
    return float(settings.get("tolerance", Pruning.tolerance))


def _passes(ranking: Store | None) -> dict[str, Any]:
    """What an order costs, as its ranking has it."""
    found = ranking.manifest.get("passes", {}) if ranking else {}
    forward, backward, translated = (
        found.get(kind, math.nan) for kind in ("forward", "backward", "translated")
    )
    return {
        "forward passes": forward,
        "backward passes": backward,
        "translations": translated,
        "cost": forward + backward + translated,
    }


def _reliability(
    finished: Mapping[str, Store], name: str, scope: str, scope_AH: np.ndarray
) -> dict[str, float]:
    """The rank correlation, over the heads in scope, of an order's first scores from two halves of
    the examples."""
    ranking = finished.get(f"{_folder(name, scope)}/ranking")
    halves = []
    if ranking and name == "oracle":
        halves = _of_grid(finished, ranking)
    elif ranking:
        own = f"{_folder(FIRST.get(name, name), scope)}/ranking"
        kept = [finished[path] for half in (1, 2) if (path := f"halves/{half}/{own}") in finished]
        halves = [store.read("score")[0] for store in kept if _same_model(ranking, store)]
    found = (math.nan,) * 3
    if len(halves) == 2:
        found = spearman(*(score_AH[scope_AH] for score_AH in halves))[:3]
    return dict(zip(("spearman", "spearman_low", "spearman_high"), found, strict=True))


def _folder(name: str, scope: str) -> str:
    return f"pruning/{name}" + f".{scope}" * (scope != pruning.ALL)


def _of_grid(finished: Mapping[str, Store], ranking: Store) -> list[np.ndarray]:
    """The oracle's scores `[A, H]` of every other example and of the others, from the grid that it
    is made of; empty if that is not there."""
    settings = ranking.manifest.get("experiment", {}).get("pruning", {})
    for store in finished.values():
        manifest = store.manifest
        present_AH = present(manifest)
        if (
            manifest.get("masks") == "one_off"
            and manifest["items"] == present_AH.sum() + 1
            and manifest["splits"]["test"] == ranking.manifest["splits"].get("select")
            and _same_model(ranking, store)
        ):
            metric = MeanLoss() if settings.get("oracle") == "loss" else metric_of(manifest)
            values = {array: store.read(array) for array in manifest["arrays"]}
            statistics_MNS = metric.statistics(values)
            scores = []
            for half in (0, 1):
                worth_M = worth(metric, metric.score(totals(metric, statistics_MNS[:, half::2])))
                score_AH = np.zeros(present_AH.shape)
                score_AH[present_AH] = worth_M[0] - worth_M[1:]
                scores.append(score_AH)
            return scores
    return []


def _same_model(*stores: Store) -> bool:
    return len({store.manifest["fingerprint"].get("model") for store in stores}) == 1


def _about_lines(first: Comparison) -> str:
    share = f"{100 * _tolerance(first):g} %"
    return (
        f"Each order, {first.where}: the mean of {first.scale.name} over the shares of heads "
        "removed (trapezoidal rule); the most heads that can go, shown to lose less than "
        f"{share} of the full model's {first.scale.name} (non-inferiority, one-sided 2.5 %, step "
        "by step; not corrected for the number of orders; 0: it is not shown that any can); how "
        "often an example goes through the whole model to make the order, alone and without its "
        "curve or recovery: forward, back to the gates, and in a search for a translation. Cost "
        "is their sum: without gradients of weights a backward pass is about as much work as a "
        "forward pass, and a search, which takes longer, counts as one. Masks that share work "
        "count in full, so a grid does less. At the end the rank correlation over heads of the "
        "order's first scores from two halves of the examples that it looks at, with its 95 % "
        "interval as if the heads were a sample of many; of scores from all examples it would be "
        "higher."
    )


def _about_areas(first: Comparison) -> str:
    return (
        f"How much the mean of {first.scale.name} over the shares removed differs from the paper's "
        f"orders (order - beside, in {first.scale.unit}), with its paired 95 % interval from "
        f"{first.resamples:,} resamples of the same examples, p, and p corrected by Holm's method "
        "for all that stand beside the same order. That a difference is not significant does not "
        "show that there is none."
    )


# --- seeds ---------------------------------------------------------------------------------------


def _over_seeds(seeds: Mapping[str, Curve]) -> list[Item]:
    """The same of the mean over several seeds of training."""
    found = _beside_papers(seeds)
    if not found:
        return []
    some = next(iter(seeds.values()))
    first, count = some.first, len(some.by_seed)
    over = (
        f" In the mean over {count} seeds of training, resampled with the examples (intervals of "
        "few seeds are too narrow)."
    )
    share = f"{100 * _tolerance(first):g} %"
    lines = [_judged(name, curve) for name, curve in seeds.items()]
    caption = (
        f"The mean of {first.scale.name} over the shares removed, and the most heads that are "
        f"shown to go with less than {share} of the full models' mean {first.scale.name} lost (by "
        f"the bootstrap).{over}"
    )
    return [
        Listing("orders_seeds", lines, caption, scale=first.scale),
        Listing(
            "orders_seeds_areas", as_rows(found), _about_areas(first) + over, scale=first.scale
        ),
    ]

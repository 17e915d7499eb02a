"""Sections about single heads: their importance, what happens without each, with each alone, and
without two."""

from __future__ import annotations

import numpy as np

from hp_jax.report import interactions, results, tables
from hp_jax.report.comparison import Comparison, patching
from hp_jax.report.html import Item, Listing, Picture
from hp_jax.report.pictures import heatmaps, plots
from hp_jax.report.pictures.style import picture
from hp_jax.report.row_types import by_type
from hp_jax.report.scale import ONE_SIDED, POWER, SIGNIFICANT
from hp_jax.report.tables import listing
from hp_jax.stats import benjamini_hochberg, least_effect
from hp_jax.storage.store import Store

MEASURES = {"abs": "absolute"}
MOST = 20
"""Pairs that are shown."""


def importance(store: Store) -> list[Item]:
    """Every head's importance."""
    manifest, mask_AH = store.manifest, store.read("mask")
    settings = manifest["experiment"]["importance"]
    norm = (
        f"each row divided by its l{settings['norm']:g} norm"
        if settings["norm"]
        else "not normalised"
    )
    values_AH = np.where(mask_AH, results.importance_scores(store)[1], np.nan)
    power = 0 if settings["norm"] else int(np.floor(np.log10(np.nanmax(np.abs(values_AH)) or 1.0)))
    label = f"importance ({'share of the row norm' if settings['norm'] else f'10^{power} nats'})"
    signed = bool(np.nanmin(values_AH) < 0)
    measure = MEASURES.get(settings["measure"], settings["measure"])
    caption = (
        f"Importance of each head: the {measure} gradient of the loss in its gate, "
        f"per {settings['per']}, {norm}. Darker heads matter more to the loss."
    )
    figure = heatmaps.heatmap(
        values_AH / 10.0**power, manifest["rows"], label, centred=signed, colours="RdBu_r"
    )
    return [
        " ".join(filter(None, [results.jobs(manifest), patching(manifest)])),
        _reliability(store),
        picture("importance", figure, caption),
        Listing(
            "importance",
            tables.importance_table(store),
            "Importance of every head, the highest first.",
            folded=True,
        ),
    ]


def _reliability(store: Store) -> str:
    found, parts = tables.reliability(store), store.manifest["items"]
    if np.isnan(found):
        return (
            f"How reliable these scores are cannot be told from the {parts} parts in which their "
            "examples were summed."
        )
    if found <= 0:
        return f"Random halves of the {parts} parts do not agree on these scores: they are chance."
    return (
        f"Split-half reliability of these scores: {found:.3f} (the correlation over heads between "
        f"random halves of the {parts} parts in which the examples were summed, stepped up to all "
        "of them; 1 would be no chance in which examples were taken)."
    )


def count(comparison: Comparison) -> str:
    """How many heads change the metric significantly, as a sentence."""
    p, adjusted = comparison.p_M[1:], comparison.adjusted_M[1:]

    def drops(found: np.ndarray) -> str:
        worse = (found & (comparison.drop_M[1:] > 0)).sum()
        return f", {worse} of them {comparison.drop_word}s" if found.any() else ""

    found, alone = adjusted < SIGNIFICANT, p < SIGNIFICANT
    return (
        f"{found.sum()} of {len(p)} changes are significant at p < {SIGNIFICANT} after "
        f"{comparison.correction} correction for {len(p)} tests{drops(found)} ({comparison.test}). "
        f"Uncorrected, as in the paper, it is {alone.sum()}{drops(alone)}; chance alone gives at "
        f"most {SIGNIFICANT * len(p):.1f}."
    )


def no_harm(comparison: Comparison) -> list[str]:
    """How many single heads are shown to do no harm, how many to be free, and what the data could
    have shown, as sentences; of patched heads the last alone."""
    if patching(comparison.manifest):
        return _least(comparison)
    scale, margin = comparison.scale, f"{comparison.margin:g} {comparison.scale.unit}"
    (harmless, alone), (free, free_alone) = (
        [int((p_M[1:] <= ONE_SIDED).sum()) for p_M in (claim.adjusted, claim.p)]
        for claim in (comparison.no_harm, comparison.free)
    )
    total, (test, correction) = len(comparison.heads), comparison.harm_test
    return [
        f"{harmless} of {total} heads are each shown to do no harm when removed alone: "
        f"{scale.name} is less than {margin} worse (non-inferiority by {test}, one-sided "
        f"{100 * ONE_SIDED:g} %, after {correction} correction for {total} tests; uncorrected "
        f"{alone}). {free} are shown to be free: within {margin}, neither worse nor better "
        f"(equivalence, two such tests, corrected; uncorrected {free_alone}). Of the others "
        "nothing is shown by this: neither that they can go nor that they cannot.",
        *_least(comparison),
    ]


def _least(comparison: Comparison) -> list[str]:
    """The least effect that the data show, of the heads whose removal changes anything."""
    error = comparison.differences.resampled_MR[1:].std(1)
    if not error.any():
        return []
    scale, total = comparison.scale, len(error)

    def effect(level: float) -> str:
        least = least_effect(error[error > 0], level=level, power=POWER)
        words = [scale.signed(float(value))[1:] for value in np.quantile(least, [0.5, 0, 1])]
        return f"{words[0]} {scale.unit} ({words[1]} to {words[2]}, by head)"

    return [
        f"With these {comparison.examples} {comparison.example_word}s a change is found at p < "
        f"{SIGNIFICANT} with a power of {100 * POWER:g} % if it is as large as "
        f"{effect(SIGNIFICANT)}; after a correction for {total} tests (at {SIGNIFICANT} / {total}) "
        f"{effect(SIGNIFICANT / total)}."
    ]


def _effects(name: str, comparison: Comparison, when: str) -> Picture:
    change_AH, p_AH = (
        comparison.spread(values[1:]) for values in (comparison.change.difference, comparison.p_M)
    )
    scale = comparison.scale
    figure = heatmaps.heatmap(
        change_AH,
        comparison.rows,
        f"change of {scale.name} ({scale.unit})",
        centred=True,
        marked_AH=p_AH < SIGNIFICANT,
        colours="RdBu" if comparison.metric.larger_is_better else "RdBu_r",
        decimals=scale.decimals,
        said=dict(zip(comparison.names, tables.judgements(comparison), strict=True)),
    )
    caption = (
        f"Change of {scale.name} in {scale.unit} when {when}; white is no effect, red is worse, "
        f"framed: p < {SIGNIFICANT} ({comparison.test}, uncorrected). "
        "Colours end where the scale has an arrow; the numbers go on."
    )
    return picture(name, figure, caption)


def one_off(comparison: Comparison) -> list[Item]:
    """What each head's removal does."""
    metric, unit = comparison.scale.name, comparison.scale.unit
    step = 1 / comparison.examples if comparison.metric.name == "accuracy" else 0.0
    histogram = plots.histogram(
        comparison.metric_M[1:], float(comparison.metric_M[0]), metric, step
    )
    resampled = int((comparison.change.adjusted[1:] < SIGNIFICANT).sum())
    also = (
        f" By the paired bootstrap, after Westfall and Young's correction, it is {resampled}."
        if comparison.test == "McNemar"
        else ""
    )
    tests = (
        " McNemar's exact test compares which predictions are right."
        if comparison.mcnemar_M is not None
        else ""
    )
    false = int((benjamini_hochberg(comparison.p_M[1:]) < SIGNIFICANT).sum())
    also += (
        f" By Benjamini and Hochberg's correction, which lets about {100 * SIGNIFICANT:g} % of "
        f"what is found be false, it is {false}."
    )
    return [
        comparison.measured,
        f"{count(comparison)}{also}",
        *no_harm(comparison),
        _effects("one_off", comparison, "one head is removed (the paper's Table 1)"),
        picture(
            "one_off_histogram",
            histogram,
            f"How {metric} is spread over the models that lack one head (the paper's Figure 1); "
            "dashed: the full model.",
        ),
        listing(
            comparison,
            "one_off_grid",
            tables.grid_table(comparison),
            f"Change of {metric} in {unit}, laid out as the paper's Table 1; {comparison.stars}.",
        ),
        listing(
            comparison,
            "one_off",
            tables.head_table(comparison),
            f"Every head removed alone, the greatest {comparison.drop_word} of {metric} first; "
            f"95 % intervals and p from {comparison.resamples:,} paired resamples; ranks by that "
            f"{comparison.drop_word}, from which to which with 95 %.{tests}",
            folded=True,
        ),
        tables.masks_file(comparison, "one_off"),
    ]


def one_on(comparison: Comparison) -> list[Item]:
    """What a row loses that keeps one head."""
    split = comparison.manifest["splits"].get("test", "?")
    greatest = f"the greatest {comparison.drop_word} of {comparison.scale.name}"
    optimistic = (
        f"Each head was chosen and measured on the same split, {split}: these changes are "
        "optimistic."
    )
    several = len(by_type(comparison.rows)) > 1
    best = (
        "The best single head of each row (the paper's "
        f"{'Table 2' if comparison.example_word == 'sentence' else 'Table 3'})"
    )
    return [
        comparison.measured,
        f"The other rows keep all their heads. {count(comparison)}",
        _effects("one_on", comparison, "the row keeps this head alone"),
        *([_by_layer(comparison, optimistic)] if several else []),
        listing(
            comparison,
            "one_on_best",
            tables.best_per_row(comparison),
            f"{best}. {optimistic}",
            folded=several,
        ),
        listing(
            comparison,
            "one_on",
            tables.head_table(comparison),
            f"Every head alone in its row, {greatest} first.",
            folded=True,
        ),
        tables.masks_file(comparison, "one_on"),
    ]


def _by_layer(comparison: Comparison, remark: str) -> Listing:
    caption = (
        f"Change of {comparison.scale.name} in {comparison.scale.unit} when a row keeps only its "
        "best head, laid out as the paper's Table 2; "
        f"{comparison.stars}. {remark}"
    )
    return listing(comparison, "one_on_layers", tables.layer_table(comparison), caption)


def agreement(store: Store, comparison: Comparison) -> list[Item]:
    """Importance against what is measured without each head."""
    x = results.importance_scores(store)[1][comparison.scope_AH]
    effects = {
        f"{name} ({unit})": values
        for name, (unit, values) in tables.effects(comparison).items()
        if np.isfinite(values).all()
    }
    fits = [tables.correlations(x, y) for y in effects.values()]
    titles = [
        f"Pearson r = {fit['pearson']:z.2f}, Spearman ρ = {fit['spearman']:z.2f}, n = {len(x)}"
        for fit in fits
    ]
    figure = plots.scatter(
        x,
        effects,
        titles,
        comparison.names,
        "importance, as the pruning orders take it",
        [
            f"importance {score:.3f}; {words}"
            for score, words in zip(x, tables.judgements(comparison), strict=True)
        ],
    )
    return [
        f"{results.jobs(store.manifest)} {comparison.measured}",
        picture(
            "agreement",
            figure,
            "Each point is a head, named as row.head: its importance (gradient) against what is "
            "lost without it (measured).",
        ),
        Listing(
            "agreement",
            tables.correlation_table(store, comparison),
            "Correlation over heads, with 95 % intervals as if the heads were a sample of many; "
            "positive means agreement.",
        ),
    ]


def pairs(comparison: Comparison, store: Store, singles: Store | None) -> list[Item]:
    """What the removal of two heads does, and, with `singles`, what they are worth together beyond
    what each is alone; `store` is the grid of `comparison`."""
    both: list[Item] = [comparison.measured, count(comparison)]
    if singles and interactions.comparable(store, singles):
        both += _interactions(comparison, store, singles)
    else:
        both.append(
            "What two heads are worth together beyond what each is alone comes from losses "
            "without each of the same heads: the set one_off."
        )
    return [*both, tables.masks_file(comparison, "pairs")]


def _interactions(comparison: Comparison, store: Store, singles: Store) -> list[Item]:
    together, heads = interactions.interactions(store, singles)
    label = f"extra increase of the mean loss (nats per {comparison.example_word})"
    figure = heatmaps.interactions(together, heads, store.manifest["rows"], label)
    rows = interactions.pair_table(comparison, together, heads)
    which = (
        f"the {MOST} strongest of {len(rows)}; the CSV has all"
        if len(rows) > MOST
        else "the strongest first"
    )
    return [
        picture(
            "pairs",
            figure,
            "What removing two heads adds to the mean loss beyond the sum of each alone. Red: "
            "they stand in for each other, losing both is worse than the sum; blue: one is of "
            "little use without the other, losing the second costs less.",
        ),
        listing(
            comparison,
            "pairs",
            rows,
            f"Interactions of pairs: extra increase of the mean loss, {which}.",
            most=MOST,
        ),
    ]

"""One self-contained HTML page from an experiment's folder, with its pictures and tables as files beside it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import numpy as np
from matplotlib.figure import Figure

from hp_jax.config import Order
from hp_jax.files import write_whole
from hp_jax.report import figures, tables
from hp_jax.report.html import SIGNIFICANT, Code, Item, Listing, Picture, Rows, Section, as_csv, as_text, to_html
from hp_jax.report.tables import Judged
from hp_jax.store import Store

KINDS = {"abs": "absolute"}
ORDERS = get_args(Order)
"""The pruning orders, in the order of the legend."""


def write_report(folder: Path) -> Path:
    """Writes folder/report: index.html, each picture as PNG and SVG, each table as CSV, and all tables as text; its path.

    FileNotFoundError if there are no results; stores that are not finished are named and left out.
    """
    folder = Path(folder)
    stores, history = tables.stores_below(folder), tables.history(folder)
    stores = {name: store for name, store in stores.items() if store.manifest["kind"] in ("importance", "grid", "ranking")}
    if not stores and not history:
        raise FileNotFoundError(
            f"{folder} holds no results to report: no importance, ablation, pruning or trained model is below it"
        )
    progress = {name: tables.progress(store) for name, store in stores.items()}
    finished = {name: store for name, store in stores.items() if len(set(progress[name])) == 1}
    sections = [*_sections(finished, history), ("How this was made", _provenance(stores, progress))]
    report = folder / "report"
    report.mkdir(exist_ok=True)
    text = []
    for _, items in sections:
        for item in items:
            if isinstance(item, Picture):
                write_whole(report / f"{item.name}.png", item.png)
                write_whole(report / f"{item.name}.svg", item.svg)
            if isinstance(item, Listing):
                write_whole(report / f"{item.name}.csv", as_csv(item.rows).encode())
                text.append(f"{item.caption}\n\n{as_text(item.rows)}")
    write_whole(report / "tables.txt", "\n\n".join(text).encode())
    page = to_html(f"Attention heads: {folder.resolve().name}", _warnings(stores, progress), sections)
    write_whole(report / "index.html", page.encode())
    return report / "index.html"


def _warnings(stores: Mapping[str, Store], progress: Mapping[str, tuple[int, int]]) -> list[str]:
    units = {"grid": "masks", "importance": "parts", "ranking": "steps"}
    lines = [
        f"{name} is not finished and not shown: {done} of {total} {units[stores[name].manifest['kind']]} done."
        for name, (done, total) in progress.items()
        if done < total
    ]
    if len({store.manifest["fingerprint"].get("model") for store in stores.values()}) > 1:
        lines.append("These results come from different models: they must not be compared with each other.")
    return lines


def _sections(finished: Mapping[str, Store], history: Rows) -> list[Section]:
    """All sections for which there are results, the summary first."""
    importance = finished.get("importance")
    one_off, one_on = (
        tables.judge(finished[name]) if name in finished else None for name in ("ablation/one_off", "ablation/one_on")
    )
    orders = {order: tables.judge(finished[f"pruning/{order}/test"]) for order in ORDERS if f"pruning/{order}/test" in finished}
    sections: list[Section] = []
    if importance:
        sections.append(("Importance", _importance(importance)))
    if one_off:
        sections.append(("Without one head", _one_off(one_off)))
    if one_on:
        sections.append(("One head alone in its row", _one_on(one_on)))
    if importance and one_off:
        sections.append(("Does importance foretell the damage?", _agreement(importance, one_off)))
    if orders:
        sections.append(("Pruning", _pruning(orders)))
    pairs, singles = finished.get("ablation/pairs"), finished.get("ablation/one_off")
    if one_off and pairs and singles and tables.comparable(pairs, singles):
        sections.append(("Pairs of heads", _pairs(pairs, singles, one_off)))
    if history:
        sections.append(("Training", [Listing("training", history, "Training history, one line an epoch; losses in nats.")]))
    summary = _summary(one_off, orders)
    return [("Summary", summary), *sections] if summary else sections


def _summary(one_off: Judged | None, orders: Mapping[str, Judged]) -> list[Item]:
    sentences: list[Item] = []
    judged = one_off or next((judged for judged in orders.values() if judged.full is not None), None)
    if judged:
        sentences.append(
            f"{len(judged.living)} heads in {len(judged.manifest['rows'])} rows; the full model has {judged.metric_name} "
            f"{judged.metric_M[judged.full or 0]:#.4g} {_splits(judged)}."
        )
    if one_off:
        change = one_off.change.difference[1:]
        sentences.append(
            f"Removing one head alone changes {one_off.metric_name} by {change.min():+.2f} to {change.max():+.2f} points. "
            + _count(one_off)
        )
    return sentences + [_how_far(name, judged) for name, judged in orders.items() if judged.full is not None]


def _how_far(name: str, judged: Judged) -> str:
    """How many heads an order can remove before the metric drops significantly."""
    last, drop = tables.removable(judged)
    then = f"the next step, {drop['removed']} heads, is one" if drop else "no step is one"
    return (
        f"In the {name} order {last['removed']} of {len(judged.living)} heads ({last['share']:.0f} %) can go without a "
        f"significant drop of {judged.metric_name} (p < {SIGNIFICANT}, {judged.test}, {judged.examples} examples; {then}). "
        f"There it changes by {last['change']:+.2f} points, 95 % interval {last['low']:+.2f} to {last['high']:+.2f}."
    )


def _count(judged: Judged) -> str:
    p, change = judged.p_M[1:], judged.change.difference[1:]
    found = p < SIGNIFICANT
    drops = f", {(found & (change < 0)).sum()} of them drops" if found.any() else ""
    return (
        f"{found.sum()} of {len(p)} changes are significant at p < {SIGNIFICANT}{drops} ({judged.test}, not corrected for "
        f"multiple tests; chance alone gives at most {SIGNIFICANT * len(p):.1f})."
    )


def _splits(judged: Judged) -> str:
    return f"on {judged.manifest['splits'].get('test', '?')} ({judged.examples} examples)"


def _importance(store: Store) -> list[Item]:
    manifest, mask_AH = store.manifest, store.read("mask")
    settings = manifest["experiment"]["importance"]
    norm = f"each row divided by its l{settings['order']:g} norm" if settings["order"] else "not normalised"
    values_AH = np.where(mask_AH, tables.importance_scores(store)[1], np.nan)
    power = 0 if settings["order"] else int(np.floor(np.log10(np.nanmax(np.abs(values_AH)) or 1.0)))
    label = f"importance ({'share of the row norm' if settings['order'] else f'10^{power} nats'})"
    signed = bool(np.nanmin(values_AH) < 0)
    caption = (
        f"Importance of each head: the {KINDS.get(settings['kind'], settings['kind'])} gradient of the loss in its gate, "
        f"per {settings['per']}, {norm}. Darker heads matter more to the loss."
    )
    return [
        tables.jobs(manifest),
        _picture(
            "importance",
            figures.heatmap(values_AH / 10.0**power, manifest["rows"], label, centred=signed, low="RdBu_r"),
            caption,
        ),
        Listing("importance", tables.importance_table(store), "Importance of every head, the highest first.", folded=True),
    ]


def _picture(name: str, figure: Figure, caption: str) -> Picture:
    pixels = round(100 * figure.get_figwidth())
    return Picture(name, figures.to_png(figure), figures.to_svg(figure), pixels, caption)


def _effects(name: str, judged: Judged, when: str) -> Picture:
    change_AH, p_AH = (tables.spread(values, judged.manifest) for values in (judged.change.difference[1:], judged.p_M[1:]))
    label = f"change of {judged.metric_name} (points)"
    figure = figures.heatmap(change_AH, judged.manifest["rows"], label, centred=True, marked_AH=p_AH < SIGNIFICANT)
    caption = (
        f"Change of {judged.metric_name} in points when {when}; white is no effect, framed: p < {SIGNIFICANT} ({judged.test}). "
        "Colours end where the scale has an arrow; the numbers go on."
    )
    return _picture(name, figure, caption)


def _one_off(judged: Judged) -> list[Item]:
    metric = judged.metric_name
    histogram = figures.histogram(judged.metric_M[1:], float(judged.metric_M[0]), metric, judged.examples)
    resampled = int((judged.change.p[1:] < SIGNIFICANT).sum())
    also = f" By the paired bootstrap it is {resampled}." if judged.test == "McNemar" else ""
    return [
        f"Measured {_splits(judged)}. {_count(judged)}{also}",
        _effects("one_off", judged, "one head is removed (the paper's Table 1)"),
        _picture(
            "one_off_histogram",
            histogram,
            f"How {metric} is spread over the models that lack one head (the paper's Figure 1); dashed: the full model.",
        ),
        Listing(
            "one_off_grid", tables.grid_table(judged), f"Change of {metric} in points; * p < {SIGNIFICANT} ({judged.test})."
        ),
        Listing(
            "one_off",
            tables.head_table(judged),
            f"Every head removed alone, the largest drop of {metric} first; 95 % intervals and p from 1,000 paired resamples; "
            "McNemar's exact test compares which predictions are right.",
            folded=True,
        ),
    ]


def _one_on(judged: Judged) -> list[Item]:
    metric = judged.metric_name
    return [
        f"Measured {_splits(judged)}. The other rows keep all their heads. {_count(judged)}",
        _effects("one_on", judged, "the row keeps this head alone"),
        Listing(
            "one_on_best",
            tables.best_per_row(judged),
            "The best single head of each row (the paper's Tables 2 and 3). Each head was chosen and judged on the same split, "
            f"{judged.manifest['splits'].get('test', '?')}: these changes are optimistic.",
        ),
        Listing(
            "one_on",
            tables.head_table(judged),
            f"Every head alone in its row, the largest drop of {metric} first.",
            folded=True,
        ),
    ]


def _agreement(importance: Store, judged: Judged) -> list[Item]:
    present_AH = tables.present(judged.manifest)
    x = tables.importance_scores(importance)[1][present_AH]
    effects = {f"drop of {judged.metric_name} (points)": -judged.change.difference[1:]}
    if np.isfinite(judged.loss_M).all():
        effects["increase of the mean loss (nats)"] = judged.loss_M[1:] - judged.loss_M[0]
    fits = [tables.correlations(x, y) for y in effects.values()]
    titles = [f"Pearson r = {pearson:.2f}, Spearman ρ = {spearman:.2f}, n = {len(x)}" for (pearson, _), (spearman, _) in fits]
    names = [f"{judged.manifest['rows'][row]}.{head}" for row, head in judged.living]
    return [
        f"{tables.jobs(importance.manifest)} What removing each head alone does was measured {_splits(judged)}.",
        _picture(
            "agreement",
            figures.scatter(x, effects, titles, names, "importance, as the pruning orders take it"),
            "Each point is a head, named as row.head: its importance (gradient) against what is lost without it (measured).",
        ),
        Listing("agreement", tables.correlation_table(importance, judged), "Correlation over heads; positive means agreement."),
    ]


def _pruning(orders: Mapping[str, Judged]) -> list[Item]:
    first = next(iter(orders.values()))
    manifest, total = first.manifest, len(first.living)
    rows = {name: tables.curve_table(judged) for name, judged in orders.items()}
    full = float(first.metric_M[first.full]) if first.full is not None else float("nan")
    curves = figures.curves(rows, full, first.constant, first.metric_name, total, tables.points(manifest))
    gone = {name: tables.removal_shares(judged) for name, judged in orders.items()}
    items: list[Item] = [
        f"{name}: {tables.jobs(judged.manifest)[:-1]} ({judged.examples} examples)." for name, judged in orders.items()
    ]
    items += [
        _picture(
            "pruning",
            curves,
            f"How {first.metric_name} changes as heads are removed, without retraining (the paper's Figures 3 and 6). Bands: "
            "95 % paired-bootstrap interval of the change against the full model.",
        ),
        _picture(
            "removal",
            figures.removals(gone, manifest["rows"], tables.present(manifest)),
            "When each head goes, in each order: light heads first, dark heads last; the darkest stay to the end.",
        ),
    ]
    captions = {name: f"Pruning in the {name} order; each line against the full model." for name in rows}
    return items + [Listing(f"pruning_{name}", rows[name], captions[name], folded=True) for name in rows]


def _pairs(pairs: Store, singles: Store, judged: Judged) -> list[Item]:
    together = tables.interactions(pairs, singles)
    figure = figures.interactions(together, judged.living, judged.manifest["rows"], "extra increase of the mean loss (nats)")
    return [
        tables.jobs(pairs.manifest),
        _picture(
            "pairs",
            figure,
            "What removing two heads adds to the mean loss beyond the sum of each alone. Red: they stand in for each other, "
            "losing both is worse than the sum; blue: one is of little use without the other, losing the second costs less.",
        ),
    ]


def _provenance(stores: Mapping[str, Store], progress: Mapping[str, tuple[int, int]]) -> list[Item]:
    keys = ("created", "devices", "versions", "seed", "command", "fingerprint", "experiment")
    codes: list[Item] = []
    for name, store in stores.items():
        told = {key: store.manifest[key] for key in keys if key in store.manifest}
        command = shlex.join(map(str, store.manifest.get("command", [])))
        codes.append(Code(f"{name}: versions, seed, config", f"{command}\n\n{json.dumps(told, indent=1)}"))
    caption = "The results on this page, and the splits that each step looked at."
    return [Listing("results", tables.results_table(stores, progress), caption), *codes] if stores else []

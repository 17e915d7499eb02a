"""The paper's published results beside those of an experiment: what is different in the setting,
and the numbers where both are about the same kind of model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hp_jax.config import PaperSetting
from hp_jax.exhibits import Exhibit
from hp_jax.report import tables
from hp_jax.report.comparison import Comparison, present, signatures
from hp_jax.report.html import CHANGES, Item, Listing
from hp_jax.report.published import (
    BEST_HEADS,
    FIGURE_5,
    FINDINGS,
    SETTINGS,
    SPLITS,
    TABLE_1,
    TABLE_4,
    Setting,
    value,
)
from hp_jax.report.row_types import by_type
from hp_jax.report.scale import SCALES, SIGNIFICANT
from hp_jax.report.tables import listing
from hp_jax.stats import pearson

Manifest = Mapping[str, Any]


def named(exhibit: Exhibit) -> str:
    """A table or figure as people call it: Table 1."""
    return f"{exhibit[:-1].capitalize()} {exhibit[-1]}"


def own_setting(manifest: Manifest) -> PaperSetting:
    """The setting of the paper's that the experiment says it is; empty for none."""
    setting = manifest.get("experiment", {}).get("paper", {}).get("setting", "")
    return setting if setting in SETTINGS else ""


def beside(
    exhibits: Sequence[Exhibit],
    manifest: Manifest,
    *,
    test: str,
    result: str,
    split: str = "",
    chosen: str = "",
) -> Listing:
    """How the setting and the result of a table or figure of the paper's differ from those of a
    store; of `exhibits`, the one that the paper has of this setting, or else of the same task.

    split: where it was measured; default: that of the store.  chosen: where a choice was made.
    test: how changes are judged here.
    """
    own = own_setting(manifest)
    like: list[PaperSetting] = ["wmt", "iwslt"] if _translates(manifest) else ["mnli", "sst2"]
    exhibit, name = next(
        (exhibit, name)
        for name in [own, *like, *SETTINGS]
        for exhibit in exhibits
        if name in FINDINGS[exhibit]
    )
    setting, finding = SETTINGS[name], FINDINGS[exhibit][name]
    split = split or manifest["splits"].get("test", "?")
    facts = {
        "model": (f"{setting.model}: {_rows(setting.layers, setting.heads)}", _model(manifest)),
        "task": (setting.data, setting.data if own == name else _task(manifest)),
        "chosen on": (finding.chosen or "–", _split(chosen, own) or "–"),
        "measured on": (finding.split, _split(split, own)),
        "metric": (
            finding.metric or SCALES[setting.metric].name,
            finding.metric or SCALES[manifest["metric"]].name,
        ),
        "test": (finding.test or setting.test, test),
    }
    differ = [what for what, (theirs, ours) in facts.items() if theirs != ours]
    if own == name and _same_shape(manifest, setting):
        differ.remove("model")
    rows = [{"what": what, "paper": theirs, "here": ours} for what, (theirs, ours) in facts.items()]
    rows.append({"what": "result", "paper": finding.words, "here": result})
    words = f"differs in {', '.join(differ)}" if differ else "the same setting"
    return Listing(
        f"paper_{exhibit}",
        rows,
        f"{named(exhibit)} of the paper beside this: {words}.",
        folded=True,
        note="" if finding.metric else signatures(manifest, [manifest["metric"]]),
    )


def _translates(manifest: Manifest) -> bool:
    return "tokenize" in manifest.get("experiment", {})


def _rows(layers: Mapping[str, int], heads: int | str) -> str:
    return ", ".join(f"{name} {count} × {heads}" for name, count in layers.items())


def _model(manifest: Manifest) -> str:
    """The model's name, and its rows and heads."""
    present_AH, types = present(manifest), by_type(manifest["rows"])
    parts = []
    for name, indices in types.items():
        counts = sorted(set(present_AH[indices].sum(1).tolist()))
        parts.append(
            _rows({name: len(indices)}, "–".join(map(str, (counts[0], counts[-1])[: len(counts)])))
        )
    model = manifest.get("experiment", {}).get("model", "").rstrip("/").rpartition("/")[2]
    return ": ".join(filter(None, [model, ", ".join(parts)]))


def _task(manifest: Manifest) -> str:
    data = manifest.get("experiment", {}).get("data", {})
    if "source" in data and "target" in data:
        return f"{data['source']}-{data['target']}"
    return str(data.get("task", manifest.get("task", "?")))


def _split(split: str, own: str) -> str:
    return SPLITS.get(split, split) if own else split


def _same_shape(manifest: Manifest, setting: Setting) -> bool:
    present_AH, types = present(manifest), by_type(manifest["rows"])
    return {name: len(rows) for name, rows in types.items()} == dict(setting.layers) and bool(
        (present_AH.sum(1) == setting.heads).all()
    )


def judged(comparison: Comparison) -> str:
    """How changes are tested."""
    how = "McNemar's exact test" if comparison.test == "McNemar" else "paired bootstrap"
    return f"{how}, two-sided; intervals from {comparison.resamples:,} paired resamples"


# --- each table and figure -----------------------------------------------------------------------


def one_off(comparison: Comparison) -> list[Item]:
    """Beside Table 1 and Figure 1."""
    manifest, scale = comparison.manifest, comparison.scale
    metric_M, change_M = comparison.metric_M[1:], comparison.change.difference[1:]
    alone, adjusted = (
        int((p_M[1:] < SIGNIFICANT).sum()) for p_M in (comparison.p_M, comparison.adjusted_M)
    )
    found = (
        f"{scale.name} {metric_M.min():.4g} to {metric_M.max():.4g}, changed by "
        f"{scale.signed(change_M.min())} to {scale.signed(change_M.max())} {scale.unit}; of "
        f"{len(change_M)} heads {alone} change it significantly, {adjusted} after correction"
    )
    theirs = {
        f"enc.{layer}.{head}": word
        for layer, line in enumerate(TABLE_1)
        for head, word in enumerate(line.split())
    }
    measured = tables.head_table(comparison)
    ours = {f"{row['row']}.{row['head']}": row for row in measured}
    exhibits: list[Exhibit] = ["table1", "figure1"]
    return [
        beside(exhibits, manifest, test=judged(comparison), result=found),
        *_values(comparison, "table1", ours, theirs),
    ]


def one_on(comparison: Comparison) -> list[Item]:
    """Beside Tables 2 and 3: heads chosen and measured on the same split."""
    split = comparison.manifest["splits"].get("test", "?")
    return _best_heads(comparison, ("table2", "table3"), tables.best_per_row(comparison), split)


def chosen(comparison: Comparison, rows: Sequence[Mapping[str, Any]], split: str) -> list[Item]:
    """Beside Tables 5 and 6: `rows` are the best heads, chosen on another split."""
    return _best_heads(comparison, ("table5", "table6"), rows, split)


def _best_heads(
    comparison: Comparison,
    exhibits: Sequence[Exhibit],
    rows: Sequence[Mapping[str, Any]],
    split: str,
) -> list[Item]:
    manifest = comparison.manifest
    changes = [row["change"] for row in rows]
    lost = [row for row in rows if tables.star(row, comparison) and _worse(comparison, row)]
    signed, unit = comparison.scale.signed, comparison.scale.unit
    found = (
        f"with its best head a row changes by {signed(min(changes))} to {signed(max(changes))} "
        f"{unit}; {len(lost)} of {len(rows)} rows lose significantly (uncorrected)"
    )
    items: list[Item] = [
        beside(exhibits, manifest, test=judged(comparison), result=found, chosen=split)
    ]
    for exhibit in exhibits:
        theirs = {
            f"{name}.{layer}": word
            for name, line in BEST_HEADS[exhibit].items()
            for layer, word in enumerate(line.split())
        }
        items += _values(comparison, exhibit, {row["row"]: row for row in rows}, theirs)
    return items


def _values(
    comparison: Comparison,
    exhibit: Exhibit,
    ours: Mapping[str, Mapping[str, Any]],
    theirs: Mapping[str, str],
) -> list[Item]:
    """The published numbers beside ours, by row or head, where the setting is the paper's."""
    setting, scale = own_setting(comparison.manifest), comparison.scale
    if setting not in FINDINGS[exhibit] or not _same_shape(comparison.manifest, SETTINGS[setting]):
        return []
    rows = []
    for name, word in theirs.items():
        if name in ours:
            number, mark = value(word)
            cells = {column: ours[name][column] for column in ("row", "head", *CHANGES)}
            rows.append(cells | {"paper": f"{scale.signed(number)}{mark}"})
    fit = pearson(
        np.array([value(word)[0] for name, word in theirs.items() if name in ours]),
        np.array([row["change"] for row in rows]),
    )
    return [
        listing(
            comparison,
            f"published_{exhibit}",
            rows,
            f"{named(exhibit)} of the paper and the same numbers here, in {scale.unit}; * p < 0.01 "
            f"in the paper. Pearson r between both {fit.r:.2f}, 95 % interval {fit.low:.2f} to "
            f"{fit.high:.2f}.",
            folded=True,
        )
    ]


def _worse(comparison: Comparison, row: Mapping[str, Any]) -> bool:
    return bool((row["change"] < 0) == comparison.metric.larger_is_better)


def effects(manifest: Manifest, fit: Mapping[str, float], first: str, second: str) -> Listing:
    """Beside Figure 2: how well what heads do on one split foretells it on another."""
    test = "that r is 0, two-sided"
    return beside(["figure2"], manifest, test=test, result=said(fit), split=second, chosen=first)


def said(fit: Mapping[str, float]) -> str:
    """Pearson's r of `tables.correlations`, in words."""
    if math.isnan(fit["pearson"]):
        return f"no correlation of {fit['n']:.0f} heads can be computed: one side does not vary"
    return (
        f"Pearson r = {fit['pearson']:z.2f} (95 % interval {fit['pearson_low']:z.2f} to "
        f"{fit['pearson_high']:z.2f}), n = {fit['n']:.0f} heads"
    )


def curve(comparison: Comparison, exhibits: Sequence[Exhibit]) -> Listing:
    """Beside Figures 3 and 6, or 4: how far a curve stays without harm."""
    last, _ = tables.removable(comparison)
    found = (
        f"up to {last['removed']} of {len(comparison.heads)} heads ({last['share']:.0f} %) without "
        f"a loss of {comparison.margin:g} {comparison.scale.unit} (non-inferiority)"
    )
    scored = comparison.manifest["splits"].get("score", "")
    return beside(
        exhibits, comparison.manifest, test="non-inferiority", result=found, chosen=scored
    )


def epochs(manifest: Manifest, found: str) -> list[Item]:
    """Beside Figure 5."""
    scored = manifest["splits"].get("score", "")
    items: list[Item] = [
        beside(["figure5"], manifest, test="none", result=found, chosen=scored),
    ]
    if own_setting(manifest) == "iwslt":
        rows = [{"epoch": epoch, "bleu": value} for epoch, value in FIGURE_5.items()]
        caption = "Figure 5 of the paper: BLEU with all heads after each epoch."
        items.append(Listing("published_figure5", rows, caption, folded=True))
    return items


def speed(manifest: Manifest, rows: Sequence[Mapping[str, Any]], device: str) -> list[Item]:
    """Beside Table 4: `rows` are those of speed.json, `manifest` that of any store of the
    experiment."""
    forward = [row for row in rows if row["mode"] == "forward" and row["side"] == "removed"]
    gains = [
        f"batch {row['batch']}: {100 * (row['ratio']['median'] - 1):+.1f} % "
        f"({100 * (row['ratio']['low'] - 1):+.1f} to {100 * (row['ratio']['high'] - 1):+.1f})"
        for row in forward
    ]
    removed = f"{forward[0]['heads_removed']} heads removed" if forward else ""
    found = f"{removed}; examples a second, 95 % interval: {', '.join(gains)}"
    items: list[Item] = [
        beside(["table4"], manifest, test="intervals over rounds", result=found, split=device)
    ]
    theirs = [
        {
            "batch": batch,
            "original": whole,
            "half of the heads": half,
            "gain (%)": 100 * (half / whole - 1),
        }
        for batch, (whole, half) in TABLE_4.items()
    ]
    if own_setting(manifest) == "mnli":
        caption = "Table 4 of the paper: examples a second on a GTX 1080 Ti."
        items.append(Listing("published_table4", theirs, caption, folded=True))
    return items

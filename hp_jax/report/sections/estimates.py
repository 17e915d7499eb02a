"""What a grid that measured only some of the examples says of each mask."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hp_jax.descriptors import format_descriptor
from hp_jax.estimates import ALPHA, changes
from hp_jax.heads import removed
from hp_jax.metrics import LabelMetric, metric_of
from hp_jax.report.comparison import present
from hp_jax.report.html import Item, Listing, Rows, Section
from hp_jax.report.scale import SCALES
from hp_jax.report.sections.predicted import WORDS
from hp_jax.storage.store import Store


def sections(stores: Mapping[str, Store]) -> list[Section]:
    """A section for each estimate, as far as it has come."""
    return [
        (_title(store), _section(store, "-".join(Path(name).parts[1:])))
        for name, store in stores.items()
        if store.manifest["kind"] == "estimate" and store.done().any()
    ]


def _title(store: Store) -> str:
    manifest = store.manifest
    words = WORDS.get(manifest["masks"], manifest["masks"])
    return f"Estimated, not measured on every example: {words}, on {manifest['splits']['test']}"


def _section(store: Store, place: str) -> list[Item]:
    rows, scale = table(store), SCALES[store.manifest["metric"]]
    certain, total = len(store.read("certain")), len(store.read("label"))
    most = max(row["examples measured"] for row in rows)
    together, word = f"all {len(rows)} together", store.manifest.get("example", "example")
    caption = (
        f"Change of {scale.name} in {scale.unit} on all {total} {word}s, of which at most {most} "
        f"were measured: the {certain} of the highest risk by the linear map, and then a random "
        f"order of the others; predictions stand for the rest. The interval holds what all {word}s "
        f"would give with {100 * (1 - ALPHA):g} %, whenever one stops (a confidence sequence); the "
        f"last columns do so for {together} (Bonferroni). It says nothing of other {word}s than "
        "these: the grid that measures all of them has intervals and tests for that."
    )
    return [Listing(f"estimates-{place}", rows, caption, scale=scale)]


def table(store: Store) -> Rows:
    """Each mask that lacks a head, the most harmful first."""
    arrays = {name: store.read(name) for name in store.manifest["arrays"]}
    metric, manifest = metric_of(store.manifest), store.manifest
    if not isinstance(metric, LabelMetric):
        raise ValueError(
            f"{store.path}/manifest.json: metric: expected accuracy, f1 or matthews, but found "
            f"{metric.name}"
        )
    masks = len(arrays["masks"])
    known = changes(arrays, metric)
    together = changes(arrays, metric, alpha=ALPHA / (masks - 1))
    factor, total = SCALES[metric.name].factor, len(arrays["label"])

    def row(mask: int) -> dict[str, object]:
        gone = removed(arrays["masks"][mask] != 0, present(manifest), manifest["rows"])
        exact = known.examples[mask] == total
        return {
            "without": format_descriptor(gone),
            "change": factor * float(known.value[mask]),
            "low": factor * float(known.low[mask]),
            "high": factor * float(known.high[mask]),
            "known by": "measured" if exact else "estimated",
            "examples measured": int(known.examples[mask]),
            "all: from": round(factor * float(together.low[mask]), 2),
            "all: to": round(factor * float(together.high[mask]), 2),
        }

    return [row(int(mask)) for mask in 1 + np.argsort(known.value[1:], kind="stable")]

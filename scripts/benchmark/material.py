"""Text of MNLI's real lengths, and the shapes of the models that read it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
from timing import Run

from hp_jax.architecture import BertConfig
from hp_jax.config import Data
from hp_jax.data.batching import Batch, batches
from hp_jax.data.labelled import read
from hp_jax.text.huggingface import load_tokenizer
from hp_jax.text.tokenizer import Examples, encode

LABELS = ("entailment", "neutral", "contradiction")
BUCKETS = Data().buckets
SHAPES = {
    "tiny": (2, 2, 128),
    "mini": (4, 4, 256),
    "small": (4, 8, 512),
    "medium": (8, 8, 512),
    "base": (12, 12, 768),
}
"""Layers, heads and width of Google's BERT models; the feed-forward layer is four times as wide."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text(Run):
    """A classifier and the examples that it reads."""

    model: Path
    """A Hugging Face folder: its tokenizer and, with `shape` own, its weights."""
    data: Path
    """A folder with MNLI's dev_matched.tsv."""
    shape: Literal["own", "tiny", "mini", "small", "medium", "base"] = "base"
    """Random weights of this shape; own: the model's weights."""
    examples: int = 512
    """A random sample of so many. With few, many go to a longer bucket to fill a batch."""
    batch: int = 32
    """Examples a batch."""
    seed: int = 0


def read_examples(text: Text, count: int) -> Examples:
    """A random sample of `count` examples; that of a smaller count is part of it."""
    labelled = read(Data(task="mnli", path=str(text.data)), f"validation[:{count}]")
    return encode(load_tokenizer(text.model), labelled, LABELS, BUCKETS[-1])


def in_buckets(examples: Examples, size: int) -> list[Batch]:
    """Our batches: sorted by length, padded to a few lengths."""
    return batches(examples, size=size, buckets=BUCKETS)


def in_order(examples: Examples, size: int, *, length: int = 0) -> list[Batch]:
    """Batches in the order of the file, padded to `length`, or to the longest of each batch."""
    length_N = examples.length_N
    parts = [
        np.arange(start, min(start + size, len(examples)))
        for start in range(0, len(examples), size)
    ]
    return [
        examples.pad(index, len(index), length or int(length_N[index].max())) for index in parts
    ]


def lengths(examples: Examples) -> dict[str, float]:
    """Tokens of an example."""
    low, median, high = np.percentile(examples.length_N, [0, 50, 100]).tolist()
    return {"mean": float(examples.length_N.mean()), "min": low, "median": median, "max": high}


def sizes(config: BertConfig) -> dict[str, int]:
    """A model's shape."""
    return {name: getattr(config, name) for name in ("layers", "heads", "width", "ffn", "vocab")}

"""Translating lines of text, with any heads removed."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from hp_jax import heads
from hp_jax.data.parallel import Parallel
from hp_jax.experiment.setup import Setup
from hp_jax.task import Array

_LINE_ENDS = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]+")
"""What would make several lines of one, for one program or another."""
Hypothesis = tuple[str, float]
"""A translation and its score (see `models.decode.Hypotheses`)."""


def translate(setup: Setup, lines: Sequence[str], mask_AH: Array) -> list[list[Hypothesis]]:
    """The `decoding.beam` best translations of each line under a head mask, the best first.

    `setup` is that of a TranslationExperiment.  A line without any token has none; one that is
    too long is cut, with a warning.
    """
    if not setup.model.family.translates:
        raise ValueError(
            f"only a translation model translates, but this is a {setup.model.family.name}"
        )
    config: Any = setup.config
    corpus: Any = setup.corpus
    task = setup.task
    full = [n for n, line in enumerate(lines) if line.strip()]
    found: list[list[Hypothesis]] = [[] for _ in lines]
    if not full:
        return found
    source, place_N = tuple(lines[n] for n in full), np.arange(len(full))
    text = Parallel(
        name="text",
        source=source,
        target=("",) * len(full),
        files={"input": "input"},
        line_N=place_N + 1,
        origin_N=place_N,
    )
    pairs = corpus.encode(text)
    said = np.array([len(tokens) > 1 for tokens in pairs.source])  # more than the end of a sentence
    run = jax.jit(functools.partial(task.translate, decoding=config.decoding))
    gates = heads.gates(heads.check_mask(mask_AH, task.present_AH), task.present_AH)
    for batch in setup.batches_of(pairs):
        token_BWT, score_BW = jax.device_get(run(setup.params, batch, gates))
        for row in np.flatnonzero((batch["weight_B"] > 0) & said[batch["index_B"]]):
            texts = [
                _LINE_ENDS.sub(" ", corpus.codec.decode(token_T)) for token_T in token_BWT[row]
            ]
            found[full[batch["index_B"][row]]] = list(
                zip(texts, score_BW[row].tolist(), strict=True)
            )
    return found


def as_lines(found: Sequence[Sequence[Hypothesis]], nbest: int) -> list[str]:
    """One line a translation; with `nbest` more than 0 that many a sentence, as `number |||
    translation ||| score`."""
    if nbest < 1:
        return [hypotheses[0][0] if hypotheses else "" for hypotheses in found]
    return [
        f"{number} ||| {text} ||| {score:.4f}"
        for number, some in enumerate(found)
        for text, score in some[:nbest]
    ]

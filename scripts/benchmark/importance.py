"""Exact head importance, against a forward pass and against run_bertology's way."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from material import Text, in_buckets, in_order, lengths, read_examples, sizes
from peers import Inputs, Pair, inputs, load_pair, prepare, torch_device
from timing import Ratio, Side, check, compare

from hp_jax import heads
from hp_jax.data.batching import Batch
from hp_jax.importance import MeanGradient, head_importance
from hp_jax.task import Array, Params, Task
from hp_jax.text.tokenizer import Examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance(Text):
    """Exact head importance of every token, against a forward pass and against run_bertology's
    way."""


@functools.partial(jax.jit, static_argnames="task")
def summed_loss(task: Task, params: Params, batch: Batch, mask_AH: Array) -> jax.Array:
    """The forward pass of `head_importance`."""
    return jnp.sum(
        task.loss(params, batch, heads.gates(mask_AH, task.present_AH)) * batch["weight_B"]
    )


def forward(pair: Pair, batches: Sequence[Batch], mask_AH: Array) -> list[jax.Array]:
    """Our forward pass over the data."""
    return [summed_loss(pair.task, pair.params, batch, mask_AH) for batch in batches]


def run_bertology(model: Any, batches: Sequence[Inputs], *, frozen: bool) -> np.ndarray:
    """Importance `[A, H]` as transformers' run_bertology computes it: |dL/dmask| of each batch's
    mean loss, averaged.

    Its defect of never clearing the mask's gradient is left out. It does not clear those of the
    weights either, which has no effect on the scores; `frozen`: the weights get none, which is
    faster.
    """
    model.requires_grad_(not frozen)
    mask_AH = torch.ones(
        model.config.num_hidden_layers, model.config.num_attention_heads, device=torch_device()
    )
    total_AH = torch.zeros_like(mask_AH)
    mask_AH.requires_grad_(True)
    for batch in batches:
        model(**batch, head_mask=mask_AH).loss.backward()
        total_AH += mask_AH.grad.abs()
        mask_AH.grad = None
    return total_AH.cpu().numpy() / len(batches)


def agreement(pair: Pair, examples: Examples, size: int, present_AH: Array) -> dict[str, Any]:
    """run_bertology's scores of the first batch against ours with the same reduction, one example
    or one batch at a time.

    Scores of every token, which it does not have, are compared in tests/test_reference_bert.py.
    """
    first = examples.pad(
        np.arange(min(size, len(examples))),
        min(size, len(examples)),
        int(examples.length_N[:size].max()),
    )
    found = {}
    for reduction, rows in (("example", 1), ("batch", size)):
        batches = [
            inputs({name: array[i : i + rows] for name, array in first.items()})
            for i in range(0, len(first["label_B"]), rows)
        ]
        expected_AH = run_bertology(pair.theirs, batches, frozen=True)
        score_AH = head_importance(
            pair.task, pair.params, [first], present_AH, estimator=MeanGradient(reduction)
        )
        floor = 1e-4 * float(expected_AH.max())
        found[f"importance, per {reduction}"] = check(
            f"importance per {reduction}", score_AH, expected_AH, relative=1e-3, absolute=floor
        )
    return found


def main(setting: Importance) -> None:
    prepare()
    pair, examples = load_pair(setting), read_examples(setting, setting.examples)
    present_AH = pair.task.present_AH
    agree = agreement(pair, examples, setting.batch, present_AH)
    ours = in_buckets(examples, setting.batch)
    sides = {
        "our importance": Side(lambda: head_importance(pair.task, pair.params, ours, present_AH)),
        "our forward": Side(lambda: forward(pair, ours, present_AH)),
    }
    for size in (1, setting.batch):
        theirs = [inputs(batch) for batch in in_order(examples, size)]
        for frozen in (False, True):
            name = f"run_bertology, batch {size}" + ", weights frozen" * frozen
            sides[name] = Side(functools.partial(run_bertology, pair.theirs, theirs, frozen=frozen))
    goals = {"run_bertology, batch 1": ">= 3"}
    ratios = [Ratio("our importance", "our forward", "<= 2.2")]
    ratios += [Ratio(name, "our importance", goals.get(name, "")) for name in list(sides)[2:]]
    unit = f"the importance of all heads on {len(examples)} examples"
    about = {"model": sizes(pair.task.config), "lengths": lengths(examples), "agreement": agree}
    compare(setting, unit, sides, ratios, about)

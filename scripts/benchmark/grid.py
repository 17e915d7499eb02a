"""All single-head ablations, against the authors' way and against a plain loop of our own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from material import BUCKETS, Text, in_buckets, in_order, lengths, read_examples, sizes
from peers import Inputs, Pair, inputs, load_pair, prepare, torch_device
from timing import Ratio, check, compare, sample, spread_over

from hp_jax import heads
from hp_jax.data.batching import Batch
from hp_jax.grid.whole import evaluate_grid
from hp_jax.models.classification import Classification
from hp_jax.task import Array, Params
from hp_jax.text.tokenizer import Examples

Values = dict[str, np.ndarray]
"""`loss` and `prediction`: of a batch `[B]`, or of all examples under each mask `[M, N]`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid(Text):
    """All single-head ablations, against the authors' way and against a plain loop of our own."""

    chunk: int = 24
    """Masks that we evaluate at once."""
    ours: int = 1000
    """About how many masks our grid does: whole chunks, spread over all."""
    sample: int = 4
    """Masks that the other sides do, spread over all."""


@torch.inference_mode()
def transformers_values(
    model: Any, batch: Inputs, mask_AH: np.ndarray, *, narrow: bool = False
) -> Values:
    """One batch with `head_mask`; narrow: by PyTorch's autocast to bfloat16."""
    words = {name: array for name, array in batch.items() if name != "labels"}
    mask = torch.tensor(mask_AH, dtype=torch.float32, device=torch_device())
    with torch.autocast(torch_device().type, torch.bfloat16, enabled=narrow):
        logits_BC = model(**words, head_mask=mask).logits.float()
    loss_B = torch.nn.functional.cross_entropy(logits_BC, batch["labels"], reduction="none")
    return {"loss": loss_B.cpu().numpy(), "prediction": logits_BC.argmax(-1).cpu().numpy()}


@functools.partial(jax.jit, static_argnames="task")
def our_values(
    task: Classification, params: Params, batch: Batch, mask_AH: Array
) -> dict[str, jax.Array]:
    """One batch under one mask."""
    logits_BC = task.logits(params, batch, heads.gates(mask_AH, task.present_AH))
    loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["label_B"])
    return {"loss": loss_B, "prediction": jnp.argmax(logits_BC, -1)}


def one_by_one(
    values: Callable[[Any, Array], Any],
    batches: Sequence[Batch],
    placed: Sequence[Any],
    masks_MAH: np.ndarray,
) -> Values:
    """One pass over the data for each mask, in the order of `index_B`."""
    real = [np.flatnonzero(batch["weight_B"]) for batch in batches]
    order_N = np.argsort(
        np.concatenate([batch["index_B"][rows] for batch, rows in zip(batches, real, strict=True)])
    )
    passes = jax.device_get([[values(batch, mask_AH) for batch in placed] for mask_AH in masks_MAH])

    def of_pass(parts: list[Values], name: str) -> np.ndarray:
        return np.concatenate(
            [part[name][: len(rows)] for part, rows in zip(parts, real, strict=True)]
        )[order_N]

    return {
        name: np.stack([of_pass(parts, name) for parts in passes])
        for name in ("loss", "prediction")
    }


def agreement(found: Values, expected: Values) -> dict[str, Any]:
    """Losses and predictions of all sides; SystemExit too if the masks change nothing that could be
    compared."""
    change = float(np.abs(expected["loss"] - expected["loss"][:1]).max())
    if change < 1e-2:
        raise SystemExit(
            f"the masks change the loss by at most {change:.3g}: too little to compare the two "
            "sides"
        )
    same = float((found["prediction"] == expected["prediction"]).mean())
    if same < 0.99:
        raise SystemExit(f"only {same:.1%} of the predictions are the same, and nothing was timed")
    loss = check("loss under masks", found["loss"], expected["loss"], absolute=1e-4)
    return {"loss": loss | {"largest change by a mask": change}, "equal predictions": same}


def difference(found: Values, expected: Values) -> dict[str, float]:
    """Of losses in nats, and the share of predictions that are the same."""
    apart = np.abs(found["loss"] - expected["loss"])
    same = float((found["prediction"] == expected["prediction"]).mean())
    return {
        "mean difference of losses": float(apart.mean()),
        "largest": float(apart.max()),
        "equal predictions": same,
    }


def ways(
    setting: Grid, pair: Pair, examples: Examples
) -> dict[str, Callable[[np.ndarray], Values]]:
    """The sides, each from masks `[M, A, H]` to values; ours is the first."""
    ours, padded = (
        in_buckets(examples, setting.batch),
        in_order(examples, setting.batch, length=BUCKETS[-1]),
    )
    here = functools.partial(our_values, pair.task, pair.params)
    theirs = functools.partial(transformers_values, pair.theirs)
    config = dataclasses.replace(pair.task.config, dtype="bfloat16")
    narrow_task = dataclasses.replace(pair.task, config=config)
    narrow_theirs = functools.partial(theirs, narrow=True)
    words = [inputs(batch) for batch in padded]
    return {
        "our grid": lambda masks_MAH: evaluate_grid(
            pair.task, pair.params, ours, masks_MAH, chunk=setting.chunk
        ),
        "our plain loop": functools.partial(one_by_one, here, ours, jax.device_put(ours)),
        "authors' way": functools.partial(one_by_one, theirs, padded, words),
        "transformers, our batches": functools.partial(
            one_by_one, theirs, ours, [inputs(batch) for batch in ours]
        ),
        "our grid, bfloat16": lambda masks_MAH: evaluate_grid(
            narrow_task, pair.params, ours, masks_MAH, chunk=setting.chunk
        ),
        "authors' way, bfloat16": functools.partial(one_by_one, narrow_theirs, padded, words),
    }


NARROW = "our grid, bfloat16", "authors' way, bfloat16"


def main(setting: Grid) -> None:
    prepare()
    pair, examples = load_pair(setting), read_examples(setting, setting.examples)
    present_AH = pair.task.present_AH
    masks_MAH = np.concatenate([present_AH[None], heads.one_off(present_AH)])
    few_MAH = spread_over(masks_MAH, setting.sample)
    ours, *others = (all_ways := ways(setting, pair, examples))
    found = all_ways[ours](few_MAH)
    agree: dict[str, Any] = {
        name: agreement(found, all_ways[name](few_MAH)) for name in others if name not in NARROW
    }
    agree |= {name: difference(all_ways[name](few_MAH), found) for name in NARROW}
    sides = {
        name: sample(all_ways[name], masks_MAH, setting.ours, setting.chunk)
        for name in (ours, NARROW[0])
    }
    others.remove(NARROW[0])
    sides |= {name: sample(all_ways[name], masks_MAH, setting.sample) for name in others}
    ratios = [
        Ratio("authors' way", ours, ">= 12"),
        Ratio(ours, "our plain loop", "<= 0.5"),
        Ratio("transformers, our batches", ours),
        Ratio(ours, NARROW[0]),
        Ratio("authors' way", NARROW[0]),
        Ratio(NARROW[1], NARROW[0]),
    ]
    unit = (
        f"{len(masks_MAH)} masks (the whole model, and each head off) on {len(examples)} examples"
    )
    about = {
        "model": sizes(pair.task.config),
        "lengths": lengths(examples),
        "masks": len(masks_MAH),
        "agreement": agree,
    }
    compare(setting, unit, sides, ratios, about)

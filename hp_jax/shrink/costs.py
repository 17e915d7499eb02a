"""What a model costs by the compiler's account, and what of it each attention head does, by
arithmetic."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import BertConfig, Seq2SeqConfig, present_mask
from hp_jax.grid.chunks import needed_bytes
from hp_jax.heads import gates
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.shrink.budget import Measure
from hp_jax.task import Batch, Params

AnyTask = Classification | Translation


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What one forward pass over one batch takes."""

    parameters: int
    bytes: int
    """Of the parameters, as they are held."""
    flops: float
    """Over the whole batch, as XLA counts them before it optimizes anything: a multiplication and
    an addition are two.  A loop's body counts once."""
    temp_bytes: int
    """What the compiled program needs besides arguments, results and code: the activations that
    live at the same time."""
    program_bytes: int
    """All of it: arguments (parameters and batch), results, temporaries and code."""


class Program(NamedTuple):
    """A compiled program and what it takes."""

    run: Callable[..., Any]
    """(params, batch) -> what the function gives for them."""
    sizes: Sizes


def sizes(task: AnyTask, params: Params, batch: Batch) -> Sizes:
    """What `forward` takes on this machine's first device; of `params` and `batch` only shapes
    count."""
    return compiled(functools.partial(forward, task), params, batch).sizes


def compiled(function: Callable[..., Any], params: Params, batch: Batch) -> Program:
    """`function(params, batch)` for arrays of these shapes."""
    lowered = jax.jit(function).lower(*shapes_of((params, dict(batch))))
    program = lowered.compile()
    memory = program.memory_analysis()
    assert memory is not None
    found = Sizes(
        parameters=parameters(params),
        bytes=sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(params)),
        flops=_flops(lowered),
        temp_bytes=int(memory.temp_size_in_bytes),
        program_bytes=needed_bytes(program),
    )
    return Program(program, found)


def forward(task: AnyTask, params: Params, batch: Batch) -> jax.Array:
    """One pass: a classifier's logits `[B, C]`, a translation model's teacher-forced loss `[B]`.

    All heads that the model has are on; the gates are constant ones, which the compiler removes.
    """
    ones = gates(task.present_AH, task.present_AH)
    return (
        task.logits(params, batch, ones)
        if isinstance(task, Classification)
        else task.loss(params, batch, ones)
    )


def forward_flops(task: AnyTask, params: Params, batch: Batch) -> float:
    """The FLOPs of `sizes`, without compiling."""
    return _flops(
        jax.jit(functools.partial(forward, task)).lower(*shapes_of((params, dict(batch))))
    )


def _flops(lowered: jax.stages.Lowered) -> float:
    return float(lowered.cost_analysis()["flops"])  # type: ignore[index]


def parameters(params: Params) -> int:
    """How many numbers."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def shapes_of(tree: Params) -> Params:
    """Arrays as shapes and types alone."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def batch_shapes(
    task: AnyTask, examples: int, length: int, target: int | None = None
) -> dict[str, Any]:
    """A batch of `examples` of `length` tokens; `target`: those of a pair's other side, by default
    as many."""
    if isinstance(task, Translation):
        text, numbers = (
            {"source_BS": length, "target_BT": target or length},
            ("source_length_B", "target_length_B", "index_B"),
        )
    else:
        text, numbers = (
            {"tokens_BT": length, "types_BT": length},
            ("length_B", "label_B", "index_B"),
        )
    batch = {
        name: jax.ShapeDtypeStruct((examples, width), jnp.int32) for name, width in text.items()
    }
    batch |= {name: jax.ShapeDtypeStruct((examples,), jnp.int32) for name in numbers}
    return batch | {"weight_B": jax.ShapeDtypeStruct((examples,), jnp.float32)}


def head_parameters(config: BertConfig | Seq2SeqConfig) -> np.ndarray:
    """How many parameters leave with each head `[A, H]`: 4 D K of its kernels, 3 K of its biases; 0
    for heads not there."""
    head_width_A = config.width // np.array(list(config.rows.values()))
    return (4 * config.width * head_width_A + 3 * head_width_A)[:, None] * present_mask(config)


def head_flops(
    config: BertConfig | Seq2SeqConfig, length: int, target: int | None = None
) -> np.ndarray:
    """FLOPs of each head's matrix products for one example of `length` tokens (a pair: and `target`
    tokens) `[A, H]`.

    That is query, key, value and output projections, scores and weighted sum, under teacher
    forcing; what is not a matrix product (softmax, biases) is left out, less than 1 % of a head at
    BERT-base's shape.  0 for heads that are not there.  (Not
    counted either: without any cross-attention head a model needs no encoder.)
    """
    target = target or length
    flops_A = []
    for place, (row, count) in enumerate(config.rows.items()):
        kind, head_width = row.partition(".")[0], config.width // count
        queries = length if kind == "enc" else target
        keys = target if kind == "dec" else length
        if isinstance(config, BertConfig) and place == config.layers - 1:
            queries = 1  # [CLS] alone
        flops_A.append(4 * head_width * (config.width * (queries + keys) + queries * keys))
    return np.array(flops_A)[:, None] * present_mask(config)


def measures(
    task: AnyTask, params: Params, length: int, target: int | None = None
) -> dict[str, Measure]:
    """What a budget can be of, for examples of `length` tokens (a pair: and `target`): heads,
    parameters, FLOPs of an example.

    Only shapes of `params` count; nothing is compiled.
    """
    present_AH = task.present_AH
    of_head_AH = {
        "heads": present_AH.astype(int),
        "parameters": head_parameters(task.config),
        "flops": head_flops(task.config, length, target),
    }
    whole = {
        "heads": int(present_AH.sum()),
        "parameters": parameters(params),
        "flops": forward_flops(task, params, batch_shapes(task, 1, length, target)),
    }
    return {name: Measure(whole[name], present_AH, cost_AH) for name, cost_AH in of_head_AH.items()}

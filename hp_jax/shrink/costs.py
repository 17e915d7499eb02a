"""What a model costs by the compiler's account, and what of it each attention head does, by
arithmetic."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import ModelConfig, present_mask
from hp_jax.grid.chunks import needed_bytes
from hp_jax.heads import gates
from hp_jax.shrink.budget import Measure
from hp_jax.task import Batch, Params


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


def sizes(task: Any, params: Params, batch: Batch) -> Sizes:
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


def forward(task: Any, params: Params, batch: Batch) -> jax.Array:
    """The task's `forward` with all heads that the model has; the gates are constant ones, which
    the compiler removes."""
    return task.forward(params, batch, gates(task.present_AH, task.present_AH))


def forward_flops(task: Any, params: Params, batch: Mapping[str, Any]) -> float:
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


class HeadCosts(NamedTuple):
    """What goes with each head `[A, H]`."""

    own_AH: np.ndarray
    """With the head itself: its query and output projections, and its attention; 0 for heads that
    are not there."""
    shared_AH: np.ndarray
    """With the last head of its group, the same for all of them: keys and values."""


def head_parameters(config: ModelConfig) -> HeadCosts:
    """Parameters: of each projection's kernel D K, of its bias K."""
    rows = []
    for module in config.modules.values():
        of = {
            name: module.width * module.head_width + module.head_width * (name in module.biases)
            for name in ("query", "key", "value")
        }
        own = of["query"] + module.width * module.head_width
        rows.append((own, of["key"] + of["value"]))
    return _spread(config, rows)


def head_flops(config: ModelConfig, length: int, target: int | None = None) -> HeadCosts:
    """FLOPs of the matrix products for one example of `length` tokens (a pair: and `target`).

    That is query, key, value and output projections, scores and weighted sum, under teacher
    forcing; what is not a matrix product (softmax, biases) is left out, less than 1 % of a head at
    BERT-base's shape.  (Not counted either: without any cross-attention head a model needs no
    encoder.)
    """
    rows = []
    for row, module in config.modules.items():
        queries, keys = config.tokens(row, length, target or length)
        own = 4 * module.head_width * queries * (module.width + keys)
        rows.append((own, 4 * module.head_width * keys * module.width))
    return _spread(config, rows)


def head_cache(config: ModelConfig, length: int, target: int | None = None) -> HeadCosts:
    """Bytes of the keys and values that generating one text of `length` tokens keeps (of a pair's
    source, and `target` of its translation), in the type that the model computes with."""
    number = jnp.dtype(config.dtype).itemsize
    rows = [
        (0, 2 * module.head_width * number * config.cached(row, length, target or length))
        for row, module in config.modules.items()
    ]
    return _spread(config, rows)


def _spread(config: ModelConfig, rows: Sequence[tuple[int, int]]) -> HeadCosts:
    present_AH = present_mask(config)
    own_A, shared_A = np.array(rows).T
    return HeadCosts(own_A[:, None] * present_AH, shared_A[:, None] + 0 * present_AH)


def group_numbers(config: ModelConfig) -> np.ndarray:
    """A number for each group of heads that share keys and values `[A, H]`."""
    width = max(config.rows.values())
    heads_H = np.arange(width)
    rows = [heads_H // module.group for module in config.modules.values()]
    return np.array(rows) + width * np.arange(len(rows))[:, None]


def measures(
    task: Any, params: Params, length: int, target: int | None = None
) -> dict[str, Measure]:
    """What a budget can be of, for examples of `length` tokens (a pair: and `target`): heads,
    parameters, FLOPs of an example, and bytes of its cache where text is generated.

    Only shapes of `params` count; nothing is compiled.
    """
    present_AH, config = task.present_AH, task.config
    ones_AH = present_AH.astype(int)
    of_heads = {
        "heads": HeadCosts(ones_AH, np.zeros_like(ones_AH)),
        "parameters": head_parameters(config),
        "flops": head_flops(config, length, target),
    }
    whole = {
        "heads": int(present_AH.sum()),
        "parameters": parameters(params),
        "flops": forward_flops(task, params, task.batch_shapes(1, length, target)),
    }
    group_AH = group_numbers(config)
    cache = head_cache(config, length, target)
    _, first = np.unique(group_AH[present_AH], return_index=True)
    if bytes_of := int(cache.shared_AH[present_AH][first].sum()):
        of_heads["cache"], whole["cache"] = cache, bytes_of
    return {
        name: Measure(whole[name], present_AH, *of_head, group_AH)
        for name, of_head in of_heads.items()
    }

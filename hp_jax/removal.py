"""Heads removed for good: smaller parameters, and a config that says which heads are left; and the
way back, with zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import BertConfig, Seq2SeqConfig, attention_path, present_mask
from hp_jax.heads import Array, check_mask
from hp_jax.task import Params

Config = TypeVar("Config", bound=BertConfig | Seq2SeqConfig)


def remove_heads(config: Config, params: Params, mask_AH: Array) -> tuple[Config, Params]:
    """The model without the heads that `mask_AH` has off: the same function as the masked model,
    with fewer parameters.

    Columns of query, key and value, and rows of the output projection go; its bias stays.  A row
    with no head is that bias.
    Heads keep their numbers: masks of the new model have the shape that they had, and can be given
    to `remove_heads` again. ValueError for a mask that does not fit the model.
    """
    on_AH = np.asarray(check_mask(mask_AH, present_mask(config)))
    return _with_heads(config, params, [tuple(np.flatnonzero(on_H).tolist()) for on_H in on_AH])


def pad_heads(config: Config, params: Params) -> tuple[Config, Params]:
    """The model with zeros for the heads that were removed: the same function in the original
    shape, for other libraries."""
    return _with_heads(config, params, [tuple(range(count)) for count in config.rows.values()])


def _with_heads(
    config: Config, params: Params, kept: Sequence[tuple[int, ...]]
) -> tuple[Config, Params]:
    counts, full = config.rows, True
    for (row, before), after in zip(config.kept_heads.items(), kept, strict=True):
        full &= len(after) == counts[row]
        if before != after:
            path, shape = attention_path(config, row), (counts[row], config.width // counts[row])
            params = replace(params, path, _module, before, after, shape)
    return dataclasses.replace(config, kept=() if full else tuple(kept)), params


def replace(tree: Params, path: Sequence[str], change: Callable[..., Any], *how: Any) -> Params:
    """A copy of nested dicts in which what is at `path` is what `change` makes of it (and of
    `how`)."""
    return (
        {**tree, path[0]: replace(tree[path[0]], path[1:], change, *how)}
        if path
        else change(tree, *how)
    )


def _module(
    module: Params, before: tuple[int, ...], after: tuple[int, ...], shape: tuple[int, int]
) -> Params:
    """Attention parameters of the heads `after` from those of `before`, 0 for new ones; `shape` is
    (H, K) of all heads."""
    bias_D = module["out"]["bias"]
    if not after:
        return {"out": {"bias": bias_D}}

    def of(name: str, leaf: str, axis: int, shape: tuple[int, ...]) -> jax.Array:
        whole = jnp.zeros(shape, bias_D.dtype)
        if before:
            whole = whole.at[(slice(None),) * axis + (np.array(before),)].set(module[name][leaf])
        return jnp.take(whole, np.array(after), axis=axis)

    inputs = {
        name: {
            "kernel": of(name, "kernel", 1, (len(bias_D), *shape)),
            "bias": of(name, "bias", 0, shape),
        }
        for name in ("query", "key", "value")
    }
    return inputs | {
        "out": {"kernel": of("out", "kernel", 0, (*shape, len(bias_D))), "bias": bias_D}
    }

"""Heads removed for good: smaller parameters, and a config that says which heads are left; and the
way back, with zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import AttentionModule, Heads, present_mask
from hp_jax.heads import Array, check_mask
from hp_jax.task import Params

Config = TypeVar("Config", bound=Heads)

HEAD_AXES = {
    "query": {"kernel": 1, "bias": 0},
    "key": {"kernel": 1, "bias": 0},
    "value": {"kernel": 1, "bias": 0},
    "out": {"kernel": 0},
}
"""Where the heads are in an attention module's parameters: kernels are `[D, H, K]`, of the output
projection `[H, K, D]`, biases `[H, K]`; its bias `[D]` belongs to no head."""


def remove_heads(config: Config, params: Params, mask_AH: Array) -> tuple[Config, Params]:
    """The model without the heads that `mask_AH` has off: the same function as the masked model,
    with fewer parameters.

    Columns of the query projection and rows of the output projection go with each head; those of
    keys and values with the last head of the group that they serve.  The output's bias stays, and
    a row with no head is that bias.  Heads keep their numbers: masks of the new model have the
    shape that they had, and can be given to `remove_heads` again.  ValueError for a mask that does
    not fit the model.
    """
    on_AH = check_mask(mask_AH, present_mask(config))
    return _with_heads(config, params, [tuple(np.flatnonzero(on_H).tolist()) for on_H in on_AH])


def pad_heads(config: Config, params: Params) -> tuple[Config, Params]:
    """The model with zeros for the heads that were removed: the same function in the original
    shape, for other libraries."""
    return _with_heads(config, params, [tuple(range(count)) for count in config.rows.values()])


def _with_heads(
    config: Config, params: Params, kept: Sequence[tuple[int, ...]]
) -> tuple[Config, Params]:
    modules, full = config.modules.values(), True
    for module, before, after in zip(modules, config.kept_heads.values(), kept, strict=True):
        full &= len(after) == module.heads
        if before != after:
            params = replace(params, module.path, _changed, module, before, after)
    return dataclasses.replace(config, kept=() if full else tuple(kept)), params


def replace(tree: Params, path: Sequence[str], change: Callable[..., Any], *how: Any) -> Params:
    """A copy of nested dicts in which what is at `path` is what `change` makes of it (and of
    `how`)."""
    if not path:
        return change(tree, *how)
    return {**tree, path[0]: replace(tree[path[0]], path[1:], change, *how)}


def groups_of(module: AttentionModule, heads: Sequence[int]) -> tuple[int, ...]:
    """The key/value heads that serve some query heads, in order."""
    return tuple(sorted({head // module.group for head in heads}))


def leaf_shape(module: AttentionModule, name: str, leaf: str) -> tuple[int, ...]:
    """The shape of a parameter of a whole attention module."""
    heads = (module.key_heads if name in ("key", "value") else module.heads), module.head_width
    if leaf == "bias":
        return heads
    return (*heads, module.width) if name == "out" else (module.width, *heads)


def _changed(
    tree: Params, module: AttentionModule, before: tuple[int, ...], after: tuple[int, ...]
) -> Params:
    """Attention parameters of the heads `after` from those of `before`, 0 for new ones."""
    kept = {"out": {"bias": tree["out"]["bias"]}} if "out" in module.biases else {}
    if not after:
        return kept
    dtype = jax.tree.leaves(tree)[0].dtype if jax.tree.leaves(tree) else jnp.float32
    changed: dict[str, dict[str, jax.Array]] = {}
    for name, axes in HEAD_AXES.items():
        old, new = before, after
        if name in ("key", "value"):
            old, new = groups_of(module, before), groups_of(module, after)
        changed[name] = {}
        for leaf, axis in axes.items():
            if leaf == "kernel" or name in module.biases:
                whole = jnp.zeros(leaf_shape(module, name, leaf), dtype)
                if old:
                    at = (slice(None),) * axis + (np.array(old),)
                    whole = whole.at[at].set(tree[name][leaf])
                changed[name][leaf] = jnp.take(whole, np.array(new), axis=axis)
    return changed | {"out": changed["out"] | kept.get("out", {})}

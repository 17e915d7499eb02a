"""What is asked of a decoder's logits under teacher forcing, of real tokens alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

BLOCK = 256
"""Tokens that the output layer sees at once."""


def of_tokens(
    state_BTD: jax.Array,
    real_BT: jax.Array,
    readout: Callable[[jax.Array], jax.Array],
    each: Callable[[jax.Array, jax.Array], Any],
) -> Any:
    """`each` (logits `[K, V]`, places `[K]` in the flat `[B * T]`) of the real tokens, put in their
    places: `[B, T]`, 0 elsewhere.  No gradient goes through it.

    `readout` makes logits of states `[1, K, D]`.  The output layer is most of a model with a large
    vocabulary, and much of a batch can be padding; so it sees real tokens alone, K at a time.
    """
    state_ND, total = state_BTD.reshape(-1, state_BTD.shape[-1]), real_BT.size
    size = min(BLOCK, total)
    order_N = jnp.argsort(~real_BT.reshape(-1), stable=True)
    order_N = jnp.pad(order_N, (0, -total % size), constant_values=total)  # out of bounds

    def values(at_K: jax.Array) -> Any:
        inside_K = jnp.minimum(at_K, total - 1)
        return each(readout(state_ND[inside_K][None])[0], inside_K)

    def block(i: jax.Array, found: Any) -> Any:
        at_K = jax.lax.dynamic_slice_in_dim(order_N, i * size, size)
        return jax.tree.map(
            lambda all_N, new_K: all_N.at[at_K].set(new_K, mode="drop"), found, values(at_K)
        )

    shapes = jax.eval_shape(values, jax.ShapeDtypeStruct((size,), order_N.dtype))
    nothing = jax.tree.map(lambda new: jnp.zeros(total, new.dtype), shapes)
    found = jax.lax.fori_loop(0, -(-jnp.sum(real_BT) // size), block, nothing)
    return jax.tree.map(lambda of_N: jnp.where(real_BT, of_N.reshape(real_BT.shape), 0), found)

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
    """`each` (logits `[K, V]`, places `[K]` in the flat `[B * T]`) of the real tokens `[K, ...]`,
    put in their places: `[B, T, ...]`, 0 elsewhere.  No gradient goes through it.

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
    nothing = jax.tree.map(lambda new: jnp.zeros((total, *new.shape[1:]), new.dtype), shapes)
    found = jax.lax.fori_loop(0, -(-jnp.sum(real_BT) // size), block, nothing)

    def in_places(of_N: jax.Array) -> jax.Array:
        real_BT_ = real_BT.reshape(*real_BT.shape, *(1,) * (of_N.ndim - 1))
        return jnp.where(real_BT_, of_N.reshape(*real_BT.shape, *of_N.shape[1:]), 0)

    return jax.tree.map(in_places, found)


def drawn_tokens(
    state_BTD: jax.Array,
    real_BT: jax.Array,
    readout: Callable[[jax.Array], jax.Array],
    keys_BR: jax.Array,
) -> jax.Array:
    """Tokens that a model draws from what it predicts at each real position, one with each key of
    an example: `[B, T, R]`.  No gradient goes through it.

    A key and a position decide what is drawn, whatever else is in the batch.
    """
    data_BR, width = jax.random.key_data(keys_BR), state_BTD.shape[1]

    def draw(data: jax.Array, position: jax.Array, logits_V: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.wrap_key_data(data), position)
        return jax.random.categorical(key, logits_V)

    def each(logits_KV: jax.Array, at_K: jax.Array) -> Any:
        data_RK = jnp.swapaxes(data_BR[at_K // width], 0, 1)
        token_RK = jax.lax.map(
            lambda data_K: jax.vmap(draw)(data_K, at_K % width, logits_KV), data_RK
        )
        return token_RK.T

    found: jax.Array = of_tokens(jax.lax.stop_gradient(state_BTD), real_BT, readout, each)
    return found

"""Texts that a decoder-only language model goes on with, with any heads off."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax import heads
from hp_jax.architecture import DecoderConfig
from hp_jax.models.decoder import Decoder
from hp_jax.models.language import LanguageModel
from hp_jax.task import Array, Gates, Params

WIDTH = 64
"""Prompts are padded to a multiple of this, so that few programs are compiled."""
SEEDS = 2**63
"""Seeds are smaller than this."""


def generate(
    task: LanguageModel,
    params: Params,
    prompts: Sequence[np.ndarray],
    mask_AH: Array,
    *,
    tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """The next token of each text `[B]`, as often as `tokens` says, or until all have ended; of one
    that has, -1.

    prompts: the token ids of each text so far, at least one.
    temperature: 0: the likeliest token; else logits are divided by it, and one is drawn.
    top_p: of the likeliest tokens that together have this probability (Holtzman et al. 2020).

    ValueError, at once, for a prompt without tokens or with one that the model does not have, for
    one that leaves no room for `tokens`, and for a mask that does not fit.
    """
    config, size = task.config, max(map(len, prompts), default=0)
    if not prompts or not min(map(len, prompts)):
        raise ValueError("a prompt of at least one token was expected, but there is none")
    if size + tokens > config.room:
        raise ValueError(
            f"a prompt of {size} tokens and {tokens} more do not fit the model's {config.room} "
            "positions"
        )
    if unknown := [int(id) for ids in prompts for id in ids if not 0 <= id < config.vocab]:
        raise ValueError(
            f"a prompt has the token {unknown[0]}, but the model has {config.vocab} tokens from 0"
        )
    if not 0 <= temperature < math.inf or not 0 < top_p <= 1:
        raise ValueError(
            f"expected a temperature of at least 0 and 0 < top_p <= 1, but got {temperature} and "
            f"{top_p}"
        )
    if not 0 <= seed < SEEDS:
        raise ValueError(f"the seed is {seed}, but a number from 0 to 2**63 - 1 was expected")
    gates = heads.gates(heads.check_mask(mask_AH, task.present_AH), task.present_AH)
    return _tokens(config, params, prompts, gates, tokens, temperature, top_p, seed)


def _tokens(
    config: DecoderConfig,
    params: Params,
    prompts: Sequence[np.ndarray],
    gates: Gates,
    tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
) -> Iterator[np.ndarray]:
    size = max(map(len, prompts))
    room = min(-(-(size + tokens) // WIDTH) * WIDTH, config.room)
    width = min(-(-size // WIDTH) * WIDTH, room)
    tokens_BT = np.zeros((len(prompts), width), np.int32)
    for row_T, ids in zip(tokens_BT, prompts, strict=True):
        row_T[: len(ids)] = ids
    length_B = jnp.array([len(ids) for ids in prompts], jnp.int32)
    logits_BV, past = _read(config, params, tokens_BT, length_B, gates, room)
    key, ended_B = jax.random.key(seed), np.zeros(len(prompts), bool)
    for number in range(tokens):
        drawn_B = _chosen(logits_BV, jax.random.fold_in(key, number), temperature, top_p)
        token_B = np.where(ended_B, -1, drawn_B)
        yield token_B
        ended_B = ended_B | np.isin(token_B, config.eos)
        if ended_B.all() or number + 1 == tokens:
            return
        logits_BV, past = _next(config, params, drawn_B, length_B + number, past, gates)


@functools.partial(jax.jit, static_argnums=(0, 5))
def _read(
    config: DecoderConfig,
    params: Params,
    tokens_BT: Array,
    length_B: Array,
    gates: Gates,
    room: int,
) -> Any:
    """Logits `[B, V]` after the prompts, and the past."""
    state_BTD, past = _apply(config, params, "read", tokens_BT, gates, room)
    last_B1D = jnp.take_along_axis(state_BTD, (length_B - 1)[:, None, None], 1)
    return _apply(config, params, "readout", last_B1D)[:, 0], past


@functools.partial(jax.jit, static_argnums=0, donate_argnums=4)
def _next(
    config: DecoderConfig,
    params: Params,
    token_B: Array,
    position_B: Array,
    past: Any,
    gates: Gates,
) -> Any:
    return _apply(config, params, "next", token_B, position_B, past, gates)


def _apply(config: DecoderConfig, params: Params, method: str, *args: Any) -> Any:
    return Decoder(config).apply({"params": params}, *args, method=method)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _chosen(logits_BV: Array, key: Array, temperature: float, top_p: float) -> jax.Array:
    """A token of each text `[B]`."""
    if temperature < np.finfo(np.float32).tiny:  # 0 too: the device would divide by 0
        return jnp.argmax(logits_BV, -1).astype(jnp.int32)
    logits_BV = (logits_BV - logits_BV.max(-1, keepdims=True)) / temperature  # at most 0
    if top_p < 1:
        sorted_BV = jnp.sort(logits_BV, -1)[:, ::-1]
        before_BV = jnp.cumsum(jax.nn.softmax(sorted_BV), -1) - jax.nn.softmax(sorted_BV)
        least_B1 = jnp.min(jnp.where(before_BV < top_p, sorted_BV, jnp.inf), -1, keepdims=True)
        logits_BV = jnp.where(logits_BV < least_B1, -jnp.inf, logits_BV)
    return jax.random.categorical(key, logits_BV).astype(jnp.int32)

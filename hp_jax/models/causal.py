"""A decoder-only model that reads: the stages, and what is asked of the states after them, whatever
the texts are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from hp_jax.architecture import DecoderConfig
from hp_jax.models.decoder import Decoder
from hp_jax.models.forced import drawn_tokens, of_tokens
from hp_jax.task import Array, Gates, Params

BLOCK = 64
"""Positions of all examples whose logits exist at a time where a gradient is taken."""


class Reading(NamedTuple):
    """What is read, and what is asked at each position."""

    token_BT: Array
    target_BT: Array
    """The token that is predicted after it; -1: none is."""
    position_BT: Array | None = None
    """None: 0 to T - 1."""
    part_BT: Array | None = None
    """Tokens see those before them of part 0 and of their own part alone; None: there is one
    part."""

    @property
    def predicted_BT(self) -> jax.Array:
        """Whether a token is predicted."""
        return jnp.asarray(self.target_BT) >= 0


@dataclasses.dataclass(frozen=True)
class Reader:
    """The model's rows one after another, and losses of the tokens that are predicted."""

    config: DecoderConfig

    def start(self, params: Params, reading: Reading) -> jax.Array:
        """The embeddings `[B, T, D]`."""
        embedded = self._apply(params, "embed", reading.token_BT, reading.position_BT)
        return cast(jax.Array, embedded)

    def context(self, params: Params, row: int, reading: Reading, state: jax.Array) -> jax.Array:
        """The contexts of the row's heads: `[B, T, H, K]`."""
        places = reading.position_BT, reading.part_BT
        return cast(jax.Array, self._apply(params, "context", row, state, *places))

    def apply_row(
        self, params: Params, row: int, state: jax.Array, context: jax.Array, gate: Array
    ) -> jax.Array:
        """The state after the row `[B, T, D]`."""
        return cast(jax.Array, self._apply(params, "apply_row", row, state, context, gate))

    def last(self, params: Params, reading: Reading, gates: Gates) -> jax.Array:
        """The states after the last row `[B, T, D]`."""
        token_BT, _, *places = reading
        return cast(jax.Array, self._apply(params, "hidden", token_BT, gates, *places))

    def under_each(
        self,
        params: Params,
        reading: Reading,
        states: jax.Array,
        gates: Gates,
        values_of: Callable[[jax.Array], dict[str, jax.Array]],
    ) -> dict[str, jax.Array]:
        """`values_of` the states after the last row, under each mask `[M, ...]`, from the states
        before it."""
        row = self.config.layers - 1

        def read(of: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
            state, gate_GH = of
            context = self.context(params, row, reading, state)
            return jax.lax.map(
                lambda gate_H: values_of(self.apply_row(params, row, state, context, gate_H)),
                gate_GH,
            )

        last_UGH = jnp.reshape(gates[-1], (len(states), -1, gates[-1].shape[-1]))
        values = jax.lax.map(read, (states, last_UGH))
        return {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}

    def values(self, params: Params, reading: Reading, last_BTD: jax.Array) -> dict[str, jax.Array]:
        """`loss` in nats of each token that is predicted, and whether it is the likeliest,
        `correct`: `[B, T]`, 0 elsewhere.  No gradient goes through it."""
        gold_N = jnp.asarray(reading.target_BT).reshape(-1)

        def score(logits_KV: jax.Array, at_K: jax.Array) -> dict[str, jax.Array]:
            gold_K = gold_N[at_K]
            own_K = jnp.take_along_axis(logits_KV, gold_K[:, None], 1)[:, 0]
            right_K = jnp.argmax(logits_KV, -1) == gold_K
            loss_K = jax.nn.logsumexp(logits_KV, -1) - own_K
            return {"loss": loss_K, "correct": right_K.astype(jnp.int32)}

        found = of_tokens(last_BTD, reading.predicted_BT, self._readout(params), score)
        return cast(dict[str, jax.Array], found)

    def drawn(
        self, params: Params, reading: Reading, last_BTD: jax.Array, keys_BK: jax.Array
    ) -> jax.Array:
        """Tokens that the model draws in place of those that are predicted: `[B, T, K]`."""
        return drawn_tokens(last_BTD, reading.predicted_BT, self._readout(params), keys_BK)

    def losses(
        self,
        params: Params,
        reading: Reading,
        last_BTD: jax.Array,
        others_BTK: jax.Array | None = None,
        *,
        smoothing: float = 0.0,
        unroll: bool = False,
    ) -> jax.Array:
        """The loss of each token that is predicted, and those of other tokens in its place, `[B, T,
        1 + K]`, 0 elsewhere; some positions at a time: logits of all would fill the memory."""
        real_BT = reading.predicted_BT
        token_BTO = jnp.maximum(jnp.asarray(reading.target_BT), 0)[..., None]
        if others_BTK is not None:
            token_BTO = jnp.concatenate([token_BTO, others_BTK], -1)
        length, size = last_BTD.shape[1], min(BLOCK, last_BTD.shape[1])

        def in_blocks(x: jax.Array) -> jax.Array:
            x = jnp.pad(x, ((0, 0), (0, -length % size), *((0, 0),) * (x.ndim - 2)))
            return jnp.moveaxis(x.reshape(len(x), -1, size, *x.shape[2:]), 1, 0)

        @jax.checkpoint
        def of_block(of: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            state_BTD, token_BTO, real_BT = of
            logits_BTV = self._apply(params, "readout", state_BTD)
            own_BTO = jnp.take_along_axis(logits_BTV, token_BTO, -1)
            mean_BT1 = logits_BTV.mean(-1, keepdims=True)
            wanted_BTO = (1 - smoothing) * own_BTO + smoothing * mean_BT1
            norm_BT1 = jax.nn.logsumexp(logits_BTV, -1, keepdims=True)
            return cast(jax.Array, (norm_BT1 - wanted_BTO) * real_BT[..., None])

        blocks = tuple(map(in_blocks, (last_BTD, token_BTO, real_BT)))
        _, loss_NBTO = jax.lax.scan(lambda _, of: (None, of_block(of)), None, blocks, unroll=unroll)
        loss_BTO = jnp.moveaxis(loss_NBTO, 0, 1)
        return loss_BTO.reshape(len(loss_BTO), -1, loss_BTO.shape[-1])[:, :length]

    def _readout(self, params: Params) -> Callable[[jax.Array], jax.Array]:
        return lambda state: cast(jax.Array, self._apply(params, "readout", state))

    def _apply(self, params: Params, method: str, *args: Any) -> Any:
        return Decoder(self.config).apply({"params": params}, *args, method=method)

"""Language modelling by a decoder-only model, as the `Task` that importance, ablation and pruning
see."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import DecoderConfig, present_mask
from hp_jax.models.decoder import Decoder
from hp_jax.models.forced import drawn_tokens, of_tokens
from hp_jax.task import Array, Batch, Gates, Params

BLOCK = 64
"""Positions of all examples whose logits exist at a time where a gradient is taken."""


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """Cross-entropy of each token given those before it.

    A batch has `tokens_BT` (padded on the right), `length_B`, `given_B` (so many of the first
    tokens are given, not predicted: 1 or more), `weight_B` and `index_B`.  The last token is not
    read: T below is one less than the batch has.
    """

    config: DecoderConfig

    @property
    def rows(self) -> tuple[str, ...]:
        """`dec.0`, `dec.1`, ..."""
        return tuple(self.config.rows)

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has `[A, H]`: query heads."""
        return present_mask(self.config)

    @property
    def tables(self) -> dict[str, tuple[int, int | None]]:
        """Tokens."""
        return {"tokens_BT": (self.config.vocab, self.config.room)}

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        gates = [jnp.ones(count) for count in self.config.heads_per_row.values()]
        return Decoder(self.config).init(key, jnp.zeros((1, 1), jnp.int32), gates)["params"]

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """Cross-entropy of each example, summed over the tokens that are predicted `[B]`, in
        nats."""
        return self.loss_of(params, batch, self._last(params, batch, gates))

    def loss_of(self, params: Params, batch: Batch, last_BTD: jax.Array) -> jax.Array:
        """The loss `[B]` of the states after the last row, differentiable in them."""
        return self._summed(params, batch, last_BTD)[:, 0]

    def drawn_losses(
        self, params: Params, batch: Batch, gates: Gates, keys_BK: jax.Array
    ) -> jax.Array:
        """The loss, and what it would be with tokens that the model draws, each after the right
        ones: `[B, 1 + K]`."""
        last_BTD, real_BT = self._last(params, batch, gates), _predicted(batch)
        drawn_BTK = drawn_tokens(
            last_BTD, real_BT, lambda x: self._apply(params, "readout", x), keys_BK
        )
        return self._summed(params, batch, last_BTD, drawn_BTK)

    def training_loss(
        self,
        params: Params,
        batch: Batch,
        gates: Gates,
        *,
        dropout: jax.Array,
        smoothing: float,
    ) -> tuple[jax.Array, jax.Array]:
        """Summed cross-entropy with label smoothing `[B]` and the number of predicted tokens `[B]`;
        these models have no dropout."""
        count_B = jnp.asarray(batch["length_B"] - batch["given_B"])
        last_BTD = self._last(params, batch, gates)
        return self._summed(params, batch, last_BTD, smoothing=smoothing)[:, 0], count_B

    def forward(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """One pass, for what it costs: the loss, without a loop, whose body the compiler's account
        has once."""
        last_BTD = self._last(params, batch, gates)
        return self._summed(params, batch, last_BTD, unroll=True)[:, 0]

    def batch_shapes(
        self, examples: int, length: int, target: int | None = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of `examples` of `length` tokens."""
        one = jax.ShapeDtypeStruct((examples,), jnp.int32)
        return {
            "tokens_BT": jax.ShapeDtypeStruct((examples, length), jnp.int32),
            **dict.fromkeys(("length_B", "given_B", "index_B"), one),
            "weight_B": jax.ShapeDtypeStruct((examples,), jnp.float32),
        }

    @property
    def stages(self) -> int:
        """All rows but the last, which is read together with the logits."""
        return self.config.layers - 1

    def start(self, params: Params, batch: Batch) -> jax.Array:
        """The embeddings `[B, T, D]`."""
        return self._apply(params, "embed", batch["tokens_BT"][:, :-1])

    def context(self, params: Params, row: int, batch: Batch, state: jax.Array) -> jax.Array:
        """The contexts of the row's heads: `[B, T, H, K]`."""
        return self._apply(params, "context", row, state)

    def residual(self, params: Params, row: int, batch: Batch, state: jax.Array) -> jax.Array:
        """What the row's output is added to: the state `[B, T, D]`."""
        return state

    def apply_row(
        self,
        params: Params,
        row: int,
        batch: Batch,
        state: jax.Array,
        context: jax.Array,
        gate: Array,
    ) -> jax.Array:
        """The state after the row `[B, T, D]`."""
        return self._apply(params, "apply_row", row, state, context, gate)

    def evaluate(
        self, params: Params, batch: Batch, states: jax.Array, gates: Gates
    ) -> dict[str, jax.Array]:
        """`loss` and `correct` (predicted tokens that are the likeliest) of each example under each
        mask `[M, B]`."""

        def read(of: tuple[jax.Array, jax.Array]) -> dict[str, jax.Array]:
            state, gate_GH = of
            context = self.context(params, self.stages, batch, state)

            def under(gate_H: jax.Array) -> dict[str, jax.Array]:
                last_BTD = self.apply_row(params, self.stages, batch, state, context, gate_H)
                return self.values_of(params, batch, last_BTD)

            return jax.lax.map(under, gate_GH)

        last_UGH = jnp.reshape(gates[-1], (len(states), -1, gates[-1].shape[-1]))
        values = jax.lax.map(read, (states, last_UGH))
        return {name: value.reshape(-1, value.shape[-1]) for name, value in values.items()}

    def values_of(self, params: Params, batch: Batch, last_BTD: jax.Array) -> dict[str, jax.Array]:
        """What `evaluate` gives, `[B]`, of the states after the last row."""
        gold_BT, real_BT = jnp.asarray(batch["tokens_BT"][:, 1:]), _predicted(batch)

        def score(logits_KV: jax.Array, at_K: jax.Array) -> dict[str, jax.Array]:
            gold_K = gold_BT.reshape(-1)[at_K]
            own_K = jnp.take_along_axis(logits_KV, gold_K[:, None], 1)[:, 0]
            right_K = jnp.argmax(logits_KV, -1) == gold_K
            loss_K = jax.nn.logsumexp(logits_KV, -1) - own_K
            return {"loss": loss_K, "correct": right_K.astype(jnp.int32)}

        found = of_tokens(last_BTD, real_BT, lambda x: self._apply(params, "readout", x), score)
        return {name: value_BT.sum(1) for name, value_BT in found.items()}

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions `[B, T]`, the same in each row: the last token asks nothing."""
        real_BT = jnp.arange(batch["tokens_BT"].shape[1] - 1)[None] < batch["length_B"][:, None] - 1
        return (real_BT * batch["weight_B"][:, None],) * self.config.layers

    def logits(self, params: Params, tokens_BT: Array, gates: Gates) -> jax.Array:
        """`[B, T, V]`, float32, of the token after each of `tokens`."""
        logits_BTV = Decoder(self.config).apply({"params": params}, tokens_BT, gates)
        return cast(jax.Array, logits_BTV)

    def _apply(self, params: Params, method: str, *args: Any) -> Any:
        return Decoder(self.config).apply({"params": params}, *args, method=method)

    def _last(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """The states after the last row `[B, T, D]`."""
        last_BTD = self._apply(params, "hidden", batch["tokens_BT"][:, :-1], gates)
        return cast(jax.Array, last_BTD)

    def _summed(
        self,
        params: Params,
        batch: Batch,
        state_BTD: jax.Array,
        others_BTK: jax.Array | None = None,
        *,
        smoothing: float = 0.0,
        unroll: bool = False,
    ) -> jax.Array:
        """The loss, and those of other tokens in place of the right ones `[B, 1 + K]`, some
        positions at a time: logits of all would fill the memory."""
        token_BTO = jnp.asarray(batch["tokens_BT"])[:, 1:, None]
        if others_BTK is not None:
            token_BTO = jnp.concatenate([token_BTO, others_BTK], -1)
        room = -state_BTD.shape[1] % min(BLOCK, state_BTD.shape[1])

        def in_blocks(x: jax.Array) -> jax.Array:
            x = jnp.pad(x, ((0, 0), (0, room), *((0, 0),) * (x.ndim - 2)))
            return jnp.moveaxis(x.reshape(len(x), -1, min(BLOCK, x.shape[1]), *x.shape[2:]), 1, 0)

        @jax.checkpoint
        def summed(of: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            state_BTD, token_BTO, real_BT = of
            logits_BTV = self._apply(params, "readout", state_BTD)
            own_BTO = jnp.take_along_axis(logits_BTV, token_BTO, -1)
            mean_BT1 = logits_BTV.mean(-1, keepdims=True)
            wanted_BTO = (1 - smoothing) * own_BTO + smoothing * mean_BT1
            norm_BT1 = jax.nn.logsumexp(logits_BTV, -1, keepdims=True)
            return jnp.sum((norm_BT1 - wanted_BTO) * real_BT[..., None], 1)

        blocks = tuple(map(in_blocks, (state_BTD, token_BTO, _predicted(batch))))
        _, loss_NBO = jax.lax.scan(lambda _, of: (None, summed(of)), None, blocks, unroll=unroll)
        return loss_NBO.sum(0)


def _predicted(batch: Batch) -> jax.Array:
    """Whether the token after each is predicted, `[B, T]`."""
    next_1T = jnp.arange(1, batch["tokens_BT"].shape[1])[None]
    return (next_1T >= batch["given_B"][:, None]) & (next_1T < batch["length_B"][:, None])

"""Language modelling by a decoder-only model, as the `Task` that importance, ablation and pruning
see."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import DecoderConfig, present_mask
from hp_jax.models.causal import Reader, Reading
from hp_jax.models.decoder import Decoder
from hp_jax.task import Array, Batch, Gates, Params


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
        return self._losses(params, batch, gates).sum((1, 2))

    def drawn_losses(
        self, params: Params, batch: Batch, gates: Gates, keys_BK: jax.Array
    ) -> jax.Array:
        """The loss, and what it would be with tokens that the model draws, each after the right
        ones: `[B, 1 + K]`."""
        reading = _reading(batch)
        last_BTD = self._reader.last(params, reading, gates)
        drawn_BTK = self._reader.drawn(params, reading, last_BTD, keys_BK)
        return self._reader.losses(params, reading, last_BTD, drawn_BTK).sum(1)

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
        losses_BT1 = self._losses(params, batch, gates, smoothing=smoothing)
        return losses_BT1.sum((1, 2)), count_B

    def forward(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """One pass, for what it costs: the loss, without a loop, whose body the compiler's account
        has once."""
        return self._losses(params, batch, gates, unroll=True).sum((1, 2))

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
        return self._reader.start(params, _reading(batch))

    def context(self, params: Params, row: int, batch: Batch, state: jax.Array) -> jax.Array:
        """The contexts of the row's heads: `[B, T, H, K]`."""
        return self._reader.context(params, row, _reading(batch), state)

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
        return self._reader.apply_row(params, row, state, context, gate)

    def evaluate(
        self, params: Params, batch: Batch, states: jax.Array, gates: Gates
    ) -> dict[str, jax.Array]:
        """`loss` and `correct` (predicted tokens that are the likeliest) of each example under each
        mask `[M, B]`."""
        reading = _reading(batch)

        def summed(last_BTD: jax.Array) -> dict[str, jax.Array]:
            values = self._reader.values(params, reading, last_BTD)
            return {name: value_BT.sum(1) for name, value_BT in values.items()}

        return self._reader.under_each(params, reading, states, gates, summed)

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions `[B, T]`, the same in each row: the last token asks nothing."""
        real_BT = jnp.arange(batch["tokens_BT"].shape[1] - 1)[None] < batch["length_B"][:, None] - 1
        return (real_BT * batch["weight_B"][:, None],) * self.config.layers

    def logits(self, params: Params, tokens_BT: Array, gates: Gates) -> jax.Array:
        """`[B, T, V]`, float32, of the token after each of `tokens`."""
        logits_BTV = Decoder(self.config).apply({"params": params}, tokens_BT, gates)
        return cast(jax.Array, logits_BTV)

    @property
    def _reader(self) -> Reader:
        return Reader(self.config)

    def _losses(self, params: Params, batch: Batch, gates: Gates, **how: Any) -> jax.Array:
        """Of each position `[B, T, 1]`."""
        reading = _reading(batch)
        return self._reader.losses(
            params, reading, self._reader.last(params, reading, gates), **how
        )


def _reading(batch: Batch) -> Reading:
    """All tokens but the last, and the one after each that is not given."""
    tokens_BT = jnp.asarray(batch["tokens_BT"])
    next_1T = jnp.arange(1, tokens_BT.shape[1])[None]
    asked_BT = (next_1T >= batch["given_B"][:, None]) & (next_1T < batch["length_B"][:, None])
    return Reading(tokens_BT[:, :-1], jnp.where(asked_BT, tokens_BT[:, 1:], -1))

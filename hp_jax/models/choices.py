"""Multiple choice by a decoder-only model, as the `Task` that importance, ablation and pruning
see."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hp_jax.architecture import DecoderConfig, present_mask
from hp_jax.models.causal import Reader, Reading
from hp_jax.models.language import LanguageModel
from hp_jax.task import Array, Batch, Gates, Params


@dataclasses.dataclass(frozen=True)
class MultipleChoice:
    """Cross-entropy of the right choice, and the choice that is made; a choice's logit is the
    log-likelihood of its tokens given those before them, divided by its size.

    What the choices of an item share is read once: a batch has `tokens_BT` (the shared ones, then
    each choice's own, padded on the right), `choice_BT` (0: shared; 1 and up: that choice's; -1:
    padding), `position_BT` (each token's in its choice), `target_BT` (the token of a choice that is
    predicted after it; -1: none), `size_BC` (0: there is no such choice), `label_B`, `weight_B` and
    `index_B`.
    """

    config: DecoderConfig
    choices: int
    """C, the most that an item has."""

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
        """Tokens, and their positions."""
        return {"tokens_BT": (self.config.vocab, None), "position_BT": (self.config.room, None)}

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        return LanguageModel(self.config).init(key)

    def logits(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """`[B, C]`, float32."""
        return self.logits_of(params, batch, self._reader.last(params, _reading(batch), gates))

    def logits_of(self, params: Params, batch: Batch, last_BTD: jax.Array, **how: Any) -> jax.Array:
        """The logits `[B, C]` of the states after the last row, differentiable in them."""
        losses_BT1 = self._reader.losses(params, _reading(batch), last_BTD, **how)
        return self._logits(batch, losses_BT1[..., 0])

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """Cross-entropy of each item `[B]`, in nats."""
        return loss_of(self.logits(params, batch, gates), batch)

    def log_odds(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """The logits of the choices from 1 on, less that of choice 0: `[B, C - 1]`."""
        return log_odds_of(self.logits(params, batch, gates))

    def training_loss(
        self,
        params: Params,
        batch: Batch,
        gates: Gates,
        *,
        dropout: jax.Array,
        smoothing: float,
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy with label smoothing over an item's choices `[B]`, and ones `[B]`; these
        models have no dropout."""
        logits_BC, there_BC = self.logits(params, batch, gates), batch["size_BC"] > 0
        label_BC = jax.nn.one_hot(batch["label_B"], self.choices) * (1 - smoothing)
        label_BC += smoothing * there_BC / jnp.maximum(there_BC.sum(1, keepdims=True), 1)
        log_BC = jnp.where(there_BC, jax.nn.log_softmax(logits_BC), 0.0)
        return -jnp.sum(label_BC * log_BC, 1), jnp.ones(len(logits_BC))

    def forward(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """One pass over all choices, for what it costs: the logits."""
        last_BTD = self._reader.last(params, _reading(batch), gates)
        return self.logits_of(params, batch, last_BTD, unroll=True)

    def batch_shapes(
        self, examples: int, length: int, target: int | None = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of `examples` items, whose choices have `length` tokens each and share none."""
        each = (examples, self.choices * (length - 1))
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("tokens_BT", "choice_BT", "position_BT", "target_BT"), each
        )
        shapes |= dict.fromkeys(("label_B", "index_B"), (examples,))
        batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
        return batch | {
            "size_BC": jax.ShapeDtypeStruct((examples, self.choices), jnp.float32),
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
        """`loss`, `prediction` and the `confidence` in it of each item under each mask `[M, B]`,
        and `logit_difference`, by how much the right choice's logit is above the best other's."""
        return self._reader.under_each(
            params, _reading(batch), states, gates, lambda last: self.values_of(params, batch, last)
        )

    def values_of(self, params: Params, batch: Batch, last_BTD: jax.Array) -> dict[str, jax.Array]:
        """What `evaluate` gives, `[B]`, of the states after the last row."""
        loss_BT = self._reader.values(params, _reading(batch), last_BTD)["loss"]
        logits_BC = self._logits(batch, loss_BT)
        right_BC = jax.nn.one_hot(batch["label_B"], self.choices, dtype=bool)
        right_B = jnp.sum(logits_BC, 1, where=right_BC)
        return {
            "logit_difference": right_B - jnp.max(jnp.where(right_BC, -jnp.inf, logits_BC), 1),
            "loss": loss_of(logits_BC, batch),
            "prediction": jnp.argmax(logits_BC, -1).astype(jnp.int32),
            "confidence": jnp.max(jax.nn.softmax(logits_BC), -1),
        }

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions `[B, T]`, the same in each row: the last token of a choice asks
        nothing, and is not read."""
        real_BT = (jnp.asarray(batch["choice_BT"]) >= 0) * batch["weight_B"][:, None]
        return (real_BT,) * self.config.layers

    @property
    def _reader(self) -> Reader:
        return Reader(self.config)

    def _logits(self, batch: Batch, loss_BT: jax.Array) -> jax.Array:
        """Log-likelihoods by size; where there is no choice, one that nobody takes."""
        size_BC, numbers_C = jnp.asarray(batch["size_BC"]), jnp.arange(1, self.choices + 1)
        own_BTC = batch["choice_BT"][..., None] == numbers_C[None, None]
        loss_BC = jnp.sum(jnp.where(own_BTC, loss_BT[..., None], 0.0), 1)
        logits_BC = -loss_BC / jnp.maximum(size_BC, 1e-9)
        return jnp.where(size_BC > 0, logits_BC, jnp.finfo(jnp.float32).min / 4)


def _reading(batch: Batch) -> Reading:
    names = "tokens_BT", "target_BT", "position_BT", "choice_BT"
    return Reading(*(jnp.asarray(batch[name]) for name in names))


def loss_of(logits_BC: jax.Array, batch: Batch) -> jax.Array:
    """Cross-entropy of the right choice `[B]`, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["label_B"])


def log_odds_of(logits_BC: jax.Array) -> jax.Array:
    """The logits of the choices from 1 on, less that of choice 0: `[B, C - 1]`."""
    return logits_BC[:, 1:] - logits_BC[:, :1]

"""Multiple choice by a decoder-only model, as the `Task` that importance, ablation and pruning
see."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hp_jax.architecture import DecoderConfig
from hp_jax.models.language import LanguageModel
from hp_jax.task import Array, Batch, Gates, Params


@dataclasses.dataclass(frozen=True)
class MultipleChoice:
    """Cross-entropy of the right choice, and the choice that is made; a choice's logit is the
    log-likelihood of its tokens given those before them, divided by its size.

    A batch has `tokens_BCT` (padded on the right), `length_BC`, `given_BC` (the tokens before each
    choice), `size_BC` (0: there is no such choice), `label_B`, `weight_B` and `index_B`.
    """

    config: DecoderConfig
    choices: int
    """C, the most that an item has."""

    @property
    def _model(self) -> LanguageModel:
        return LanguageModel(self.config)

    @property
    def rows(self) -> tuple[str, ...]:
        """`dec.0`, `dec.1`, ..."""
        return self._model.rows

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has `[A, H]`: query heads."""
        return self._model.present_AH

    @property
    def tables(self) -> dict[str, tuple[int, int | None]]:
        """Tokens."""
        return {"tokens_BCT": (self.config.vocab, self.config.room)}

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        return self._model.init(key)

    def logits(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """`[B, C]`, float32."""
        loss_R = self._model.loss(params, self._each(batch), self._gates(batch, gates))
        return self._logits(batch, loss_R)

    def logits_of(self, params: Params, batch: Batch, last: jax.Array) -> jax.Array:
        """The logits `[B, C]` of the states after the last row `[B, C, T, D]`, differentiable in
        them."""
        return self._logits(batch, self._model.loss_of(params, self._each(batch), _together(last)))

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
        loss_R = self._model.forward(params, self._each(batch), self._gates(batch, gates))
        return self._logits(batch, loss_R)

    def batch_shapes(
        self, examples: int, length: int, target: int | None = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of `examples` items, whose choices have `length` tokens with what is before
        them."""
        each = (examples, self.choices)
        shapes: dict[str, tuple[int, ...]] = {"tokens_BCT": (*each, length)}
        shapes |= dict.fromkeys(("length_BC", "given_BC"), each)
        shapes |= dict.fromkeys(("label_B", "index_B"), (examples,))
        batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
        return batch | {
            "size_BC": jax.ShapeDtypeStruct(each, jnp.float32),
            "weight_B": jax.ShapeDtypeStruct((examples,), jnp.float32),
        }

    @property
    def stages(self) -> int:
        """All rows but the last, which is read together with the logits."""
        return self._model.stages

    def start(self, params: Params, batch: Batch) -> jax.Array:
        """The embeddings `[B, C, T, D]`."""
        return self._apart(self._model.start(params, self._each(batch)))

    def context(self, params: Params, row: int, batch: Batch, state: jax.Array) -> jax.Array:
        """The contexts of the row's heads, choices one after the other: `[B, C * T, H, K]`."""
        context = self._model.context(params, row, self._each(batch), _together(state))
        return context.reshape(len(state), -1, *context.shape[2:])

    def residual(self, params: Params, row: int, batch: Batch, state: jax.Array) -> jax.Array:
        """What the row's output is added to: the state, its choices one after the other `[B, C * T,
        D]`."""
        return state.reshape(len(state), -1, state.shape[-1])

    def apply_row(
        self,
        params: Params,
        row: int,
        batch: Batch,
        state: jax.Array,
        context: jax.Array,
        gate: Array,
    ) -> jax.Array:
        """The state after the row `[B, C, T, D]`."""
        (gate,) = self._gates(batch, [gate])
        each = _together(state)
        context = context.reshape(*each.shape[:2], *context.shape[2:])
        after = self._model.apply_row(params, row, self._each(batch), each, context, gate)
        return self._apart(after)

    def evaluate(
        self, params: Params, batch: Batch, states: jax.Array, gates: Gates
    ) -> dict[str, jax.Array]:
        """`loss`, `prediction` and the `confidence` in it of each item under each mask `[M, B]`,
        and `logit_difference`, by how much the right choice's logit is above the best other's."""
        together = states.reshape(len(states), -1, *states.shape[3:])
        loss_MR = self._model.evaluate(params, self._each(batch), together, gates)["loss"]
        return jax.vmap(lambda loss_R: self._values(batch, loss_R))(loss_MR)

    def values_of(self, params: Params, batch: Batch, last: jax.Array) -> dict[str, jax.Array]:
        """What `evaluate` gives, `[B]`, of the states after the last row `[B, C, T, D]`."""
        loss_R = self._model.values_of(params, self._each(batch), _together(last))["loss"]
        return self._values(batch, loss_R)

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions, choices one after the other `[B, C * T]`, the same in each row."""
        (real_RT, *_) = self._model.queries(self._each(batch))
        return (real_RT.reshape(len(batch["weight_B"]), -1),) * self.config.layers

    def _each(self, batch: Batch) -> Batch:
        """Every choice as a text of its own, R = B * C."""
        names = {"tokens_BCT": "tokens_BT", "length_BC": "length_B", "given_BC": "given_B"}
        made = {short: _together(jnp.asarray(batch[name])) for name, short in names.items()}
        return made | {
            "weight_B": (_together(jnp.asarray(batch["size_BC"])) > 0)
            * jnp.repeat(batch["weight_B"], self.choices)
        }

    def _gates(self, batch: Batch, gates: Gates) -> list[Array]:
        """Gates of positions, or of items, as those of every choice."""

        def of_each(gate: Array) -> Array:
            if jnp.ndim(gate) < 3 or gate.shape[:2] == (1, 1):
                return gate
            if gate.shape[1] == 1:
                return jnp.repeat(gate, self.choices, axis=0)
            return jnp.reshape(gate, (len(gate) * self.choices, -1, gate.shape[-1]))

        return [of_each(gate) for gate in gates]

    def _apart(self, x: Any) -> jax.Array:
        """Choices as an axis of their own."""
        return x.reshape(-1, self.choices, *x.shape[1:])

    def _logits(self, batch: Batch, loss_R: jax.Array) -> jax.Array:
        """Log-likelihoods by size; where there is no choice, one that nobody takes."""
        size_BC = jnp.asarray(batch["size_BC"])
        logits_BC = -self._apart(loss_R) / jnp.maximum(size_BC, 1e-9)
        return jnp.where(size_BC > 0, logits_BC, jnp.finfo(jnp.float32).min / 4)

    def _values(self, batch: Batch, loss_R: jax.Array) -> dict[str, jax.Array]:
        logits_BC = self._logits(batch, loss_R)
        right_BC = jax.nn.one_hot(batch["label_B"], self.choices, dtype=bool)
        right_B = jnp.sum(logits_BC, 1, where=right_BC)
        return {
            "logit_difference": right_B - jnp.max(jnp.where(right_BC, -jnp.inf, logits_BC), 1),
            "loss": loss_of(logits_BC, batch),
            "prediction": jnp.argmax(logits_BC, -1).astype(jnp.int32),
            "confidence": jnp.max(jax.nn.softmax(logits_BC), -1),
        }


def loss_of(logits_BC: jax.Array, batch: Batch) -> jax.Array:
    """Cross-entropy of the right choice `[B]`, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["label_B"])


def log_odds_of(logits_BC: jax.Array) -> jax.Array:
    """The logits of the choices from 1 on, less that of choice 0: `[B, C - 1]`."""
    return logits_BC[:, 1:] - logits_BC[:, :1]


def _together(x: jax.Array) -> jax.Array:
    """All choices of all items after one another."""
    return x.reshape(-1, *x.shape[2:])

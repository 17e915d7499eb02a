"""Text classification by a BERT-type model, as the `Task` that importance, ablation and pruning
see."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hp_jax.architecture import BertConfig, present_mask
from hp_jax.models.bert import Bert
from hp_jax.task import Array, Batch, Gates, Params


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy with gold labels, and predicted labels.

    A batch has `tokens_BT`, `types_BT`, `length_B`, `label_B`, `weight_B` and `index_B`, all padded
    on the right.
    """

    config: BertConfig

    @property
    def rows(self) -> tuple[str, ...]:
        """`enc.0`, `enc.1`, ..."""
        return tuple(self.config.rows)

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has `[A, H]`."""
        return present_mask(self.config)

    @property
    def tables(self) -> dict[str, tuple[int, int | None]]:
        """Tokens, and their types where the model has any."""
        rows = {"tokens_BT": self.config.vocab, "types_BT": self.config.types}
        return {name: (count, self.config.room) for name, count in rows.items() if count}

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        one = jnp.zeros((1, 1), jnp.int32)
        gates = [jnp.ones(count) for count in self.config.heads_per_row.values()]
        return Bert(self.config).init(key, one, one, jnp.ones(1, jnp.int32), gates)["params"]

    def logits(
        self,
        params: Params,
        batch: Batch,
        gates: Gates,
        *,
        dropout: jax.Array | None = None,
    ) -> jax.Array:
        """`[B, C]`, float32; a key for `dropout` switches it on."""
        rngs = {} if dropout is None else {"dropout": dropout}
        inputs = batch["tokens_BT"], batch["types_BT"], batch["length_B"]
        logits_BC = Bert(self.config).apply(
            {"params": params}, *inputs, gates, train=dropout is not None, rngs=rngs
        )
        return cast(jax.Array, logits_BC)

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """Cross-entropy of each example `[B]`, in nats."""
        return optax.softmax_cross_entropy_with_integer_labels(
            self.logits(params, batch, gates), batch["label_B"]
        )

    def log_odds(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """The logits of the classes from 1 on, less that of class 0: `[B, C - 1]`."""
        logits_BC = self.logits(params, batch, gates)
        return logits_BC[:, 1:] - logits_BC[:, :1]

    def training_loss(
        self,
        params: Params,
        batch: Batch,
        gates: Gates,
        *,
        dropout: jax.Array,
        smoothing: float,
    ) -> tuple[jax.Array, jax.Array]:
        """Cross-entropy with label smoothing of each example `[B]`, and ones `[B]`; dropout is
        on."""
        logits_BC = self.logits(params, batch, gates, dropout=dropout)
        label_BC = optax.smooth_labels(
            jax.nn.one_hot(batch["label_B"], len(self.config.labels)), smoothing
        )
        return optax.softmax_cross_entropy(logits_BC, label_BC), jnp.ones(len(logits_BC))

    def forward(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """One pass, for what it costs: the logits."""
        return self.logits(params, batch, gates)

    def batch_shapes(
        self, examples: int, length: int, target: int | None = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of `examples` of `length` tokens."""
        two, one = (examples, length), (examples,)
        shapes: dict[str, tuple[int, ...]] = {"tokens_BT": two, "types_BT": two}
        shapes |= {"length_B": one, "label_B": one, "index_B": one}
        batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
        return batch | {"weight_B": jax.ShapeDtypeStruct((examples,), jnp.float32)}

    @property
    def stages(self) -> int:
        """All rows but the last, which is read together with the logits."""
        return self.config.layers - 1

    def start(self, params: Params, batch: Batch) -> jax.Array:
        """The embeddings `[B, T, D]`."""
        return self._apply(params, "embed", batch["tokens_BT"], batch["types_BT"])

    def context(self, params: Params, row: int, batch: Batch, state: jax.Array) -> jax.Array:
        """The contexts of the row's heads: `[B, T, H, K]`."""
        return self._apply(params, "context", row, state, batch["length_B"])

    def residual(self, params: Params, row: int, batch: Batch, state: jax.Array) -> jax.Array:
        """What the row's output is added to: the state `[B, T, D]`, in the last row `[B, 1, D]`."""
        residual_BTD = Bert(self.config).apply({"params": params}, row, state, method="residual")
        return cast(jax.Array, residual_BTD)

    def apply_row(
        self,
        params: Params,
        row: int,
        batch: Batch,
        state: jax.Array,
        context: jax.Array,
        gate: Array,
    ) -> jax.Array:
        """The state after the row `[B, T, D]`; `[B, 1, D]` after the last, of [CLS] alone."""
        return self._apply(params, "apply_row", row, state, context, gate)

    def evaluate(
        self, params: Params, batch: Batch, states: jax.Array, gates: Gates
    ) -> dict[str, jax.Array]:
        """`loss`, `prediction` and the `confidence` in it, its probability, of each example under
        each mask `[M, B]`."""

        def read(of: tuple[jax.Array, jax.Array]) -> jax.Array:
            state, gate_GH = of
            context = self.context(params, self.stages, batch, state)
            last = jax.vmap(
                lambda gate_H: self.apply_row(params, self.stages, batch, state, context, gate_H)
            )(gate_GH)
            return jax.vmap(lambda state: self._apply(params, "readout", state))(last)

        logits_UGBC = jax.lax.map(
            read,
            (
                states,
                jnp.reshape(
                    gates[-1], (len(states), len(gates[-1]) // len(states), gates[-1].shape[-1])
                ),
            ),
        )
        logits_MBC = logits_UGBC.reshape(-1, *logits_UGBC.shape[2:])
        label_MB = jnp.broadcast_to(batch["label_B"], logits_MBC.shape[:2])
        loss_MB = optax.softmax_cross_entropy_with_integer_labels(logits_MBC, label_MB)
        return {
            "loss": loss_MB,
            "prediction": jnp.argmax(logits_MBC, -1).astype(jnp.int32),
            "confidence": jnp.max(jax.nn.softmax(logits_MBC), -1),
        }

    def _apply(self, params: Params, method: str, *args: Any) -> Any:
        return Bert(self.config).apply({"params": params}, *args, method=method, train=False)

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions `[B, T]` of each row; in the last row [CLS] alone, `[B, 1]`."""
        real_BT = jnp.arange(batch["tokens_BT"].shape[1])[None] < batch["length_B"][:, None]
        real_BT = real_BT * batch["weight_B"][:, None]
        return (real_BT,) * (self.config.layers - 1) + (real_BT[:, :1],)

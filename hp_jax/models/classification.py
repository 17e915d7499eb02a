"""Text classification by a BERT-type model, as the `Task` that importance, ablation and pruning see."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from hp_jax import metrics
from hp_jax.config import BertConfig
from hp_jax.models.bert import Bert
from hp_jax.task import Array, Batch, Params


@dataclasses.dataclass(frozen=True)
class Classification:
    """Cross-entropy with gold labels, and a metric of the predicted labels.

    A batch has `tokens_BT`, `types_BT`, `length_B`, `label_B`, `weight_B` and `index_B`, all padded on the right.
    """

    config: BertConfig
    metric: Literal["accuracy", "f1", "matthews"] = "accuracy"
    positive: int = 1
    """The label that F1 is about."""

    @property
    def rows(self) -> tuple[str, ...]:
        """`enc.0`, `enc.1`, ..."""
        return tuple(f"enc.{layer}" for layer in range(self.config.layers))

    @property
    def heads(self) -> tuple[int, ...]:
        """Heads of each row."""
        return (self.config.heads,) * self.config.layers

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        one = jnp.zeros((1, 1), jnp.int32)
        gates = [jnp.ones(heads) for heads in self.heads]
        return Bert(self.config).init(key, one, one, jnp.ones(1, jnp.int32), gates)["params"]

    def logits(self, params: Params, batch: Batch, gates: Sequence[Array], *, dropout: jax.Array | None = None) -> jax.Array:
        """`[B, C]`, float32; a key for `dropout` switches it on."""
        rngs = {} if dropout is None else {"dropout": dropout}
        inputs = batch["tokens_BT"], batch["types_BT"], batch["length_B"]
        logits_BC = Bert(self.config).apply({"params": params}, *inputs, gates, train=dropout is not None, rngs=rngs)
        return cast(jax.Array, logits_BC)

    def loss(self, params: Params, batch: Batch, gates: Sequence[Array], *, dropout: jax.Array | None = None) -> jax.Array:
        """Cross-entropy of each example `[B]`, in nats."""
        logits_BC = self.logits(params, batch, gates, dropout=dropout)
        return optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["label_B"])

    def evaluate(self, params: Params, batch: Batch, gates: Sequence[Array]) -> dict[str, jax.Array]:
        """`loss` and `prediction` of each example `[B]`."""
        logits_BC = self.logits(params, batch, gates)
        loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BC, batch["label_B"])
        return {"loss": loss_B, "prediction": jnp.argmax(logits_BC, -1).astype(jnp.int32)}

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions `[B, T]` of each row; in the last row [CLS] alone, `[B, 1]`."""
        real_BT = jnp.arange(batch["tokens_BT"].shape[1])[None] < batch["length_B"][:, None]
        real_BT = real_BT * batch["weight_B"][:, None]
        return (real_BT,) * (self.config.layers - 1) + (real_BT[:, :1],)

    def statistics(self, values: Mapping[str, np.ndarray], label_N: np.ndarray) -> np.ndarray:
        """Each example's cell of the confusion matrix, `[..., N, C * C]`."""
        return metrics.confusion(label_N, values["prediction"], len(self.config.labels))

    def score(self, sums: np.ndarray) -> np.ndarray:
        """Accuracy, F1 or Matthews correlation of summed confusion cells `[..., C * C]`."""
        return metrics.from_confusion(sums, self.metric, positive=self.positive)

"""Multiple choice with heads patched: one that is off has its context from another text, as the
`Task` that importance, ablation and the linear map see."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.models.choices import MultipleChoice, log_odds_of, loss_of
from hp_jax.task import Array, Batch, Gates, Params

Streams = tuple[jax.Array, jax.Array]
"""Of the text itself, and of its counterfactual: states `[B, T, D]`, or contexts `[B, T, H, K]`."""


@dataclasses.dataclass(frozen=True)
class Patched:
    """Multiple choice in which a head's context is `gate * own + (1 - gate) * counterfactual`: the
    full model's context, at the same position, where it reads the counterfactual.

    So a head that is off is one that is patched (activation patching: Vig et al. 2020), and the
    loss's gradient in its gate is `(own - counterfactual) . dL / dcontext`: attribution patching
    (Nanda 2023; Syed et al. 2023).  A batch of `clean` also has `counterfactual_BT`, other
    tokens at the same places as `tokens_BT`.
    """

    clean: MultipleChoice

    @property
    def rows(self) -> tuple[str, ...]:
        """`dec.0`, `dec.1`, ..."""
        return self.clean.rows

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has `[A, H]`: query heads."""
        return self.clean.present_AH

    @property
    def tables(self) -> dict[str, tuple[int, int | None]]:
        """Tokens of both."""
        tables = self.clean.tables
        return tables | {"counterfactual_BT": tables["tokens_BT"]}

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """Cross-entropy of each item `[B]`, in nats."""
        return loss_of(self.logits(params, batch, gates), batch)

    def log_odds(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """The logits of the choices from 1 on, less that of choice 0: `[B, C - 1]`."""
        return log_odds_of(self.logits(params, batch, gates))

    def logits(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """`[B, C]`, float32."""
        state = self.start(params, batch)
        for row, gate in enumerate(gates):
            context = self.context(params, row, batch, state)
            state = self.apply_row(params, row, batch, state, context, gate)
        return self.clean.logits_of(params, batch, state[0])

    @property
    def stages(self) -> int:
        """All rows."""
        return len(self.rows)

    def start(self, params: Params, batch: Batch) -> Streams:
        """The embeddings."""
        other = {**batch, "tokens_BT": batch["counterfactual_BT"]}
        return self.clean.start(params, batch), self.clean.start(params, other)

    def context(self, params: Params, row: int, batch: Batch, state: Streams) -> Streams:
        """The contexts of the row's heads."""
        own, other = (self.clean.context(params, row, batch, stream) for stream in state)
        return own, other

    def apply_row(
        self,
        params: Params,
        row: int,
        batch: Batch,
        state: Streams,
        context: Streams,
        gate: Array,
    ) -> Streams:
        """The states after the row; no gate acts on the counterfactual's."""
        own, other = context
        gate = jnp.broadcast_to(jnp.asarray(gate, own.dtype), own.shape[:-1])[..., None]
        mixed = gate * own + (1 - gate) * other
        all_on = jnp.ones(own.shape[2])
        after, other_after = (
            self.clean.apply_row(params, row, batch, stream, seen, all_on)
            for stream, seen in zip(state, (mixed, other), strict=True)
        )
        return after, other_after

    def evaluate(
        self, params: Params, batch: Batch, states: Streams, gates: Gates
    ) -> dict[str, jax.Array]:
        """What multiple choice keeps of each item under each mask `[M, B]`; all rows are in the
        states already."""
        own, _ = states
        values = jax.lax.map(lambda last: self.clean.values_of(params, batch, last), own)
        shared = len(gates[0]) // len(own)
        return {name: jnp.repeat(value_UB, shared, axis=0) for name, value_UB in values.items()}

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions `[B, T]`, the same in each row."""
        return self.clean.queries(batch)

"""BERT-type classifiers (BERT, RoBERTa, DistilBERT) as a chain of stages, each of which reads one
row of the head mask."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from hp_jax.architecture import BertConfig
from hp_jax.models.layers import (
    ACTIVATIONS,
    INIT,
    Attention,
    FeedForward,
    residual,
    rounded,
    summed,
)


class Embeddings(nn.Module):
    """Sum of word, position and (BERT, RoBERTa) token-type embeddings, then LayerNorm."""

    config: BertConfig

    @nn.compact
    def __call__(self, tokens_BT: jax.Array, types_BT: jax.Array, *, train: bool) -> jax.Array:
        """`[B, T, D]` from token ids and token types, both `[B, T]`."""
        c = self.config
        dtype = jnp.dtype(c.dtype)

        def table(name: str, size: int) -> nn.Embed:
            return nn.Embed(size, c.width, dtype=dtype, embedding_init=INIT, name=name)

        position_BT = jnp.arange(tokens_BT.shape[1])[None]
        if c.family == "roberta":  # a padding token within a text is not counted
            real_BT = tokens_BT != c.pad
            position_BT = c.pad + jnp.cumsum(real_BT, 1) * real_BT
        x_BTD = table("word", c.vocab)(tokens_BT) + table("position", c.positions)(position_BT)
        if c.types:
            x_BTD += table("type", c.types)(types_BT)
        x_BTD = nn.LayerNorm(c.epsilon, dtype=dtype, name="norm")(x_BTD)
        return nn.Dropout(c.dropout, deterministic=not train)(x_BTD)


class Block(nn.Module):
    """One post-norm encoder layer, for the queries `x` over all of `memory`."""

    config: BertConfig
    heads: int

    def setup(self) -> None:
        """Names the modules: these names are the checkpoint's."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        head_width = c.modules["enc.0"].head_width
        self.attention = Attention(
            c.width, self.heads, head_width, dtype, c.attention_dropout, c.kernel
        )
        self.ffn = FeedForward(c.ffn, c.activation, dtype)
        self.attention_norm, self.ffn_norm = (
            nn.LayerNorm(c.epsilon, dtype=dtype) for _ in range(2)
        )
        self.dropout = nn.Dropout(c.dropout)

    def context(
        self, x_BTD: jax.Array, memory_BSD: jax.Array, attend_B1TS: jax.Array, *, train: bool
    ) -> jax.Array:
        """What each head sees `[B, T, H, K]`; `attend` is True where a query may look."""
        return self.attention.context(
            x_BTD, self.attention.keys(memory_BSD), attend_B1TS, train=train
        )

    def apply_row(
        self, x_BTD: jax.Array, context_BTHK: jax.Array, gate: jax.Array, *, train: bool
    ) -> jax.Array:
        """The layer's output `[B, T, D]`."""
        dropout = functools.partial(self.dropout, deterministic=not train)
        x_BTD = residual(
            x_BTD,
            lambda _: self.attention.gated(context_BTHK, gate),
            self.attention_norm,
            dropout,
            "post",
        )
        return residual(x_BTD, self.ffn, self.ffn_norm, dropout, "post")


class Bert(nn.Module):
    """`embed`, then `context` and `apply_row` for each mask row, then `readout`; `__call__` runs
    the chain."""

    config: BertConfig

    def setup(self) -> None:
        """Names the modules: these names are the checkpoint's."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.embeddings = Embeddings(c)
        self.layer = [Block(c, heads) for heads in c.heads_per_row.values()]
        dense = functools.partial(nn.Dense, dtype=dtype, kernel_init=INIT)
        self.pool = dense(c.width, dot_general=rounded)
        self.classifier = dense(len(c.labels), dot_general=summed)
        self.readout_dropout = nn.Dropout(c.classifier_dropout)

    def embed(self, tokens_BT: jax.Array, types_BT: jax.Array, *, train: bool) -> jax.Array:
        """The state before the first stage `[B, T, D]`."""
        return self.embeddings(tokens_BT, types_BT, train=train)

    def residual(self, row: int, x_BTD: jax.Array) -> jax.Array:
        """What the row's output is added to, and its queries are of: the state, in the last row
        that of [CLS] alone (T = 1), because the readout uses nothing else."""
        return x_BTD[:, :1] if row == self.config.layers - 1 else x_BTD

    def context(self, row: int, x_BTD: jax.Array, length_B: jax.Array, *, train: bool) -> jax.Array:
        """What the heads of row `row` see in the state `[B, S, D]` before it: `[B, T, H, K]`,
        whatever their gates are."""
        attend_B1TS = (jnp.arange(x_BTD.shape[1])[None] < length_B[:, None])[:, None, None]
        return self.layer[row].context(self.residual(row, x_BTD), x_BTD, attend_B1TS, train=train)

    def apply_row(
        self, row: int, x_BTD: jax.Array, context_BTHK: jax.Array, gate: jax.Array, *, train: bool
    ) -> jax.Array:
        """The state after row `row`, from the one before it and what its heads see there."""
        return self.layer[row].apply_row(self.residual(row, x_BTD), context_BTHK, gate, train=train)

    def readout(self, x_BTD: jax.Array, *, train: bool) -> jax.Array:
        """Logits `[B, C]` from the state of [CLS], float32."""
        x_BD = x_BTD[:, 0]
        if self.config.family == "roberta":
            x_BD = self.readout_dropout(x_BD, deterministic=not train)
        x_BD = ACTIVATIONS["relu" if self.config.family == "distilbert" else "tanh"](
            self.pool(x_BD)
        )
        logits_BC: jax.Array = self.classifier(self.readout_dropout(x_BD, deterministic=not train))
        return logits_BC

    def __call__(
        self,
        tokens_BT: jax.Array,
        types_BT: jax.Array,
        length_B: jax.Array,
        gates: Sequence[jax.Array],
        *,
        train: bool = False,
    ) -> jax.Array:
        """Logits `[B, C]`; `length_B` is the number of real tokens, `gates[a]` is broadcast to `[B,
        T_a, H]`."""
        x_BTD = self.embed(tokens_BT, types_BT, train=train)
        for row, gate in enumerate(gates):
            x_BTD = self.apply_row(
                row, x_BTD, self.context(row, x_BTD, length_B, train=train), gate, train=train
            )
        return self.readout(x_BTD, train=train)

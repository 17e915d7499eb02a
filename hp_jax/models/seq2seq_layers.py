"""Layers of encoder-decoder Transformers; each attention module reads its own gate."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hp_jax.architecture import Seq2SeqConfig
from hp_jax.models.layers import Attention, FeedForward, KeyValue, residual, rounded

INIT = nn.initializers.xavier_uniform()
"""fairseq's initialisation of kernels; embeddings are normal with a variance of 1 / width."""


Cache = tuple[jax.Array, ...]
"""What a decoder layer keeps of W beams' past: keys and values, each `[R, H, K, T * W]`, or the
SSRU's cell `[R, W, D]`."""


class Ssru(nn.Module):
    """Marian's simpler simple recurrent unit (Kim et al. 2019): `c_t = f_t c_(t-1) + (1 - f_t) W
    x_t`, out `relu(c_t)`.

    `f_t = sigmoid(W_f x_t + b_f)`; c is 0 before the first position.
    """

    config: Seq2SeqConfig

    def setup(self) -> None:
        """Names the projections."""
        dense = functools.partial(
            nn.Dense,
            self.config.width,
            dtype=jnp.dtype(self.config.dtype),
            kernel_init=INIT,
            dot_general=rounded,
        )
        self.value, self.forget = dense(use_bias=False), dense()

    def _terms(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        forget = jax.nn.sigmoid(self.forget(x))
        return forget, (1 - forget) * self.value(x)

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """All positions at once `[B, T, D]`."""

        def after(left: KeyValue, right: KeyValue) -> KeyValue:
            return left[0] * right[0], left[1] * right[0] + right[1]

        return nn.relu(jax.lax.associative_scan(after, self._terms(x_BTD), axis=1)[1])

    def step(self, x_BWD: jax.Array, cell_BWD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """One position: the output and the next cell, both `[B, W, D]`."""
        forget, new = self._terms(x_BWD)
        cell_BWD = forget * cell_BWD + new
        return nn.relu(cell_BWD), cell_BWD


class Layer(nn.Module):
    """What an encoder and a decoder layer have in common: LayerNorms, dropout and residual
    connections."""

    config: Seq2SeqConfig
    number: int

    def _attention(self, kind: str, name: str) -> Attention:
        c, row = self.config, f"{kind}.{self.number}"
        heads, head_width = c.heads_per_row[row], c.modules[row].head_width
        dtype = jnp.dtype(c.dtype)
        return Attention(
            c.width, heads, head_width, dtype, c.attention_dropout, c.kernel, INIT, name=name
        )

    def _feed_forward(self, width: int) -> FeedForward:
        return FeedForward(width, self.config.activation, jnp.dtype(self.config.dtype), INIT)

    def _norm(self) -> nn.LayerNorm:
        return nn.LayerNorm(self.config.epsilon, dtype=jnp.dtype(self.config.dtype))

    def _residual(self, x: jax.Array, sublayer: Any, norm: nn.LayerNorm, train: bool) -> jax.Array:
        dropout = functools.partial(self.dropout, deterministic=not train)
        return residual(x, sublayer, norm, dropout, self.config.norm)


class EncoderLayer(Layer):
    """Self-attention, then the feed-forward layer."""

    def setup(self) -> None:
        """Names the modules."""
        c = self.config
        self.attention, self.attention_norm = self._attention("enc", "attention"), self._norm()
        self.ffn, self.ffn_norm = self._feed_forward(c.encoder_ffn), self._norm()
        self.dropout = nn.Dropout(c.dropout)

    def context(self, x_BSD: jax.Array, attend_B11S: jax.Array, *, train: bool) -> jax.Array:
        """What each head sees `[B, S, H, K]`."""
        x_BSD = self.attention_norm(x_BSD) if self.config.norm == "pre" else x_BSD
        return self.attention.context(x_BSD, self.attention.keys(x_BSD), attend_B11S, train=train)

    def apply_row(
        self, x_BSD: jax.Array, context_BSHK: jax.Array, gate: jax.Array, *, train: bool
    ) -> jax.Array:
        """The layer's output `[B, S, D]`."""
        x_BSD = self._residual(
            x_BSD, lambda _: self.attention.gated(context_BSHK, gate), self.attention_norm, train
        )
        return self._residual(x_BSD, self.ffn, self.ffn_norm, train)


class DecoderLayer(Layer):
    """Self-attention (or SSRU), cross-attention, then the feed-forward layer."""

    def setup(self) -> None:
        """Names the modules."""
        c = self.config
        self.mixer: Any = Ssru(c) if c.decoder == "ssru" else self._attention("dec", "mixer")
        self.cross = self._attention("cross", "cross")
        self.ffn = self._feed_forward(c.decoder_ffn)
        self.mixer_norm, self.cross_norm, self.ffn_norm = self._norm(), self._norm(), self._norm()
        self.dropout = nn.Dropout(c.dropout)

    def keys(self, memory_BSD: jax.Array) -> KeyValue:
        """Keys and values of the encoder's output for cross-attention."""
        return self.cross.keys(memory_BSD)

    def mix(self, x_BTD: jax.Array, gate: jax.Array | None, *, train: bool) -> jax.Array:
        """Over the target's positions, all at once; `gate` is None for an SSRU."""
        if gate is None:
            return self._residual(x_BTD, self.mixer, self.mixer_norm, train)
        return self.apply_mix(x_BTD, self.mix_context(x_BTD, train=train), gate, train=train)

    def mix_context(self, x_BTD: jax.Array, *, train: bool) -> jax.Array:
        """What each head of self-attention sees `[B, T, H, K]`, at all positions at once."""
        attend_11TT = jnp.tril(jnp.ones((x_BTD.shape[1],) * 2, bool))[None, None]
        x_BTD = self.mixer_norm(x_BTD) if self.config.norm == "pre" else x_BTD
        return self.mixer.context(x_BTD, self.mixer.keys(x_BTD), attend_11TT, train=train)

    def apply_mix(
        self, x_BTD: jax.Array, context_BTHK: jax.Array, gate: jax.Array, *, train: bool
    ) -> jax.Array:
        """Self-attention with its residual connection."""
        return self._residual(
            x_BTD, lambda _: self.mixer.gated(context_BTHK, gate), self.mixer_norm, train
        )

    def mix_step(
        self,
        x_RWD: jax.Array,
        cache: Cache,
        position: jax.Array,
        origin_RWT: jax.Array,
        gate: jax.Array | None,
    ) -> tuple[jax.Array, Cache]:
        """The same at `position` for W beams, each with the past that `origin` finds in `cache`;
        and the cache after it."""
        after: list[jax.Array] = []

        def recurrent(x_RWD: jax.Array) -> jax.Array:
            cell_RWD, before_RW = cache[0], origin_RWT[:, :, jnp.maximum(position - 1, 0)]
            out_RWD, cell_RWD = self.mixer.step(
                x_RWD, jnp.take_along_axis(cell_RWD, before_RW[..., None], axis=1)
            )
            after.append(cell_RWD)
            return out_RWD

        def attended(x_RWD: jax.Array) -> jax.Array:
            rows, beams, _ = origin_RWT.shape
            for past_RHKS, new_RWHK in zip(cache, self.mixer.keys(x_RWD), strict=True):
                new_RHKW = jnp.moveaxis(new_RWHK, 1, -1)
                after.append(
                    jax.lax.dynamic_update_slice_in_dim(past_RHKS, new_RHKW, position * beams, 3)
                )
            own_RWTV = origin_RWT[..., None] == jnp.arange(beams)[None, None, None]
            seen_RWTV = own_RWTV & (jnp.arange(own_RWTV.shape[2]) <= position)[None, None, :, None]
            context_RWHK = self.mixer.context_of_past(
                x_RWD, *after, seen_RWTV.reshape(rows, 1, beams, -1)
            )
            return self.mixer.gated(context_RWHK, gate)

        x_RWD = self._residual(
            x_RWD, recurrent if gate is None else attended, self.mixer_norm, False
        )
        return x_RWD, tuple(after)

    def cross_attend(
        self,
        x_BTD: jax.Array,
        keys: KeyValue,
        attend_B11S: jax.Array,
        gate: jax.Array,
        *,
        train: bool,
    ) -> jax.Array:
        """Cross-attention and the feed-forward layer, of any number of queries a sentence."""
        context_BTHK = self.cross_context(x_BTD, keys, attend_B11S, train=train)
        return self.apply_cross(x_BTD, context_BTHK, gate, train=train)

    def cross_context(
        self, x_BTD: jax.Array, keys: KeyValue, attend_B11S: jax.Array, *, train: bool
    ) -> jax.Array:
        """What each head of cross-attention sees `[B, T, H, K]`."""
        x_BTD = self.cross_norm(x_BTD) if self.config.norm == "pre" else x_BTD
        return self.cross.context(x_BTD, keys, attend_B11S, train=train)

    def apply_cross(
        self, x_BTD: jax.Array, context_BTHK: jax.Array, gate: jax.Array, *, train: bool
    ) -> jax.Array:
        """Cross-attention and the feed-forward layer, each with its residual connection."""
        x_BTD = self._residual(
            x_BTD, lambda _: self.cross.gated(context_BTHK, gate), self.cross_norm, train
        )
        return self._residual(x_BTD, self.ffn, self.ffn_norm, train)

"""Encoder-decoder Transformers with three kinds of attention; each attention module reads its own
gate, by its row's name."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hp_jax.architecture import Seq2SeqConfig
from hp_jax.models.layers import KeyValue, attended, summed
from hp_jax.models.seq2seq_layers import INIT, Cache, DecoderLayer, EncoderLayer

Gates = Mapping[str, jax.Array]
"""For each row of the head mask, a gate that is broadcast to `[B, T, H]`."""


class Memory(NamedTuple):
    """What the decoder sees of the source: for each of its layers keys and values, and where it may
    look."""

    keys: tuple[KeyValue, ...]
    attend_B11S: jax.Array


class DecoderState(NamedTuple):
    """The state before a row of the decoder, under teacher forcing."""

    source_BSD: jax.Array
    """The encoder's last."""
    target_BTD: jax.Array


class Seq2Seq(nn.Module):
    """`encode` the source, then `logits` under teacher forcing or `step` by step."""

    config: Seq2SeqConfig

    def setup(self) -> None:
        """Names the modules: these names are the checkpoint's."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        embedding = functools.partial(
            nn.Embed,
            features=c.width,
            dtype=dtype,
            embedding_init=nn.initializers.normal(c.width**-0.5),
        )
        self.target_embedding = embedding(c.target_vocab)
        self.source_embedding = (
            self.target_embedding if c.share_source else embedding(c.source_vocab)
        )
        if c.positions == "learned":
            self.source_position, self.target_position = (
                embedding(c.max_positions),
                embedding(c.max_positions),
            )
        self.encoder = [EncoderLayer(c, i) for i in range(c.encoder_layers)]
        self.decoder = [DecoderLayer(c, i) for i in range(c.decoder_layers)]
        if c.norm == "pre":
            self.encoder_norm = nn.LayerNorm(c.epsilon, dtype=dtype)
            self.decoder_norm = nn.LayerNorm(c.epsilon, dtype=dtype)
        if not c.share_output:
            self.output = nn.Dense(
                c.target_vocab, use_bias=False, dtype=dtype, kernel_init=INIT, dot_general=summed
            )
        if c.output_bias:
            self.output_bias = self.param("output_bias", nn.initializers.zeros, (c.target_vocab,))
        self.dropout = nn.Dropout(c.dropout)

    def embed(self, source_BS: jax.Array, *, train: bool = False) -> jax.Array:
        """The encoder's state before its first layer `[B, S, D]`."""
        x_BSD = self._embed(source_BS, "source", jnp.arange(source_BS.shape[1]))
        return self.dropout(x_BSD, deterministic=not train)

    def context(
        self, layer: int, x_BSD: jax.Array, length_B: jax.Array, *, train: bool = False
    ) -> jax.Array:
        """What the heads of an encoder layer see in the state before it: `[B, S, H, K]`, whatever
        their gates are."""
        return self.encoder[layer].context(x_BSD, _attend(x_BSD, length_B), train=train)

    def apply_row(
        self,
        layer: int,
        x_BSD: jax.Array,
        context_BSHK: jax.Array,
        gate: jax.Array,
        *,
        train: bool = False,
    ) -> jax.Array:
        """The encoder's state after a layer, from the one before it and what the layer's heads see
        there."""
        return self.encoder[layer].apply_row(x_BSD, context_BSHK, gate, train=train)

    def memory(self, x_BSD: jax.Array, length_B: jax.Array) -> Memory:
        """The source as the decoder sees it, from the encoder's last state."""
        attend_B11S = _attend(x_BSD, length_B)
        if self.config.norm == "pre":
            x_BSD = self.encoder_norm(x_BSD)
        return Memory(tuple(layer.keys(x_BSD) for layer in self.decoder), attend_B11S)

    def encode(
        self, source_BS: jax.Array, length_B: jax.Array, gates: Gates, *, train: bool = False
    ) -> Memory:
        """The source as the decoder sees it."""
        x_BSD = self.embed(source_BS, train=train)
        for i in range(self.config.encoder_layers):
            x_BSD = self.apply_row(
                i,
                x_BSD,
                self.context(i, x_BSD, length_B, train=train),
                gates[f"enc.{i}"],
                train=train,
            )
        return self.memory(x_BSD, length_B)

    def logits(
        self, target_BT: jax.Array, memory: Memory, gates: Gates, *, train: bool = False
    ) -> jax.Array:
        """Logits `[B, T, V]`, float32, of each target token given those before it (teacher
        forcing)."""
        return self.readout(self.hidden(target_BT, memory, gates, train=train))

    def hidden(
        self, target_BT: jax.Array, memory: Memory, gates: Gates, *, train: bool = False
    ) -> jax.Array:
        """The decoder's last state `[B, T, D]` before each target token."""
        x_BTD = self.embed_target(target_BT, train=train)
        for i, (layer, keys) in enumerate(zip(self.decoder, memory.keys, strict=True)):
            x_BTD = layer.mix(x_BTD, gates.get(f"dec.{i}"), train=train)
            x_BTD = layer.cross_attend(
                x_BTD, keys, memory.attend_B11S, gates[f"cross.{i}"], train=train
            )
        return x_BTD

    def embed_target(self, target_BT: jax.Array, *, train: bool = False) -> jax.Array:
        """The decoder's state before its first layer `[B, T, D]`: of the token before each."""
        input_BT = jnp.pad(target_BT[:, :-1], ((0, 0), (1, 0)), constant_values=self.config.start)
        x_BTD = self._embed(input_BT, "target", jnp.arange(input_BT.shape[1]))
        return self.dropout(x_BTD, deterministic=not train)

    def decoder_residual(self, row: str, state: DecoderState) -> jax.Array:
        """What the row's output is added to `[B, T, D]`; an SSRU stands before its layer's only
        row."""
        layer, x_BTD = self._decoder_layer(row), state.target_BTD
        return layer.mix(x_BTD, None, train=False) if self.config.decoder == "ssru" else x_BTD

    def decoder_context(self, row: str, state: DecoderState, length_B: jax.Array) -> jax.Array:
        """What the heads of a row of the decoder see in the state before it: `[B, T, H, K]`,
        whatever their gates are."""
        layer, x_BTD = self._decoder_layer(row), self.decoder_residual(row, state)
        if row.startswith("dec."):
            return layer.mix_context(x_BTD, train=False)
        memory = self.memory(state.source_BSD, length_B)
        return layer.cross_context(
            x_BTD, memory.keys[layer.number], memory.attend_B11S, train=False
        )

    def decoder_apply_row(
        self, row: str, state: DecoderState, context_BTHK: jax.Array, gate: jax.Array
    ) -> DecoderState:
        """The state after a row of the decoder, from the one before it and what its heads see
        there."""
        layer, x_BTD = self._decoder_layer(row), self.decoder_residual(row, state)
        apply = layer.apply_mix if row.startswith("dec.") else layer.apply_cross
        return state._replace(target_BTD=apply(x_BTD, context_BTHK, gate, train=False))

    def _decoder_layer(self, row: str) -> DecoderLayer:
        return self.decoder[int(row.partition(".")[2])]

    def cache(self, batch: int, beams: int, length: int) -> tuple[Cache, ...]:
        """An empty past for each layer, with room for `length` tokens."""
        c, dtype = self.config, jnp.dtype(self.config.dtype)
        if c.decoder == "ssru":
            return ((jnp.zeros((batch, beams, c.width), dtype),),) * c.decoder_layers
        heads = [c.heads_per_row[f"dec.{i}"] for i in range(c.decoder_layers)]
        pasts = [
            jnp.zeros((batch, count, c.modules["dec.0"].head_width, length * beams), dtype)
            for count in heads
        ]
        return tuple((past, past) for past in pasts)

    def step(
        self,
        token_RW: jax.Array,
        position: jax.Array,
        origin_RWT: jax.Array,
        cache: tuple[Cache, ...],
        memory: Memory,
        gates: Gates,
    ) -> tuple[jax.Array, tuple[Cache, ...]]:
        """Logits `[R, W, V]` of the token at `position` (0 first) given the one before it, and the
        cache after it.

        At each position beams go on from what the beams `origin` have written.  `memory` may have
        fewer sentences than R: each serves as many successive rows.
        """
        sentences = memory.attend_B11S.shape[0]
        x_RWD, after = self._embed(token_RW, "target", position), []
        for i, (layer, keys) in enumerate(zip(self.decoder, memory.keys, strict=True)):
            x_RWD, past = layer.mix_step(
                x_RWD, cache[i], position, origin_RWT, gates.get(f"dec.{i}")
            )
            gate_RWH = jnp.broadcast_to(
                gates[f"cross.{i}"], (*x_RWD.shape[:2], gates[f"cross.{i}"].shape[-1])
            )
            queries = x_RWD.shape[0] * x_RWD.shape[1] // sentences
            x_BQD, gate_BQH = (
                part.reshape(sentences, queries, part.shape[-1]) for part in (x_RWD, gate_RWH)
            )
            x_RWD = layer.cross_attend(
                x_BQD, keys, memory.attend_B11S, gate_BQH, train=False
            ).reshape(x_RWD.shape)
            after.append(past)
        return self.readout(x_RWD), tuple(after)

    def __call__(
        self, source_BS: jax.Array, length_B: jax.Array, target_BT: jax.Array, gates: Gates
    ) -> jax.Array:
        """Logits `[B, T, V]` under teacher forcing."""
        return self.logits(target_BT, self.encode(source_BS, length_B, gates), gates)

    def _embed(self, tokens: jax.Array, side: str, position: jax.Array) -> jax.Array:
        """Scaled embeddings plus positions; the token -1 has a zero embedding."""
        c = self.config
        x = getattr(self, f"{side}_embedding")(jnp.maximum(tokens, 0))
        x = jnp.where(tokens[..., None] >= 0, x, 0)
        x = x * jnp.asarray(c.width**0.5, x.dtype) if c.scale_embeddings else x
        if c.positions == "learned":
            embedding = getattr(self, f"{side}_position")(c.first_position + position)
        else:
            embedding = sinusoids(
                c.first_position + position, c.width, half=c.positions == "sinusoid_half"
            ).astype(x.dtype)
        return x + jnp.expand_dims(embedding, tuple(range(x.ndim - embedding.ndim)))

    def readout(self, x: jax.Array) -> jax.Array:
        """Logits `[..., V]`, float32, of the decoder's last states `[..., D]`."""
        c = self.config
        if c.norm == "pre":
            x = self.decoder_norm(x)
        if (
            x.shape[:-1] == (1, 1) and c.share_output
        ):  # for one token XLA on a CPU copies the table's transpose every time
            table, x = (part.astype(c.dtype) for part in (self.target_embedding.embedding, x))
            logits = jnp.einsum("VD,RWD->RWV", table, x, preferred_element_type=jnp.float32)
        elif c.share_output:
            logits = attended(self.target_embedding.embedding, x)
        else:
            logits = self.output(x)
        return logits + jnp.expand_dims(self.output_bias, (0, 1)) if c.output_bias else logits


def _attend(x_BSD: jax.Array, length_B: jax.Array) -> jax.Array:
    """Where the source has tokens `[B, 1, 1, S]`."""
    return (jnp.arange(x_BSD.shape[1])[None] < length_B[:, None])[:, None, None]


def sinusoids(position: jax.Array, width: int, *, half: bool) -> jax.Array:
    """`[..., D]`: sines, then cosines, of positions `[...]` times D/2 frequencies; `half` as in
    `Seq2SeqConfig.positions`."""
    count = width // 2
    exponent = jnp.arange(count, dtype=jnp.float32) / (count - 1 if half else count)
    angle = jnp.multiply.outer(position.astype(jnp.float32), jnp.exp(-exponent * jnp.log(10000.0)))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)

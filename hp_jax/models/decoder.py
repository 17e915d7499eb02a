"""Decoder-only language models (GPT-2, Llama, Qwen, Gemma and their like) as a chain of stages,
each of which reads one row of the head mask."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import DecoderConfig
from hp_jax.models.layers import (
    ACTIVATIONS,
    INIT,
    Attention,
    KeyValue,
    attended,
    rounded,
    softcapped,
    summed,
)

Past = list[KeyValue]
"""Of each row the keys and values that there are so far."""


def rotated(x_BTHK: jax.Array, angle_BTJ: jax.Array, scale: float) -> jax.Array:
    """Queries or keys at their positions: the numbers j and j + K / 2 of each head, as a plane,
    turned by an angle (Su et al. 2021, in Hugging Face's order)."""
    cos, sin = (turn(angle_BTJ)[:, :, None] * scale for turn in (jnp.cos, jnp.sin))
    first, second = jnp.split(x_BTHK.astype(jnp.float32), 2, -1)
    turned = first * cos - second * sin, second * cos + first * sin
    return jnp.concatenate(turned, -1).astype(x_BTHK.dtype)


class FeedForward(nn.Module):
    """Hidden units of an activation, multiplied by gates or not, and the way back."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        """`[B, T, D]` from `[B, T, D]`."""
        c = self.config

        dense = functools.partial(
            nn.Dense, use_bias=c.ffn_bias, dtype=jnp.dtype(c.dtype), kernel_init=INIT
        )
        hidden = functools.partial(dense, c.ffn, dot_general=summed)
        active = jax.checkpoint(ACTIVATIONS[c.activation])  # a gradient keeps its input alone
        x_BTF = hidden(name="inner")(x_BTD)
        x_BTF = active(hidden(name="gate")(x_BTD)) * x_BTF if c.gated else active(x_BTF)
        return dense(c.width, dot_general=rounded, name="outer")(x_BTF)


class Block(nn.Module):
    """One layer."""

    config: DecoderConfig
    number: int

    def setup(self) -> None:
        """Names the modules: these names are the checkpoint's."""
        c, row = self.config, f"dec.{self.number}"
        module, kept = c.modules[row], c.kept_heads[row]
        places = {head: place for place, head in enumerate(module.serving(kept))}
        dtype = jnp.dtype(c.dtype)
        self.attention = Attention(
            c.width,
            len(kept),
            c.head_width,
            dtype,
            kernel=c.kernel,
            serving=tuple(places[head // module.group] for head in kept),
            biases=c.biases,
            scale=c.query_scale**-0.5 if c.query_scale else 0.0,
            softcap=c.attention_softcap,
        )
        self.ffn = FeedForward(c)
        self.attention_norm, self.ffn_norm = _norm(c), _norm(c)
        if c.norm_outputs:
            self.attention_out_norm, self.ffn_out_norm = _norm(c), _norm(c)
        if c.norm_queries:
            self.query_norm, self.key_norm = _norm(c), _norm(c)

    def context_and_keys(
        self,
        x_BTD: jax.Array,
        position_BT: jax.Array | None = None,
        part_BT: jax.Array | None = None,
    ) -> tuple[jax.Array, KeyValue]:
        """What each head sees `[B, T, H, K]` in the state before the layer, and the keys and values
        of all positions, each `[B, T, H, K]`; see `Decoder.context`."""
        if position_BT is None:
            position_BT = jnp.arange(x_BTD.shape[1])[None]
        q_BTHK, keys = self._looks(x_BTD, position_BT)
        attend_BTS = self._attend(position_BT, position_BT)
        if part_BT is not None:
            own_BT1, other_B1S = part_BT[:, :, None], part_BT[:, None]
            attend_BTS &= (own_BT1 == other_B1S) | (other_B1S == 0)
        return self.attention.looking(q_BTHK, keys, attend_BTS[:, None]), keys

    def context_of_next(
        self, x_B1D: jax.Array, past: KeyValue, position_B: jax.Array
    ) -> tuple[jax.Array, KeyValue]:
        """What each head sees at one position of each text `[B, 1, H, K]`, and the keys and values
        `[B, S, H, K]` with those of the position."""
        position_B1, text_B = position_B[:, None], jnp.arange(len(position_B))
        q_B1HK, new = self._looks(x_B1D, position_B1)
        keys, values = (
            past_BSHK.at[text_B, position_B].set(new_B1HK[:, 0])
            for past_BSHK, new_B1HK in zip(past, new, strict=True)
        )
        attend_B1S = self._attend(position_B1, jnp.arange(keys.shape[1])[None])
        return self.attention.looking(q_B1HK, (keys, values), attend_B1S[:, None]), (keys, values)

    def _looks(self, x_BTD: jax.Array, position_BT: jax.Array) -> tuple[jax.Array, KeyValue]:
        """Queries, keys and values of the state at its positions."""
        x_BTD = self.attention_norm(x_BTD)
        q_BTHK, (k_BTHK, v_BTHK) = self.attention.query(x_BTD), self.attention.keys(x_BTD)
        if self.config.norm_queries:
            q_BTHK, k_BTHK = self.query_norm(q_BTHK), self.key_norm(k_BTHK)
        if self.config.rotary_base:
            angle_BTJ = position_BT[..., None] * self._frequencies()[None, None]
            scale = 1.0 if self._own_base else self.config.rotary_scale
            q_BTHK, k_BTHK = (rotated(x, angle_BTJ, scale) for x in (q_BTHK, k_BTHK))
        return q_BTHK, (k_BTHK, v_BTHK)

    def _attend(self, position_BT: jax.Array, other_BS: jax.Array) -> jax.Array:
        """Which of the other positions each may look at: `[B, T, S]`."""
        behind_BTS = position_BT[..., None] - other_BS[:, None]
        attend_BTS = behind_BTS >= 0
        return attend_BTS & (behind_BTS < self.config.window) if self._local else attend_BTS

    def apply_row(self, x_BTD: jax.Array, context_BTHK: jax.Array, gate: jax.Array) -> jax.Array:
        """The layer's output `[B, T, D]`."""
        added_BTD = self.attention.gated(context_BTHK, gate)
        x_BTD += self.attention_out_norm(added_BTD) if self.config.norm_outputs else added_BTD
        added_BTD = self.ffn(self.ffn_norm(x_BTD))
        return x_BTD + (self.ffn_out_norm(added_BTD) if self.config.norm_outputs else added_BTD)

    @property
    def _local(self) -> bool:
        return self.number in self.config.local

    @property
    def _own_base(self) -> float:
        return self.config.local_base if self._local else 0.0

    def _frequencies(self) -> np.ndarray:
        """The angle by which one position more turns each plane `[K / 2]`; rounded once, on the
        host, since a last digit is 6e-5 radians at position 1000."""
        c, own = self.config, self._own_base
        turn_J = (own or c.rotary_base) ** (-np.arange(0, c.head_width, 2) / c.head_width)
        factors = c.rotary_factors if c.rotary_factors and not own else 1.0
        return (turn_J / np.array(factors)).astype(np.float32)


class Decoder(nn.Module):
    """`embed`, then `context` and `apply_row` for each mask row, then `readout`; `__call__` runs
    the chain."""

    config: DecoderConfig

    def setup(self) -> None:
        """Names the modules: these names are the checkpoint's."""
        c = self.config
        dtype = jnp.dtype(c.dtype)
        self.word = nn.Embed(c.vocab, c.width, dtype=dtype, embedding_init=INIT)
        if not c.rotary_base:
            self.position = nn.Embed(c.positions, c.width, dtype=dtype, embedding_init=INIT)
        self.layer = [Block(c, number) for number in range(c.layers)]
        self.norm = _norm(c)
        if not c.tied:
            self.output = nn.Dense(
                c.vocab, use_bias=False, dtype=dtype, kernel_init=INIT, dot_general=summed
            )

    def embed(self, tokens_BT: jax.Array, position_BT: jax.Array | None = None) -> jax.Array:
        """The state before the first stage `[B, T, D]`; default: of the positions 0 to T - 1."""
        x_BTD = self.word(tokens_BT) * jnp.asarray(self.config.embedding_scale, self.config.dtype)
        if not self.config.rotary_base:
            position_1T = jnp.arange(tokens_BT.shape[1])[None]
            x_BTD += self.position(position_1T if position_BT is None else position_BT)
        return x_BTD

    def context(
        self,
        row: int,
        x_BTD: jax.Array,
        position_BT: jax.Array | None = None,
        part_BT: jax.Array | None = None,
    ) -> jax.Array:
        """What the heads of row `row` see in the state `[B, T, D]` before it: `[B, T, H, K]`,
        whatever their gates are.

        position: default 0 to T - 1.
        part: a token sees those before it of part 0 and of its own part; default: all are of one.
        """
        context_BTHK, _ = self.layer[row].context_and_keys(x_BTD, position_BT, part_BT)
        return context_BTHK

    def apply_row(
        self, row: int, x_BTD: jax.Array, context_BTHK: jax.Array, gate: jax.Array
    ) -> jax.Array:
        """The state after row `row`, from the one before it and what its heads see there."""
        return self.layer[row].apply_row(x_BTD, context_BTHK, gate)

    def readout(self, x_BTD: jax.Array) -> jax.Array:
        """Logits `[B, T, V]` of the next tokens, float32."""
        x_BTD, tied = self.norm(x_BTD), self.config.tied
        logits_BTV = attended(self.word.embedding, x_BTD) if tied else self.output(x_BTD)
        return softcapped(logits_BTV, self.config.logit_softcap)

    def hidden(
        self,
        tokens_BT: jax.Array,
        gates: Sequence[jax.Array],
        position_BT: jax.Array | None = None,
        part_BT: jax.Array | None = None,
    ) -> jax.Array:
        """The last state `[B, T, D]`; `gates[a]` is broadcast to `[B, T, H]`; positions and parts
        as in `context`."""
        x_BTD = self.embed(tokens_BT, position_BT)
        for row, gate in enumerate(gates):
            context_BTHK = self.context(row, x_BTD, position_BT, part_BT)
            x_BTD = self.apply_row(row, x_BTD, context_BTHK, gate)
        return x_BTD

    def read(
        self, tokens_BT: jax.Array, gates: Sequence[jax.Array], room: int
    ) -> tuple[jax.Array, Past]:
        """The last state `[B, T, D]`, and each row's keys and values with room for `room`
        positions."""
        x_BTD, past = self.embed(tokens_BT), []
        for row, gate in enumerate(gates):
            context_BTHK, keys = self.layer[row].context_and_keys(x_BTD)
            x_BTD = self.apply_row(row, x_BTD, context_BTHK, gate)
            rest = (0, 0), (0, room - tokens_BT.shape[1]), (0, 0), (0, 0)
            past.append((jnp.pad(keys[0], rest), jnp.pad(keys[1], rest)))
        return x_BTD, past

    def next(
        self, token_B: jax.Array, position_B: jax.Array, past: Past, gates: Sequence[jax.Array]
    ) -> tuple[jax.Array, Past]:
        """Logits `[B, V]` after one more token of each text, which is at `position`, and the past
        with it."""
        x_B1D, after = self.embed(token_B[:, None], position_B[:, None]), []
        for row, gate in enumerate(gates):
            context_B1HK, keys = self.layer[row].context_of_next(x_B1D, past[row], position_B)
            x_B1D = self.apply_row(row, x_B1D, context_B1HK, gate)
            after.append(keys)
        return self.readout(x_B1D)[:, 0], after

    def __call__(self, tokens_BT: jax.Array, gates: Sequence[jax.Array]) -> jax.Array:
        """Logits `[B, T, V]` of the token after each."""
        return self.readout(self.hidden(tokens_BT, gates))


def _norm(c: DecoderConfig) -> nn.Module:
    kind = nn.LayerNorm if c.norm == "layer" else nn.RMSNorm
    return kind(c.epsilon, dtype=jnp.dtype(c.dtype))

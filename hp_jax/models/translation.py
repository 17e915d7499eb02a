"""Translation by an encoder-decoder model, as the `Task` that importance, ablation and pruning
see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from hp_jax.architecture import Decoding, Seq2SeqConfig, present_mask
from hp_jax.models.decode import Hypotheses, allowed, beam_search, leads, longest
from hp_jax.models.forced import drawn_tokens, of_tokens
from hp_jax.models.seq2seq import DecoderState, Memory, Seq2Seq
from hp_jax.task import Array, Batch, Gates, Params

DRAFTED = 4
"""Masks from which on a draft, which costs one more translation, pays."""


@dataclasses.dataclass(frozen=True)
class Translation:
    """Cross-entropy under teacher forcing, and translations.

    A batch has `source_BS`, `source_length_B`, `target_BT`, `target_length_B` (EOS at the end of
    each, padded on the right), `weight_B` and `index_B`.
    """

    config: Seq2SeqConfig
    decoding: Decoding | None = None
    """How `evaluate` translates; None: it does not, which is much cheaper."""

    @property
    def rows(self) -> tuple[str, ...]:
        """`enc.0`, `enc.1`, ..., `dec.0`, `cross.0`, `dec.1`, ..."""
        return tuple(self.config.rows)

    @property
    def present_AH(self) -> np.ndarray:
        """The heads that the model has `[A, H]`, as wide as the widest row was."""
        return present_mask(self.config)

    @property
    def tables(self) -> dict[str, tuple[int, int | None]]:
        """Tokens of both sides."""
        room = self.config.room
        return {
            "source_BS": (self.config.source_vocab, room),
            "target_BT": (self.config.target_vocab, room),
        }

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        one = jnp.zeros((1, 1), jnp.int32)
        gates = {row: jnp.ones(count) for row, count in self.config.heads_per_row.items()}
        return Seq2Seq(self.config).init(key, one, jnp.ones(1, jnp.int32), one, gates)["params"]

    def loss(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """Cross-entropy of each sentence, summed over its target tokens `[B]`, in nats."""
        return self._forced(params, batch, self._encode(params, batch, gates), gates)[0]

    def drawn_losses(
        self, params: Params, batch: Batch, gates: Gates, keys_BK: jax.Array
    ) -> jax.Array:
        """The loss, and what it would be with target tokens that the model draws, each after the
        right ones: `[B, 1 + K]`."""
        memory, target_BT = self._encode(params, batch, gates), jnp.asarray(batch["target_BT"])
        state_BTD = self._apply(params, "hidden", target_BT, memory, self._named(gates))
        real_BT = _real(target_BT, batch["target_length_B"])

        def readout(state_BTD: jax.Array) -> jax.Array:
            return cast(jax.Array, self._apply(params, "readout", state_BTD))

        drawn_BTK = drawn_tokens(state_BTD, real_BT, readout, keys_BK)
        logits_BTV = readout(state_BTD)
        token_BTO = jnp.concatenate([target_BT[..., None], drawn_BTK], -1)
        own_BTO = jnp.take_along_axis(logits_BTV, token_BTO, -1)
        loss_BTO = jax.nn.logsumexp(logits_BTV, -1, keepdims=True) - own_BTO
        return jnp.sum(loss_BTO * real_BT[..., None], 1)

    def training_loss(
        self,
        params: Params,
        batch: Batch,
        gates: Gates,
        *,
        dropout: jax.Array,
        smoothing: float,
    ) -> tuple[jax.Array, jax.Array]:
        """Summed cross-entropy with label smoothing `[B]` and the number of target tokens `[B]`;
        dropout is on."""
        encoding, decoding = jax.random.split(dropout)
        memory = self._encode(params, batch, gates, dropout=encoding)
        logits_BTV = self._apply(
            params, "logits", batch["target_BT"], memory, self._named(gates), dropout=decoding
        )
        log_BTV = jax.nn.log_softmax(logits_BTV)
        gold_BT = jnp.take_along_axis(log_BTV, batch["target_BT"][..., None], -1)[..., 0]
        loss_BT = -(1 - smoothing) * gold_BT - smoothing * log_BTV.mean(-1)
        return jnp.sum(
            loss_BT * _real(batch["target_BT"], batch["target_length_B"]), 1
        ), jnp.asarray(batch["target_length_B"])

    def forward(self, params: Params, batch: Batch, gates: Gates) -> jax.Array:
        """One pass, for what it costs: the loss under teacher forcing."""
        return self.loss(params, batch, gates)

    def batch_shapes(
        self, examples: int, length: int, target: int | None = None
    ) -> dict[str, jax.ShapeDtypeStruct]:
        """A batch of `examples` of `length` source tokens and `target` target tokens, by default as
        many."""
        shapes: dict[str, tuple[int, ...]] = {
            "source_BS": (examples, length),
            "target_BT": (examples, target or length),
        }
        shapes |= dict.fromkeys(("source_length_B", "target_length_B", "index_B"), (examples,))
        batch = {name: jax.ShapeDtypeStruct(shape, jnp.int32) for name, shape in shapes.items()}
        return batch | {"weight_B": jax.ShapeDtypeStruct((examples,), jnp.float32)}

    @property
    def stages(self) -> int:
        """The encoder's rows."""
        return self.config.encoder_layers

    def start(self, params: Params, batch: Batch) -> jax.Array:
        """The source's embeddings `[B, S, D]`."""
        return self._apply(params, "embed", batch["source_BS"])

    def residual(self, params: Params, row: int, batch: Batch, state: Any) -> jax.Array:
        """What the row's output is added to: `[B, S, D]` for `enc`, `[B, T, D]` for others."""
        if row < self.stages:
            return cast(jax.Array, state)
        state = self._decoder_state(params, row, batch, state)
        return self._apply(params, "decoder_residual", self.rows[row], state)

    def context(self, params: Params, row: int, batch: Batch, state: Any) -> jax.Array:
        """The contexts of the row's heads: `[B, S, H, K]` for `enc`, `[B, T, H, K]` for others."""
        if row < self.stages:
            return self._apply(params, "context", row, state, batch["source_length_B"])
        state = self._decoder_state(params, row, batch, state)
        named = "decoder_context", self.rows[row]
        return self._apply(params, *named, state, batch["source_length_B"])

    def apply_row(
        self,
        params: Params,
        row: int,
        batch: Batch,
        state: Any,
        context: jax.Array,
        gate: Array,
    ) -> Any:
        """The state after the row: the encoder's `[B, S, D]`, or a `DecoderState`."""
        if row < self.stages:
            return self._apply(params, "apply_row", row, state, context, gate)
        state = self._decoder_state(params, row, batch, state)
        return self._apply(params, "decoder_apply_row", self.rows[row], state, context, gate)

    def _decoder_state(self, params: Params, row: int, batch: Batch, state: Any) -> DecoderState:
        """The state before a row of the decoder; before the first, it is the encoder's last."""
        if row > self.stages:
            return cast(DecoderState, state)
        return DecoderState(state, self._apply(params, "embed_target", batch["target_BT"]))

    def evaluate(
        self, params: Params, batch: Batch, states: jax.Array, gates: Gates
    ) -> dict[str, jax.Array]:
        """`loss` and `correct` (target tokens predicted, given those before) `[M, B]`, and
        `translation` `[M, B, T]`."""
        memories = jax.vmap(
            lambda state: self._apply(params, "memory", state, batch["source_length_B"])
        )(states)
        masks = len(gates[0]) // len(states)
        gates_UGH = [jnp.reshape(gate, (len(states), masks, gate.shape[-1])) for gate in gates]

        def under_each(of: tuple[Memory, list[jax.Array]]) -> tuple[jax.Array, jax.Array]:
            memory, gates_GH = of
            return jax.lax.map(lambda gates: self._scored(params, batch, memory, gates), gates_GH)

        # One mask at a time: the states [B, T, D] of all would fill the memory.
        loss_UGB, correct_UGB = jax.lax.map(under_each, (memories, gates_UGH))
        values = {"loss": loss_UGB, "correct": correct_UGB}
        if self.decoding is not None:
            values["translation"] = self._translations(
                params, batch, memories, gates_UGH, self.decoding
            )
        return {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}

    def translate(
        self, params: Params, batch: Batch, gates: Gates, decoding: Decoding
    ) -> Hypotheses:
        """The best `decoding.beam` translations of each sentence and their scores: `[B, W, T]`,
        `[B, W]`."""
        memories = jax.tree.map(lambda leaf: leaf[None], self._encode(params, batch, gates))
        return self._search(
            params, batch, memories, [jnp.asarray(gate)[None, None] for gate in gates], decoding
        )

    def queries(self, batch: Batch) -> tuple[jax.Array, ...]:
        """Real query positions of each row: of the source `[B, S]` for `enc`, of the target `[B,
        T]` for `dec` and `cross`."""
        weight_B1 = batch["weight_B"][:, None]
        source_BS = _real(batch["source_BS"], batch["source_length_B"]) * weight_B1
        target_BT = _real(batch["target_BT"], batch["target_length_B"]) * weight_B1
        return tuple(source_BS if row.startswith("enc.") else target_BT for row in self.rows)

    def _apply(
        self, params: Params, method: str, *args: Any, dropout: jax.Array | None = None
    ) -> Any:
        rngs = {} if dropout is None else {"dropout": dropout}
        options = {"train": dropout is not None} if method in ("encode", "logits") else {}
        return Seq2Seq(self.config).apply(
            {"params": params}, *args, method=method, rngs=rngs, **options
        )

    def _named(self, gates: Gates) -> dict[str, Array]:
        return dict(zip(self.rows, gates, strict=True))

    def _encode(
        self,
        params: Params,
        batch: Batch,
        gates: Gates,
        *,
        dropout: jax.Array | None = None,
    ) -> Memory:
        inputs = batch["source_BS"], batch["source_length_B"], self._named(gates)
        return self._apply(params, "encode", *inputs, dropout=dropout)

    def _forced(
        self, params: Params, batch: Batch, memory: Memory, gates: Gates
    ) -> tuple[jax.Array, jax.Array]:
        """Loss and number of tokens predicted right of each sentence `[B]`."""
        target_BT = batch["target_BT"]
        logits_BTV = self._apply(params, "logits", target_BT, memory, self._named(gates))
        gold_BT = jnp.take_along_axis(logits_BTV, target_BT[..., None], -1)[..., 0]
        real_BT = _real(target_BT, batch["target_length_B"])
        loss_B = jnp.sum((jax.nn.logsumexp(logits_BTV, -1) - gold_BT) * real_BT, 1)
        return loss_B, jnp.sum((jnp.argmax(logits_BTV, -1) == target_BT) * real_BT, 1).astype(
            jnp.int32
        )

    def _translations(
        self,
        params: Params,
        batch: Batch,
        memories: Memory,
        gates_UGH: list[jax.Array],
        decoding: Decoding,
    ) -> jax.Array:
        """The best translation of each sentence under each mask `[U, G, B, T]`.

        Greedy search drafts: the translation with all heads that any of the masks has.  Where one
        pass over the draft shows that a mask translates alike, nothing is left to search.
        """
        states, masks = gates_UGH[0].shape[:2]

        def found(alike_UGB: jax.Array | None = None) -> jax.Array:
            best_RT = self._search(
                params, batch, memories, gates_UGH, decoding, alike_UGB
            ).token_RWT[:, 0]
            shape = states, len(batch["index_B"]), masks, best_RT.shape[-1]
            return best_RT.reshape(shape).swapaxes(1, 2)

        if states * masks < DRAFTED or not self._drafts(decoding):
            return found()
        union = [jnp.max(gate_UGH, axis=(0, 1)) for gate_UGH in gates_UGH]
        draft_BT = self.translate(params, batch, union, decoding).token_RWT[:, 0]

        def under_each(of: tuple[Memory, list[jax.Array]]) -> jax.Array:
            memory, gates_GH = of
            return jax.lax.map(
                lambda gates: self._translates_so(params, batch, draft_BT, memory, gates, decoding),
                gates_GH,
            )

        alike_UGB = jax.lax.map(under_each, (memories, gates_UGH))
        return jnp.where(alike_UGB[..., None], draft_BT, found(alike_UGB))

    def _drafts(self, decoding: Decoding) -> bool:
        """Whether a draft can pay, and be sure.

        Under an SSRU, which has no past to look at, a step costs no more than a draft's check.  In
        bfloat16 rounding is too often larger than a token's lead; so it may be on a GPU or TPU,
        whose products of float32 numbers are less exact.
        """
        c, exact = self.config, jax.default_backend() == "cpu"
        return exact and decoding.beam == 1 and c.decoder == "attention" and c.dtype == "float32"

    def _translates_so(
        self,
        params: Params,
        batch: Batch,
        draft_BT: jax.Array,
        memory: Memory,
        gates: Gates,
        decoding: Decoding,
    ) -> jax.Array:
        """Whether greedy search surely comes to the draft `[B]`: each token of it is the best one,
        by more than rounding can be.

        A draft that is longer than the batch's targets are wide is not looked at, and not sure.
        """
        c, width = self.config, min(batch["target_BT"].shape[1], draft_BT.shape[1])
        limit_B = _limits(batch, decoding, draft_BT.shape[1])
        ended_BT = draft_BT == c.eos
        real_BT = _real(draft_BT, jnp.argmax(ended_BT, 1) + 1)[:, :width]
        real_BT &= ended_BT[:, :width].any(1, keepdims=True)

        def lead(logits_KV: jax.Array, at_K: jax.Array) -> jax.Array:
            sentence_K, position_K = at_K // width, at_K % width
            return leads(
                logits_KV,
                draft_BT[sentence_K, position_K],
                allowed(
                    c.target_vocab,
                    position_K,
                    limit_B[sentence_K],
                    c.eos,
                    c.never,
                    decoding.min_length,
                ),
            )

        sure_BT = self._of_tokens(params, draft_BT[:, :width], memory, gates, real_BT, lead)
        return real_BT[:, 0] & jnp.all(sure_BT | ~real_BT, 1)

    def _scored(
        self, params: Params, batch: Batch, memory: Memory, gates: Gates
    ) -> tuple[jax.Array, jax.Array]:
        """What `_forced` gives, without a gradient, and without logits for padding."""
        target_BT = jnp.asarray(batch["target_BT"])
        real_BT = _real(target_BT, batch["target_length_B"])

        def score(logits_KV: jax.Array, at_K: jax.Array) -> tuple[jax.Array, jax.Array]:
            gold_K = target_BT.reshape(-1)[at_K]
            own_K = jnp.take_along_axis(logits_KV, gold_K[:, None], 1)[:, 0]
            right_K = jnp.argmax(logits_KV, -1) == gold_K
            return jax.nn.logsumexp(logits_KV, -1) - own_K, right_K.astype(jnp.int32)

        loss_BT, right_BT = self._of_tokens(params, target_BT, memory, gates, real_BT, score)
        return loss_BT.sum(1), right_BT.sum(1)

    def _of_tokens(
        self,
        params: Params,
        target_BT: jax.Array,
        memory: Memory,
        gates: Gates,
        real_BT: jax.Array,
        each: Callable[[jax.Array, jax.Array], Any],
    ) -> Any:
        """`of_tokens` under teacher forcing."""
        state_BTD = self._apply(params, "hidden", target_BT, memory, self._named(gates))
        return of_tokens(
            state_BTD, real_BT, lambda state: self._apply(params, "readout", state), each
        )

    def _search(
        self,
        params: Params,
        batch: Batch,
        memories: Memory,
        gates_UGH: Sequence[Array],
        decoding: Decoding,
        known_UGB: jax.Array | None = None,
    ) -> Hypotheses:
        """Beam search over masks and sentences together, R = U * B * G: the G masks that share a
        memory lie side by side.  Sentences that are `known` are left out."""
        c, (sentences, width) = self.config, batch["source_BS"].shape
        room = c.room or longest(width, decoding)
        (states, masks), length = gates_UGH[0].shape[:2], min(longest(width, decoding), room)
        limit_UBG = jnp.broadcast_to(
            _limits(batch, decoding, length)[None, :, None], (states, sentences, masks)
        )
        if known_UGB is not None:
            limit_UBG = jnp.where(known_UGB.swapaxes(1, 2), -1, limit_UBG)

        def in_rows(gate_UGH: Array) -> jax.Array:
            gate_UBGH = jnp.broadcast_to(
                gate_UGH[:, None], (states, sentences, masks, gate_UGH.shape[-1])
            )
            return gate_UBGH.reshape(states * sentences * masks, 1, gate_UGH.shape[-1])

        def step(
            token_RW: jax.Array,
            position: jax.Array,
            origin_RWT: jax.Array,
            cache: Any,
            given: tuple[Memory, list[jax.Array]],
        ) -> Any:
            memory, gates = given
            return self._apply(
                params, "step", token_RW, position, origin_RWT, cache, memory, self._named(gates)
            )

        return beam_search(
            step,
            self._apply(params, "cache", states * sentences * masks, decoding.beam, length),
            (
                jax.tree.map(lambda x: x.reshape(states * sentences, *x.shape[2:]), memories),
                [in_rows(gate_UGH) for gate_UGH in gates_UGH],
            ),
            limit_UBG.reshape(-1),
            length=length,
            start=c.start,
            eos=c.eos,
            pad=c.pad,
            never=c.never,
            decoding=decoding,
        )


def _limits(batch: Batch, decoding: Decoding, length: int) -> jax.Array:
    """Most tokens of each translation before its EOS `[B]`, where `length` tokens are the most with
    it; rows of padding are done before they begin (-1)."""
    limit_B = jnp.floor(decoding.max_ratio * batch["source_length_B"]).astype(jnp.int32)
    limit_B = jnp.minimum(limit_B + decoding.max_extra, length - 1)
    return jnp.where(batch["weight_B"] > 0, limit_B, -1)


def _real(tokens_BT: Array, length_B: Array) -> jax.Array:
    """Which positions hold tokens, `[B, T]`."""
    return jnp.arange(tokens_BT.shape[1])[None] < length_B[:, None]

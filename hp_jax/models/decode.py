"""Beam search as one compiled loop of static shapes, after fairseq's `sequence_generator`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hp_jax.architecture import Decoding

Step = Callable[[jax.Array, jax.Array, jax.Array, Any, Any], tuple[jax.Array, Any]]
"""(tokens `[R, W]`, position, origin `[R, W, T]`, cache, given) -> (logits `[R, W, V]` of the token
at that position, the cache after it).  What a beam wrote into the cache stays there: at position t
beam w goes on from what beam `origin[r, w, t]` wrote."""

MANY = 16
"""Sentences from which on it pays to leave the finished ones behind."""
MORE = 256
"""Sentences from which on it pays to do so once more, since each time is a loop to compile."""

ROUNDING = 2.0**-15
"""Of the largest logit: by so much a token must lead to be surely the best. On two trained models
float32 passes over whole sentences and over single tokens differed by 2**-18 at most on a CPU."""


class Hypotheses(NamedTuple):
    """The W translations of each of R sentences, the best first."""

    token_RWT: jax.Array
    """EOS at the end, padding after it; int32."""
    score_RW: jax.Array
    """Log-probability (nats) / length^penalty, EOS counted; float32."""


class _Beams(NamedTuple):
    """The state of the loop; all but `position` have the sentences as first axis."""

    position: jax.Array
    last_RW: jax.Array
    token_RWT: jax.Array
    origin_RWT: jax.Array
    """The beam that each beam's tokens were in at each position."""
    score_RW: jax.Array
    """Log-probability of each unfinished beam."""
    done: Hypotheses
    count_R: jax.Array
    """Finished hypotheses."""
    limit_R: jax.Array
    cache: Any
    given: Any

    def unfinished(self) -> jax.Array:
        """Which sentences go on `[R]`."""
        return (self.count_R < self.last_RW.shape[1]) & (self.position <= self.limit_R)


def longest(source: int, decoding: Decoding) -> int:
    """Most tokens, EOS included, that a translation of `source` tokens (EOS included) has."""
    return int(decoding.max_ratio * source) + decoding.max_extra + 1


def beam_search(
    step: Step,
    cache: Any,
    given: Any,
    limit_R: jax.Array,
    *,
    length: int,
    start: int,
    eos: int,
    pad: int,
    never: tuple[int, ...],
    decoding: Decoding,
) -> Hypotheses:
    """The best translations of R sentences; `cache` has leaves `[R, ...]`, `given`, which stays as
    it is, `[R / n, ...]`: each of its rows serves n successive sentences.

    As in fairseq: of the best 2W continuations those among the first W that end are finished, the
    first W that do not end go on; a sentence is done when W hypotheses are finished, or at its own
    `limit_R` tokens before EOS.  `length` bounds all of them.  Nothing depends on the other
    sentences.

    A few sentences can take much longer than the others (models that lack a head they need ramble
    to the limit), so whenever three quarters are done the rest goes on alone.
    """
    rows, beams = limit_R.shape[0], decoding.beam
    nothing = Hypotheses(
        jnp.full((rows, beams, length), pad, jnp.int32), jnp.full((rows, beams), -jnp.inf)
    )
    now = _Beams(
        position=jnp.zeros((), jnp.int32),
        last_RW=jnp.full((rows, beams), start, jnp.int32),
        token_RWT=nothing.token_RWT,
        origin_RWT=jnp.broadcast_to(
            jnp.arange(beams, dtype=jnp.int32)[None, :, None], (rows, beams, length)
        ),
        score_RW=jnp.broadcast_to(
            jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)[None], (rows, beams)
        ),
        done=nothing,
        count_R=jnp.zeros(rows, jnp.int32),
        limit_R=jnp.minimum(limit_R, length - 1),
        cache=cache,
        given=given,
    )
    extend = functools.partial(_extend, step=step, eos=eos, never=never, decoding=decoding)
    done = _all_finished(now, extend, MANY)
    order_RW = jnp.argsort(done.score_RW, axis=1, stable=True, descending=True)
    return Hypotheses(*(_pick(part, order_RW) for part in done))


def _all_finished(now: _Beams, extend: Callable[[_Beams], _Beams], many: int) -> Hypotheses:
    """What all sentences come to.

    Each time three quarters are done, the rest goes on alone, in a loop of a quarter of the rows,
    if they are at least `many`.
    """
    rows = now.limit_R.shape[0]
    few = (
        rows // 4 if isinstance(rows, int) and rows >= many else 0
    )  # an exported program does not know its rows
    now = jax.lax.while_loop(lambda now: jnp.sum(now.unfinished()) > few, extend, now)
    if not few:
        return now.done
    late = jnp.argsort(~now.unfinished(), stable=True)[:few]
    rest = jax.tree.map(lambda leaf: leaf[late * len(leaf) // rows] if leaf.ndim else leaf, now)
    return jax.tree.map(
        lambda whole, part: whole.at[late].set(part), now.done, _all_finished(rest, extend, MORE)
    )


def _extend(
    now: _Beams, *, step: Step, eos: int, never: tuple[int, ...], decoding: Decoding
) -> _Beams:
    """One more token."""
    beams = decoding.beam
    logits_RWV, cache = step(now.last_RW, now.position, now.origin_RWT, now.cache, now.given)
    allowed_RV = allowed(
        logits_RWV.shape[-1], now.position, now.limit_R, eos, never, decoding.min_length
    )
    score_RC, parent_RC, token_RC = _best(now.score_RW, logits_RWV, allowed_RV)
    ends_RC = (token_RC == eos) & (score_RC > -jnp.inf)
    done, count_R = _finish(
        now, score_RC[:, :beams], parent_RC[:, :beams], ends_RC[:, :beams], eos, decoding
    )
    go_on_RW = jnp.argsort(ends_RC, axis=1, stable=True)[:, :beams]
    parent_RW, last_RW = _pick(parent_RC, go_on_RW), _pick(token_RC, go_on_RW)
    return now._replace(
        position=now.position + 1,
        last_RW=last_RW,
        token_RWT=_pick(now.token_RWT, parent_RW).at[:, :, now.position].set(last_RW),
        origin_RWT=jnp.where(
            jnp.arange(now.origin_RWT.shape[2]) <= now.position,
            _pick(now.origin_RWT, parent_RW),
            now.origin_RWT,
        ),
        score_RW=_pick(score_RC, go_on_RW),
        done=done,
        count_R=count_R,
        cache=cache,
    )


def _pick(x: jax.Array, index_RW: jax.Array) -> jax.Array:
    """`x[r, index[r, w]]` for every r and w."""
    return jax.vmap(lambda x, index: x[index])(x, index_RW)


def allowed(
    vocab: int,
    position: jax.Array,
    limit_R: jax.Array,
    eos: int,
    never: tuple[int, ...],
    min_length: int,
) -> jax.Array:
    """Which tokens may come at a position, or at one of each row, `[R, V]`: EOS alone at the limit,
    no EOS before the least length, some never."""
    is_eos_1V = (jnp.arange(vocab) == eos)[None]
    early_R1 = jnp.atleast_1d(position < min_length)[:, None]
    good_RV = jnp.ones((1, vocab), bool).at[:, jnp.array(never, jnp.int32)].set(False) & ~(
        is_eos_1V & early_R1
    )
    return jnp.where((position < limit_R)[:, None], good_RV, is_eos_1V)


def leads(logits_KV: jax.Array, own_K: jax.Array, allowed_KV: jax.Array) -> jax.Array:
    """Whether each token is surely what greedy search takes `[K]`: it leads all others that are
    allowed by more than rounding."""
    other_KV = allowed_KV & (jnp.arange(logits_KV.shape[1])[None] != own_K[:, None])
    best_K = jnp.take_along_axis(logits_KV, own_K[:, None], 1)[:, 0]
    other_K = jnp.max(jnp.where(other_KV, logits_KV, -jnp.inf), 1)
    return best_K - other_K > ROUNDING * jnp.max(jnp.abs(logits_KV), 1)


def _best(
    score_RW: jax.Array, logits_RWV: jax.Array, allowed_RV: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Score, beam and token of the best 2W continuations, each `[R, C]`; of equal ones the lower
    beam and token.

    One beam needs only its best: if that ends, the sentence is done.
    """
    rows, beams, vocab = logits_RWV.shape
    count = min(2 * beams, vocab) if beams > 1 else 1
    logit_RWC, token_RWC = jax.lax.top_k(
        jnp.where(allowed_RV[:, None], logits_RWV, -jnp.inf), count
    )
    score_RWC = score_RW[..., None] + logit_RWC - jax.nn.logsumexp(logits_RWV, -1, keepdims=True)
    parent_RWC = jnp.broadcast_to(jnp.arange(beams)[None, :, None], token_RWC.shape)
    score_RC, at_RC = jax.lax.top_k(score_RWC.reshape(rows, -1), min(2 * beams, beams * count))
    return (
        score_RC,
        _pick(parent_RWC.reshape(rows, -1), at_RC),
        _pick(token_RWC.reshape(rows, -1), at_RC),
    )


def _finish(
    now: _Beams,
    score_RW: jax.Array,
    parent_RW: jax.Array,
    ends_RW: jax.Array,
    eos: int,
    decoding: Decoding,
) -> tuple[Hypotheses, jax.Array]:
    """The finished hypotheses with those that end here, as far as there is room."""
    slot_RW = now.count_R[:, None] + jnp.cumsum(ends_RW, axis=1) - 1
    added_RW = ends_RW & now.unfinished()[:, None] & (slot_RW < decoding.beam)
    slot_RW = jnp.where(added_RW, slot_RW, decoding.beam)  # out of bounds: dropped
    row_R1 = jnp.arange(slot_RW.shape[0])[:, None]
    token_RWT = _pick(now.token_RWT, parent_RW).at[:, :, now.position].set(eos)
    score_RW = score_RW / (now.position + 1.0) ** decoding.length_penalty
    done = Hypotheses(
        now.done.token_RWT.at[row_R1, slot_RW].set(token_RWT, mode="drop"),
        now.done.score_RW.at[row_R1, slot_RW].set(score_RW, mode="drop"),
    )
    return done, now.count_R + added_RW.sum(1)

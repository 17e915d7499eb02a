"""Beam search: against a plain search over lists, exhaustive search and an argmax loop; nothing
depends on the neighbours."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import random_params
from tiny_translation import (
    TASK,
    before_eos,
    log_probs,
    make_batch,
    sentences,
    some_masks,
    translate,
)

from hp_jax.architecture import Decoding
from hp_jax.models import decode
from hp_jax.models.decode import beam_search, longest
from hp_jax.models.translation import Translation

EOS, START, V = 0, 5, 6
FULL = TASK.present_AH
PARAMS = random_params(TASK, scale=0.3)
SOURCES = sentences(5, 20, eos=2, first=4, longest=9, seed=0)


def trigrams(seed, rows=3, length=8):
    """Log-probabilities `[R, T, V, V, V]` of a token given its place and the two before it."""
    logits = np.random.default_rng(seed).normal(size=(rows, length, V, V, V)).astype(np.float32) * 2
    return np.asarray(jax.nn.log_softmax(logits))


@functools.partial(jax.jit, static_argnames=("length", "never", "decoding"))
def search(table, limit_R, *, length, never, decoding):
    """`beam_search` over trigrams, whose cache is the token before the last."""

    def step(token_RW, place, origin_RWT, before_RW, table):
        before_RW = jnp.take_along_axis(
            before_RW, origin_RWT[:, :, jnp.maximum(place - 1, 0)], axis=1
        )
        return jax.vmap(lambda table, before, last: table[before, last])(
            table[:, place], before_RW, token_RW
        ), token_RW

    before_RW = jnp.full((len(limit_R), decoding.beam), START, jnp.int32)
    options = {"start": START, "eos": EOS, "pad": -1, "never": never, "decoding": decoding}
    return beam_search(step, before_RW, table, limit_R, length=length, **options)


def found(table, limits, *, never, decoding):
    """Of each row the finished hypotheses: (ids, score)."""
    result = search(
        table, np.array(limits, np.int32), length=max(limits) + 1, never=never, decoding=decoding
    )
    rows = zip(*jax.device_get(result), strict=True)
    return [
        [
            (before_eos(ids, EOS), score)
            for ids, score in zip(*row, strict=True)
            if np.isfinite(score)
        ]
        for row in rows
    ]


def continuations(table, ids, limit, never, least):
    """The tokens that may follow `ids`, with their log-probabilities."""
    before, last = [START, START, *ids][-2:]
    if len(ids) == limit:
        return [(EOS, table[limit, before, last, EOS])]
    allowed = [v for v in range(V) if v not in never and (v != EOS or len(ids) >= least)]
    return [(v, table[len(ids), before, last, v]) for v in allowed]


def searched(table, limit, never, decoding):
    """One sentence's hypotheses by a beam search over lists, as fairseq's."""
    beams, done = [([], 0.0)], []
    while len(done) < decoding.beam and beams:
        options = [
            ([*ids, v], score + more)
            for ids, score in beams
            for v, more in continuations(table, ids, limit, never, decoding.min_length)
        ]
        best = sorted(options, key=lambda option: -option[1])[: 2 * decoding.beam]
        done += [
            (ids, score / len(ids) ** decoding.length_penalty)
            for ids, score in best[: decoding.beam]
            if ids[-1] == EOS
        ]
        beams = [option for option in best if option[0][-1] != EOS][: decoding.beam]
    return sorted(done[: decoding.beam], key=lambda option: -option[1])


def same(hypotheses, expected):
    assert [ids for ids, _ in hypotheses] == [ids for ids, _ in expected]
    np.testing.assert_allclose(
        [score for _, score in hypotheses], [score for _, score in expected], rtol=1e-5
    )


@pytest.mark.parametrize("beam", [1, 2, 4])
@pytest.mark.parametrize(("penalty", "least"), [(1.0, 1), (0.3, 2)])
def test_as_a_plain_search_over_lists(beam, penalty, least):
    decoding = Decoding(beam=beam, length_penalty=penalty, min_length=least)
    lengths = set()
    for seed in range(10):
        table, limits = trigrams(seed), (7, 4, 2)
        for row, hypotheses in enumerate(found(table, limits, never=(START,), decoding=decoding)):
            same(hypotheses, searched(table[row], limits[row], (START,), decoding))
            lengths |= {len(ids) for ids, _ in hypotheses}
            assert all(
                START not in ids and least < len(ids) <= limits[row] + 1 for ids, _ in hypotheses
            )
    assert len(lengths) > 3


@pytest.mark.parametrize("beam", [1, 3])
def test_sentences_that_go_on_alone_end_as_they_would_have(beam, monkeypatch):
    """Of 24 sentences, 5 are long; when 18 are done the other 6 leave them, and the last one
    those."""
    monkeypatch.setattr(decode, "MORE", 4)
    table, limits = trigrams(1, rows=24), [7 if row % 5 == 2 else 1 + row % 2 for row in range(24)]
    decoding = Decoding(beam=beam)
    results = found(table, limits, never=(START,), decoding=decoding)
    for row, hypotheses in enumerate(results):
        same(hypotheses, searched(table[row], limits[row], (START,), decoding))
    assert {2, 3, 8} <= {len(ids) for hypotheses in results for ids, _ in hypotheses}


def test_a_wide_beam_finds_all_hypotheses_in_order():
    never, limit, tokens = (START, 4), 2, (1, 2, 3)
    texts = [[*ids, EOS] for n in (1, 2) for ids in itertools.product(tokens, repeat=n)]
    decoding = Decoding(beam=len(texts))
    table = trigrams(0)

    def score(text):
        steps = zip([START, START, *text], [START, *text], text, strict=False)
        return sum(
            table[1, place, before, last, v] for place, (before, last, v) in enumerate(steps)
        ) / len(text)

    expected = sorted(((text, score(text)) for text in texts), key=lambda option: -option[1])
    same(found(table[1:2], (limit,), never=never, decoding=decoding)[0], expected)


@pytest.mark.parametrize(
    "changes", [{}, {"decoder": "ssru", "start": -1, "norm": "pre", "output_bias": True}]
)
def test_beam_1_is_an_argmax_loop(changes):
    task = Translation(dataclasses.replace(TASK.config, **changes))
    full = task.present_AH
    params, decoding = random_params(task, scale=0.3), Decoding(beam=1, max_ratio=0.5, max_extra=3)
    limits = [len(ids) // 2 + 3 for ids in SOURCES]
    width = max(limits) + 1
    texts = [[] for _ in SOURCES]
    for place in range(width):
        targets = [np.array([*ids, 2], np.int32) for ids in texts]
        log_BTV = log_probs(
            task, params, make_batch(SOURCES, targets, pad=1, width=width + 1), full
        )[:, place].copy()
        log_BTV[:, 1] = -np.inf
        log_BTV[:, 2] = -np.inf if place < 1 else log_BTV[:, 2]
        for text, limit, log_V in zip(texts, limits, log_BTV, strict=True):
            text.append(2 if place >= limit or 2 in text else int(log_V.argmax()))
    batch = make_batch(SOURCES, SOURCES, pad=1, width=width + 1)
    assert [best[0][0] for best in translate(task, params, batch, full, decoding)] == [
        before_eos(text, 2) for text in texts
    ]


def test_scores_are_those_of_teacher_forcing():
    """The step-by-step decoder with its caches is the same function as the one that is scored."""
    batch = make_batch(SOURCES, SOURCES, pad=1, width=12)
    decoding = Decoding(beam=3, length_penalty=0.0, max_ratio=1.0, max_extra=2)
    for mask_AH in some_masks(TASK)[::3]:
        for rank, texts in enumerate(
            zip(*translate(TASK, PARAMS, batch, mask_AH, decoding), strict=True)
        ):
            again = make_batch(
                SOURCES, [np.array(ids, np.int32) for ids, _ in texts], pad=1, width=12
            )
            log_BTV = log_probs(TASK, PARAMS, again, mask_AH)
            for (ids, score), log_TV in zip(texts, log_BTV, strict=True):
                np.testing.assert_allclose(
                    log_TV[np.arange(len(ids)), ids].sum(), score, atol=1e-4, err_msg=str(rank)
                )


def test_a_translation_does_not_depend_on_its_batch():
    """Alone, in another order, beside rows of padding and padded further, each sentence's
    translations are the same."""
    decoding = Decoding(beam=3)

    def alone(ids, width):
        return translate(
            TASK, PARAMS, make_batch([ids], [ids], pad=1, width=width), FULL, decoding
        )[0]

    expected = [alone(ids, 9) for ids in SOURCES]
    shortest = int(np.argmin([len(ids) for ids in SOURCES]))
    same(alone(SOURCES[shortest], len(SOURCES[shortest])), expected[shortest])
    assert len({len(ids) for hypotheses in expected for ids, _ in hypotheses}) > 3
    batch = make_batch(SOURCES[::-1] + SOURCES[:2], SOURCES[::-1] + SOURCES[:2], pad=1, width=14)
    batch["weight_B"][-2:] = 0
    together = translate(TASK, PARAMS, batch, FULL, decoding)
    for hypotheses, others in zip(together[:5][::-1], expected, strict=True):
        same(hypotheses, others)


def test_the_limit_is_of_the_sentence_itself():
    decoding = Decoding(beam=2, max_ratio=1.5, max_extra=1)
    batch = make_batch(SOURCES, SOURCES, pad=1, width=12)
    lengths = [
        max(len(ids) for ids, _ in hypotheses)
        for hypotheses in translate(TASK, PARAMS, batch, FULL, decoding)
    ]
    limits = [longest(len(ids), decoding) for ids in SOURCES]
    assert all(length <= limit for length, limit in zip(lengths, limits, strict=True))
    assert any(length == limit for length, limit in zip(lengths, limits, strict=True))


def test_no_limit_goes_beyond_the_room_there_is():
    found_RWT = search(
        trigrams(0), np.array([9, 3, 2], np.int32), length=4, never=(), decoding=Decoding(beam=2)
    ).token_RWT
    assert np.all(np.sum(np.asarray(found_RWT) == EOS, axis=2) == 1)

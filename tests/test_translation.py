"""The translation task: its training loss, dropout, dtypes and positions; every head of every kind
of attention matters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import random_params
from tiny_translation import CONFIG, TASK, log_probs, make_batch, real, sentences, translate

from hp_jax import heads
from hp_jax.architecture import Decoding
from hp_jax.models.translation import Translation

BATCH = make_batch(
    sentences(5, 20, eos=2, first=4, longest=9, seed=0),
    sentences(5, 20, eos=2, first=4, longest=9, seed=1),
    pad=1,
    width=12,
)
FULL = TASK.present_AH
PARAMS = random_params(TASK, scale=0.3)


def with_config(**changes):
    return Translation(dataclasses.replace(CONFIG, **changes))


@functools.partial(jax.jit, static_argnames=("task", "smoothing"))
def training_loss(task, params, seed, smoothing):
    gates = heads.gates(FULL, task.present_AH)
    return task.training_loss(
        params, BATCH, gates, dropout=jax.random.key(seed), smoothing=smoothing
    )


@functools.partial(jax.jit, static_argnames="task")
def loss(task, params, mask_AH):
    return task.loss(params, BATCH, heads.gates(mask_AH, task.present_AH))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_training_loss_is_the_summed_cross_entropy_with_smooth_labels(smoothing):
    task = with_config(dropout=0.0)
    loss_B, count_B = training_loss(task, PARAMS, 0, smoothing)
    labels_BTV = optax.smooth_labels(jax.nn.one_hot(BATCH["target_BT"], 20), smoothing)
    expected_B = (
        -(labels_BTV * log_probs(task, PARAMS, BATCH, FULL)).sum(-1).sum(1, where=real(BATCH))
    )
    np.testing.assert_allclose(loss_B, expected_B, rtol=1e-5)
    np.testing.assert_array_equal(count_B, BATCH["target_length_B"])
    if not smoothing:
        np.testing.assert_allclose(loss_B, loss(task, PARAMS, FULL), rtol=1e-5)


@pytest.mark.parametrize("changes", [{"dropout": 0.3}, {"dropout": 0.0, "attention_dropout": 0.3}])
def test_dropout_depends_on_its_key_and_is_off_when_nothing_is_trained(changes):
    task = with_config(**changes)
    first, second = (np.asarray(training_loss(task, PARAMS, seed, 0.0)[0]) for seed in (1, 2))
    assert np.abs(first - second).max() > 1e-2
    np.testing.assert_array_equal(
        loss(task, PARAMS, FULL), loss(with_config(dropout=0.0), PARAMS, FULL)
    )


@pytest.mark.parametrize(
    "changes", [{}, {"decoder": "ssru", "start": -1}, {"norm": "pre", "positions": "learned"}]
)
def test_every_head_of_every_row_matters(changes):
    task = with_config(**changes)
    params = random_params(task, scale=0.3)
    full = task.present_AH
    for mask_AH in heads.one_off(full):
        assert np.abs(loss(task, params, mask_AH) - loss(task, params, full)).max() > 1e-3


def test_bfloat16_is_close_and_its_loss_is_float32():
    params = random_params(TASK, scale=0.1)
    exact, rounded = (
        loss(with_config(dtype=dtype), params, FULL) for dtype in ("float32", "bfloat16")
    )
    assert rounded.dtype == jnp.float32
    np.testing.assert_allclose(rounded, exact, rtol=0.03)
    assert np.abs(rounded - exact).max() > 0


def test_a_translation_ends_where_learned_positions_do():
    task = with_config(positions="learned", first_position=2, max_positions=9)
    params = random_params(task, scale=0.3)
    sources = sentences(4, 20, eos=2, first=4, longest=7, seed=0)
    batch = make_batch(sources, sources, pad=1, width=7)
    found = translate(task, params, batch, FULL, Decoding(beam=2, max_extra=50, min_length=20))
    assert {len(ids) for hypotheses in found for ids, _ in hypotheses} == {7}


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match="a width of 16 does not divide into 5 heads"):
        with_config(cross_heads=5)
    with pytest.raises(
        ValueError, match="one embedding cannot serve 20 source and 30 target symbols"
    ):
        with_config(target_vocab=30)

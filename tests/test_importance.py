"""Importance is the exact gradient: against finite differences, and the same however the data is
cut up."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import FULL, ONE_DEVICE, TASK, batched, examples, random_params, with_config

from hp_jax import heads
from hp_jax.data.batching import batches
from hp_jax.importance import (
    MeanGradient,
    example_gradients,
    gate_gradients,
    head_importance,
    importance_sums,
    normalize_rows,
    sum_importance,
)
from hp_jax.sharding import device_mesh

PARAMS = random_params(scale=0.3)
DATA = examples(count=13)
PARTIAL = np.array([[0, 0, 0, 0], [1, 1, 0, 1]], bool)


@pytest.mark.parametrize("mask_AH", [np.ones((2, 4), bool), PARTIAL])
def test_equals_finite_differences(mask_AH):
    """d loss / d gate of one head, all positions moved together, in float64."""
    with jax.enable_x64():
        params = jax.tree.map(lambda leaf: leaf.astype(np.float64), PARAMS)
        batch = batches(DATA, size=13, buckets=(16,))[0] | {"weight_B": np.ones(13)}
        found_BAH = np.stack(
            [np.asarray(g).sum(1) for g in gate_gradients(TASK, params, batch, mask_AH)], axis=1
        )

        loss_of = jax.jit(lambda gates_AH: TASK.loss(params, batch, gates_AH))

        for row, head in np.ndindex(2, 4):
            step = np.zeros((2, 4))
            step[row, head] = 1 / 256
            slope_B = np.asarray(loss_of(mask_AH + step) - loss_of(mask_AH - step)) * 128
            np.testing.assert_allclose(found_BAH[:, row, head], slope_B, atol=2e-4, rtol=2e-3)


@pytest.mark.parametrize(("per", "measure"), [("token", "abs"), ("example", "squared")])
def test_does_not_depend_on_batch_size_order_bucketing_or_padding(per, measure):
    """Traps 1, 2 and 9: nothing accumulates between batches, and the batch size is no part of the
    definition."""

    def score(parts):
        return sum_importance(
            TASK, PARAMS, parts, FULL, estimator=MeanGradient(per, measure), mesh=ONE_DEVICE
        )

    whole = score(batches(DATA, size=32, buckets=(16,)))
    for parts in (
        batched(DATA, size=1),
        batched(DATA, size=8),
        batched(DATA, size=3)[::-1],
        batches(DATA, size=4, buckets=(24,)),
    ):
        other = score(parts)
        np.testing.assert_allclose(other["total"], whole["total"], rtol=2e-4, atol=2e-4)
        np.testing.assert_array_equal(other["count"], whole["count"])


def test_equals_the_mean_over_single_examples_in_the_definition_of_each_reduction():
    batch = batches(DATA, size=13, buckets=(16,))[0]
    gradients = [np.asarray(g, np.float64) for g in gate_gradients(TASK, PARAMS, batch, FULL)]
    tokens = int(batch["length_B"].sum())
    expected = {
        "token": np.stack([np.abs(g).sum((0, 1)) for g in gradients]) / np.array([[tokens], [13]]),
        "example": np.stack([np.abs(g.sum(1)).sum(0) for g in gradients]) / 13,
        "batch": np.stack([np.abs(g.sum((0, 1))) for g in gradients]) / 13,
    }
    for per, score_AH in expected.items():
        found_AH = head_importance(
            TASK, PARAMS, [batch], FULL, estimator=MeanGradient(per), mesh=ONE_DEVICE
        )
        np.testing.assert_allclose(found_AH, score_AH, rtol=1e-4)
    # The three conventions are different numbers here: no test above passes by accident.
    assert not np.allclose(expected["token"][1], expected["batch"][1], rtol=0.05)
    for row in range(2):
        assert not np.allclose(expected["example"][row], expected["batch"][row], rtol=0.05)


def test_batch_depends_on_the_batch_size_as_in_run_bertology():
    one = head_importance(
        TASK, PARAMS, batched(DATA, size=1), FULL, estimator=MeanGradient("batch"), mesh=ONE_DEVICE
    )
    all_at_once = head_importance(
        TASK,
        PARAMS,
        batches(DATA, size=13, buckets=(16,)),
        FULL,
        estimator=MeanGradient("batch"),
        mesh=ONE_DEVICE,
    )
    np.testing.assert_allclose(
        one,
        head_importance(
            TASK, PARAMS, batched(DATA), FULL, estimator=MeanGradient("example"), mesh=ONE_DEVICE
        ),
        rtol=1e-4,
    )
    assert (one >= all_at_once - 1e-6).all()
    assert np.abs(one - all_at_once).max() > 1e-3


def test_the_kinds_are_related_as_they_should_be():
    batch = batches(DATA, size=13, buckets=(16,))[0]
    gradient_NAH = example_gradients(TASK, PARAMS, [batch], FULL, mesh=ONE_DEVICE)
    for measure, function in (("abs", np.abs), ("signed", lambda x: x), ("squared", np.square)):
        found_AH = head_importance(
            TASK,
            PARAMS,
            batched(DATA),
            FULL,
            estimator=MeanGradient("example", measure),
            mesh=ONE_DEVICE,
        )
        np.testing.assert_allclose(found_AH, function(gradient_NAH).mean(0), rtol=1e-3, atol=1e-4)


def test_example_gradients_are_in_the_order_of_the_examples():
    whole_NAH = example_gradients(TASK, PARAMS, batched(DATA), FULL, mesh=ONE_DEVICE)
    assert whole_NAH.shape == (13, 2, 4)
    alone = next(batch for batch in batched(DATA, size=1) if batch["index_B"][0] == 7)
    np.testing.assert_allclose(
        whole_NAH[7],
        np.stack([np.asarray(g).sum((0, 1)) for g in gate_gradients(TASK, PARAMS, alone, FULL)]),
        atol=1e-4,
    )


@pytest.mark.parametrize("devices", [2, 8])
def test_the_same_on_any_number_of_devices(devices):
    mesh = device_mesh(jax.devices()[:devices])
    data = batches(DATA, size=6, buckets=(16,))
    for per in ("token", "batch"):
        one = head_importance(
            TASK, PARAMS, data, FULL, estimator=MeanGradient(per), mesh=ONE_DEVICE
        )
        many = head_importance(TASK, PARAMS, data, FULL, estimator=MeanGradient(per), mesh=mesh)
        np.testing.assert_allclose(many, one, rtol=1e-4)


def test_padding_positions_have_no_gradient_and_a_dead_head_has_one():
    """Trap 6: the gate of a head that is off still has a gradient; row normalisation leaves it
    out."""
    batch = batches(DATA, size=16, buckets=(24,))[0]
    for gradient_BTH, real_BT in zip(
        gate_gradients(TASK, PARAMS, batch, PARTIAL), TASK.queries(batch), strict=True
    ):
        assert gradient_BTH.shape[:2] == real_BT.shape
        assert not np.asarray(gradient_BTH)[np.asarray(real_BT) == 0].any()
    score_AH = head_importance(TASK, PARAMS, [batch], PARTIAL, mesh=ONE_DEVICE)
    assert (score_AH[~PARTIAL] > 0).any()
    normal_AH = normalize_rows(score_AH, PARTIAL)
    assert not normal_AH[~PARTIAL].any()
    np.testing.assert_allclose(np.square(normal_AH).sum(1), [0, 1])
    np.testing.assert_allclose(np.abs(normalize_rows(score_AH, PARTIAL, norm=1)).sum(1), [0, 1])


def test_weights_get_no_gradient_by_the_compilers_own_count():
    """The whole pass costs about two forward passes; with gradients of the weights it costs about
    three."""
    task = with_config(layers=5, width=64, ffn=256)
    params = jax.eval_shape(task.init, jax.random.key(0))
    batch, mask_AH = batches(DATA, size=16, buckets=(24,))[0], heads.all_on(5, 4)

    def loss(params, batch, mask_AH):
        return task.loss(params, batch, heads.gates(mask_AH, task.present_AH)).sum()

    def flops(function):
        return jax.jit(function).lower(params, batch, mask_AH).compile().cost_analysis()["flops"]

    forward = flops(loss)
    gates = flops(functools.partial(importance_sums, task, estimator=MeanGradient()))
    weights = flops(jax.grad(loss))
    assert gates < 2.2 * forward < weights


def test_bad_masks_and_no_data_are_named():
    with pytest.raises(ValueError, match=r"shape \(4, 3\), but the model has shape \(2, 4\)"):
        head_importance(TASK, PARAMS, batched(DATA), np.ones((4, 3)))
    with pytest.raises(ValueError, match="at least one batch"):
        head_importance(TASK, PARAMS, [], FULL)
    assert jnp.isfinite(
        head_importance(TASK, PARAMS, batched(DATA), np.zeros((2, 4)), mesh=ONE_DEVICE)
    ).all()

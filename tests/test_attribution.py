"""Shapley values, Banzhaf values and integrated gradients, against all subsets and measured
rows."""

import itertools
import math

import numpy as np
import pytest
from tiny import FULL, ONE_DEVICE, TASK, batched, examples, random_params

from hp_jax import heads, stats
from hp_jax.attribution import (
    Values,
    banzhaf,
    banzhaf_masks,
    integrated_gradients,
    mean_of,
    shapley,
    shapley_masks,
)
from hp_jax.grid import evaluate_grid
from hp_jax.linear import linear_map
from hp_jax.quadratic import Quadratic, gauss_newton

PARAMS = random_params(scale=0.3)
BATCHES = batched(examples(count=13), size=13, buckets=(16,))
ALL_MAH = np.array(list(itertools.product([0, 1], repeat=8)), bool).reshape(-1, 2, 4)


@pytest.fixture(scope="module")
def loss_M():
    """The mean loss under all 256 masks."""
    values = evaluate_grid(TASK, PARAMS, BATCHES, ALL_MAH, mesh=ONE_DEVICE)
    return values["loss"].mean(1, dtype=np.float64)


def looked_up(loss_M, masks):
    """The loss under any masks `[..., A, H]`: they count in twos."""
    return loss_M[masks.reshape(*masks.shape[:-2], 8) @ (1 << np.arange(7, -1, -1))]


def by_all_subsets(loss_M, weight_of):
    """The weighted mean, over all subsets of the other heads, of what a head's going adds."""
    value_G = np.zeros(8)
    for head, (number, mask_AH) in itertools.product(range(8), enumerate(ALL_MAH)):
        if mask_AH.ravel()[head]:
            rise = loss_M[number - (1 << (7 - head))] - loss_M[number]
            value_G[head] += weight_of(mask_AH.sum() - 1) * rise
    return value_G.reshape(2, 4)


def exact_shapley(loss_M):
    return by_all_subsets(loss_M, lambda others: 1 / (8 * math.comb(7, others)))


def exact_banzhaf(loss_M):
    return by_all_subsets(loss_M, lambda others: 1 / 2**7)


def test_shapley_values_tend_to_those_of_all_subsets(loss_M):
    exact_AH = exact_shapley(loss_M)
    masks_RMAH = shapley_masks(FULL, 400, seed=1)
    draw_RAH = shapley(looked_up(loss_M, masks_RMAH), masks_RMAH)
    found = mean_of(draw_RAH)
    assert (np.abs(found.value_AH - exact_AH) < 4.5 * found.error_AH).all()
    assert found.error_AH.max() < 0.1 * np.abs(exact_AH).max()
    np.testing.assert_allclose(draw_RAH.sum((1, 2)), loss_M[0] - loss_M[-1])
    alone = mean_of(draw_RAH[:100])
    assert found.error_AH.mean() == pytest.approx(alone.error_AH.mean() / 2, rel=0.2)


def test_banzhaf_values_tend_to_those_of_all_subsets_and_the_control_takes_error_off(loss_M):
    exact_AH = exact_banzhaf(loss_M)
    masks_RMAH = banzhaf_masks(FULL, 1500, seed=2)
    loss_RM = looked_up(loss_M, masks_RMAH)
    control = gauss_newton(linear_map(TASK, PARAMS, BATCHES, FULL, mesh=ONE_DEVICE))
    plain, controlled = (
        mean_of(banzhaf(loss_RM, masks_RMAH, quadratic)) for quadratic in (None, control)
    )
    for found in (plain, controlled):
        assert (np.abs(found.value_AH - exact_AH) < 4.5 * found.error_AH).all()
    assert controlled.error_AH.mean() < plain.error_AH.mean()


def test_of_heads_that_interact_in_pairs_alone_one_draw_is_exact():
    """Both values, which are the same there, and what the quadratic says itself."""
    random = np.random.default_rng(0)
    root_GG = random.normal(size=(8, 8))
    matrix_AHAH = (root_GG @ root_GG.T).reshape(2, 4, 2, 4)
    quadratic = Quadratic(random.normal(size=(2, 4)), matrix_AHAH, FULL.astype(float))
    loss_M = 3 + quadratic.predict(ALL_MAH)
    exact_AH = exact_shapley(loss_M)
    np.testing.assert_allclose(quadratic.shares(), exact_AH)
    np.testing.assert_allclose(exact_banzhaf(loss_M), exact_AH)
    masks_RMAH = shapley_masks(FULL, 1)
    found_RAH = shapley(looked_up(loss_M, masks_RMAH), masks_RMAH)
    np.testing.assert_allclose(found_RAH[0], exact_AH)
    masks_RMAH = banzhaf_masks(FULL, 3)
    controlled_RAH = banzhaf(looked_up(loss_M, masks_RMAH), masks_RMAH, quadratic)
    np.testing.assert_allclose(controlled_RAH, np.broadcast_to(exact_AH, (3, 2, 4)))


def test_heads_that_are_not_there_have_no_value():
    mask_AH = np.array([[1, 0, 1, 1], [0, 1, 1, 1]], bool)
    random = np.random.default_rng(0)
    for masks_of, value_of in ((shapley_masks, shapley), (banzhaf_masks, banzhaf)):
        masks_RMAH = masks_of(mask_AH, 3)
        assert not masks_RMAH[..., ~mask_AH].any()
        value_RAH = value_of(random.normal(size=masks_RMAH.shape[:2]), masks_RMAH)
        assert (value_RAH[:, mask_AH] != 0).all()
        assert not value_RAH[:, ~mask_AH].any()


def test_masks_of_a_draw_are_a_path_and_its_reverse():
    (masks_MAH,) = shapley_masks(FULL, 1, seed=3)
    assert len(np.unique(masks_MAH, axis=0)) == 16
    np.testing.assert_array_equal(masks_MAH.sum((1, 2)), [*range(8, 0, -1), 0, *range(7, 0, -1)])
    for gone in range(1, 8):  # what went first on the one path goes last on the other
        np.testing.assert_array_equal(masks_MAH[8 + gone], ~masks_MAH[8 - gone])


def test_intervals_are_students():
    """Of draws around a known value, 90 % of the intervals hold it."""
    random = np.random.default_rng(0)
    draws = random.normal(2.0, 3.0, size=(5, 40, 100))
    low, high = mean_of(draws).interval(0.9)
    assert 0.88 < np.mean((low < 2) & (high > 2)) < 0.92
    assert isinstance(mean_of(draws), Values)


def test_who_draws_until_values_are_near_stops_and_they_are(loss_M):
    """Of 200 who draw so, at most 5 % of each head's values are further off than they say."""
    exact_AH, within = exact_shapley(loss_M), 0.1 * (loss_M[0] - loss_M[-1])
    wrong, taken = [], []
    for seed in range(200):
        masks_RMAH = shapley_masks(FULL, 150, seed=seed)
        draw_RAH = shapley(looked_up(loss_M, masks_RMAH), masks_RMAH)
        draws = next(n for n in range(1, 151) if mean_of(draw_RAH[:n]).reach() <= within)
        found = mean_of(draw_RAH[:draws])
        assert found.error_AH.max() * stats.normal_reach(draws) == pytest.approx(found.reach())
        wrong.append(np.abs(found.value_AH - exact_AH) > stats.normal_reach(draws) * found.error_AH)
        taken.append(draws)
    assert 5 <= min(taken) < max(taken)
    assert np.mean(wrong, 0).max() <= 0.05
    assert mean_of(draw_RAH[:4]).reach() == np.inf


def test_both_values_are_those_of_shapiq(loss_M):
    """Exactly, of all subsets; and our draws, with their reverses, come as near as its own orders
    do, of as many masks."""
    shapiq = pytest.importorskip("shapiq", reason="shapiq, another library of such values")

    class Loss(shapiq.Game):
        def __init__(self):
            super().__init__(n_players=8, normalize=False)

        def value_function(self, coalitions):
            return -looked_up(loss_M, coalitions.reshape(-1, 2, 4))

    def of_heads(values):
        return values.get_n_order_values(1).reshape(2, 4)

    exact = shapiq.ExactComputer(game=Loss(), n_players=8)
    exact_AH = of_heads(exact("SV"))
    np.testing.assert_allclose(exact_AH, exact_shapley(loss_M), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(of_heads(exact("BV")), exact_banzhaf(loss_M), rtol=1e-6, atol=1e-9)
    squares = {"ours": 0.0, "theirs": 0.0}
    for seed in range(100):
        masks_RMAH = shapley_masks(FULL, 10, seed=seed)
        own_AH = mean_of(shapley(looked_up(loss_M, masks_RMAH), masks_RMAH)).value_AH
        sampler = shapiq.PermutationSamplingSV(n=8, random_state=seed)
        their_AH = of_heads(sampler.approximate(budget=160, game=Loss()))
        squares["ours"] += np.square(own_AH - exact_AH).sum()
        squares["theirs"] += np.square(their_AH - exact_AH).sum()
    assert squares["ours"] < squares["theirs"]


def test_integrated_gradients_of_a_row_sum_to_its_measured_effect(loss_M):
    """More steps come closer; the heads that are off stay out of it."""
    rows_MAH = heads.rows_off(FULL)
    measured_A = looked_up(loss_M, rows_MAH) - loss_M[-1]
    errors = []
    for steps in (2, 16):
        found_AH = integrated_gradients(TASK, PARAMS, BATCHES, FULL, steps=steps, mesh=ONE_DEVICE)
        errors.append(np.abs(found_AH.sum(1) - measured_A).max())
    assert errors[1] < errors[0] / 4
    assert errors[1] < 0.01 * np.abs(measured_A).max()

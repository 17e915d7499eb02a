"""The loss as a quadratic function of the gates, against sums that are written out."""

import functools
import itertools

import jax
import numpy as np
import pytest
import tiny_language
import tiny_translation
from tiny import FULL, ONE_DEVICE, TASK, batched, examples, random_params

from hp_jax import heads
from hp_jax.function_task import as_task
from hp_jax.grid import evaluate_grid
from hp_jax.importance import SignedCurvature, example_gradients, head_importance
from hp_jax.linear import LinearMap, linear_map
from hp_jax.models import causal
from hp_jax.models.language import LanguageModel
from hp_jax.models.seq2seq import Seq2Seq
from hp_jax.pruning import greedy_scores, prune, verified
from hp_jax.quadratic import Quadratic, fisher, gauss_newton

PARAMS = random_params(scale=0.3)
BATCHES = batched(examples(count=13))
PARTIAL = np.array([[0, 1, 1, 1], [1, 1, 0, 1]], bool)


@pytest.fixture(scope="module")
def mapped():
    return linear_map(TASK, PARAMS, BATCHES, FULL, mesh=ONE_DEVICE)


def test_the_fisher_matrix_is_the_mean_of_outer_products(mapped):
    gradient_NG = example_gradients(TASK, PARAMS, BATCHES, FULL, mesh=ONE_DEVICE).reshape(13, 8)
    expected_GG = sum(np.outer(gradient_G, gradient_G) for gradient_G in gradient_NG) / 13
    found = fisher(mapped)
    np.testing.assert_allclose(found.curvature_AHAH.reshape(8, 8), expected_GG, atol=1e-6)
    np.testing.assert_allclose(found.gradient_AH.ravel(), gradient_NG.mean(0), atol=1e-6)


def test_the_gauss_newton_matrix_is_the_second_derivative_of_the_maps_loss(mapped):
    """By JAX, of all three logits, and so is the gradient its first."""
    logit_NC = np.pad(mapped.output_NO, ((0, 0), (1, 0)))
    slope_NCG = np.pad(mapped.slope_NOAH, ((0, 0), (1, 0), (0, 0), (0, 0))).reshape(13, 3, 8)

    def loss(step_G):
        log_NC = jax.nn.log_softmax(logit_NC + slope_NCG @ step_G)
        return -log_NC[np.arange(13), mapped.label_N].mean()

    found = gauss_newton(mapped)
    hessian_GG = jax.hessian(loss)(np.zeros(8, np.float32))
    np.testing.assert_allclose(found.curvature_AHAH.reshape(8, 8), hessian_GG, atol=1e-6)
    gradient_G = jax.grad(loss)(np.zeros(8, np.float32))
    np.testing.assert_allclose(found.gradient_AH.ravel(), gradient_G, atol=1e-6)


def test_the_fisher_matrix_with_labels_of_the_model_is_the_gauss_newton_matrix(mapped):
    """Martens 2020, section 9: the mean over the model's own labels, here all of them, weighted."""
    share_NC = mapped.probabilities()
    total_AHAH = np.zeros((2, 4, 2, 4))
    for label in range(3):
        told = LinearMap(mapped.output_NO, mapped.slope_NOAH, FULL, np.full(13, label))
        gradient_NAH = told.gradients()
        total_AHAH += np.einsum("n,nah,nbk->ahbk", share_NC[:, label], gradient_NAH, gradient_NAH)
    np.testing.assert_allclose(gauss_newton(mapped).curvature_AHAH, total_AHAH / 13, atol=1e-6)


# --- labels that the model draws -----------------------------------------------------------------


def translation_pairs(width=8):
    source, target = (
        tiny_translation.sentences(5, 20, eos=2, first=3, longest=7, seed=seed) for seed in (0, 1)
    )
    return tiny_translation.make_batch(source, target, pad=1, width=width)


def language_windows(width=12):
    (batch,) = tiny_language.batched(tiny_language.windows(5), size=5, buckets=(width,))
    return batch


DRAWING = {
    "translation": (tiny_translation.TASK, translation_pairs),
    "language model": (tiny_language.of_kind("multi-query"), language_windows),
}


@functools.partial(jax.jit, static_argnames="task")
def log_shares(task, params, batch, gate_AH):
    """Of every token that is predicted, the log-probability of all that might be `[B, T, V]`, and
    which are predicted `[B, T]`."""
    at = heads.gates(gate_AH, task.present_AH)
    if isinstance(task, LanguageModel):
        tokens_BT = batch["tokens_BT"][:, :-1]
        next_1T = np.arange(1, tokens_BT.shape[1] + 1)[None]
        real_BT = next_1T >= batch["given_B"][:, None]
        real_BT &= next_1T < batch["length_B"][:, None]
        return jax.nn.log_softmax(task.logits(params, tokens_BT, at)), real_BT
    real_BT = np.arange(batch["target_BT"].shape[1])[None] < batch["target_length_B"][:, None]
    named = dict(zip(task.rows, at, strict=True))
    inputs = batch["source_BS"], batch["source_length_B"], batch["target_BT"], named
    return jax.nn.log_softmax(Seq2Seq(task.config).apply({"params": params}, *inputs)), real_BT


@pytest.mark.parametrize("kind", DRAWING)
def test_labels_of_the_model_give_the_fisher_matrix_of_all_labels(kind, monkeypatch):
    """In expectation: every label of every token, weighted by what the model thinks of it."""
    monkeypatch.setattr(causal, "BLOCK", 4)  # so that there are several
    task, data = DRAWING[kind]
    params, batch, mask_AH = random_params(task, scale=0.3), data(), task.present_AH.copy()
    mask_AH[0, 1] = False
    gate_AH = mask_AH.astype(np.float32)
    log_BTV, real_BT = log_shares(task, params, batch, gate_AH)
    slope_BTVAH = np.asarray(
        jax.jacobian(lambda gate_AH: log_shares(task, params, batch, gate_AH)[0])(gate_AH)
    )
    share_BTV = np.exp(np.asarray(log_BTV, np.float64)) * np.asarray(real_BT)[..., None]
    expected_AHAH = np.einsum(
        "btv,btvah,btvck->ahck", share_BTV, slope_BTVAH, slope_BTVAH, optimize=True
    ) / len(share_BTV)
    found = linear_map(task, params, [batch], mask_AH, draws=250, seed=3, mesh=ONE_DEVICE)
    each_KAHAH = np.einsum(
        "nkah,nkcd->kahcd", found.drawn_NKAH, found.drawn_NKAH, dtype=np.float64
    ) / len(found.drawn_NKAH)
    error_AHAH = each_KAHAH.std(0, ddof=1) / np.sqrt(250)
    matrix_AHAH = gauss_newton(found).curvature_AHAH
    np.testing.assert_allclose(matrix_AHAH, each_KAHAH.mean(0), rtol=1e-6, atol=1e-9)
    there = error_AHAH > 0
    assert there.any()
    assert np.abs(matrix_AHAH - expected_AHAH)[there].max() < 0.15 * np.abs(expected_AHAH).max()
    assert (np.abs(matrix_AHAH - expected_AHAH)[there] < 4.5 * error_AHAH[there]).all()
    trace, other, of_right_labels = (
        np.einsum("ahah->", m) for m in (expected_AHAH, matrix_AHAH, fisher(found).curvature_AHAH)
    )
    assert other == pytest.approx(trace, rel=0.05)
    assert of_right_labels != pytest.approx(trace, rel=0.1)
    plain = linear_map(task, params, [batch], mask_AH, mesh=ONE_DEVICE)
    np.testing.assert_allclose(found.slope_NOAH, plain.slope_NOAH, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.output_NO, plain.output_NO, rtol=1e-5)


@pytest.mark.parametrize("kind", DRAWING)
def test_what_is_drawn_does_not_depend_on_the_batch(kind):
    task, data = DRAWING[kind]
    params, whole, wide = random_params(task, scale=0.3), data(), data(16)
    parts = [{name: array[some] for name, array in wide.items()} for some in ([3, 0], [4, 1], [2])]
    found, other, another = (
        linear_map(task, params, batches, task.present_AH, draws=3, seed=seed, mesh=ONE_DEVICE)
        for batches, seed in (([whole], 0), (parts, 0), ([whole], 1))
    )
    np.testing.assert_allclose(found.drawn_NKAH, other.drawn_NKAH, rtol=1e-4, atol=1e-5)
    assert (np.abs(found.drawn_NKAH - another.drawn_NKAH) > 1e-3).any((1, 2, 3)).all()
    assert (np.ptp(found.drawn_NKAH, axis=1) > 1e-3).any((1, 2)).all()  # draws differ


def test_predictions_are_the_formula_of_every_set():
    random = np.random.default_rng(0)
    root_GG = random.normal(size=(6, 6))
    matrix_GG, mean_G = root_GG @ root_GG.T, random.normal(size=6)
    found = Quadratic(mean_G.reshape(2, 3), matrix_GG.reshape(2, 3, 2, 3), np.ones((2, 3)))
    masks_MAH = np.array(list(itertools.product([0, 1], repeat=6))).reshape(-1, 2, 3)
    expected_M = [
        -sum(mean_G[h] for h in gone) + sum(matrix_GG[h, k] for h in gone for k in gone) / 2
        for gone in (np.flatnonzero(mask_AH == 0) for mask_AH in masks_MAH)
    ]
    np.testing.assert_allclose(found.predict(masks_MAH), expected_M)
    for left_AH, own in zip(masks_MAH, expected_M, strict=True):
        without_AH = np.full((2, 3), own)
        for head in heads.living_heads(left_AH):
            fewer_AH = left_AH.copy()
            fewer_AH[head] = 0
            without_AH[head] = found.predict(fewer_AH[None])[0]
        np.testing.assert_allclose(found.without(left_AH), without_AH)


def test_the_gauss_newton_matrix_needs_labels_of_the_model():
    of_losses = LinearMap(np.zeros((3, 1)), np.zeros((3, 1, 1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="but this is a map of losses for which none were drawn"):
        gauss_newton(of_losses)
    with pytest.raises(ValueError, match="draws is 2, but Classification has no drawn_losses"):
        linear_map(TASK, PARAMS, BATCHES, FULL, draws=2)
    with pytest.raises(ValueError, match="only a classifier, a task with log_odds"):
        of_losses.without(np.ones((1, 2)), np.ones((3, 2)))


def test_signed_curvature_is_the_sum_of_both_orders():
    gradient_NAH = example_gradients(TASK, PARAMS, BATCHES, PARTIAL).astype(np.float64)
    for c in (0.0, 0.1):
        found_AH = head_importance(
            TASK, PARAMS, BATCHES, PARTIAL, estimator=SignedCurvature(c), mesh=ONE_DEVICE
        )
        expected_AH = c * np.square(gradient_NAH).mean(0) - gradient_NAH.mean(0)
        np.testing.assert_allclose(found_AH, expected_AH, rtol=1e-4, atol=1e-6)


# --- greedy orders -------------------------------------------------------------------------------


def greedy_by_hand(loss_of, mask_AH):
    """Heads in the order in which they go when every next mask is tried."""
    left_AH, order = mask_AH.copy(), []
    while left_AH.any():
        masks_MAH = heads.one_off(left_AH)
        best = int(np.argmin([loss_of(one_AH) for one_AH in masks_MAH]))
        order.append(heads.living_heads(left_AH)[best])
        left_AH = masks_MAH[best]
    return order


def order_of(score_AH, mask_AH):
    return sorted(heads.living_heads(mask_AH), key=lambda head: score_AH[head])


def test_greedy_over_the_linear_map_is_that_of_all_its_masks(mapped):
    """With labels, and by the divergence from the full model, written out."""

    def loss_of(mask_AH):
        return mapped.values(mask_AH[None])["loss"][0].mean(dtype=np.float64)

    def divergence_of(mask_AH):
        odds_NO = mapped.outputs(mask_AH[None])[0]
        there_NC = jax.nn.softmax(np.pad(odds_NO, ((0, 0), (1, 0))))
        here_NC = mapped.probabilities()
        return (here_NC * np.log(here_NC / there_NC)).sum(1).mean()

    np.testing.assert_allclose(
        mapped.without(PARTIAL)[PARTIAL], [loss_of(m) for m in heads.one_off(PARTIAL)], rtol=1e-5
    )
    assert order_of(greedy_scores(mapped.without, FULL), FULL) == greedy_by_hand(loss_of, FULL)
    target_NC = mapped.probabilities()

    def by_target(left_AH):
        return mapped.without(left_AH, target_NC)

    entropy = -(target_NC * np.log(target_NC)).sum(1).mean()
    np.testing.assert_allclose(
        by_target(PARTIAL)[PARTIAL] - entropy,
        [divergence_of(one_AH) for one_AH in heads.one_off(PARTIAL)],
        rtol=1e-3,
    )
    found = order_of(greedy_scores(by_target, FULL), FULL)
    assert found == greedy_by_hand(divergence_of, FULL)


def test_greedy_scores_spare_rows_at_their_floor():
    """And so does what they make `prune` do, whatever comes later."""
    cost_AH = np.array([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])
    asked = []

    def without(left_AH):
        asked.append(left_AH)
        return cost_AH

    mask_AH = np.array([[1, 1, 1, 0], [1, 1, 1, 1]], bool)
    score_AH = greedy_scores(without, mask_AH, floor=2)
    assert len(asked) == 3
    assert order_of(score_AH, mask_AH)[:3] == [(0, 0), (1, 0), (1, 1)]
    masks_MAH = prune(lambda left_AH: score_AH, mask_AH, [1, 3, 6], floor=2)
    np.testing.assert_array_equal(masks_MAH.sum(2), [[2, 4], [2, 2], [2, 2]])


def test_of_the_proposals_the_best_measured_goes(mapped):
    """With all heads proposed it is the greedy search of all masks; with one, the prediction's."""
    seen = []

    def measure(masks_MAH):
        seen.append(len(masks_MAH))
        return evaluate_grid(TASK, PARAMS, BATCHES, masks_MAH, mesh=ONE_DEVICE)["loss"].mean(1)

    def orders(proposals):
        without = verified(mapped.without, measure, proposals)
        return order_of(greedy_scores(without, PARTIAL), PARTIAL)

    assert orders(6) == greedy_by_hand(lambda mask_AH: measure(mask_AH[None])[0], PARTIAL)
    assert orders(1) == order_of(greedy_scores(mapped.without, PARTIAL), PARTIAL)
    seen.clear()
    orders(3)
    assert seen == [3, 3, 3, 3, 2, 1]


def test_where_the_loss_is_linear_in_the_gates_all_orders_agree():
    random = np.random.default_rng(0)
    inputs_NAH = random.normal(size=(50, 2, 3)).astype(np.float32) * 1e-3
    inputs_NAH -= np.arange(6).reshape(2, 3) * np.float32(1e-3)

    def loss(params, batch, gates):
        parts = zip(batch["x_BAH"].swapaxes(0, 1), gates, strict=True)
        return params + sum((x_BH * gate[:, 0]).sum(1) for x_BH, gate in parts)

    task, full_AH, batches = as_task(loss, np.ones((2, 3))), np.ones((2, 3), bool), None
    batches = [{"x_BAH": inputs_NAH}]
    found = linear_map(task, 5.0, batches, full_AH)
    signed_AH = head_importance(task, 5.0, batches, full_AH, estimator=SignedCurvature(0.0))
    np.testing.assert_allclose(signed_AH, -inputs_NAH.mean(0), rtol=1e-3)
    expected = order_of(signed_AH, full_AH)
    for without in (found.without, fisher(found).without):
        assert order_of(greedy_scores(without, full_AH), full_AH) == expected

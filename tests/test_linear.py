"""The linear map: exact derivatives of a model's outputs, and what they predict."""

import jax
import numpy as np
import optax
import pytest
import tiny_translation
from tiny import FULL, ONE_DEVICE, TASK, batched, examples, random_params, with_config

from hp_jax import heads
from hp_jax.function_task import as_task
from hp_jax.grid import evaluate_grid
from hp_jax.importance import example_gradients
from hp_jax.linear import LinearMap, linear_map
from hp_jax.sharding import device_mesh

PARAMS = random_params(scale=0.3)
DATA = examples(count=13)
PARTIAL = np.array([[0, 0, 0, 0], [1, 1, 0, 1]], bool)


@pytest.mark.parametrize("mask_AH", [FULL, PARTIAL])
def test_slopes_are_those_of_finite_differences(mask_AH):
    """Of the log-odds, all positions of a gate moved together."""
    found = linear_map(TASK, PARAMS, batched(DATA), mask_AH)
    step = 1 / 64
    for row, head in np.ndindex(2, 4):
        moved = np.zeros((2, 4), np.float32)
        moved[row, head] = step
        up, down = (
            linear_map(TASK, PARAMS, batched(DATA), mask_AH + sign * moved).output_NO
            for sign in (1, -1)
        )
        np.testing.assert_allclose(
            found.slope_NOAH[..., row, head], (up - down) / (2 * step), atol=2e-3, rtol=2e-3
        )


def test_the_loss_of_what_it_says_has_the_gradient_of_the_loss():
    """The chain rule: the softmax of the mapped log-odds, and the gradients of importance."""
    found = linear_map(TASK, PARAMS, batched(DATA), FULL)
    logit_NC = np.concatenate([np.zeros((13, 1)), found.output_NO], 1)
    slope_NCAH = np.concatenate([np.zeros((13, 1, 2, 4)), found.slope_NOAH], 1)
    error_NC = jax.nn.softmax(logit_NC) - np.eye(3)[found.label_N]
    expected_NAH = example_gradients(TASK, PARAMS, batched(DATA), FULL)
    np.testing.assert_allclose(
        np.einsum("nc,ncah->nah", error_NC, slope_NCAH), expected_NAH, atol=1e-5
    )


def test_at_its_own_gates_it_gives_what_a_grid_gives():
    for mask_AH in (FULL, PARTIAL):
        found = linear_map(TASK, PARAMS, batched(DATA), mask_AH).values(mask_AH[None])
        measured = evaluate_grid(TASK, PARAMS, batched(DATA), mask_AH[None])
        assert set(found) == {*measured, "logit_difference"}
        for name, value_MN in measured.items():
            np.testing.assert_allclose(found[name], value_MN, rtol=1e-5, atol=1e-6)
        right_MN = measured["prediction"] == DATA.label_N
        np.testing.assert_array_equal(found["logit_difference"] > 0, right_MN)


def test_a_model_that_is_linear_in_its_gates_is_predicted_exactly():
    """One layer, of which [CLS] alone is read, without what is not linear: a plain function."""
    random = np.random.default_rng(0)
    inputs_NAH = random.normal(size=(7, 2, 3)).astype(np.float32)

    def loss(params, batch, gates):
        parts = zip(batch["x_BAH"].swapaxes(0, 1), gates, strict=True)
        return params + sum((x_BH * gate[:, 0]).sum(1) for x_BH, gate in parts)

    batches = [{"x_BAH": inputs_NAH}]
    task, masks_MAH = as_task(loss, np.ones((2, 3))), heads.pairs(heads.all_on(2, 3))
    found = linear_map(task, 0.5, batches, np.ones((2, 3)))
    assert found.label_N is None
    expected_MN = evaluate_grid(task, 0.5, batches, masks_MAH)["loss"]
    np.testing.assert_allclose(found.values(masks_MAH)["loss"], expected_MN, rtol=1e-5)


def test_translation_is_mapped_by_its_loss():
    task = tiny_translation.TASK
    source, target = (
        tiny_translation.sentences(5, vocab, eos=2, first=3, longest=7, seed=seed)
        for seed, vocab in enumerate((task.config.source_vocab, task.config.target_vocab))
    )
    batches = [tiny_translation.make_batch(source, target, pad=task.config.pad, width=8)]
    params = random_params(task, scale=0.3)
    found = linear_map(task, params, batches, task.present_AH)
    expected_NAH = example_gradients(task, params, batches, task.present_AH)
    np.testing.assert_allclose(found.slope_NOAH[:, 0], expected_NAH, rtol=1e-4, atol=1e-4)


def test_batching_and_devices_change_nothing():
    whole = linear_map(TASK, PARAMS, batched(DATA, size=13), FULL, mesh=ONE_DEVICE)
    other = linear_map(TASK, PARAMS, batched(DATA, size=3)[::-1], FULL, mesh=device_mesh(mask=2))
    for name in ("output_NO", "slope_NOAH", "label_N"):
        np.testing.assert_allclose(getattr(whole, name), getattr(other, name), rtol=1e-4, atol=1e-5)


def test_a_model_without_some_heads_has_no_slope_for_them():
    task = with_config(kept=((0, 2), (1, 2, 3)))
    found = linear_map(task, random_params(task), batched(DATA), task.present_AH)
    assert not found.slope_NOAH[..., ~task.present_AH].any()
    assert found.slope_NOAH[..., task.present_AH].any((0, 1)).all()


def test_predicted_labels_and_confidence_are_those_of_a_softmax():
    random = np.random.default_rng(1)
    label_N = random.integers(0, 3, 5)
    found = LinearMap(
        random.normal(size=(5, 2)), random.normal(size=(5, 2, 1, 2)), np.ones((1, 2)), label_N
    )
    masks_MAH = np.array([[[1, 1]], [[0, 1]], [[0, 0]]])
    logit_MNO = found.output_NO - np.einsum("mah,noah->mno", 1 - masks_MAH, found.slope_NOAH)
    logit_MNC = np.pad(logit_MNO, ((0, 0), (0, 0), (1, 0)))
    values = found.values(masks_MAH)
    expected = optax.softmax_cross_entropy_with_integer_labels(
        logit_MNC, np.broadcast_to(label_N, (3, 5))
    )
    np.testing.assert_allclose(values["loss"], expected, rtol=1e-4)
    np.testing.assert_array_equal(values["prediction"], logit_MNC.argmax(-1))


def test_what_is_not_finite_is_an_error():
    params = jax.tree.map(lambda leaf: leaf * 1e30, PARAMS)
    with pytest.raises(ValueError, match="of example 0 is not finite"):
        linear_map(TASK, params, batched(DATA), FULL)


def test_a_map_of_groups_predicts_what_the_heads_map_does_of_whole_groups():
    """At gates of any kind: a group's heads that are off stay off, and those at 1/2 come along."""
    random, sizes = np.random.default_rng(0), [2, 3]
    gate_AH = np.array([[1, 0.5, 1, 1, 0, 0], [1, 1, 0, 1, 1, 1]], np.float32)
    slope = random.normal(size=(7, 2, 2, 6)), random.normal(size=(7, 3, 2, 6))
    label_N = random.integers(0, 3, 7)
    found = LinearMap(random.normal(size=(7, 2)), slope[0], gate_AH, label_N, slope[1])
    grouped = found.by_group(sizes)
    np.testing.assert_array_equal(grouped.gate_AH, [[1, 1, 0], [1, 1, 0]])
    masks_MAG = random.integers(0, 2, (9, 2, 3))
    masks_MAH = heads.spread_groups(masks_MAG, sizes, 6) * gate_AH
    for name, value_MN in found.values(masks_MAH).items():
        np.testing.assert_allclose(
            grouped.values(masks_MAG * grouped.gate_AH)[name], value_MN, rtol=1e-5
        )
    step_AH = masks_MAH[0] - gate_AH
    step_AG = masks_MAG[0] * grouped.gate_AH - grouped.gate_AH
    np.testing.assert_allclose(
        np.tensordot(grouped.drawn_NKAH, step_AG, 2), np.tensordot(slope[1], step_AH, 2), rtol=1e-5
    )

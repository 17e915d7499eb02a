"""Removed is the same as masked: loss, importance, grids, gradients and beam search; twice over,
and back with zeros."""

import dataclasses

import jax
import numpy as np
import pytest
from tiny import TASK, batched, examples, random_params, with_config
from tiny_translation import CONFIG, make_batch, sentences, translate

from hp_jax import heads
from hp_jax.architecture import BertConfig, Decoding
from hp_jax.grid.whole import evaluate_grid
from hp_jax.importance import head_importance
from hp_jax.models.translation import Translation
from hp_jax.removal import pad_heads, remove_heads

BATCHES = batched(examples())
PAIRS = [
    make_batch(
        sentences(5, 20, eos=2, first=4, longest=9, seed=2),
        sentences(5, 20, eos=2, first=4, longest=9, seed=3),
        pad=1,
        width=12,
    )
]
FAMILIES = {
    "bert": TASK,
    "roberta": with_config(family="roberta", pad=1),
    "distilbert": with_config(family="distilbert", types=0),
    "bert of three layers": with_config(layers=3, heads=2),
    "post-norm": Translation(CONFIG),
    "pre-norm": Translation(
        dataclasses.replace(CONFIG, norm="pre", positions="learned", encoder_heads=2)
    ),
    "ssru": Translation(dataclasses.replace(CONFIG, decoder="ssru", share_output=False)),
}


def quick(*names, of=tuple(FAMILIES)):
    """Some families, of which all but those named are for .ci/run."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in of]


def data(task):
    return PAIRS if isinstance(task, Translation) else BATCHES


def some_masks(task):
    """A row of each kind empty and heads off in the others; none left."""
    present_AH = task.present_AH
    mixed = np.asarray(
        heads.random_off(jax.random.key(2), present_AH, int(present_AH.sum() * 0.4), 1)[0]
    ).copy()
    mixed[list({row.split(".")[0]: i for i, row in enumerate(task.rows)}.values())] = False
    return {"mixed": mixed, "no head": np.zeros_like(present_AH)}


def removed(task, params, mask_AH):
    """The task and parameters without the heads that are off."""
    config, params = remove_heads(task.config, params, mask_AH)
    return dataclasses.replace(task, config=config), params


def values(task, params, masks_MAH):
    return evaluate_grid(task, params, data(task), np.asarray(masks_MAH), chunk=2)


def close(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", quick("bert", "pre-norm", "ssru"))
def test_removed_is_masked(family):
    """Loss, prediction and translation under the whole mask; the names of the heads that are left
    are what they were."""
    task = FAMILIES[family]
    if isinstance(task, Translation):
        task = dataclasses.replace(task, decoding=Decoding(beam=1))
    params = random_params(task)
    for mask_AH in some_masks(task).values():
        small, fewer = removed(task, params, mask_AH)
        assert small.present_AH.tolist() == mask_AH.tolist()
        assert small.rows == task.rows
        close(values(small, fewer, mask_AH[None]), values(task, params, mask_AH[None]))


@pytest.mark.parametrize("family", quick("pre-norm", of=("bert", "pre-norm", "ssru")))
def test_importance_and_grids_of_the_heads_that_are_left(family):
    task = FAMILIES[family]
    params, mask_AH = random_params(task), some_masks(task)["mixed"]
    small, fewer = removed(task, params, mask_AH)
    found_AH = head_importance(small, fewer, data(task), mask_AH)
    expected_AH = head_importance(task, params, data(task), mask_AH)
    np.testing.assert_allclose(found_AH, np.where(mask_AH, expected_AH, 0), rtol=1e-5, atol=1e-6)
    masks_MAH = np.concatenate([mask_AH[None], heads.one_off(mask_AH), heads.one_on(mask_AH)])
    close(values(small, fewer, masks_MAH), values(task, params, masks_MAH))


@pytest.mark.parametrize("family", ["bert", "pre-norm", "ssru"])
def test_removal_composes_and_can_be_undone(family):
    """Two removals are one; padded with zeros the model has its first shape, and is the masked
    one."""
    task = FAMILIES[family]
    params = random_params(task)
    first_AH, second_AH = (
        np.asarray(heads.random_off(jax.random.key(4), task.present_AH, n, 1)[0]) for n in (2, 4)
    )
    both_AH = first_AH & second_AH
    once, once_params = removed(task, params, both_AH)
    twice, twice_params = removed(*removed(task, params, first_AH), both_AH)
    assert once == twice
    jax.tree.map(np.testing.assert_array_equal, once_params, twice_params)
    config, padded = pad_heads(once.config, once_params)
    assert config == task.config
    assert jax.tree.map(np.shape, padded) == jax.tree.map(np.shape, params)
    close(values(task, padded, task.present_AH[None]), values(task, params, both_AH[None]))
    same, untouched = remove_heads(task.config, params, task.present_AH)
    assert same == task.config
    assert untouched is params


def test_beam_search_gives_the_same_hypotheses():
    for task in (FAMILIES[name] for name in ("post-norm", "pre-norm", "ssru")):
        params, mask_AH = random_params(task), some_masks(task)["mixed"]
        small, fewer = removed(task, params, mask_AH)
        found = translate(small, fewer, PAIRS[0], mask_AH, Decoding(beam=3))
        expected = translate(task, params, PAIRS[0], mask_AH, Decoding(beam=3))
        for ours, theirs in zip(found, expected, strict=True):
            assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
            np.testing.assert_allclose(
                [score for _, score in ours], [score for _, score in theirs], atol=1e-5
            )


@pytest.mark.parametrize("family", ["bert", "pre-norm"])
def test_parameters_learn_the_same(family):
    """The training loss has the gradient that the masked model's has at the parameters that are
    left."""
    task = FAMILIES[family]
    task = dataclasses.replace(
        task, config=dataclasses.replace(task.config, dropout=0.0, attention_dropout=0.0)
    )
    if isinstance(task.config, BertConfig):
        task = dataclasses.replace(
            task, config=dataclasses.replace(task.config, classifier_dropout=0.0)
        )
    params, mask_AH = random_params(task), some_masks(task)["mixed"]
    small, fewer = removed(task, params, mask_AH)

    def gradient(task, params):
        def loss(params):
            gates = heads.gates(mask_AH, task.present_AH)
            return task.training_loss(
                params, data(task)[0], gates, dropout=jax.random.key(0), smoothing=0.1
            )[0].sum()

        return jax.jit(jax.grad(loss))(params)

    _, expected = removed(task, gradient(task, params), mask_AH)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        gradient(small, fewer),
        expected,
    )


def test_dropout_of_a_row_without_heads():
    task = FAMILIES["bert"]
    small, fewer = removed(task, random_params(task), np.zeros_like(task.present_AH))
    gates = heads.gates(small.present_AH, small.present_AH)
    loss_B, _ = small.training_loss(
        fewer, BATCHES[0], gates, dropout=jax.random.key(0), smoothing=0.0
    )
    assert np.isfinite(loss_B).all()


def test_an_empty_row_is_its_bias_alone():
    task = FAMILIES["bert"]
    mask_AH = task.present_AH.copy()
    mask_AH[1] = False
    config, fewer = remove_heads(task.config, random_params(task), mask_AH)
    assert list(fewer["layer_1"]["attention"]) == ["out"]
    assert list(fewer["layer_1"]["attention"]["out"]) == ["bias"]
    assert config.heads_per_row == {"enc.0": 4, "enc.1": 0}


def test_what_does_not_fit_is_refused():
    params = random_params()
    with pytest.raises(
        ValueError, match=r"the head mask has shape \(3, 4\), but the model has shape \(2, 4\)"
    ):
        remove_heads(TASK.config, params, np.ones((3, 4), bool))
    mask_AH = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)
    config, fewer = remove_heads(TASK.config, params, mask_AH)
    with pytest.raises(
        ValueError, match="turns on head 2 of row 0, but the heads of that row are 0, 1, 3"
    ):
        remove_heads(config, fewer, np.ones((2, 4), bool))
    for kept, message in (
        (((0, 1),), "for 1 rows, but the model has 2"),
        (((0, 1), (4,)), r"row enc.1 keeps the heads \(4,\), but expected are some of 0 to 3"),
        (
            ((1, 0), (2,)),
            r"row enc.0 keeps the heads \(1, 0\), but expected are some of 0 to 3, in order",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(TASK.config, kept=kept)

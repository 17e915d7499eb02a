"""Costs: a head's parameters exactly, its FLOPs as XLA counts them; memory of the program that
really runs."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from tiny import TASK, batched, examples, random_params

from hp_jax import heads
from hp_jax.architecture import BertConfig, Seq2SeqConfig
from hp_jax.models.classification import Classification
from hp_jax.models.translation import Translation
from hp_jax.removal import remove_heads
from hp_jax.shrink import costs

BERT = Classification(
    BertConfig(
        "bert",
        ("a", "b"),
        vocab=30522,
        positions=512,
        types=2,
        layers=2,
        heads=12,
        width=768,
        ffn=3072,
    )
)
PAIRS = Translation(
    Seq2SeqConfig(
        source_vocab=500,
        target_vocab=500,
        encoder_layers=1,
        decoder_layers=1,
        width=512,
        encoder_heads=8,
        cross_heads=4,
    )
)
SSRU = Translation(dataclasses.replace(PAIRS.config, decoder="ssru"))


def removed(task, mask_AH):
    """The model without the heads that are off, as shapes."""
    kept = tuple(tuple(np.flatnonzero(on_H).tolist()) for on_H in mask_AH)
    smaller = dataclasses.replace(task, config=dataclasses.replace(task.config, kept=kept))
    return smaller, jax.eval_shape(smaller.init, jax.random.key(0))


@pytest.mark.parametrize(("task", "target"), [(BERT, None), (PAIRS, 96), (SSRU, 24)])
def test_a_budget_agrees_with_the_removed_model(task, target):
    length = 128 if target is None else 64
    measures = costs.measures(task, jax.eval_shape(task.init, jax.random.key(0)), length, target)
    mask_AH = np.array(heads.random_off(jax.random.key(1), task.present_AH, 7, 1)[0])
    mask_AH[0] = False
    smaller, params = removed(task, mask_AH)
    assert measures["parameters"].of(mask_AH) == costs.parameters(params)
    assert measures["heads"].of(mask_AH) == mask_AH.sum()
    flops = costs.forward_flops(smaller, params, smaller.batch_shapes(1, length, target))
    gone = measures["flops"].whole - flops
    assert measures["flops"].whole - measures["flops"].of(mask_AH) == pytest.approx(gone, rel=0.01)
    again = costs.measures(
        smaller, params, length, target
    )  # a budget of a model without heads counts on from there
    assert again["parameters"].whole == measures["parameters"].of(mask_AH)
    np.testing.assert_array_equal(again["flops"].own_AH, measures["flops"].own_AH * mask_AH)


def test_the_last_row_of_a_classifier_is_cheaper():
    flops_AH = sum(costs.head_flops(BERT.config, 128))
    assert (flops_AH[0] == 4 * 64 * (768 * 256 + 128 * 128)).all()
    assert (flops_AH[1] == 4 * 64 * (768 * 129 + 128)).all()


def test_sizes_are_those_of_the_program():
    params, batch = random_params(), batched(examples())[0]
    found = costs.sizes(TASK, params, batch)
    assert found.parameters == sum(leaf.size for leaf in jax.tree.leaves(params)) == found.bytes / 4
    assert found.flops == costs.forward_flops(TASK, params, batch) > 0
    assert (
        found.program_bytes
        > found.temp_bytes + found.bytes - params["embeddings"]["type"]["embedding"].nbytes
    )
    mask_AH = np.array(TASK.present_AH)
    mask_AH[0], mask_AH[1, 1:] = False, False
    config, fewer = remove_heads(TASK.config, params, mask_AH)
    forward = costs.compiled(functools.partial(costs.forward, Classification(config)), fewer, batch)
    assert forward.sizes.parameters < found.parameters
    assert forward.sizes.flops < found.flops
    masked = jax.jit(
        lambda params, batch: TASK.logits(params, batch, heads.gates(mask_AH, TASK.present_AH))
    )
    np.testing.assert_allclose(forward.run(fewer, batch), masked(params, batch), atol=1e-4)

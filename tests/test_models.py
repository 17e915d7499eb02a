"""The one gate line: masked is removed, dead rows work, padding and the attention kernel do not
matter."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BUCKETS, CONFIG, FULL, TASK, batched, examples, random_params, with_config

from hp_jax import heads
from hp_jax.data.batching import batches
from hp_jax.models.layers import Attention, rounded, summed

PARAMS = random_params()
DATA = examples()
BATCH = batches(DATA, size=13, buckets=(16,))[0]


@functools.partial(jax.jit, static_argnames="task")
def gated_logits(params, batch, gates, dropout=None, task=TASK):
    return task.logits(params, batch, gates, dropout=dropout)


def logits(params, batch, mask_AH, task=TASK, **options):
    return np.asarray(
        gated_logits(params, batch, heads.gates(mask_AH, task.present_AH), task=task, **options)
    )


@pytest.mark.parametrize(
    "config",
    [CONFIG, dataclasses.replace(CONFIG, family="roberta"), dataclasses.replace(CONFIG, types=0)],
)
def test_every_head_of_every_row_matters(config):
    task = dataclasses.replace(TASK, config=config)
    params = random_params(task)
    full = logits(params, BATCH, FULL, task)
    for mask_AH in heads.one_off(FULL):
        assert np.abs(logits(params, BATCH, mask_AH, task) - full).max() > 1e-3


def test_masked_equals_physically_removed_biases_included():
    """A model whose rows each lose two heads, against one that was built with the other two."""
    keep = {0: [1, 2], 1: [0, 3]}
    mask_AH = np.zeros((2, 4), bool)
    for row, kept in keep.items():
        mask_AH[row, kept] = True
    small = jax.tree.map(lambda leaf: leaf, PARAMS)
    for row, kept in keep.items():
        attention = {name: dict(part) for name, part in PARAMS[f"layer_{row}"]["attention"].items()}
        for part in ("query", "key", "value"):
            attention[part] = {
                "kernel": attention[part]["kernel"][:, kept],
                "bias": attention[part]["bias"][kept],
            }
        attention["out"]["kernel"] = attention["out"]["kernel"][kept]
        small[f"layer_{row}"] = dict(PARAMS[f"layer_{row}"]) | {"attention": attention}

    two_heads = dataclasses.replace(CONFIG, heads=2, head_width=4)
    removed = dataclasses.replace(TASK, config=two_heads)
    expected = logits(small, BATCH, heads.all_on(2, 2), removed)
    np.testing.assert_allclose(logits(PARAMS, BATCH, mask_AH), expected, atol=1e-5)


def over_itself(attention, x_BTD, *args, **options):
    return attention(x_BTD, attention.keys(x_BTD), *args, **options)


def test_a_row_without_heads_is_its_output_bias():
    x_BTD = jax.random.normal(jax.random.key(0), (2, 5, 16))
    attention = Attention(16, 4, 4, jnp.float32)
    attend = jnp.ones((2, 1, 1, 5), bool)
    params = PARAMS["layer_0"]["attention"]
    y_BTD = attention.apply({"params": params}, x_BTD, attend, jnp.zeros(4), method=over_itself)
    np.testing.assert_array_equal(y_BTD, np.broadcast_to(params["out"]["bias"], y_BTD.shape))
    assert np.isfinite(logits(PARAMS, BATCH, np.zeros((2, 4)))).all()


def test_both_attention_paths_agree_and_both_are_gated():
    """The path with dropout (here a rate too small to drop anything) against
    jax.nn.dot_product_attention."""
    x_BTD = jax.random.normal(jax.random.key(0), (2, 5, 16))
    attend = (jnp.arange(5)[None] < jnp.array([5, 3])[:, None])[:, None, None]
    params = {"params": PARAMS["layer_0"]["attention"]}
    plain, dropping = (
        Attention(16, 4, 4, jnp.float32),
        Attention(16, 4, 4, jnp.float32, dropout=1e-9),
    )
    full = plain.apply(params, x_BTD, attend, jnp.ones(4), method=over_itself)
    for gate in (jnp.ones(4), jnp.array([1.0, 0.0, 1.0, 1.0]), jnp.zeros(4)):
        rngs = {"dropout": jax.random.key(1)}
        fused = plain.apply(params, x_BTD, attend, gate, method=over_itself)
        np.testing.assert_allclose(
            dropping.apply(params, x_BTD, attend, gate, train=True, rngs=rngs, method=over_itself),
            fused,
            atol=2e-5,
            rtol=1e-5,
        )
        assert (np.abs(fused - full).max() > 1e-2) == bool((gate == 0).any())


def test_a_gate_may_have_example_and_position_axes():
    gates = [jnp.ones((13, 16, 4)), jnp.ones((13, 1, 4))]
    np.testing.assert_allclose(
        gated_logits(PARAMS, BATCH, gates), logits(PARAMS, BATCH, FULL), atol=1e-6
    )
    gates[0] = gates[0].at[:, :, 2].set(0)
    one_off = heads.remove(FULL, {"enc.0": [2]}, TASK.rows)
    np.testing.assert_allclose(
        gated_logits(PARAMS, BATCH, gates), logits(PARAMS, BATCH, one_off), atol=1e-6
    )


def test_padding_and_bucketing_change_nothing():
    alone = {}
    for batch in batched(DATA, size=3):
        for index, row, weight in zip(
            batch["index_B"], logits(PARAMS, batch, FULL), batch["weight_B"], strict=True
        ):
            if weight:
                alone[int(index)] = row
    together = logits(PARAMS, BATCH, FULL)
    for row, index in enumerate(BATCH["index_B"]):
        np.testing.assert_allclose(together[row], alone[int(index)], atol=2e-5)
    assert {batch["tokens_BT"].shape[1] for batch in batched(DATA, size=3)} == set(BUCKETS)


def test_dropout_acts_only_with_a_key_and_depends_on_it():
    task = with_config(dropout=0.3, attention_dropout=0.3, classifier_dropout=0.3)
    first, second = (
        logits(PARAMS, BATCH, FULL, task, dropout=jax.random.key(seed)) for seed in (1, 2)
    )
    assert np.abs(first - second).max() > 1e-2
    np.testing.assert_array_equal(logits(PARAMS, BATCH, FULL, task), logits(PARAMS, BATCH, FULL))


def test_bfloat16_is_close_and_its_logits_are_float32():
    params = random_params(scale=0.1)
    exact = logits(params, BATCH, FULL)
    narrow = logits(params, BATCH, FULL, with_config(dtype="bfloat16"))
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(narrow, exact, atol=0.1)
    assert np.abs(narrow - exact).max() > 0
    assert (narrow != narrow.astype(jnp.bfloat16)).any()  # logits are not rounded once more


@pytest.mark.parametrize(
    ("lhs", "rhs", "axes"),
    [
        ((2, 3, 5), (5, 7), ((2,), (0,))),
        ((2, 3, 5), (5, 2, 4), ((2,), (0,))),
        ((2, 3, 2, 4), (2, 4, 6), ((2, 3), (0, 1))),
        ((2, 3, 2, 4), (4, 6, 2), ((3, 2), (0, 2))),
        ((2, 3, 5), (7, 5), ((2,), (1,))),
    ],
)
def test_products_of_narrow_numbers_have_wide_sums_and_the_gradients_of_products(lhs, rhs, axes):
    narrow = [
        jax.random.normal(jax.random.key(seed), shape, jnp.bfloat16)
        for seed, shape in enumerate((lhs, rhs))
    ]
    wide = [x.astype(jnp.float32) for x in narrow]
    axes = axes, ((), ())
    expected, back = jax.vjp(lambda x, y: jax.lax.dot_general(x, y, axes), *wide)
    found, back_narrow = jax.vjp(lambda x, y: summed(x, y, axes), *narrow)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(summed(*wide, axes), expected)
    np.testing.assert_array_equal(rounded(*narrow, axes), found.astype(jnp.bfloat16))
    out = jax.random.normal(jax.random.key(2), expected.shape, jnp.bfloat16).astype(jnp.float32)
    for gradient, right in zip(back_narrow(out), back(out), strict=True):
        assert gradient.dtype == jnp.bfloat16
        np.testing.assert_array_equal(gradient, right.astype(jnp.bfloat16))


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="a width of 16 does not divide into 5 heads"):
        dataclasses.replace(CONFIG, heads=5)

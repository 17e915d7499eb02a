"""Removal and costs where query heads share keys and values, heads are not width / heads wide, and
biases are absent: against attention written out in NumPy."""

import dataclasses

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest
from hypothesis import given

from hp_jax.architecture import AttentionModule, ModelConfig, present_mask
from hp_jax.removal import pad_heads, remove_heads
from hp_jax.shrink import costs

WIDTH, HEADS, KEY_HEADS, HEAD_WIDTH, TOKENS = 10, 6, 2, 3, 4
BIASES = {"dec.0": ("query", "key", "value"), "dec.1": ("out",)}


@dataclasses.dataclass(frozen=True)
class Grouped(ModelConfig):
    """Two attention modules, of which the second has a key/value head for each pair of heads."""

    @property
    def modules(self):
        return {
            row: AttentionModule((row, "attention"), WIDTH, HEADS, HEAD_WIDTH, key_heads, biases)
            for (row, biases), key_heads in zip(BIASES.items(), (KEY_HEADS, 3), strict=True)
        }

    def tokens(self, row, length, target):
        return length, length


CONFIG = Grouped()


def random_params(seed=0):
    random = np.random.default_rng(seed)
    params = {}
    for row, module in CONFIG.modules.items():
        shapes = {
            "query": (WIDTH, HEADS, HEAD_WIDTH),
            "key": (WIDTH, module.key_heads, HEAD_WIDTH),
            "value": (WIDTH, module.key_heads, HEAD_WIDTH),
            "out": (HEADS, HEAD_WIDTH, WIDTH),
        }
        tree = {name: {"kernel": random.normal(size=shape)} for name, shape in shapes.items()}
        for name in module.biases:
            shape = (WIDTH,) if name == "out" else shapes[name][1:]
            tree[name]["bias"] = random.normal(size=shape)
        params[row] = {
            "attention": jax.tree.map(lambda leaf: leaf.astype(np.float32), tree),
            "other": np.ones(3, np.float32),
        }
    return params


PARAMS = random_params()
X = np.random.default_rng(1).normal(size=(TOKENS, WIDTH))


def attend(config, params, row, gate_H):
    """One module's output `[T, D]`, head by head, of the heads that it has."""
    module, kept = config.modules[row], config.kept_heads[row]
    tree = jax.tree.map(np.asarray, params[row].get("attention", {}))
    out = np.zeros((TOKENS, WIDTH)) + tree.get("out", {}).get("bias", 0)
    serving = module.serving(kept)
    for place, head in enumerate(kept):
        group = serving.index(head // module.group)

        def project(name, at, tree=tree):
            part = tree[name]
            return X @ part["kernel"][:, at] + (part["bias"][at] if "bias" in part else 0)

        query, key, value = project("query", place), project("key", group), project("value", group)
        score = np.exp(query @ key.T / np.sqrt(HEAD_WIDTH))
        context = score / score.sum(1, keepdims=True) @ value
        out = out + gate_H[head] * (context @ tree["out"]["kernel"][place])
    return out


masks = st.lists(st.booleans(), min_size=12, max_size=12).map(lambda on: np.reshape(on, (2, 6)))


@hypothesis.settings(max_examples=25)
@given(masks, masks)
def test_removed_is_masked_and_two_removals_are_one(first, second):
    small_config, small = remove_heads(CONFIG, PARAMS, first)
    for row, mask_H in zip(CONFIG.modules, first, strict=True):
        expected = attend(CONFIG, PARAMS, row, mask_H)
        np.testing.assert_allclose(
            attend(small_config, small, row, np.ones(6)), expected, rtol=1e-4, atol=1e-4
        )
    twice = remove_heads(small_config, small, first & second)
    once = remove_heads(CONFIG, PARAMS, first & second)
    assert twice[0] == once[0]
    jax.tree.map(np.testing.assert_array_equal, twice[1], once[1])
    padded_config, padded = pad_heads(small_config, small)
    assert padded_config == CONFIG
    assert jax.tree.map(np.shape, padded) == jax.tree.map(np.shape, PARAMS)
    again = remove_heads(padded_config, padded, first)
    jax.tree.map(np.testing.assert_array_equal, again[1], small)


@hypothesis.settings(max_examples=25)
@given(masks, masks)
def test_parameters_saved_are_counted_right(first, second):
    config, params = remove_heads(CONFIG, PARAMS, first)
    own_AH, shared_AH = costs.head_parameters(config)
    measure = costs.Measure(
        costs.parameters(params),
        present_mask(config),
        own_AH,
        shared_AH,
        costs.group_numbers(config),
    )
    _, fewer = remove_heads(config, params, first & second)
    assert measure.of(first & second) == costs.parameters(fewer)


def test_flops_of_shared_projections_go_with_the_last_head_of_a_group():
    own_AH, shared_AH = costs.head_flops(CONFIG, 5)
    np.testing.assert_array_equal(own_AH, 4 * HEAD_WIDTH * 5 * (WIDTH + 5) * np.ones((2, 6)))
    np.testing.assert_array_equal(shared_AH, 4 * HEAD_WIDTH * 5 * WIDTH * np.ones((2, 6)))
    assert costs.group_numbers(CONFIG).tolist() == [[0, 0, 0, 1, 1, 1], [6, 6, 7, 7, 8, 8]]


def test_groups_must_divide_the_heads():
    class Odd(Grouped):
        @property
        def modules(self):
            return {"dec.0": AttentionModule(("a",), WIDTH, 6, HEAD_WIDTH, 4)}

    with pytest.raises(ValueError, match="do not share 4 key/value heads evenly"):
        Odd()

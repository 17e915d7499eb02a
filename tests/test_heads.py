"""The mask algebra: properties, and the authors' counts."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hp_jax import heads
from hp_jax.importance import normalize_rows
from hp_jax.pruning import prune

ROWS = ("enc.0", "enc.1", "enc.2")
masks = st.integers(0, 2**12 - 1).map(
    lambda bits: np.array([bits >> i & 1 for i in range(12)], bool).reshape(3, 4)
)


def test_all_on_pads_narrow_rows_with_heads_that_are_off():
    np.testing.assert_array_equal(heads.all_on(3, [2, 0, 3]), [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    assert heads.all_on(12, 12).all()
    with pytest.raises(ValueError, match="3 rows need 3 head counts, but there are 2"):
        heads.all_on(3, [1, 2])


@given(masks)
@settings(max_examples=30)
def test_one_off_and_one_on_touch_only_living_heads(mask_AH):
    living = heads.living_heads(mask_AH)
    for (row, head), off_AH, on_AH in zip(
        living, heads.one_off(mask_AH), heads.one_on(mask_AH), strict=True
    ):
        expected = mask_AH.copy()
        expected[row, head] = False
        np.testing.assert_array_equal(off_AH, expected)
        expected = mask_AH.copy()
        expected[row] = False
        expected[row, head] = True
        np.testing.assert_array_equal(on_AH, expected)
    assert len(heads.pairs(mask_AH)) == len(living) * (len(living) - 1) // 2
    assert all(np.sum(mask_AH & ~np.asarray(pair_AH)) == 2 for pair_AH in heads.pairs(mask_AH))
    for row_mask_AH in heads.rows_off(mask_AH):
        lost = mask_AH & ~np.asarray(row_mask_AH)
        assert lost.any(1).sum() == 1
        assert (lost == mask_AH)[lost.any(1)].all()


@given(
    masks,
    st.lists(st.sampled_from([0.0, 1.0, 2.0, -3.0]), min_size=12, max_size=12),
    st.integers(0, 12),
    st.integers(0, 4),
)
@settings(max_examples=60)
def test_keep_top_equals_a_stable_sort(mask_AH, scores, n, floor):
    score_AH = np.array(scores).reshape(3, 4)
    living = heads.living_heads(mask_AH)
    lowest_first = sorted(
        living, key=lambda head: score_AH[head]
    )  # stable: of equal scores the lower (row, head) goes first
    safe = set()
    for row in range(3):
        mine = [head for head in lowest_first if head[0] == row]
        safe |= set(mine[max(len(mine) - floor, 0) :])
    removable = [head for head in lowest_first if head not in safe]
    gone = set(removable[: max(len(living) - n, 0)])
    expected = np.zeros((3, 4), bool)
    for head in set(living) - gone:
        expected[head] = True
    np.testing.assert_array_equal(heads.keep_top(mask_AH, score_AH, n, floor=floor), expected)


def test_keep_top_is_jitted_and_vmapped_over_scores_and_counts():
    mask_AH = heads.all_on(2, 3)
    scores_MAH = jax.random.normal(jax.random.key(0), (5, 2, 3))
    counts_M = jnp.arange(5)
    masks_MAH = jax.jit(jax.vmap(lambda score_AH, n: heads.keep_top(mask_AH, score_AH, n)))(
        scores_MAH, counts_M
    )
    np.testing.assert_array_equal(masks_MAH.sum((1, 2)), counts_M)
    with pytest.raises(ValueError, match=r"\(2, 2\), but the mask has shape \(2, 3\)"):
        heads.keep_top(mask_AH, jnp.zeros((2, 2)), 1)


def test_random_off_removes_exactly_n_living_heads_by_key():
    mask_AH = heads.all_on(3, [4, 2, 4])
    masks_MAH = heads.random_off(jax.random.key(1), mask_AH, 4, 20)
    assert (masks_MAH.sum((1, 2)) == 6).all()
    assert not (masks_MAH & ~mask_AH[None]).any()
    assert len({np.asarray(mask).tobytes() for mask in masks_MAH}) > 10
    np.testing.assert_array_equal(masks_MAH, heads.random_off(jax.random.key(1), mask_AH, 4, 20))
    with pytest.raises(ValueError, match="cannot remove 11 heads: 10 are alive"):
        heads.random_off(jax.random.key(1), mask_AH, 11, 1)


def test_counts_are_those_of_the_paper():
    tenths = [i / 10 for i in range(11)]
    assert heads.removal_counts(144, tenths) == [0, 14, 28, 43, 57, 72, 86, 100, 115, 129, 144]
    assert heads.removal_counts(288, tenths[:10], rounding="ceil") == [
        0,
        29,
        58,
        87,
        116,
        144,
        173,
        202,
        231,
        260,
    ]
    assert heads.removal_counts(100, [0.29, 0.57]) == [29, 57]
    with pytest.raises(ValueError, match=r"between 0 and 1, but got 1\.5"):
        heads.removal_counts(10, [1.5])


@given(masks)
@settings(max_examples=30)
def test_dicts_round_trip(mask_AH):
    present_AH = heads.all_on(3, 4)
    gone = heads.removed(mask_AH, present_AH, ROWS)
    np.testing.assert_array_equal(heads.remove(present_AH, gone, ROWS), mask_AH)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"enc.3": [0]}, "there is no row 'enc.3'; the rows are enc.0, enc.1, enc.2"),
        ({"enc.0": [4]}, "head 4 of row 'enc.0' .* out of range: rows have 4 heads"),
        ({"enc.0": [1, 1]}, "head 1 of row 'enc.0' .* named twice"),
        ({"enc.1": [3]}, "head 3 of row 'enc.1' .* not there any more"),
    ],
)
def test_removing_names_what_is_wrong(chosen, message):
    mask_AH = heads.remove(heads.all_on(3, 4), {"enc.1": [3]}, ROWS)
    with pytest.raises(ValueError, match=message):
        heads.remove(mask_AH, chosen, ROWS)


def test_check_mask_names_both_shapes():
    with pytest.raises(ValueError, match=r"\(2, 4\), but the model has shape \(3, 4\)"):
        heads.check_mask(np.ones((2, 4)), np.ones((3, 4), bool))
    with pytest.raises(
        ValueError, match="turns on head 2 of row 1, but the heads of that row are 0, 1"
    ):
        heads.check_mask(np.ones((2, 3)), np.asarray(heads.all_on(2, (3, 2))))


@pytest.mark.parametrize(
    "use",
    [
        lambda half_AH: heads.keep_top(half_AH, np.ones((3, 4)), 3),
        lambda half_AH: heads.removed(half_AH, heads.all_on(3, 4), ROWS),
        lambda half_AH: heads.remove(half_AH, {"enc.0": [1]}, ROWS),
        lambda half_AH: heads.check_mask(half_AH, heads.all_on(3, 4)),
        lambda half_AH: heads.one_off(half_AH),
        lambda half_AH: normalize_rows(np.ones((3, 4)), half_AH),
        lambda half_AH: prune(lambda mask_AH: mask_AH, half_AH, [1]),
    ],
)
@pytest.mark.parametrize("value", [0.5, np.nan, -1, 2])
def test_a_mask_of_other_values_is_refused_wherever_masks_are_taken(use, value):
    mask_AH = np.ones((3, 4))
    mask_AH[1, 2] = value
    with pytest.raises(ValueError, match=rf"holds {value}.* at \(1, 2\), but every value must be"):
        use(mask_AH)


def test_heads_imports_without_models_data_or_training():
    heavy = ("flax", "optax", "orbax", "tokenizers", "tensorflow_datasets")
    code = f"import sys, hp_jax.heads; print([name for name in {heavy} if name in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )


@given(st.data())
def test_sums_of_groups_are_those_of_loops(data):
    """And what is spread is what each head's group has; rows may have groups of different sizes."""
    rows, count = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 7))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=rows, max_size=rows))
    x_NAH = np.random.default_rng(0).integers(0, 9, (2, rows, count))
    summed_NAG = heads.sum_groups(x_NAH, sizes)
    spread_NAH = heads.spread_groups(summed_NAG, sizes, count)
    for number, row, head in np.ndindex(2, rows, count):
        group = head // sizes[row]
        own = x_NAH[number, row, group * sizes[row] : (group + 1) * sizes[row]].sum()
        assert summed_NAG[number, row, group] == spread_NAH[number, row, head] == own
    assert summed_NAG.sum() == x_NAH.sum()
    assert heads.sum_groups(x_NAH > 4, sizes).dtype == bool
    np.testing.assert_array_equal(heads.sum_groups(x_NAH, [1] * rows), x_NAH)

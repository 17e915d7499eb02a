"""Every example is batched exactly once, in few shapes, and only the largest bucket has rows of
padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hp_jax.data.batching import batches
from hp_jax.text.tokenizer import Examples

BUCKETS = (4, 8, 16)


def examples_of(lengths):
    tokens = tuple(
        np.arange(1, length + 1, dtype=np.int32) + 100 * i for i, length in enumerate(lengths)
    )
    types = tuple(tokens_T % 2 for tokens_T in tokens)
    n = len(lengths)
    return Examples(
        "task", "train", tokens, types, np.arange(n, dtype=np.int32) % 3, np.arange(n) * 7
    )


LENGTHS = st.lists(st.integers(1, 16), max_size=60)
SIZES = st.one_of(
    st.builds(dict, size=st.integers(1, 9)), st.builds(dict, tokens=st.integers(1, 90))
)


@given(LENGTHS, SIZES, st.none() | st.integers(0, 9))
def test_every_example_once_and_unchanged(lengths, how, seed):
    examples = examples_of(lengths)
    made = batches(
        examples,
        **how,
        buckets=BUCKETS,
        shuffle=None if seed is None else np.random.default_rng(seed),
    )
    real = sorted(int(n) for batch in made for n in batch["index_B"][batch["weight_B"] == 1])
    assert real == list(range(len(lengths)))
    for batch in made:
        rows, length = batch["tokens_BT"].shape
        assert length in BUCKETS
        assert rows == how.get("size", max(1, how.get("tokens", 0) // length))
        for row in range(rows):
            n, end = batch["index_B"][row], batch["length_B"][row]
            if batch["weight_B"][row]:
                np.testing.assert_array_equal(batch["tokens_BT"][row, :end], examples.tokens[n])
                np.testing.assert_array_equal(batch["types_BT"][row, :end], examples.types[n])
                assert batch["label_B"][row] == examples.label_N[n]
            else:
                assert end == 1
                assert not batch["tokens_BT"][row].any()
            assert not batch["tokens_BT"][row, end:].any()
            assert not batch["types_BT"][row, end:].any()


@given(LENGTHS, SIZES, st.integers(0, 9))
def test_one_shape_a_bucket_and_at_most_one_batch_with_padding_rows(lengths, how, seed):
    made = batches(
        examples_of(lengths), **how, buckets=BUCKETS, shuffle=np.random.default_rng(seed)
    )
    shapes = {batch["tokens_BT"].shape for batch in made}
    assert len({length for _, length in shapes}) == len(shapes)
    partial = [batch for batch in made if not batch["weight_B"].all()]
    assert len(partial) <= 1
    for batch in partial:
        assert batch["tokens_BT"].shape[1] == max(length for _, length in shapes)
        assert batch["weight_B"].any()


@given(LENGTHS, SIZES)
def test_without_shuffling_the_order_is_by_length(lengths, how):
    made = batches(examples_of(lengths), **how, buckets=BUCKETS)
    order = [(lengths[n], n) for batch in made for n in batch["index_B"][batch["weight_B"] == 1]]
    assert order == sorted(order)


def test_shuffling_is_by_the_generator():
    examples = examples_of([1 + i % 16 for i in range(60)])

    def order(seed):
        made = batches(examples, size=4, buckets=BUCKETS, shuffle=np.random.default_rng(seed))
        return [tuple(batch["index_B"]) for batch in made]

    assert order(0) == order(0) != order(1)
    assert [len(examples.tokens[index[0]]) for index in order(0)] != sorted(
        len(examples.tokens[index[0]]) for index in order(0)
    )


def test_types_of_the_arrays():
    (batch,) = batches(examples_of([3, 4]), size=3, buckets=BUCKETS)
    kinds = {name: str(array.dtype) for name, array in batch.items()}
    assert kinds.pop("weight_B") == "float32"
    assert set(kinds.values()) == {"int32"}
    assert set(kinds) == {"tokens_BT", "types_BT", "length_B", "label_B", "index_B"}


@pytest.mark.parametrize(
    ("how", "buckets", "says"),
    [
        ({"size": 2}, (4, 8), "has 9 tokens, but the largest bucket holds 8"),
        ({}, BUCKETS, "size 0 and tokens 0"),
        ({"size": 2, "tokens": 9}, BUCKETS, "size 2 and tokens 9"),
        ({"size": -1}, BUCKETS, "size -1"),
        ({"size": 2}, (), "at least one bucket"),
        ({"size": 2}, (0, 8), "all positive"),
    ],
)
def test_faults_are_named(how, buckets, says):
    with pytest.raises(ValueError, match=says):
        batches(examples_of([1, 9]), **how, buckets=buckets)

"""Encoded examples to padded batches, a few shapes in all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hp_jax.data.tokenizer import Examples

Batch = dict[str, np.ndarray]


def batches(
    examples: Examples, *, size: int = 0, tokens: int = 0, buckets: Sequence[int], shuffle: np.random.Generator | None = None
) -> list[Batch]:
    """All examples, each exactly once, in batches of `tokens_BT`, `types_BT`, `length_B`, `label_B`, `weight_B` and `index_B`.

    size | tokens: a batch has `size` rows, or as many as make `tokens` slots with padding (at least one); exactly one is given.
    buckets: the padded lengths T, each with one shape `[B, T]`.  An example goes to the smallest that holds it; those that do
        not fill a batch there move up to the next bucket in use, so that only the largest in use has rows of padding.
    shuffle: random order of examples and batches; without it, ascending length.

    Padding is on the right; a row of padding has weight 0, length 1 and index 0.  `index_B` is the place in `examples`.
    All are int32, `weight_B` float32.  ValueError for an example longer than every bucket, or a size that is not positive.
    """
    if (size > 0) == (tokens > 0) or min(size, tokens) < 0:
        raise ValueError(
            f"expected either a positive size or a positive number of tokens, but got size {size} and tokens {tokens}"
        )
    lengths = sorted(set(buckets))
    if not lengths or lengths[0] < 1:
        raise ValueError(f"expected at least one bucket, all positive, but got {tuple(buckets)}")
    length_N = np.array([len(example) for example in examples.tokens], np.int32)
    if len(examples) and length_N.max() > lengths[-1]:
        n = int(length_N.argmax())
        raise ValueError(
            f"example {n} of {examples.split} has {length_N[n]} tokens, but the largest bucket holds {lengths[-1]}"
        )
    order_N = np.argsort(length_N, kind="stable") if shuffle is None else shuffle.permutation(len(examples))
    bucket_N = np.searchsorted(lengths, length_N[order_N])
    made: list[Batch] = []
    waiting = order_N[:0]
    used = np.unique(bucket_N)
    for bucket in used:
        length = lengths[bucket]
        rows = size or max(1, tokens // length)
        waiting = np.concatenate([waiting, order_N[bucket_N == bucket]])
        full = len(waiting) if bucket == used[-1] else len(waiting) // rows * rows
        made += [_pad(examples, waiting[start : start + rows], rows, length) for start in range(0, full, rows)]
        waiting = waiting[full:]
    return made if shuffle is None else [made[i] for i in shuffle.permutation(len(made))]


def _pad(examples: Examples, index: np.ndarray, rows: int, length: int) -> Batch:
    """One batch `[rows, length]` of the examples at `index`, and rows of padding for what is left."""
    batch = {
        "tokens_BT": np.zeros((rows, length), np.int32),
        "types_BT": np.zeros((rows, length), np.int32),
        "length_B": np.ones(rows, np.int32),
        "label_B": np.zeros(rows, np.int32),
        "weight_B": np.zeros(rows, np.float32),
        "index_B": np.zeros(rows, np.int32),
    }
    for row, n in enumerate(index):
        batch["length_B"][row] = len(examples.tokens[n])
        batch["tokens_BT"][row, : len(examples.tokens[n])] = examples.tokens[n]
        batch["types_BT"][row, : len(examples.types[n])] = examples.types[n]
    batch["label_B"][: len(index)] = examples.label_N[index]
    batch["weight_B"][: len(index)] = 1
    batch["index_B"][: len(index)] = index
    return batch

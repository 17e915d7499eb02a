"""Encoded examples to padded batches, a few shapes in all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

Batch = dict[str, np.ndarray]


class Batchable(Protocol):
    """N examples that can be batched: `Examples` and `Pairs`."""

    @property
    def split(self) -> str:
        """The split of which these are some or all."""

    @property
    def length_N(self) -> np.ndarray:
        """The padded length that each example needs; int32."""

    def __len__(self) -> int: ...

    def pad(self, index: np.ndarray, rows: int, length: int) -> Batch:
        """One batch `[rows, length]` of the examples at `index`, and rows of padding for what is
        left."""


def batches(
    examples: Batchable,
    *,
    size: int = 0,
    tokens: int = 0,
    buckets: Sequence[int],
    shuffle: np.random.Generator | None = None,
) -> list[Batch]:
    """All examples, each exactly once, in the batches that `examples.pad` makes.

    size | tokens: a batch has `size` rows, or as many as make `tokens` slots with padding (at least
    one); exactly one is given.
    buckets: the padded lengths T, each with one shape `[B, T]`.  An example goes to the smallest
    that holds it; those that do
        not fill a batch there move up to the next bucket in use, so that only the largest in use
        has rows of padding.
    shuffle: random order of examples and batches; without it, ascending length.

    Padding is on the right; a row of padding has `weight_B` 0, length 1 and `index_B` 0.  `index_B`
    is the place in `examples`. All are int32, `weight_B` float32.  ValueError for an example longer
    than every bucket, or a size that is not positive.
    """
    if (size > 0) == (tokens > 0) or min(size, tokens) < 0:
        raise ValueError(
            f"expected either a positive size or a positive number of tokens, but got size {size} "
            f"and tokens {tokens}"
        )
    lengths = sorted(set(buckets))
    if not lengths or lengths[0] < 1:
        raise ValueError(f"expected at least one bucket, all positive, but got {tuple(buckets)}")
    length_N = examples.length_N
    if len(examples) and length_N.max() > lengths[-1]:
        n = int(length_N.argmax())
        raise ValueError(
            f"example {n} of {examples.split} has {length_N[n]} tokens, but the largest bucket "
            f"holds {lengths[-1]}"
        )
    order_N = (
        np.argsort(length_N, kind="stable")
        if shuffle is None
        else shuffle.permutation(len(examples))
    )
    bucket_N = np.searchsorted(lengths, length_N[order_N])
    made: list[Batch] = []
    waiting = order_N[:0]
    used = np.unique(bucket_N)
    for bucket in used:
        length = lengths[bucket]
        rows = size or max(1, tokens // length)
        waiting = np.concatenate([waiting, order_N[bucket_N == bucket]])
        full = len(waiting) if bucket == used[-1] else len(waiting) // rows * rows
        made += [
            examples.pad(waiting[start : start + rows], rows, length)
            for start in range(0, full, rows)
        ]
        waiting = waiting[full:]
    return made if shuffle is None else [made[i] for i in shuffle.permutation(len(made))]


def padded(sequences: Sequence[np.ndarray], rows: int, length: int, fill: int = 0) -> np.ndarray:
    """The sequences, one a row, padded on the right and below with `fill`: `[rows, length]`,
    int32."""
    padded_BT = np.full((rows, length), fill, np.int32)
    for row_T, sequence in zip(padded_BT, sequences, strict=False):
        row_T[: len(sequence)] = sequence
    return padded_BT


def in_rows(values: Sequence[int] | np.ndarray, rows: int, fill: int = 0) -> np.ndarray:
    """One value a row, and `fill` for rows of padding: `[rows]`, int32."""
    values_B = np.full(rows, fill, np.int32)
    values_B[: len(values)] = values
    return values_B


def places(index: np.ndarray, rows: int) -> Batch:
    """`index_B` and `weight_B` of the examples at `index`, and of rows of padding."""
    return {
        "weight_B": (np.arange(rows) < len(index)).astype(np.float32),
        "index_B": in_rows(index, rows),
    }

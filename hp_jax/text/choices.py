"""Encoded items of multiple choice, and their batches."""

from __future__ import annotations

import dataclasses
import hashlib
import logging

import numpy as np
from tokenizers import Tokenizer

from hp_jax.data.batching import Batch, in_rows, padded, places
from hp_jax.data.choices import Items

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class EncodedItems:
    """N items; `tokens[n][c]` is `[T]` int32, a choice with what is before it, unpadded."""

    split: str
    """The split of which these are some or all, without a slice."""
    tokens: tuple[tuple[np.ndarray, ...], ...]
    given: tuple[tuple[int, ...], ...]
    """How many of these tokens are before each choice."""
    size: tuple[tuple[float, ...], ...]
    """By what each choice's log-likelihood is divided."""
    choices: int
    """C, the most that an item of the whole split has."""
    label_N: np.ndarray
    """The place of the right choice; int32."""
    origin_N: np.ndarray
    """0-based place of each item in its whole split; int64."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length_N(self) -> np.ndarray:
        """Tokens of each item's longest choice, with what is before it; int32."""
        return np.array([max(map(len, each)) for each in self.tokens], np.int32)

    def pad(self, index: np.ndarray, rows: int, length: int) -> Batch:
        """The items at `index`: `tokens_BCT`, `length_BC`, `given_BC`, `size_BC`, `label_B`,
        `weight_B` and `index_B`."""
        empty = np.zeros(0, np.int32)
        tokens = [
            tokens
            for n in index
            for tokens in (*self.tokens[n], *[empty] * (self.choices - len(self.tokens[n])))
        ]
        shape = rows, self.choices

        def each(values: tuple[tuple[float, ...], ...], fill: float, kind: type) -> np.ndarray:
            filled_BC: np.ndarray = np.full(shape, fill, kind)
            for row_C, n in zip(filled_BC, index, strict=False):
                row_C[: len(values[n])] = values[n]
            return filled_BC

        lengths = tuple(tuple(map(len, own)) for own in self.tokens)
        return {
            "tokens_BCT": padded(tokens, rows * self.choices, length).reshape(*shape, length),
            "length_BC": each(lengths, 1, np.int32),
            "given_BC": each(self.given, 1, np.int32),
            "size_BC": each(self.size, 0, np.float32),
            "label_B": in_rows(self.label_N[index], rows),
            **places(index, rows),
        }

    def fingerprint(self) -> str:
        """sha256 (hex) of all ids, sizes and labels, in order."""
        digest = hashlib.sha256()
        for tokens, given, size in zip(self.tokens, self.given, self.size, strict=True):
            for array in (np.array([len(tokens), *map(len, tokens)]), *tokens, np.array(given)):
                digest.update(array.astype("<i8").tobytes())
            digest.update(np.array(size, "<f8").tobytes())
        digest.update(self.label_N.astype("<i8").tobytes())
        return digest.hexdigest()


def encode_items(
    tokenizer: Tokenizer, items: Items, max_length: int, *, prefix: str, by_length: bool
) -> EncodedItems:
    """Token ids of each choice after what is before it, encoded together, as lm-evaluation-harness
    does.

    max_length: of longer texts the first tokens are left out, and their number is in a warning.
    prefix: the special token that stands before a choice with nothing before it.
    by_length: log-likelihoods are divided by the number of characters of the choice.

    ValueError for a choice with nothing before it without a prefix, a prefix that is no token, and
    a choice that alone is too long.
    """
    start = tokenizer.token_to_id(prefix) if prefix else None
    if prefix and start is None:
        raise ValueError(f"data.prefix is {prefix!r}, but the model has no such token")
    tokens, given, size, cut = [], [], [], 0
    for n, choices in enumerate(items.choices):
        own, before = [], []
        for context, choice in choices:
            ids, count = _ids(tokenizer, context, choice)
            if not count:
                if start is None:
                    raise ValueError(
                        f"{items.where(n)}: nothing is before the choice {choice!r:.40}: name the "
                        "special token that is to stand there with --data.prefix, such as "
                        "'<|endoftext|>'"
                    )
                ids, count = [start, *ids], 1
            gone = max(0, len(ids) - max_length)
            if count - gone < 1:
                raise ValueError(
                    f"{items.where(n)}: the choice {choice!r:.40} has {len(ids) - count} tokens, "
                    f"but max_length is {max_length}"
                )
            cut += gone > 0
            own.append(np.array(ids[gone:], np.int32))
            before.append(count - gone)
        tokens.append(tuple(own))
        given.append(tuple(before))
        lengths = [float(len(choice.removeprefix(" "))) for _, choice in choices]
        size.append(tuple(lengths) if by_length else (1.0,) * len(choices))
    if cut:
        log.warning("%s: choices whose first tokens are left out: %d", items.file, cut)
    most = max(map(len, tokens))
    return EncodedItems(
        items.split,
        tuple(tokens),
        tuple(given),
        tuple(size),
        most,
        items.label_N,
        items.origin_N,
    )


def _ids(tokenizer: Tokenizer, context: str, choice: str) -> tuple[list[int], int]:
    """The ids of both, and how many are of the context; its last spaces are the choice's."""
    stripped = context.rstrip()
    choice, context = context[len(stripped) :] + choice, stripped
    if not context:
        special = tokenizer.encode("").ids
        return tokenizer.encode(choice).ids, len(special)
    return tokenizer.encode(context + choice).ids, len(tokenizer.encode(context).ids)

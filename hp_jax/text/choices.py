"""Encoded items of multiple choice, and their batches."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import logging
from typing import NamedTuple

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
    counterfactual: tuple[tuple[np.ndarray, ...], ...] | None = None
    """As `tokens`, each choice with the counterfactual before it, of the same length; None: there
    is none."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length_N(self) -> np.ndarray:
        """Tokens of each item that are read, those that its choices share once; int32."""
        return np.array([len(item.tokens) for item in self._packed], np.int32)

    @functools.cached_property
    def _packed(self) -> tuple[_Packed, ...]:
        others = self.counterfactual or self.tokens
        return tuple(map(_pack, self.tokens, others, self.given))

    def pad(self, index: np.ndarray, rows: int, length: int) -> Batch:
        """The items at `index`: `tokens_BT`, `choice_BT`, `position_BT`, `target_BT`, `size_BC`,
        `label_B`, `weight_B` and `index_B`; with counterfactuals `counterfactual_BT` too."""
        items = [self._packed[n] for n in index]
        size_BC = np.zeros((rows, self.choices), np.float32)
        for row_C, n in zip(size_BC, index, strict=False):
            row_C[: len(self.size[n])] = self.size[n]

        def texts(name: str, fill: int = 0) -> np.ndarray:
            return padded([getattr(item, name) for item in items], rows, length, fill)

        return {
            "tokens_BT": texts("tokens"),
            **({"counterfactual_BT": texts("others")} if self.counterfactual else {}),
            "choice_BT": texts("choice", -1),
            "position_BT": texts("position"),
            "target_BT": texts("target", -1),
            "size_BC": size_BC,
            "label_B": in_rows(self.label_N[index], rows),
            **places(index, rows),
        }

    def fingerprint(self) -> str:
        """sha256 (hex) of all ids, sizes, labels and counterfactuals, in order."""
        digest = hashlib.sha256()
        for tokens, given, size in zip(self.tokens, self.given, self.size, strict=True):
            for array in (np.array([len(tokens), *map(len, tokens)]), *tokens, np.array(given)):
                digest.update(array.astype("<i8").tobytes())
            digest.update(np.array(size, "<f8").tobytes())
        digest.update(self.label_N.astype("<i8").tobytes())
        for ids in itertools.chain(*self.counterfactual or ()):
            digest.update(ids.astype("<i8").tobytes())
        return digest.hexdigest()


class _Packed(NamedTuple):
    """An item as it is read: what its choices share, then what each has of its own, but for the
    last token, after which nothing is predicted.  Each is `[T]`, int32."""

    tokens: np.ndarray
    others: np.ndarray
    """Those of the counterfactual."""
    choice: np.ndarray
    """0: shared; else the number of its choice, from 1."""
    position: np.ndarray
    target: np.ndarray
    """The token of a choice that is predicted after it; -1: none."""


def _pack(
    tokens: tuple[np.ndarray, ...], others: tuple[np.ndarray, ...], given: tuple[int, ...]
) -> _Packed:
    """The token before a choice's first is the choice's own, since it is asked for it."""
    shared = min(given) - 1
    for texts in (tokens, others):
        alike = np.stack([text[:shared] for text in texts]) == texts[0][:shared]
        shared = int(np.cumprod(alike.all(0)).sum())
    parts = [(tokens[0][:shared], others[0][:shared], 0, 0, np.full(shared, -1))]
    for number, (own, other, before) in enumerate(zip(tokens, others, given, strict=True), 1):
        asked = np.arange(shared + 1, len(own)) >= before
        target = np.where(asked, own[shared + 1 :], -1)
        parts.append((own[shared:-1], other[shared:-1], number, shared, target))
    columns = (
        [own for own, *_ in parts],
        [other for _, other, *_ in parts],
        [np.full(len(own), number) for own, _, number, *_ in parts],
        [first + np.arange(len(own)) for own, _, _, first, _ in parts],
        [target for *_, target in parts],
    )
    return _Packed(*(np.concatenate(column).astype(np.int32) for column in columns))


def encode_items(
    tokenizer: Tokenizer, items: Items, max_length: int, *, prefix: str, by_length: bool
) -> EncodedItems:
    """Token ids of each choice after what is before it, encoded together, as lm-evaluation-harness
    does.

    max_length: of longer texts the first tokens are left out, and their number is in a warning.
    prefix: the special token that stands before a choice with nothing before it.
    by_length: log-likelihoods are divided by the number of characters of the choice.

    ValueError for a choice with nothing before it without a prefix, a prefix that is no token, a
    choice that alone is too long, and a counterfactual of another number of tokens.
    """
    start = tokenizer.token_to_id(prefix) if prefix else None
    if prefix and start is None:
        raise ValueError(f"data.prefix is {prefix!r}, but the model has no such token")
    tokens, given, size, others, cut = [], [], [], [], 0
    for n, choices in enumerate(items.choices):
        own = [_read(tokenizer, *choice, start, items.where(n)) for choice in choices]
        gone = [_too_many(one, max_length, items.where(n)) for one in own]
        cut += sum(map(bool, gone))
        tokens.append(_without(own, gone))
        given.append(tuple(one.before - left for one, left in zip(own, gone, strict=True)))
        lengths = [float(len(choice.removeprefix(" "))) for _, choice in choices]
        size.append(tuple(lengths) if by_length else (1.0,) * len(choices))
        if items.counterfactuals is not None:
            other = [
                _read(tokenizer, *choice, start, items.where(n))
                for choice in items.counterfactuals[n]
            ]
            _check_alike(own, other, items.where(n))
            others.append(_without(other, gone))
    if cut:
        log.warning("%s: choices whose first tokens are left out: %d", items.file, cut)
    return EncodedItems(
        items.split,
        tuple(tokens),
        tuple(given),
        tuple(size),
        max(map(len, tokens)),
        items.label_N,
        items.origin_N,
        tuple(others) if items.counterfactuals is not None else None,
    )


class _Read(NamedTuple):
    """A choice with what is before it."""

    choice: str
    ids: list[int]
    before: int
    """How many of the ids are of what is before it."""


def _read(tokenizer: Tokenizer, context: str, choice: str, start: int | None, where: str) -> _Read:
    ids, count = context_ids(tokenizer, context, choice)
    if count:
        return _Read(choice, ids, count)
    if start is None:
        raise ValueError(
            f"{where}: nothing is before the choice {choice!r:.40}: name the special token that is "
            "to stand there with --data.prefix, such as '<|endoftext|>'"
        )
    return _Read(choice, [start, *ids], 1)


def _too_many(one: _Read, max_length: int, where: str) -> int:
    """How many of the first ids there is no room for."""
    gone = max(0, len(one.ids) - max_length)
    if one.before - gone < 1:
        raise ValueError(
            f"{where}: the choice {one.choice!r:.40} has {len(one.ids) - one.before} tokens, but "
            f"max_length is {max_length}"
        )
    return gone


def _without(read: list[_Read], gone: list[int]) -> tuple[np.ndarray, ...]:
    """The ids without so many of the first."""
    return tuple(np.array(one.ids[left:], np.int32) for one, left in zip(read, gone, strict=True))


def _check_alike(own: list[_Read], other: list[_Read], where: str) -> None:
    """ValueError for a counterfactual of another number of tokens than the context."""
    for one, two in zip(own, other, strict=True):
        if (one.before, len(one.ids)) != (two.before, len(two.ids)):
            raise ValueError(
                f"{where}: with the choice {one.choice!r:.40} the context has {one.before} tokens "
                f"of {len(one.ids)}, but the counterfactual {two.before} of {len(two.ids)}: "
                "expected as many, position by position"
            )


def context_ids(tokenizer: Tokenizer, context: str, choice: str) -> tuple[list[int], int]:
    """The ids of both, and how many are of the context; its last spaces are the choice's."""
    stripped = context.rstrip()
    choice, context = context[len(stripped) :] + choice, stripped
    if not context:
        special = tokenizer.encode("").ids
        return tokenizer.encode(choice).ids, len(special)
    return tokenizer.encode(context + choice).ids, len(tokenizer.encode(context).ids)

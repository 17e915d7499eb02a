"""Documents as windows of tokens that a language model can read, and their batches."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from hp_jax.data.batching import Batch, in_rows, padded, places
from hp_jax.data.documents import Documents
from hp_jax.text.choices import context_ids

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """N windows; `tokens[n]` is `[T_n]` int32, unpadded; what is not given is predicted, given all
    that the window has before it."""

    split: str
    """The split of which these are some or all, without a slice."""
    tokens: tuple[np.ndarray, ...]
    given_N: np.ndarray
    """How many of a window's first tokens are given alone; int32, 1 or more."""
    words_N: np.ndarray
    """Words that begin in what is predicted, between white space; int32."""
    bytes_N: np.ndarray
    """UTF-8 bytes of what is predicted; int32."""
    origin_N: np.ndarray
    """0-based place of each window's document in its whole split, ascending; of packed documents,
    the window's number; int64."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length_N(self) -> np.ndarray:
        """Tokens of each window; int32."""
        return np.array([len(tokens) for tokens in self.tokens], np.int32)

    def pad(self, index: np.ndarray, rows: int, length: int) -> Batch:
        """The windows at `index`: `tokens_BT`, `length_B`, `given_B`, `weight_B` and `index_B`."""
        return {
            "tokens_BT": padded([self.tokens[n] for n in index], rows, length),
            "length_B": in_rows([len(self.tokens[n]) for n in index], rows, 1),
            "given_B": in_rows(self.given_N[index], rows, 1),
            **places(index, rows),
        }

    def fingerprint(self) -> str:
        """sha256 (hex) of all ids and of what is given and counted, in order."""
        digest = hashlib.sha256()
        counted = self.given_N, self.words_N, self.bytes_N, self.origin_N
        for array in (np.array(len(self)), self.length_N, *self.tokens, *counted):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()


def encode_documents(
    tokenizer: Tokenizer, documents: Documents, max_length: int, stride: int = 0
) -> Windows:
    """Token ids as the model's own tokenizer gives them, in windows of at most `max_length`; every
    token of a document but its first is predicted in one window.

    stride: tokens that each window after a document's first predicts, given those before them; 0:
        as many as there is room for, given one.

    ValueError for a length without room, and if no document has two tokens.
    """
    _check_room(max_length, stride)
    windows: list[_Window] = []
    for place, text in zip(documents.origin_N, documents.text, strict=True):
        windows += _windows(_counted(tokenizer, text), max_length, stride, int(place))
    if not windows:
        raise ValueError(f"{documents.file}: expected a document of two tokens, but there is none")
    return _as_windows(documents.split, windows)


def pack_documents(
    tokenizer: Tokenizer,
    documents: Documents,
    max_length: int,
    stride: int = 0,
    *,
    separator: int,
) -> Windows:
    """All documents as one, with a special token between them, in windows as of one document: all
    are full, and may have the end of a document and the beginning of others, which then see what is
    before.

    Each window has a place of its own: `origin_N` are their numbers.  ValueError as in
    `encode_documents`.
    """
    _check_room(max_length, stride)
    between, parts = np.array([[separator], [0], [0]]), list[np.ndarray]()
    for text in documents.text:
        ids_T, *before = _counted(tokenizer, text)
        own = (np.diff(count_T, prepend=0) for count_T in before)
        parts += [np.stack([ids_T, *own]), between]
    ids_T, words_T, bytes_T = np.concatenate(parts[:-1], 1)
    whole = _Counted(ids_T.astype(np.int32), words_T.cumsum(), bytes_T.cumsum())
    windows = list(_windows(whole, max_length, stride, 0))
    if not windows:
        raise ValueError(f"{documents.file}: expected two tokens, but there is one")
    made = _as_windows(documents.split, windows)
    return dataclasses.replace(made, origin_N=np.arange(len(made)))


def encode_last_words(tokenizer: Tokenizer, documents: Documents, max_length: int) -> Windows:
    """Token ids of each document, of which the last word is predicted, with the space before it,
    as lm-evaluation-harness encodes and scores LAMBADA: one window a document.

    max_length: of longer documents the first tokens are left out, and their number is in a warning.

    ValueError for a document without a last word after a space, and a word that is too long.
    """
    windows, cut = list[_Window](), 0
    for n, text in enumerate(documents.text):
        before, _, word = text.rpartition(" ")
        if not before.strip() or not word.strip():
            raise ValueError(
                f"{documents.where(n)}: expected a text, a space and its last word, but found "
                f"{text!r:.60}"
            )
        ids, given = context_ids(tokenizer, before, f" {word}")
        gone = max(0, len(ids) - max_length)
        if given - gone < 1:
            raise ValueError(
                f"{documents.where(n)}: the last word {word!r:.40} has {len(ids) - given} tokens, "
                f"but max_length is {max_length}"
            )
        cut += gone > 0
        kept, size = np.array(ids[gone:], np.int32), len(f" {word}".encode())
        windows.append((kept, given - gone, 1, size, int(documents.origin_N[n])))
    if cut:
        log.warning("%s: documents whose first tokens are left out: %d", documents.file, cut)
    return _as_windows(documents.split, windows)


def _check_room(max_length: int, stride: int) -> None:
    if max_length < 2 or stride >= max_length:
        raise ValueError(
            f"max_length is {max_length} and stride is {stride}: expected room for a token that is "
            "given and for those that are predicted"
        )


_Window = tuple[np.ndarray, int, int, int, int]
"""Ids, how many are given, words and bytes of what is predicted, and the document's place."""


class _Counted(NamedTuple):
    """A text's tokens, and how much of it is before the end of each."""

    ids_T: np.ndarray
    words_T: np.ndarray
    """Words that have begun."""
    bytes_T: np.ndarray


def _counted(tokenizer: Tokenizer, text: str) -> _Counted:
    encoding = tokenizer.encode(text)
    end_T = np.maximum.accumulate([0, *(end for _, end in encoding.offsets)])[1:]
    begin = [match.start() for match in re.finditer(r"\S+", text)]
    bytes_ = np.cumsum([0, *(len(character.encode()) for character in text)])
    return _Counted(np.array(encoding.ids, np.int32), np.searchsorted(begin, end_T), bytes_[end_T])


def _windows(text: _Counted, max_length: int, stride: int, place: int) -> Iterator[_Window]:
    """Windows in which every token but the first is predicted once."""
    done = 1
    while done < len(text.ids_T):
        last = min(len(text.ids_T), max_length if done == 1 else done + (stride or max_length - 1))
        first = max(0, last - max_length)
        words, size = (
            int(count_T[last - 1] - count_T[done - 1]) for count_T in (text.words_T, text.bytes_T)
        )
        yield text.ids_T[first:last], done - first, words, size, place
        done = last


def _as_windows(split: str, windows: Sequence[_Window]) -> Windows:
    tokens, *counts, origin = zip(*windows, strict=True)
    given_N, words_N, bytes_N = (np.array(column, np.int32) for column in counts)
    return Windows(split, tokens, given_N, words_N, bytes_N, np.array(origin, np.int64))

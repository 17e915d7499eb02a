"""Documents as windows of tokens that a language model can read, and their batches."""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import re

import numpy as np
from tokenizers import Tokenizer

from hp_jax.data.batching import Batch, in_rows, padded, places
from hp_jax.data.documents import Documents


@dataclasses.dataclass(frozen=True, eq=False)
class Windows:
    """N windows; `tokens[n]` is `[T_n]` int32, unpadded.

    Every token of a document but its first is predicted in one window, given all that the window
    has before it.
    """

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
    """0-based place of each window's document in its whole split, ascending; int64."""

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
    """Token ids as the model's own tokenizer gives them, in windows of at most `max_length`.

    stride: tokens that each window after a document's first predicts, given those before them; 0:
        as many as there is room for, given one.

    ValueError for a length without room, and if no document has two tokens.
    """
    if max_length < 2 or stride >= max_length:
        raise ValueError(
            f"max_length is {max_length} and stride is {stride}: expected room for a token that is "
            "given and for those that are predicted"
        )
    step = stride or max_length - 1
    windows: list[tuple[np.ndarray, int, int, int, int]] = []
    for place, text in zip(documents.origin_N, documents.text, strict=True):
        encoding = tokenizer.encode(text)
        ids, ends = np.array(encoding.ids, np.int32), [end for _, end in encoding.offsets]
        words = [match.start() for match in re.finditer(r"\S+", text)]
        done = 1
        while done < len(ids):
            last = min(len(ids), max_length if done == 1 else done + step)
            first = max(0, last - max_length)
            begin, end = ends[done - 1], ends[last - 1]
            begun = bisect.bisect_left(words, end) - bisect.bisect_left(words, begin)
            size = len(text[begin:end].encode())
            windows.append((ids[first:last], done - first, begun, size, int(place)))
            done = last
    if not windows:
        raise ValueError(f"{documents.file}: expected a document of two tokens, but there is none")
    tokens, *counts, origin = zip(*windows, strict=True)
    given_N, words_N, bytes_N = (np.array(column, np.int32) for column in counts)
    return Windows(documents.split, tokens, given_N, words_N, bytes_N, np.array(origin, np.int64))

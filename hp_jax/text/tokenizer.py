"""Text to token ids: whole sets of labelled text, encoded with a model's tokenizer."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

from hp_jax.data.batching import Batch, in_rows, padded, places
from hp_jax.data.labelled import Labelled

log = logging.getLogger("hp_jax")

_CHUNK = 4096
"""Examples encoded at a time: an encoding holds much more than its ids."""


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N encoded examples; `tokens[n]` and `types[n]` are `[T_n]` int32, unpadded, special tokens
    included."""

    name: str
    """The task."""
    split: str
    """The split of which these are some or all, without a slice."""
    tokens: tuple[np.ndarray, ...]
    types: tuple[np.ndarray, ...]
    label_N: np.ndarray
    """int32 index into the model's labels."""
    origin_N: np.ndarray
    """0-based place of each example in its whole split; int64."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def length_N(self) -> np.ndarray:
        """Tokens of each example; int32."""
        return np.array([len(tokens) for tokens in self.tokens], np.int32)

    def pad(self, index: np.ndarray, rows: int, length: int) -> Batch:
        """The examples at `index`, padded: `tokens_BT`, `types_BT`, `length_B`, `label_B`,
        `weight_B` and `index_B`."""
        return {
            "tokens_BT": padded([self.tokens[n] for n in index], rows, length),
            "types_BT": padded([self.types[n] for n in index], rows, length),
            "length_B": in_rows([len(self.tokens[n]) for n in index], rows, 1),
            "label_B": in_rows(self.label_N[index], rows),
            **places(index, rows),
        }

    def fingerprint(self) -> str:
        """sha256 (hex) of all ids, types and labels, in order: equal exactly if a model is given
        the same."""
        digest = hashlib.sha256()
        for array in (np.array(len(self)), self.length_N, *self.tokens, *self.types, self.label_N):
            digest.update(array.astype("<i8").tobytes())
        return digest.hexdigest()


def encode(
    tokenizer: Tokenizer,
    labelled: Labelled,
    labels: Sequence[str],
    max_length: int,
    *,
    types: int = 2,
) -> Examples:
    """Token ids as Hugging Face's fast tokenizers give them with `truncation="longest_first"`.

    labels: the model's label names in order; an example's label becomes its place there.
    max_length: tokens an example, special tokens included; of a pair the longer text loses tokens
    first.
    types: token types that the model has (`BertConfig.types`); with fewer than 2 (RoBERTa,
    DistilBERT) all are 0.

    How many examples were cut is in a warning.  ValueError for a label that the model does not
    have, and for a max_length without room for any token of the text.
    """
    index = {label: i for i, label in enumerate(labels)}
    unknown = [i for i, label in enumerate(labelled.label) if label not in index]
    if unknown:
        found = labelled.label[unknown[0]]
        raise ValueError(
            f"{labelled.where(unknown[0])}: the model has no label {found!r}; its labels are "
            f"{', '.join(labels)}"
        )
    pairs = len(labelled.text[0]) == 2 if len(labelled) else False
    special = tokenizer.num_special_tokens_to_add(pairs)
    if max_length <= special:
        raise ValueError(
            f"max_length is {max_length}, but the {special} special tokens leave no room for "
            "text: expected more"
        )
    own = Tokenizer.from_str(tokenizer.to_str())
    own.no_padding()
    own.enable_truncation(max_length, strategy="longest_first")
    tokens: list[np.ndarray] = []
    kinds: list[np.ndarray] = []
    cut = 0
    for start in range(0, len(labelled), _CHUNK):
        texts = labelled.text[start : start + _CHUNK]
        for encoding in own.encode_batch([text if pairs else text[0] for text in texts]):
            tokens.append(np.array(encoding.ids, np.int32))
            kinds.append(np.array(encoding.type_ids, np.int32) * (types > 1))
            cut += bool(encoding.overflowing)
    if cut:
        log.warning("%s: examples of more than %d tokens, cut: %d", labelled.file, max_length, cut)
    label_N = np.array([index[label] for label in labelled.label], np.int32)
    return Examples(
        labelled.name, labelled.split, tuple(tokens), tuple(kinds), label_N, labelled.origin_N
    )

"""One SentencePiece model for both sides of a translation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hp_jax.storage.files import read_bytes
from hp_jax.text.codec import before_eos, save_codec
from hp_jax.typed import located


@dataclasses.dataclass(frozen=True, eq=False)
class SentencePiece:
    """One SentencePiece model for both sides, with its own ids: Marian's `vocab.*.spm`, or a model
    of one's own."""

    kind: ClassVar = "sentencepiece"
    files: ClassVar = {"model": "vocab.spm"}

    model: bytes

    def __post_init__(self) -> None:
        _ = self._processor  # ValueError if the model is none

    @cached_property
    def _processor(self) -> Any:
        return _processor(self.model)

    @property
    def source_vocab(self) -> int:
        """Pieces of the model."""
        return self._processor.vocab_size()

    target_vocab = source_vocab

    @property
    def eos(self) -> int:
        """The model's."""
        return self._processor.eos_id()

    @property
    def pad(self) -> int:
        """The model's, or EOS if it has none."""
        return self.eos if self._processor.pad_id() < 0 else self._processor.pad_id()

    @property
    def unk(self) -> int:
        """The model's; decoded as U+2047."""
        return self._processor.unk_id()

    def encode_source(self, lines: Sequence[str]) -> list[np.ndarray]:
        """The model's ids and EOS."""
        return [np.array([*ids, self.eos], np.int32) for ids in self._processor.encode(list(lines))]

    encode_target = encode_source

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """As SentencePiece does; padding and other control ids are no text."""
        return self._processor.decode(before_eos(ids, self.eos))

    def save(self, folder: Path) -> None:
        """Writes vocab.spm and text.json."""
        save_codec(self, folder)


def read_sentencepiece(path: str | Path) -> SentencePiece:
    """The codec of a SentencePiece model; FileNotFoundError or ValueError for a file that is not
    there or is no such model."""
    codec = SentencePiece(_read_model(Path(path).expanduser()))
    if codec.eos < 0:
        raise ValueError(
            f"{path}: expected a SentencePiece model with an end of the sentence (EOS), but it "
            "has none"
        )
    return codec


def _processor(model: bytes) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except RuntimeError as error:
        raise ValueError(
            f"expected a SentencePiece model, but the file of {len(model)} bytes is none"
        ) from error


def _read_model(path: Path) -> bytes:
    model = read_bytes(path)
    with located(path):
        _processor(model)
    return model

"""Text to token ids and back, for the two sides of a translation: SentencePiece's and Marian's."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hp_jax.storage.files import write_json, write_whole

NAME = "text.json"
"""The file of a folder that says of which kind its codec is."""


class Codec(Protocol):
    """How a model reads and writes text.  Vocabularies are numbers of ids, `pad` is at best one
    that no text has."""

    @property
    def source_vocab(self) -> int:
        """Ids of the source."""

    @property
    def target_vocab(self) -> int:
        """Ids of the target."""

    @property
    def eos(self) -> int:
        """The end of a sentence."""

    @property
    def pad(self) -> int:
        """Padding; EOS where there is none."""

    @property
    def unk(self) -> int:
        """What is not in the vocabulary."""

    def encode_source(self, lines: Sequence[str]) -> list[np.ndarray]:
        """Ids of each line, EOS at the end: `[S_n]`, int32."""

    def encode_target(self, lines: Sequence[str]) -> list[np.ndarray]:
        """Ids of each line, EOS at the end: `[T_n]`, int32."""

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """The text of target ids up to the first EOS, without padding."""

    def save(self, folder: Path) -> None:
        """Writes the files that `load_codec` reads, text.json last; each whole or not at all."""


def save_codec(codec: Any, folder: Path) -> None:
    """Writes the fields that `codec.files` names as files, and the others with these names as
    text.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for field, name in codec.files.items():
        write_whole(folder / name, getattr(codec, field))
    fields = (field.name for field in dataclasses.fields(codec) if field.name not in codec.files)
    write_json(
        folder / NAME,
        {
            "kind": codec.kind,
            "files": codec.files,
            **{name: getattr(codec, name) for name in fields},
        },
    )


def check_codec(codec: Codec, config: Any, folder: Path) -> None:
    """ValueError if the vocabularies are not as large as the model's embeddings."""
    found = codec.source_vocab, codec.target_vocab
    expected = config.source_vocab, config.target_vocab
    if found != expected:
        raise ValueError(
            f"{folder}: the vocabularies have {found} tokens, but the model's embeddings {expected}"
        )


def before_eos(ids: np.ndarray | Sequence[int], eos: int) -> list[int]:
    """The ids up to the first EOS."""
    return list(itertools.takewhile(lambda token: token != eos, np.asarray(ids).tolist()))

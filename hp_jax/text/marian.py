"""The text side of Hugging Face's Marian models."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from hp_jax.storage.files import parse_json, read_bytes, read_json
from hp_jax.text.codec import before_eos, save_codec
from hp_jax.text.sentencepiece import _processor, _read_model
from hp_jax.typed import Natural, decode, located

_EOS, _UNK, _PAD = "</s>", "<unk>", "<pad>"


_SPECIAL = re.compile(f"({_EOS}|{_UNK}|{_PAD})")


_LANGUAGE = re.compile(r"(>>.*?<<)?(.*)", re.DOTALL)


_CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What loses its spaces, in this order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Marian:
    """Hugging Face's MarianTokenizer: a SentencePiece model a side, and a vocabulary of pieces for
    both or for each.

    As there, a source that starts with `>>fra<<` has that as its first token, and special tokens in
    the text are read as such.
    """

    kind: ClassVar = "marian"
    files: ClassVar = {
        "source_model": "source.spm",
        "target_model": "target.spm",
        "source_pieces": "vocab.json",
        "target_pieces": "target_vocab.json",
    }

    source_model: bytes
    target_model: bytes
    source_pieces: bytes
    """JSON, piece to id."""
    target_pieces: bytes
    """The same as `source_pieces` where both sides have one vocabulary."""
    clean_up: bool = False
    """Decoded text loses spaces before punctuation and English clitics (Hugging Face's
    clean_up_tokenization_spaces)."""

    def __post_init__(self) -> None:
        _ = self._source_ids, self._target_ids, self._models  # ValueError for what they are not

    @cached_property
    def _models(self) -> tuple[Any, Any]:
        return _processor(self.source_model), _processor(self.target_model)

    @cached_property
    def _source_ids(self) -> dict[str, int]:
        return _pieces(self.source_pieces, (_EOS, _UNK, _PAD), "vocab.json")

    @cached_property
    def _target_ids(self) -> dict[str, int]:
        same = self.target_pieces == self.source_pieces
        name = "vocab.json" if same else "target_vocab.json"
        return _pieces(self.target_pieces, (_EOS, _UNK), name)

    @cached_property
    def _target_of_id(self) -> dict[int, str]:
        return {i: piece for piece, i in self._target_ids.items()}

    @property
    def source_vocab(self) -> int:
        """Pieces of the source."""
        return len(self._source_ids)

    @property
    def target_vocab(self) -> int:
        """Pieces of the target."""
        return len(self._target_ids)

    @property
    def eos(self) -> int:
        """`</s>`."""
        return self._source_ids[_EOS]

    @property
    def pad(self) -> int:
        """`<pad>`."""
        return self._source_ids[_PAD]

    @property
    def unk(self) -> int:
        """`<unk>`; not decoded."""
        return self._source_ids[_UNK]

    def encode_source(self, lines: Sequence[str]) -> list[np.ndarray]:
        """MarianTokenizer's `input_ids` of each line."""
        return [self._encode(line, self._models[0], self._source_ids) for line in lines]

    def encode_target(self, lines: Sequence[str]) -> list[np.ndarray]:
        """MarianTokenizer's `input_ids` of each line as a `text_target`."""
        return [self._encode(line, self._models[1], self._target_ids) for line in lines]

    def _encode(self, line: str, model: Any, ids: dict[str, int]) -> np.ndarray:
        found = []
        for part in filter(None, _SPECIAL.split(line)):
            if _SPECIAL.fullmatch(part):
                found.append(self._source_ids[part])
            else:
                matched = _LANGUAGE.fullmatch(part)
                assert matched is not None  # it matches any text
                language, text = matched.groups()
                pieces = ([language] if language else []) + model.encode(text, out_type=str)
                found += [ids.get(piece, ids[_UNK]) for piece in pieces]
        return np.array([*found, self.eos], np.int32)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """As MarianTokenizer with `skip_special_tokens=True`."""
        skipped = {self.unk, self.pad}
        pieces = (
            self._target_of_id.get(i, _UNK) for i in before_eos(ids, self.eos) if i not in skipped
        )
        text = self._models[1].decode_pieces(
            [piece for piece in pieces if not _SPECIAL.fullmatch(piece)]
        )
        text = text.replace("\u2581", " ").strip()
        for part in _CLEAN_UP if self.clean_up else ():
            text = text.replace(part, part.strip())
        return text

    def save(self, folder: Path) -> None:
        """Writes source.spm, target.spm, vocab.json, target_vocab.json and text.json."""
        save_codec(self, folder)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    """What tokenizer_config.json says that ids and decoded text depend on."""

    tokenizer_class: Literal["MarianTokenizer"] | None = None
    separate_vocabs: bool | None = None
    clean_up_tokenization_spaces: bool | None = None


def read_marian(folder: str | Path) -> Marian:
    """The codec of a Hugging Face folder with source.spm, target.spm, vocab.json and possibly
    target_vocab.json.

    FileNotFoundError for a file that is not there; ValueError for one that is broken or a
    vocabulary without special tokens.
    """
    folder = Path(folder).expanduser()
    path = folder / "tokenizer_config.json"
    said = read_json(path, _Settings) if path.exists() else _Settings()
    source = read_bytes(folder / "vocab.json")
    target = read_bytes(folder / "target_vocab.json") if said.separate_vocabs else source
    with located(folder):
        return Marian(
            _read_model(folder / "source.spm"),
            _read_model(folder / "target.spm"),
            source,
            target,
            bool(said.clean_up_tokenization_spaces),
        )


def _pieces(content: bytes, needed: Iterable[str], name: str) -> dict[str, int]:
    """A vocabulary of JSON; ValueError if it lacks pieces or its ids are not 0, 1, 2, ..."""
    pieces = decode(dict[str, Natural], parse_json(content, name), name)
    missing = [piece for piece in needed if piece not in pieces]
    if missing:
        raise ValueError(
            f"{name}: expected the pieces {', '.join(missing)}, but the vocabulary of "
            f"{len(pieces)} has none"
        )
    if {*pieces.values()} != {*range(len(pieces))}:
        raise ValueError(
            f"{name}: expected the ids 0 to {len(pieces) - 1}, once each, of {len(pieces)} pieces, "
            f"but they run from {min(pieces.values())} to {max(pieces.values())} with "
            f"{len({*pieces.values()})} different ones"
        )
    return pieces

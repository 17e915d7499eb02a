"""Text to token ids and back, for the two sides of a translation: SentencePiece's and Marian's."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from hp_jax.files import read_json, write_json, write_whole

NAME = "text.json"
"""The file of a folder that says of which kind its codec is."""


class Codec(Protocol):
    """How a model reads and writes text.  Vocabularies are numbers of ids, `pad` is at best one that no text has."""

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


def load_codec(folder: str | Path) -> Codec:
    """The codec that `save` wrote; FileNotFoundError or ValueError names the file that is missing or broken."""
    from hp_jax.data.fairseq import Fairseq

    folder = Path(folder).expanduser()
    settings = read_json(folder / NAME)
    kinds: dict[str, Any] = {made.kind: made for made in (SentencePiece, Marian, Fairseq)}
    kind, files = settings.pop("kind", None), settings.pop("files", None)
    if kind not in kinds or not isinstance(files, dict):
        raise ValueError(f"{folder / NAME}: expected files and a kind of {', '.join(kinds)}, but found {files!r} and {kind!r}")
    contents = {field: read_bytes(folder / name) for field, name in files.items()}
    try:
        return kinds[kind](**contents, **settings)
    except TypeError as error:
        raise ValueError(f"{folder / NAME}: expected the settings of the kind {kind}, but {error}") from error


def save_codec(codec: Any, folder: Path) -> None:
    """Writes the fields that `codec.files` names as files, and the others with these names as text.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for field, name in codec.files.items():
        write_whole(folder / name, getattr(codec, field))
    fields = (field.name for field in dataclasses.fields(codec) if field.name not in codec.files)
    write_json(folder / NAME, {"kind": codec.kind, "files": codec.files, **{name: getattr(codec, name) for name in fields}})


def read_bytes(path: Path) -> bytes:
    """The file's content; FileNotFoundError names the file if there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}")
    return path.read_bytes()


def before_eos(ids: np.ndarray | Sequence[int], eos: int) -> list[int]:
    """The ids up to the first EOS."""
    return list(itertools.takewhile(lambda token: token != eos, np.asarray(ids).tolist()))


# --- SentencePiece --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class SentencePiece:
    """One SentencePiece model for both sides, with its own ids: Marian's `vocab.*.spm`, or a model of one's own."""

    kind: ClassVar = "sentencepiece"
    files: ClassVar = {"model": "vocab.spm"}

    model: bytes

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
    """The codec of a SentencePiece model; FileNotFoundError or ValueError for a file that is not there or is no such model."""
    codec = SentencePiece(_read_model(Path(path).expanduser()))
    if codec.eos < 0:
        raise ValueError(f"{path}: expected a SentencePiece model with an end of the sentence (EOS), but it has none")
    return codec


def _processor(model: bytes) -> Any:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=model)


def _read_model(path: Path) -> bytes:
    model = read_bytes(path)
    try:
        _processor(model)
    except RuntimeError as error:
        raise ValueError(f"{path}: expected a SentencePiece model, but the file of {len(model)} bytes is none") from error
    return model


# --- Marian of Hugging Face -----------------------------------------------------------------------------------------------

_EOS, _UNK, _PAD = "</s>", "<unk>", "<pad>"
_SPECIAL = re.compile(f"({_EOS}|{_UNK}|{_PAD})")
_LANGUAGE = re.compile(r"(>>.*?<<)?(.*)", re.DOTALL)
_CLEAN_UP = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What loses its spaces, in this order."""


@dataclasses.dataclass(frozen=True, eq=False)
class Marian:
    """Hugging Face's MarianTokenizer: a SentencePiece model a side, and a vocabulary of pieces for both or for each.

    As there, a source that starts with `>>fra<<` has that as its first token, and special tokens in the text are read as such.
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
    """Decoded text loses spaces before punctuation and English clitics (Hugging Face's clean_up_tokenization_spaces)."""

    @cached_property
    def _models(self) -> tuple[Any, Any]:
        return _processor(self.source_model), _processor(self.target_model)

    @cached_property
    def _source_ids(self) -> dict[str, int]:
        return json.loads(self.source_pieces)

    @cached_property
    def _target_ids(self) -> dict[str, int]:
        return json.loads(self.target_pieces)

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
                language, text = _LANGUAGE.fullmatch(part).groups()  # type: ignore[union-attr]  # it matches any text
                pieces = ([language] if language else []) + model.encode(text, out_type=str)
                found += [ids.get(piece, ids[_UNK]) for piece in pieces]
        return np.array([*found, self.eos], np.int32)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """As MarianTokenizer with `skip_special_tokens=True`."""
        skipped = {self.unk, self.pad}
        pieces = (self._target_of_id.get(i, _UNK) for i in before_eos(ids, self.eos) if i not in skipped)
        text = self._models[1].decode_pieces([piece for piece in pieces if not _SPECIAL.fullmatch(piece)])
        text = text.replace("\u2581", " ").strip()
        for part in _CLEAN_UP if self.clean_up else ():
            text = text.replace(part, part.strip())
        return text

    def save(self, folder: Path) -> None:
        """Writes source.spm, target.spm, vocab.json, target_vocab.json and text.json."""
        save_codec(self, folder)


def read_marian(folder: str | Path) -> Marian:
    """The codec of a Hugging Face folder with source.spm, target.spm, vocab.json and possibly target_vocab.json.

    FileNotFoundError for a file that is not there; ValueError for one that is broken or a vocabulary without special tokens.
    """
    folder = Path(folder).expanduser()
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    source = _read_pieces(folder / "vocab.json", (_EOS, _UNK, _PAD))
    target = _read_pieces(folder / "target_vocab.json", (_EOS, _UNK)) if settings.get("separate_vocabs") else source
    clean_up = bool(settings.get("clean_up_tokenization_spaces", False))
    return Marian(_read_model(folder / "source.spm"), _read_model(folder / "target.spm"), source, target, clean_up)


def _read_pieces(path: Path, needed: Iterable[str]) -> bytes:
    pieces = read_json(path)
    missing = [piece for piece in needed if piece not in pieces]
    if missing:
        raise ValueError(f"{path}: expected the pieces {', '.join(missing)}, but the vocabulary of {len(pieces)} has none")
    return read_bytes(path)

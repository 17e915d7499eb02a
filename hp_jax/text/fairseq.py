"""Text to token ids and back as fairseq's translation models have it: Moses tokens, BPE, and a
dictionary a side."""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hp_jax.storage.files import read_bytes
from hp_jax.text.codec import before_eos, save_codec

log = logging.getLogger("hp_jax")

_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_JOIN = "@@"
"""What BPE puts at the end of every piece but a word's last."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fairseq:
    """Ids 0 `<s>`, 1 `<pad>`, 2 `</s>`, 3 `<unk>`, then the dictionary's lines in order.

    The defaults are those of fairseq's own `translate`; its recipes also clean the text (WMT'14
    English-French), or do not split dashes and lower-case (IWSLT'14).
    """

    kind: ClassVar = "fairseq"
    files: ClassVar = {
        "codes": "bpecodes",
        "source_dict": "dict.source.txt",
        "target_dict": "dict.target.txt",
    }

    source: str
    """Language code, for Moses."""
    target: str
    """Language code, for Moses."""
    codes: bytes
    """The merges of subword-nmt."""
    source_dict: bytes
    """`symbol count` a line."""
    target_dict: bytes
    clean: bool = False
    """First normalize-punctuation.perl, and a space for each non-printing character."""
    dash_splits: bool = True
    """`a-b` is `a @-@ b` (tokenizer.perl -a)."""
    escape: bool = True
    """XML escapes for what means something to Moses (tokenizer.perl without -no-escape)."""
    lowercase: bool = False
    """Tokens in lower case."""
    tokenized: bool = False
    """Text comes as Moses tokens, and translations stay so (their BLEU is counted with tokenize
    `none`)."""

    @cached_property
    def _bpe(self) -> Any:
        from subword_nmt.apply_bpe import BPE

        return BPE(io.StringIO(self.codes.decode()), separator=_JOIN)

    @cached_property
    def _detokenizer(self) -> Any:
        from sacremoses import MosesDetokenizer

        return MosesDetokenizer(self.target)

    @cached_property
    def _source_symbols(self) -> list[str]:
        return _symbols(self.source_dict, "dict.source.txt")

    @cached_property
    def _target_symbols(self) -> list[str]:
        return _symbols(self.target_dict, "dict.target.txt")

    @property
    def source_vocab(self) -> int:
        """Symbols of the source dictionary, special ones included."""
        return len(self._source_symbols)

    @property
    def target_vocab(self) -> int:
        """Symbols of the target dictionary, special ones included."""
        return len(self._target_symbols)

    @property
    def eos(self) -> int:
        """`</s>`."""
        return 2

    @property
    def pad(self) -> int:
        """`<pad>`."""
        return 1

    @property
    def unk(self) -> int:
        """`<unk>`, which is decoded as that."""
        return 3

    def encode_source(self, lines: Sequence[str]) -> list[np.ndarray]:
        """Ids of the source dictionary."""
        return self._encode(lines, self.source, self._source_symbols)

    def encode_target(self, lines: Sequence[str]) -> list[np.ndarray]:
        """Ids of the target dictionary."""
        return self._encode(lines, self.target, self._target_symbols)

    def _encode(self, lines: Sequence[str], language: str, symbols: list[str]) -> list[np.ndarray]:
        import regex
        from sacremoses import MosesPunctNormalizer, MosesTokenizer

        index = {symbol: i for i, symbol in enumerate(symbols)}
        normalizer, tokenizer = (
            MosesPunctNormalizer(language, perl_parity=True),
            MosesTokenizer(language),
        )
        encoded = []
        for line in lines:
            if self.clean:
                line = regex.sub(r"\p{C}", " ", normalizer.normalize(line))
            if not self.tokenized:
                line = tokenizer.tokenize(
                    line,
                    aggressive_dash_splits=self.dash_splits,
                    return_str=True,
                    escape=self.escape,
                )
            pieces = self._bpe.process_line(line.lower() if self.lowercase else line).split()
            encoded.append(
                np.array([*(index.get(piece, self.unk) for piece in pieces), self.eos], np.int32)
            )
        return encoded

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Pieces joined to words; unless text is `tokenized`, escapes undone and words joined as
        Moses does."""
        pieces = [self._target_symbols[i] for i in before_eos(ids, self.eos) if i > self.pad]
        text = (" ".join(pieces) + " ").replace(f"{_JOIN} ", "")
        return text.rstrip() if self.tokenized else self._detokenizer.detokenize(text.split())

    def save(self, folder: Path) -> None:
        """Writes bpecodes, dict.source.txt, dict.target.txt and text.json."""
        save_codec(self, folder)


def read_fairseq(
    folder: str | Path, source: str, target: str, *, codes: str = "bpecodes", **settings: bool
) -> Fairseq:
    """The codec of a folder with BPE codes, dict.<source>.txt and dict.<target>.txt; for `settings`
    see `Fairseq`.

    FileNotFoundError for a file that is not there, ValueError for one that is broken.
    """
    folder = Path(folder).expanduser()
    merges = _read_codes(folder / codes)
    return Fairseq(
        source,
        target,
        merges,
        _read_dict(folder / f"dict.{source}.txt"),
        _read_dict(folder / f"dict.{target}.txt"),
        **settings,
    )


def _read_dict(path: Path) -> bytes:
    content = read_bytes(path)
    _symbols(content, str(path))
    return content


_VERSION = b"#version: 0.2\n"
"""What subword-nmt's codes begin with if the end of a word is part of a symbol, as in `er</w>`."""


def _read_codes(path: Path) -> bytes:
    """The codes of a file of subword-nmt or of fastBPE, which writes no version and a third column
    of counts, as subword-nmt has them (which ends the process at what it cannot read)."""
    content = read_bytes(path)
    lines = [line.strip("\r\n ") for line in content.decode(errors="replace").split("\n")]
    fields = [line.split(" ") for line in lines[: -1 if lines[-1] == "" else None]]
    counted = all(len(one) == 3 and one[2].isdecimal() for one in fields)
    for number, one in enumerate(fields, 1):
        if len(one) != 2 and not counted:
            raise ValueError(
                f"{path}:{number}: expected the codes of subword-nmt or fastBPE, two symbols a "
                f"line, but found {lines[number - 1]!r}"
            )
    ends = [symbol for one in fields for symbol in one[:2] if symbol.endswith("</w>")]
    if fields[0][0] == "#version:" or "</w>" in ends or not (counted or ends):
        return content
    log.info("%s has the codes of fastBPE", path)
    return _VERSION + "".join(f"{one[0]} {one[1]}\n" for one in fields).encode()


def _symbols(content: bytes, file: str) -> list[str]:
    """The symbols of a dictionary in the order of their ids, special ones first."""
    symbols, known = list(_SPECIAL), set(_SPECIAL)
    for number, line in enumerate(
        content.decode(errors="replace").removesuffix("\n").split("\n"), 1
    ):
        entry = line.rstrip().removesuffix(" #fairseq:overwrite")
        symbol, _, count = entry.rpartition(" ")
        if not symbol or not count.isdecimal():
            raise ValueError(
                f"{file}:{number}: expected a symbol and its count, but found {line!r}"
            )
        if symbol in known and entry == line.rstrip():
            raise ValueError(
                f"{file}:{number}: expected each symbol once, but found {symbol!r} again"
            )
        symbols.append(symbol)
        known.add(symbol)
    return symbols

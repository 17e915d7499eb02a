"""A GGUF file: what it says, and its tensors, which become float32 one at a time."""

from __future__ import annotations

import dataclasses
import math
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from hp_jax.storage.files import check_file

_VERSIONS = (2, 3)
_ARRAY, _TEXT = 9, 8
_NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
"""Of the format's types of settings, those that NumPy has."""


class _Entry(NamedTuple):
    """Where a tensor is."""

    shape: tuple[int, ...]
    """As NumPy says it, which is the file's backwards."""
    kind: GGMLQuantizationType
    rows: tuple[int, ...]
    """The shape of its bytes."""
    offset: int


@dataclasses.dataclass(frozen=True)
class Gguf:
    """An open file, of which nothing but the header has been read."""

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, _Entry]
    content: mmap.mmap

    def stored(self, name: str) -> np.ndarray:
        """The bytes of a tensor, a row for each of its last axis."""
        entry = self.tensors[name]
        flat = np.frombuffer(self.content, np.uint8, math.prod(entry.rows), entry.offset)
        return flat.reshape(entry.rows)

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32, which does not depend on the file; ValueError for a type that cannot
        be dequantised."""
        kind = self.tensors[name].kind
        try:
            with np.errstate(all="ignore"):  # what is not finite is refused by who takes it
                return dequantize(self.stored(name).copy(), kind)
        except NotImplementedError as error:
            raise ValueError(
                f"{self.path}: tensor {name} is of type {kind.name}, which the library gguf does "
                "not dequantise: expected F32, F16, BF16, Q8_0, Q4_K or another that it does"
            ) from error


def read_gguf(path: Path) -> Gguf:
    """A GGUF file of version 2 or 3, little-endian.

    Sizes are compared with the file's before anything is made of them: ValueError, in one sentence,
    for a file that is not whole or is something else.
    """
    if not check_file(path).stat().st_size:
        raise ValueError(f"{path} is empty, but a GGUF file was expected")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if content[:4] != b"GGUF":
        raise ValueError(f"{path} is not a GGUF file: it begins with {content[:4]!r}")
    header = _Header(path, content, 4)
    version = header.number("<u4")
    if version not in _VERSIONS:
        raise ValueError(
            f"{path} is of GGUF version {version} (as a little-endian number); expected 2 or 3"
        )
    count, pairs = header.number("<u8"), header.number("<u8")
    settings: dict[str, Any] = {}
    for _ in range(pairs):
        name = header.text()
        if name in settings:
            raise ValueError(f"{path} has the setting {name} twice")
        settings[name] = header.value(header.number("<u4"))
    found = {}
    for _ in range(count):
        name = header.text()
        if name in found:
            raise ValueError(f"{path} has the tensor {name} twice")
        found[name] = header.entry(name)
    alignment = settings.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"{path}: general.alignment: expected 1 or more, but found {alignment!r}")
    start = -(-header.at // alignment) * alignment
    tensors = {name: entry._replace(offset=start + entry.offset) for name, entry in found.items()}
    for name, entry in tensors.items():
        end = entry.offset + math.prod(entry.rows)
        if end > len(content):
            raise ValueError(
                f"{path} is not whole: tensor {name} should end at byte {end:,}, but the file has "
                f"{len(content):,}"
            )
    return Gguf(path, settings, tensors, content)


@dataclasses.dataclass
class _Header:
    """Reads on from byte `at`, and never beyond the end."""

    path: Path
    content: mmap.mmap
    at: int

    def take(self, size: int) -> int:
        """Where the next `size` bytes are."""
        if size > len(self.content) - self.at:
            raise ValueError(
                f"{self.path} is not whole: its header goes on for {size:,} bytes from byte "
                f"{self.at:,}, but the file has {len(self.content):,}"
            )
        self.at += size
        return self.at - size

    def numbers(self, kind: str, count: int) -> list[Any]:
        """Float32 as the shortest decimals that are rounded to them, as they were written once."""
        start = self.take(np.dtype(kind).itemsize * count)
        found = np.frombuffer(self.content, kind, count, start)
        return [float(str(x)) for x in found] if kind == "<f4" else found.tolist()

    def number(self, kind: str) -> Any:
        return self.numbers(kind, 1)[0]

    def text(self) -> str:
        (size,) = struct.unpack_from("<Q", self.content, self.take(8))
        start = self.take(size)
        try:
            return self.content[start : start + size].decode()
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path}: expected UTF-8 at byte {start:,}, but found "
                f"{error.object[error.start : error.end]!r}"
            ) from error

    def value(self, kind: int) -> Any:
        """A setting of that type."""
        if kind == _TEXT:
            return self.text()
        if kind in _NUMBERS:
            return self.number(_NUMBERS[kind])
        inner, count = (self.number("<u4"), self.number("<u8")) if kind == _ARRAY else (kind, 0)
        if inner == _TEXT:
            return [self.text() for _ in range(count)]
        if inner not in _NUMBERS:
            raise ValueError(f"{self.path}: a setting is of type {inner}, which there is not")
        return self.numbers(_NUMBERS[inner], count)

    def entry(self, name: str) -> _Entry:
        """The next tensor, with its offset as it is in the file."""
        axes = self.number("<u4")
        shape = tuple(self.numbers("<u8", axes)[::-1])
        number, offset = self.number("<u4"), self.number("<u8")
        try:
            kind = GGMLQuantizationType(number)
        except ValueError as error:
            raise ValueError(
                f"{self.path}: tensor {name} is of type {number}, which the library gguf does not "
                "know"
            ) from error
        block, size = GGML_QUANT_SIZES[kind]
        if not shape or shape[-1] % block:
            raise ValueError(
                f"{self.path}: tensor {name} has shape {shape}, but numbers of type {kind.name} "
                f"come in blocks of {block}"
            )
        return _Entry(shape, kind, (*shape[:-1], shape[-1] // block * size), offset)

"""The two files that Marian writes a model to: .npz, and its binary format, version 1."""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml  # type: ignore[import-untyped]

from hp_jax.storage.files import read_bytes

SETTINGS = "special:model.yml"
"""The array that holds the architecture, as the bytes of YAML text with a 0 at the end."""

_FLOAT32, _INT8, _CHARS = 0x0404, 0x4101, 0x0101
_SKIPPED = "_QuantMultA"
"""How the names of the scales of int8 activations end."""


def read_marian(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a .npz or .bin model by Marian's names, and the settings that it was trained
    with.

    The int8 weights of a .bin file become float32.  ValueError, in one sentence, for a file that is
    not whole or is something else.
    """
    arrays = _read_npz(path) if path.suffix == ".npz" else _read_binary(path)
    if SETTINGS not in arrays:
        raise ValueError(
            f"{path} is not a model of Marian: expected {SETTINGS} among its {len(arrays)} arrays"
        )
    settings = _settings(arrays.pop(SETTINGS), path)
    return arrays, settings


def _settings(text: np.ndarray, path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(text.tobytes().rstrip(b"\0").decode())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected YAML in {SETTINGS}, but {' '.join(str(error).split())}"
        ) from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path}: expected settings in {SETTINGS}, but found {settings!r}")
    return settings


_OTHERS = (MemoryError, OverflowError, NotImplementedError, RuntimeError, TypeError, SyntaxError)
"""What zipfile and NumPy raise for headers that lie."""


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    content = read_bytes(path)
    if not content.startswith(b"PK"):
        raise ValueError(
            f"{path} is not a whole .npz file of plain arrays ({len(content):,} bytes)"
        )
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, *_OTHERS) as error:
        raise ValueError(
            f"{path} is not a whole .npz file of plain arrays ({len(content):,} bytes): {error}"
        ) from error


# --- The binary format ---------------------------------------------------------------------------
#
# Little-endian: version and number of items (uint64); for each item the lengths of name and type,
# shape and data (4 uint64);
# all names, each with a 0 at the end; all shapes (int32); a length (uint64) and so many bytes of
# padding; all data.


class _Bytes:
    """A file's content, taken from the front."""

    def __init__(self, path: Path) -> None:
        self._path, self._content, self._at = path, read_bytes(path), 0

    def take(self, count: int) -> bytes:
        taken = self._content[self._at : self._at + count]
        if len(taken) < count:
            raise self.error(
                f"expected {count:,} bytes from byte {self._at:,} on, but the file has "
                f"{len(self._content):,}"
            )
        self._at += count
        return taken

    def integers(self, count: int, kind: str = "Q") -> tuple[int, ...]:
        return struct.unpack(f"<{count}{kind}", self.take(count * struct.calcsize(f"<{kind}")))

    def error(self, reason: str) -> ValueError:
        return ValueError(f"{self._path} is not a whole model in Marian's binary format: {reason}")


def _read_binary(path: Path) -> dict[str, np.ndarray]:
    file = _Bytes(path)
    (version,) = file.integers(1)
    if version != 1:
        raise file.error(f"expected version 1, but found {version}")
    (items,) = file.integers(1)
    flat = file.integers(4 * items)
    headers = [flat[i : i + 4] for i in range(0, len(flat), 4)]
    names = [file.take(header[0]).rstrip(b"\0").decode(errors="replace") for header in headers]
    shapes = [file.integers(header[2], "i") for header in headers]
    file.take(*file.integers(1))
    arrays = {}
    for (_, kind, _, count), name, shape in zip(headers, names, shapes, strict=True):
        data = file.take(count)
        if not name.endswith(_SKIPPED):
            arrays[name] = _array(file, name, kind, shape, data)
    return arrays


def _array(file: _Bytes, name: str, kind: int, shape: tuple[int, ...], data: bytes) -> np.ndarray:
    """One item; there may be padding at the end of its data."""
    if kind not in (_FLOAT32, _INT8, _CHARS):
        raise file.error(
            f"{name} is of type {kind:#06x}, but supported are {_FLOAT32:#06x} (float32) and "
            f"{_INT8:#06x} (int8)"
        )
    count = math.prod(shape)
    needed = {_FLOAT32: 4 * count, _INT8: count + 4, _CHARS: count}[kind]
    if min(shape, default=1) < 1 or len(data) < needed:
        raise file.error(f"{name} of shape {shape} needs {needed:,} bytes, but has {len(data):,}")
    if kind == _FLOAT32:
        return np.frombuffer(data, "<f4", count).reshape(shape)
    values = np.frombuffer(data, np.int8, count)
    if kind == _CHARS:
        return values
    (multiplier,) = struct.unpack_from("<f", data, count)
    if not 0 < abs(multiplier) < math.inf:
        raise file.error(f"{name} has the multiplier {multiplier}")
    values = values.reshape(shape) if "Wemb" in name else values.reshape(shape[::-1]).T
    return values / np.float32(multiplier)

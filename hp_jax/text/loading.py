"""The text side of a model folder, of whichever kind."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from hp_jax.storage.files import inside, read_bytes, read_json
from hp_jax.text.codec import NAME, Codec
from hp_jax.text.marian import Marian
from hp_jax.text.sentencepiece import SentencePiece
from hp_jax.typed import decode, located


@dataclasses.dataclass(frozen=True)
class _Said:
    """What text.json says, whatever its kind."""

    kind: str
    files: dict[str, str]


def load_codec(folder: str | Path) -> Codec:
    """The codec that `save` wrote; FileNotFoundError or ValueError names the file that is missing
    or broken."""
    from hp_jax.text.fairseq import Fairseq

    folder = Path(folder).expanduser()
    path = folder / NAME
    settings = read_json(path)
    kinds: dict[str, Any] = {made.kind: made for made in (SentencePiece, Marian, Fairseq)}
    said = decode(_Said, settings, path)
    if said.kind not in kinds:
        raise ValueError(f"{path}: expected a kind of {', '.join(kinds)}, but found {said.kind!r}")
    with located(path):
        contents = {field: read_bytes(inside(folder, name)) for field, name in said.files.items()}
    own = {name: value for name, value in settings.items() if name not in ("kind", "files")}
    return decode(kinds[said.kind], own | contents, path, closed=True)

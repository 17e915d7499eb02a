"""The text side of a model folder, of whichever kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hp_jax.storage.files import inside, read_bytes, read_json
from hp_jax.text.codec import NAME, Codec
from hp_jax.text.marian import Marian
from hp_jax.text.sentencepiece import SentencePiece


def load_codec(folder: str | Path) -> Codec:
    """The codec that `save` wrote; FileNotFoundError or ValueError names the file that is missing
    or broken."""
    from hp_jax.text.fairseq import Fairseq

    folder = Path(folder).expanduser()
    settings = read_json(folder / NAME)
    kinds: dict[str, Any] = {made.kind: made for made in (SentencePiece, Marian, Fairseq)}
    kind, files = settings.pop("kind", None), settings.pop("files", None)
    if kind not in kinds or not isinstance(files, dict):
        raise ValueError(
            f"{folder / NAME}: expected files and a kind of {', '.join(kinds)}, but found "
            f"{files!r} and {kind!r}"
        )
    contents = {field: read_bytes(inside(folder, name)) for field, name in files.items()}
    try:
        return kinds[kind](**contents, **settings)
    except TypeError as error:
        raise ValueError(
            f"{folder / NAME}: expected the settings of the kind {kind}, but {error}"
        ) from error

"""What writers of other libraries' files have in common: refusing what a format cannot hold, and
safetensors files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save

from hp_jax.architecture import Heads
from hp_jax.storage.files import write_whole
from hp_jax.text.fairseq import Fairseq
from hp_jax.text.marian import Marian
from hp_jax.text.sentencepiece import SentencePiece

Kind = TypeVar("Kind", Fairseq, Marian, SentencePiece)

NOT_COMPARED = ("dtype", "kernel", "dropout", "attention_dropout", "classifier_dropout")
"""What is not the model but how it is computed or trained."""


def check_held(
    config: Heads, read: Callable[[], Any], what: str, *, unused: Sequence[str] = ()
) -> None:
    """ValueError, before anything is written, if the settings for a file describe another model
    than `config`.

    read: the reader's config from those settings; what: the format, for the message; unused:
    settings on which the model does not depend.
    """
    try:
        found = dataclasses.asdict(read())
    except ValueError as error:
        raise ValueError(f"{what} cannot hold this model: {error}") from error
    wrong = [
        f"it has {name} {found[name]!r}, not {value!r}"
        for name, value in dataclasses.asdict(config).items()
        if name not in (*NOT_COMPARED, *unused) and found[name] != value
    ]
    if wrong:
        raise ValueError(f"{what} cannot hold this model: {'; '.join(wrong)}")


def text_of(text: Any, kind: type[Kind], what: str) -> Kind:
    """The codec `text` if it is of the kind that the format has; ValueError if not."""
    if not isinstance(text, kind):
        needed, there = (
            f"the kind {one.kind} ({', '.join(one.files.values())})" for one in (kind, text)
        )
        raise ValueError(f"{what} needs a text side of {needed}, but this model's is of {there}")
    return text


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], **about: str) -> None:
    """A safetensors file, whole or not at all, with `about` in its header."""
    write_whole(path, save(dict(tensors), metadata=about))

"""A vocabulary of one's own: a SentencePiece model trained on the text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from typing import Literal

_TOO_LARGE = re.compile(r"Vocabulary size too high \((\d+)\)\. Please set it to a value <= (\d+)")
_TOO_SMALL = re.compile(r"Vocabulary size is smaller than required_chars\. (\d+) vs (\d+)")


def train_sentencepiece(
    lines: Iterable[str], size: int, *, kind: Literal["unigram", "bpe"] = "unigram"
) -> bytes:
    """A SentencePiece model of `size` pieces that covers every character of `lines`; the same for
    the same lines.

    Ids 0 `<pad>`, 1 `</s>` and 2 `<unk>`, as T5's; there is no `<s>`.  ValueError if the text does
    not yield that size.
    """
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            vocab_size=size,
            model_type=kind,
            character_coverage=1.0,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            pad_piece="<pad>",
            max_sentence_length=1 << 20,
            num_threads=4,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(_reason(str(error), size)) from error
    return model.getvalue()


def _reason(message: str, size: int) -> str:
    if match := _TOO_LARGE.search(message):
        return (
            f"a vocabulary of {match[1]} pieces is too large for this text: expected at most "
            f"{match[2]}"
        )
    if match := _TOO_SMALL.search(message):
        return (
            f"a vocabulary of {match[1]} pieces is too small for this text: expected more than "
            f"its {match[2]} characters"
        )
    if "sentences_.empty" in message:
        return "expected text to make a vocabulary from, but there is none"
    return (
        f"SentencePiece could not make a vocabulary of {size} pieces from this text: "
        f"{message.strip()}"
    )

"""Heads in words, as reports print them and as every flag and file takes them: `enc.0.1-3,7
cross.1.2`.

A word is ROW.HEADS: the name of a row of the mask, and heads of it, one by one or as ranges, all
from 0.  A name with spaces or quotes in it stands in double quotes, as in JSON.  `-` is no head.

The authors' notations are read too.  They have colons, and count layers and heads from 1: `1:3,4
2:11` (BERT), `E:1:3 A:2:1,4 D:1:2` (translation: encoder, decoder over encoder, decoder).
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"\S*|\S+')
_RANGES = re.compile(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*")
_AUTHORS = re.compile(r"(?:([EAD]):)?([0-9]{1,5}):([0-9]{1,5}(?:,[0-9]{1,5})*)")
_TYPES = {"E": "enc", "A": "cross", "D": "dec"}


def parse_heads(text: str, rows: Sequence[str]) -> list[tuple[str, int]]:
    """(row name, head), 0-based, of each head that `text` names, in its order.

    ValueError says which word cannot be read, or is about none of `rows`, or is in another notation
    than the first word.  Whether rows have these heads is not looked at.
    """
    words = [] if text.strip() == "-" else _WORD.findall(text)
    found, first = list[tuple[str, int]](), ""
    for number, word in enumerate(words, 1):
        try:
            notation, row, heads = _parse_word(word, rows)
            first = first or notation
            if notation != first:
                raise ValueError(f"expected {first} as in word 1, but it is {notation}")
        except ValueError as error:
            raise ValueError(f"word {number}, {word!r}: {error}") from None
        found += [(row, head) for head in heads]
    return found


def parse_descriptor(text: str, rows: Sequence[str]) -> dict[str, list[int]]:
    """The heads that `text` names as `{row name: [head, ...]}`; the inverse of `format_descriptor`.
    ValueError as in `parse_heads`."""
    heads: dict[str, list[int]] = {}
    for row, head in parse_heads(text, rows):
        heads.setdefault(row, []).append(head)
    return heads


def format_descriptor(heads: Mapping[str, Sequence[int]]) -> str:
    """`{row name: [head, ...]}` in words, such as `enc.0.1-3,7 cross.1.2`; `-` for no head."""
    words = [f"{_quoted(row)}.{_ranges(chosen)}" for row, chosen in heads.items() if len(chosen)]
    return " ".join(words) or "-"


# --- a word --------------------------------------------------------------------------------------


def _parse_word(word: str, rows: Sequence[str]) -> tuple[str, str, list[int]]:
    """The notation of a word, its row and its heads."""
    authors = _AUTHORS.fullmatch(word)
    if authors:
        letter, layer, numbers = authors.groups()
        row, heads = int(layer) - 1, [int(number) - 1 for number in numbers.split(",")]
        if min(row, *heads) < 0:
            raise ValueError("layers and heads before and after a colon count from 1")
        several = {name.partition(".")[0] for name in rows} - {"enc"}
        if not letter and several and f"enc.{row}" in rows:
            raise ValueError("there are several types of attention: expected E:, A: or D: before")
        notation = f"{'E|A|D:' if letter else ''}layer:head from 1"
        return notation, _known(f"{_TYPES[letter or 'E']}.{row}", rows), heads
    name, _, numbers = word.rpartition(".")
    known = bool(name) and _unquoted(name) in rows
    if not known and word in map(_quoted, rows):
        raise ValueError(f"it is a whole row: expected its heads too, such as {_example(word)}")
    if not name or not _RANGES.fullmatch(numbers):
        raise ValueError(f"expected ROW.HEADS from 0, such as {_example(_quoted(rows[0]))}")
    return "row.head from 0", _known(_unquoted(name), rows), _numbers(numbers)


def _known(name: str, rows: Sequence[str]) -> str:
    if name not in rows:
        raise ValueError(f"there is no row {name!r}; the rows are {', '.join(rows)}")
    return name


def _example(row: str) -> str:
    return f"{row}.0 or {row}.0-2,5"


def _numbers(text: str) -> list[int]:
    """`1-3,7` as [1, 2, 3, 7]."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if not numbers:
            raise ValueError(f"the range {part} runs backwards")
        found += numbers
    return found


def _ranges(heads: Sequence[int]) -> str:
    """[1, 2, 3, 7] as `1-3,7`."""
    runs = itertools.groupby(enumerate(heads), lambda pair: pair[1] - pair[0])
    words = list[str]()
    for run in ([head for _, head in pairs] for _, pairs in runs):
        words += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else map(str, run)
    return ",".join(words)


def _quoted(row: str) -> str:
    """A row's name, in quotes if words would not end where it does."""
    plain = re.fullmatch(r'[^\s"#][^\s"]*', row) and row.isprintable()
    return row if plain else json.dumps(row)


def _unquoted(name: str) -> str:
    if not name.startswith('"'):
        return name
    try:
        return str(json.loads(name))
    except ValueError:
        raise ValueError("expected a name in double quotes, as in JSON, and then .HEADS") from None

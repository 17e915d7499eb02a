"""Types of attention: which rows belong together, in which order, and under which names people know
them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

NAMES = {
    "enc": "encoder self-attention",
    "dec": "decoder self-attention",
    "cross": "cross-attention",
}
"""By the first part of the names of rows (`cross.0`), in the order in which they are shown."""


def type_of(row: str) -> str:
    """The type in the name of a row, or of a head (`cross.0.3`)."""
    return row.partition(".")[0]


def by_type(rows: Sequence[str]) -> dict[str, list[int]]:
    """Places of the rows of each type: types as in NAMES, then others as they come; the rows of
    each in their order."""
    known = dict.fromkeys([*NAMES, *map(type_of, rows)])
    places = {
        name: [place for place, row in enumerate(rows) if type_of(row) == name] for name in known
    }
    return {name: found for name, found in places.items() if found}


def chosen(rows: Sequence[str], names: Collection[str]) -> np.ndarray:
    """Which rows `[A]` are among `names`, or of a type that is."""
    return np.array([row in names or type_of(row) in names for row in rows])


def described(rows: Sequence[str], names: Collection[str]) -> str:
    """The rows that are named as words: types that are there whole by what people call them, then
    single rows."""
    whole = [
        kind
        for kind, places in by_type(rows).items()
        if all(rows[place] in names for place in places)
    ]
    single = [row for row in names if type_of(row) not in whole]
    return ", ".join([*(NAMES.get(kind, kind) for kind in whole), *single])

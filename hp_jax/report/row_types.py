"""Types of attention: which rows of the head mask belong together, how they are sorted, and under
which names people know them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

NAMES = {
    "enc": "encoder self-attention",
    "dec": "decoder self-attention",
    "cross": "cross-attention",
}
"""By the first part of the names of rows (`cross.0`), sorted as they are shown."""


def type_of(row: str) -> str:
    """The type in the name of a row, or of a head (`cross.0.3`)."""
    return row.partition(".")[0]


def by_type(rows: Sequence[str]) -> dict[str, list[int]]:
    """Indices of the rows of each type: types as in NAMES, then others as they come; the rows of
    each as they come."""
    known = dict.fromkeys([*NAMES, *map(type_of, rows)])
    indices = {
        name: [index for index, row in enumerate(rows) if type_of(row) == name] for name in known
    }
    return {name: found for name, found in indices.items() if found}


def sorted_by_type(rows: Sequence[str]) -> list[int]:
    """Indices of all rows as they are shown, see `by_type`."""
    return [index for indices in by_type(rows).values() for index in indices]


def described(rows: Sequence[str], names: Collection[str]) -> str:
    """Those of `rows` that are in `names`, in words: types of which all rows are by what people
    call them, then single rows."""
    whole = [
        name
        for name, indices in by_type(rows).items()
        if all(rows[index] in names for index in indices)
    ]
    single = [row for row in names if type_of(row) not in whole]
    return ", ".join([*(NAMES.get(name, name) for name in whole), *single])

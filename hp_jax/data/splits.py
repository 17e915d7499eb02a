"""Splits, their slices (random samples in one fixed order), and several of them joined."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

APART = 2**32
"""Of splits that are joined, origins in the n-th begin at n times this, n from 0."""


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class FromSplit:
    """N examples of a split, or of several that are joined, and where each of them comes from."""

    files: Mapping[str, str]
    """What was read (a file, two files, or a prepared folder and split), by the name of each whole
    split."""
    line_N: np.ndarray
    """1-based line in its file on which each example starts; int64."""
    origin_N: np.ndarray
    """0-based place of each example in its whole split, ascending, plus `APART` times the split's
    number among those that are joined; int64."""

    @property
    def split(self) -> str:
        """The split of which these are some or all, without a slice; `a+b` of several."""
        return "+".join(self.files)

    @property
    def file(self) -> str:
        """What was read."""
        return ", ".join(self.files.values())

    def where(self, index: int) -> str:
        """`file:line` of one example."""
        file = list(self.files.values())[self.origin_N[index] // APART]
        return f"{file}:{self.line_N[index]}"

    def places(self, file: str) -> np.ndarray:
        """The places of the examples that come from a file, each in its own split."""
        number_N, place_N = np.divmod(self.origin_N, APART)
        own = [number for number, name in enumerate(self.files.values()) if name == file]
        return place_N[np.isin(number_N, own)]


T = TypeVar("T", bound=FromSplit)
Columns = TypeVar("Columns", bound=Any)


class Part(NamedTuple):
    """A split, or a slice of it: `train[:50%]` is (`train`, None, `50%`)."""

    name: str
    start: str | None
    stop: str | None


_PART = re.compile(r"([\w./-]+)(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?")


def parse_split(split: str) -> tuple[Part, ...]:
    """The parts of a split such as `train`, `train[:50%]` or, of several joined, `wmt09+wmt10[:5]`.
    ValueError for any other form."""
    found = [_PART.fullmatch(part) for part in split.split("+")]
    parts = tuple(Part(*match.groups()) for match in found if match)
    if len(parts) < len(found):
        raise ValueError(
            f"cannot read the split {split!r}: expected a form such as train, train[:5000], "
            "validation[50%:] or wmt09+wmt10"
        )
    return parts


def folder_name(split: str) -> str:
    """The name of a folder for a split, fit for shells and URLs: `validation[:50%]` is
    `validation-0-50pc`, `train[5000:]+test` is `train-5000-end+test`.  ValueError as in
    `parse_split`."""
    return "+".join(map(_part_name, parse_split(split)))


def _part_name(part: Part) -> str:
    whole = part.start is None and part.stop is None
    bounds = "" if whole else f"-{part.start or 0}-{part.stop or 'end'}"
    return part.name.replace("/", "-") + bounds.replace("%", "pc")


def take(examples: T, start: str | None, stop: str | None) -> T:
    """The examples between two positions of one fixed pseudo-random order of the whole split, back
    in the order of the file.

    So every slice is a random sample, and two slices of one split have examples in common exactly
    if their ranges overlap.  The order is numpy's `RandomState(0).permutation(n)`, which numpy
    keeps frozen. Bounds are TFDS's: counts, or per cent rounded to the closest count, negative ones
    from the end; as in Python a count beyond the end means the end. ValueError for an empty slice.
    """
    n = len(examples.origin_N)
    first, last, _ = slice(_position(start, n), _position(stop, n)).indices(n)
    if first >= last:
        raise ValueError(
            f"the slice {examples.split}[{start or ''}:{stop or ''}] is empty: {examples.file} "
            f"has {n} examples"
        )
    return rows_of(examples, np.sort(np.random.RandomState(0).permutation(n)[first:last]))


def read_split(split: str, whole: Callable[[str], T]) -> T:
    """A split such as `train`, `train[:5000]` or `wmt09+wmt10`; `whole` reads a whole one by its
    name.

    Of several that are joined, the examples come split by split, each in the order of its file.
    ValueError for parts that have examples in common: these would count twice.
    """
    parts = [
        whole(name) if start is None and stop is None else take(whole(name), start, stop)
        for name, start, stop in parse_split(split)
    ]
    for first, second in itertools.combinations(parts, 2):
        if shared := overlap(first, second):
            raise ValueError(
                f"the split {split} has {shared} examples of {first.file} twice: expected parts "
                "that share none"
            )
    return parts[0] if len(parts) == 1 else _join(parts)


def _join(parts: list[T]) -> T:
    files = {name: file for part in parts for name, file in part.files.items()}
    numbers = {name: number for number, name in enumerate(files)}
    moved = [
        dataclasses.replace(part, origin_N=part.origin_N + numbers[part.split] * APART)
        for part in parts
    ]
    columns: dict[str, Any] = {
        name: np.concatenate(values)
        if isinstance(values[0], np.ndarray)
        else tuple(itertools.chain(*values))
        for name in _columns(parts[0])
        for values in [[getattr(part, name) for part in moved]]
    }
    joined = dataclasses.replace(parts[0], files=files, **columns)
    return rows_of(joined, np.argsort(joined.origin_N))


def rows_of(examples: Columns, chosen: np.ndarray) -> Columns:
    """Some examples, by their places: of every column (a tuple or an array) that it has."""
    changed = {
        name: v[chosen] if isinstance(v, np.ndarray) else tuple(v[i] for i in chosen)
        for name, v in _columns(examples).items()
    }
    return dataclasses.replace(examples, **changed)


def _columns(examples: Any) -> dict[str, Any]:
    """What it has of each example: tuples and arrays."""
    found = {field.name: getattr(examples, field.name) for field in dataclasses.fields(examples)}
    return {name: v for name, v in found.items() if isinstance(v, tuple | np.ndarray)}


def _position(bound: str | None, n: int) -> int | None:
    if bound is None or not bound.endswith("%"):
        return None if bound is None else int(bound)
    percent = int(bound[:-1])
    if abs(percent) > 100:
        raise ValueError(f"a slice bound lies between -100% and 100%, but got {bound}")
    return round(percent * n / 100)


def overlap(a: FromSplit, b: FromSplit) -> int:
    """How many examples `a` and `b` have in common: same file, same place."""
    files = set(a.files.values()) & set(b.files.values())
    return sum(len(np.intersect1d(a.places(file), b.places(file))) for file in files)

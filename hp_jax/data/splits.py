"""Splits and their slices: random samples in one fixed order."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np


class Sliceable(Protocol):
    """Examples of a split that know where they come from: `Labelled` and `Parallel`."""

    @property
    def split(self) -> str:
        """The split of which these are some or all."""

    @property
    def file(self) -> str:
        """What was read."""

    @property
    def origin_N(self) -> np.ndarray:
        """0-based place of each example in its whole split, ascending."""

    def __len__(self) -> int: ...


T = TypeVar("T", bound=Sliceable)
Columns = TypeVar("Columns", bound=Any)


_SPLIT = re.compile(r"([\w./-]+)(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?")


def parse_split(split: str) -> tuple[str, str | None, str | None]:
    """`train[:50%]` as (`train`, None, `50%`); a split without a slice has no bounds.  ValueError
    for any other form."""
    match = _SPLIT.fullmatch(split)
    if not match:
        raise ValueError(
            f"cannot read the split {split!r}: expected a form such as train, train[:5000] or "
            "validation[50%:]"
        )
    name, start, stop = match.groups()
    return name, start, stop


def folder_name(split: str) -> str:
    """The name of a folder for a split, fit for shells and URLs: `validation[:50%]` is
    `validation-0-50pc`, `train[5000:]` is `train-5000-end`.  ValueError as in `parse_split`."""
    name, start, stop = parse_split(split)
    slice_name = "" if start is None and stop is None else f"-{start or 0}-{stop or 'end'}"
    return name.replace("/", "-") + slice_name.replace("%", "pc")


def take(examples: T, start: str | None, stop: str | None) -> T:
    """The examples between two positions of one fixed pseudo-random order of the whole split, back
    in the order of the file.

    So every slice is a random sample, and two slices of one split have examples in common exactly
    if their ranges overlap.  The order is numpy's `RandomState(0).permutation(n)`, which numpy
    keeps frozen. Bounds are TFDS's: counts, or per cent rounded to the closest count, negative ones
    from the end; as in Python a count beyond the end means the end. ValueError for an empty slice.
    """
    n = len(examples)
    first, last, _ = slice(_position(start, n), _position(stop, n)).indices(n)
    if first >= last:
        raise ValueError(
            f"the slice {examples.split}[{start or ''}:{stop or ''}] is empty: {examples.file} "
            f"has {n} examples"
        )
    return rows_of(examples, np.sort(np.random.RandomState(0).permutation(n)[first:last]))


def read_split(split: str, whole: Callable[[str], T]) -> T:
    """A split such as `train` or `train[:5000]`, of which `whole` reads the whole."""
    name, start, stop = parse_split(split)
    examples = whole(name)
    return examples if start is None and stop is None else take(examples, start, stop)


def rows_of(examples: Columns, chosen: np.ndarray) -> Columns:
    """Some examples, by their places: of every column (a tuple or an array) that it has."""
    columns = {
        name: value
        for name, value in vars(examples).items()
        if isinstance(value, tuple | np.ndarray)
    }
    changed = {
        name: v[chosen] if isinstance(v, np.ndarray) else tuple(v[i] for i in chosen)
        for name, v in columns.items()
    }
    return dataclasses.replace(examples, **changed)


def _position(bound: str | None, n: int) -> int | None:
    if bound is None or not bound.endswith("%"):
        return None if bound is None else int(bound)
    percent = int(bound[:-1])
    if abs(percent) > 100:
        raise ValueError(f"a slice bound lies between -100% and 100%, but got {bound}")
    return round(percent * n / 100)


def overlap(a: Sliceable, b: Sliceable) -> int:
    """How many examples `a` and `b` have in common: same file, same place."""
    return len(np.intersect1d(a.origin_N, b.origin_N)) if a.file == b.file else 0

"""The grids of ablations of an experiment: each set of masks on each split."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from hp_jax.report.comparison import Comparison, compare, scope_of
from hp_jax.storage.store import Store


def in_scope(store: Store) -> Comparison:
    """With the heads in scope that its settings name, though its masks may not touch every row of
    them."""
    rows = store.manifest.get("experiment", {}).get("ablation", {}).get("rows", ())
    return compare(store, scope_of(store.manifest, rows))


SETS: Mapping[str, Callable[[Store], Comparison]] = {
    "one_off": compare,
    "one_on": compare,
    "pairs": compare,
    "groups_off": in_scope,
    "group_on": in_scope,
    "rows_off": in_scope,
    "prefixes": in_scope,
    "random": in_scope,
    "file": in_scope,
}
"""Sets of masks, and how a grid of each is read."""


class Measured(NamedTuple):
    """A set of masks on a split."""

    store: Store
    comparison: Comparison
    place: str
    """Its split and the rows in scope, as its folder's name has them."""
    several: bool
    """Whether there are other grids of this set."""

    @property
    def split(self) -> str:
        """The split that was measured on."""
        return str(self.store.manifest["splits"].get("test", "?"))

    @property
    def where(self) -> str:
        """The split, and the rows in scope if these are not all, for the title of a section; empty
        for the only grid of a set."""
        scope = self.comparison.scope
        return f", on {self.split}" + f", {scope}" * bool(scope) if self.several else ""

    @property
    def suffix(self) -> str:
        """What makes names of files different from those of the set's other grids."""
        return f"-{self.place}" if self.several else ""


def _begun(store: Store) -> tuple[str, int]:
    """When a grid was begun, to the second, and its number among those of one command."""
    split = store.manifest["splits"].get("test")
    settings = store.manifest.get("experiment", {}).get("ablation", {})
    asked = list(settings.get("splits", ()))
    number = asked.index(split) if split in asked else 0
    return str(store.manifest.get("created", "")), number


def read_ablations(finished: Mapping[str, Store]) -> dict[str, list[Measured]]:
    """The finished grids of each set of masks, in the order in which they were begun.

    `finished` are an experiment's stores by their path: `ablation/SPLIT/SET`, SET with `.` and the
    rows in scope if these are not all; in results of 0.1 without the split.
    """
    found: dict[str, dict[str, Store]] = {name: {} for name in SETS}
    for path, store in finished.items():
        if match := re.fullmatch(r"ablation/(?:(.+)/)?([^/.]+)([^/]*)", path):
            found.get(match[2], {})[(match[1] or "") + match[3]] = store
    return {
        name: [
            Measured(store, SETS[name](store), place, len(stores) > 1)
            for place, store in sorted(stores.items(), key=lambda item: _begun(item[1]))
        ]
        for name, stores in found.items()
    }

"""Which heads to keep within a budget of heads, parameters, FLOPs, or latency as `hp-jax speed`
measured it; NumPy alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from hp_jax.storage.files import read_json
from hp_jax.typed import Count, Positive

Order = Sequence[tuple[int, int]]
"""(row, head), 0-based, the least important first."""


class Cost(Protocol):
    """Something that fewer heads have less of, or as much."""

    @property
    def whole(self) -> float:
        """What the model costs with all its heads."""

    def of(self, mask_AH: np.ndarray) -> float:
        """What it costs with the heads of a mask."""


@dataclasses.dataclass(frozen=True)
class Measure:
    """A cost that is a sum over heads, groups of heads, and what is always there."""

    whole: float
    present_AH: np.ndarray
    """The heads that `whole` is the cost of."""
    own_AH: np.ndarray
    """What goes with each of them."""
    shared_AH: np.ndarray
    """What goes with the last of its group, the same for all of them."""
    group_AH: np.ndarray
    """The number of its group."""

    def of(self, mask_AH: np.ndarray) -> float:
        """What the model costs with the heads of a mask."""
        own = self.own_AH[self.present_AH & ~mask_AH].sum().item()
        lost = np.setdiff1d(self.group_AH[self.present_AH], self.group_AH[mask_AH])
        _, first = np.unique(self.group_AH, return_index=True)
        shared = self.shared_AH.ravel()[first[np.isin(np.unique(self.group_AH), lost)]]
        return self.whole - own - shared.sum().item()


def alone(whole: float, present_AH: np.ndarray, own_AH: np.ndarray) -> Measure:
    """A cost of which heads share nothing."""
    group_AH = np.arange(present_AH.size).reshape(present_AH.shape)
    return Measure(whole, present_AH, own_AH, np.zeros_like(own_AH), group_AH)


@dataclasses.dataclass(frozen=True)
class Latency:
    """Milliseconds a batch by linear interpolation between FLOPs at which it was measured.

    With fewer FLOPs than were measured it stays what it was at the fewest.  Where more FLOPs were
    faster, the longer time of the fewer counts for both (but no more than the whole model's): a
    budget does not rely on noise.
    """

    flops: Measure
    milliseconds: float
    """Of the whole model."""
    shares: tuple[tuple[float, float], ...]
    """(share of the whole model's FLOPs, share of its time) of each side that was measured, (1, 1)
    included."""

    @property
    def whole(self) -> float:
        """Milliseconds with all heads."""
        return self.milliseconds

    def of(self, mask_AH: np.ndarray) -> float:
        """Milliseconds with the heads of a mask."""
        flops, times = np.array(sorted(self.shares)).T
        share = self.flops.of(mask_AH) / self.flops.whole
        return self.milliseconds * float(
            np.interp(share, flops, np.minimum(np.maximum.accumulate(times), 1))
        )


@dataclasses.dataclass(frozen=True)
class Solution:
    """Heads that stay within a budget, and what they come to."""

    mask_AH: np.ndarray
    target: tuple[str, float]
    """What the budget was of, and how much."""
    reached: dict[str, dict[str, float]]
    """`kept`, `whole` and `share` (kept / whole) of every cost."""

    def __str__(self) -> str:
        of, most = self.target
        parts = [
            f"{name} {show(cost['kept'])} of {show(cost['whole'])} ({cost['share']:.1%})"
            for name, cost in self.reached.items()
        ]
        return f"target: at most {show(most)} {of}; reached: {', '.join(parts)}"


def share_of(cost: Cost, share: float) -> Fraction:
    """A share of what the whole model costs, read as the decimal that was written: 0.7 of 10 heads
    is 7."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share lies between 0 and 1, but got {share}")
    return Fraction(str(share)) * Fraction(cost.whole)


def solve(
    order: Order,
    present_AH: np.ndarray,
    costs: Mapping[str, Cost],
    of: str,
    most: float | Fraction,
    *,
    floor: int = 0,
    multiple: int = 1,
    group_AH: np.ndarray | None = None,
) -> Solution:
    """The heads of `present_AH` to keep so that `costs[of]` is at most `most`: the first of `order`
    go, as few as will do.

    Heads that are not in the order stay, and so do the last `floor` of each row that has so many.
    With a `multiple` every row's number of heads is one of 0, `multiple`, 2 `multiple`, ...: a row
    first loses what it has too many, then bundles of successive heads of its own order, the bundle
    of the least mean place in the order first.  So a row with a rest is rounded down if the bundle
    is less important than other rows' bundles, and up if not, and the budget holds in any case.
    group_AH: numbers `[A, H]`; heads with the same one go together, the least mean place in the
    order first, and `multiple` counts groups, `floor` heads.

    ValueError for an order that does not fit, and for a budget or a multiple that cannot be had:
    the sentence names the least that can.
    """
    present_AH = np.asarray(present_AH) != 0
    checked = _checked(order, present_AH)
    if group_AH is None:
        group_AH = np.arange(present_AH.size).reshape(present_AH.shape)
    mask_AH = present_AH.copy()
    for place, heads in _bundles(checked, present_AH, group_AH, floor, multiple):
        if place >= 0 and costs[of].of(mask_AH) <= most:
            break
        mask_AH[tuple(np.array(heads).T)] = False
    if costs[of].of(mask_AH) > most:
        bounds = f" with at least {floor} heads a row" * (
            floor > 0
        ) + f" and multiples of {multiple}" * (multiple > 1)
        raise ValueError(
            f"at most {show(most)} {of} cannot be reached: the least{bounds} is "
            f"{show(costs[of].of(mask_AH))} "
            f"of {show(costs[of].whole)}"
        )
    reached = {}
    for name, cost in costs.items():
        kept = cost.of(mask_AH)
        reached[name] = {"kept": kept, "whole": cost.whole, "share": kept / cost.whole}
    return Solution(mask_AH, (of, float(most)), reached)


def _checked(order: Order, present_AH: np.ndarray) -> list[tuple[int, int]]:
    found = [(int(row), int(head)) for row, head in order]
    seen: set[tuple[int, int]] = set()
    for row, head in found:
        inside = 0 <= row < present_AH.shape[0] and 0 <= head < present_AH.shape[1]
        if not inside or not present_AH[row, head]:
            raise ValueError(
                f"the order names head {head} of row {row}, which the model does not have"
            )
        if (row, head) in seen:
            raise ValueError(f"the order names head {head} of row {row} twice")
        seen.add((row, head))
    return found


def _bundles(
    order: Order, present_AH: np.ndarray, group_AH: np.ndarray, floor: int, multiple: int
) -> list[tuple[float, list[tuple[int, int]]]]:
    """What goes together, in the order in which it goes, each with its place; -1: it goes in any
    case.  Groups of which some heads are not in the order stay."""
    if floor < 0 or multiple < 1:
        raise ValueError(
            f"expected a floor of 0 or more and a multiple of 1 or more, but got {floor} and "
            f"{multiple}"
        )
    of_group: dict[int, list[int]] = {}
    for place, head in enumerate(order):
        of_group.setdefault(int(group_AH[head]), []).append(place)
    ranked = sorted((sum(places) / len(places), places) for places in of_group.values())
    bundles: list[tuple[float, list[tuple[int, int]]]] = []
    for row, present_H in enumerate(present_AH):
        numbers, sizes = np.unique(group_AH[row][present_H], return_counts=True)
        whole = dict(zip(numbers.tolist(), sizes.tolist(), strict=True))
        mine = [(mean, places) for mean, places in ranked if order[places[0]][0] == row]
        mine = [one for one in mine if len(one[1]) == whole[int(group_AH[order[one[1][0]]])]]
        count, heads = len(numbers), int(present_H.sum())
        gone = np.cumsum([0, *(len(places) for _, places in mine)])
        stays = count - int((heads - gone >= min(floor, heads)).sum()) + 1
        least, rest = -(-stays // multiple) * multiple, count % multiple
        if least > count - rest:
            unit = "heads" if count == heads else "groups"
            raise ValueError(
                f"row {row} keeps at least {stays} of its {count} {unit}, but has no multiple of "
                f"{multiple} between"
            )
        together = [places for _, places in mine]
        if rest:
            bundles.append((-1, [order[n] for places in together[:rest] for n in places]))
        for start in range(rest, count - least, multiple):
            bundle = mine[start : start + multiple]
            mean = sum(mean for mean, _ in bundle) / multiple
            bundles.append((mean, [order[place] for _, places in bundle for place in places]))
    return sorted(bundles)


def show(amount: float | Fraction) -> str:
    """Such as 72, 3.25, 108.9M."""
    amount = float(amount)
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if amount >= size:
            return f"{amount / size:.4g}{unit}"
    return f"{amount:.0f}" if amount == round(amount) else f"{amount:.4g}"


def read_latency(
    path: Path, flops: Measure, *, batch: int, length: int, mode: str = "forward"
) -> Latency:
    """The latency at a batch and a length from the speed.json that `hp-jax speed` wrote; `mode`:
    `forward`, `beam 1`, ...

    `flops` are those of the model that the budget is for.  FileNotFoundError, or ValueError if the
    file has no such measurement.
    """
    rows = read_json(path, _Speed).rows
    chosen = [row for row in rows if (row.mode, row.batch, row.length) == (mode, batch, length)]
    if not chosen:
        there = dict.fromkeys(f"{row.mode} of {row.batch} x {row.length}" for row in rows)
        raise ValueError(
            f"{path} has no {mode} of {batch} x {length} (examples x tokens), but "
            f"{', '.join(there) or 'nothing'}"
        )
    original = next((row for row in chosen if row.side == "original"), None)
    if original is None or original.milliseconds is None:
        raise ValueError(f"{path} has no row of the side original at {batch} x {length}")
    shares = tuple((row.flops_share, 1 / row.ratio.median) for row in chosen)
    return Latency(flops, original.milliseconds.p50, shares)


@dataclasses.dataclass(frozen=True)
class _Ratio:
    median: Positive


@dataclasses.dataclass(frozen=True)
class _Milliseconds:
    p50: Positive


@dataclasses.dataclass(frozen=True)
class _Row:
    """What a budget takes of a row of speed.json."""

    side: str
    mode: str
    batch: Count
    length: Count
    flops_share: Positive
    ratio: _Ratio
    milliseconds: _Milliseconds | None = None


@dataclasses.dataclass(frozen=True)
class _Speed:
    """speed.json."""

    rows: tuple[_Row, ...]

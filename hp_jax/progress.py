"""Progress of a long loop: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

log = logging.getLogger("hp_jax")
Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 20.0
SECONDS_BETWEEN_STATUS = 2.0


def track(
    items: Iterable[Item],
    label: str,
    *,
    total: int,
    done: int = 0,
    unit: str,
    size: Callable[[Any], float] = lambda item: 1,
    each: tuple[int, str] | None = None,
    status: Callable[[], str] = str,
) -> Iterator[Item]:
    """Yields `items` and shows how many of `total` units are done, how many a second, the time left
    and `status()`.

    An item is `size(item)` units, or a part of one; each=(872, "examples"): a unit stands for so
    many of something else, whose rate is shown too.
    """
    start = time.monotonic()

    def facts(done_now: float) -> str:
        counted = _facts(done, done_now, total, time.monotonic() - start, unit, each)
        more = status() if done_now > done else ""
        return f"{counted}, {more}" if more else counted

    show = _bar if sys.stderr.isatty() and log.isEnabledFor(logging.INFO) else _lines
    yield from show(items, label, total, done, size, facts)


def _facts(
    before: float, done: float, total: int, seconds: float, unit: str, each: tuple[int, str] | None
) -> str:
    """Such as `32/145 masks, 1.3 masks/s, 1130 examples/s, 87 s left`, `done - before` of them done
    in `seconds`."""
    parts = [f"{done:.0f}/{total} {unit}"]
    if done > before:
        rate = (done - before) / max(seconds, 1e-9)
        parts.append(f"{_number(rate)} {unit}/s")
        if each:
            parts.append(f"{_number(rate * each[0])} {each[1]}/s")
        parts.append(f"{_duration(max(total - done, 0) / rate)} left")
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    """`87 s`, `12 min`, `1 h 02 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


Sized = Callable[[Any], float]
Facts = Callable[[float], str]


def _bar(
    items: Iterable[Item], label: str, total: int, done: float, size: Sized, facts: Facts
) -> Iterator[Item]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[facts]}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(label, total=total, completed=int(done), facts=facts(done))
        shown = 0.0
        for item in items:
            yield item
            done += size(item)
            progress.update(bar, completed=done)
            if (
                time.monotonic() - shown > SECONDS_BETWEEN_STATUS or done > total - 1e-6
            ):  # a status may wait for the device
                shown = time.monotonic()
                progress.update(bar, facts=facts(done))


def _lines(
    items: Iterable[Item], label: str, total: int, done: float, size: Sized, facts: Facts
) -> Iterator[Item]:
    last = time.monotonic()
    for item in items:
        yield item
        done += size(item)
        if time.monotonic() - last > SECONDS_BETWEEN_LINES or done > total - 1e-6:
            last = time.monotonic()
            log.info("%s: %s", label, facts(done))

"""Progress of a long loop: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger("hp_jax")
Item = TypeVar("Item")

SECONDS_BETWEEN_LINES = 20.0
SECONDS_BETWEEN_STATUS = 2.0


def track(
    items: Iterable[Item], label: str, *, total: int, done: int = 0, unit: str, status: Callable[[], str] = str
) -> Iterator[Item]:
    """Yields `items` and shows how many of `total` are done, how many a second, the time left and `status()`."""
    if sys.stderr.isatty():
        yield from _bar(items, label, total, done, status)
    else:
        yield from _lines(items, label, total, done, unit, status)


def _bar(items: Iterable[Item], label: str, total: int, done: int, status: Callable[[], str]) -> Iterator[Item]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[status]}"), console=Console(stderr=True)) as progress:
        bar = progress.add_task(label, total=total, completed=done, status="")
        shown = 0.0
        for item in items:
            yield item
            progress.update(bar, advance=1)
            if time.monotonic() - shown > SECONDS_BETWEEN_STATUS:  # a status may wait for the device
                shown = time.monotonic()
                progress.update(bar, status=status())


def _lines(items: Iterable[Item], label: str, total: int, done: int, unit: str, status: Callable[[], str]) -> Iterator[Item]:
    start = last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last > SECONDS_BETWEEN_LINES or done + count == total:
            last, rate = now, count / max(now - start, 1e-9)
            left = (total - done - count) / rate
            log.info("%s: %d/%d %s, %.3g/s, %.0f s left %s", label, done + count, total, unit, rate, left, status())

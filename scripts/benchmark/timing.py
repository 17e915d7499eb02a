"""Several sides of one piece of work, timed in turn: seconds, paired ratios, the table and the JSON
file."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hp_jax.storage.files import write_json

VARIABLES = (
    "MALLOC_ARENA_MAX",
    "MALLOC_MMAP_MAX_",
    "MALLOC_TRIM_THRESHOLD_",
    "OMP_NUM_THREADS",
    "XLA_FLAGS",
)
"""Of the environment, those that change times."""
PACKAGES = ("hp_jax", "jax", "jaxlib", "torch", "transformers", "numpy")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """How often to measure, and where the numbers go."""

    rounds: int = 5
    """Every side runs once in each, after a run that is not counted."""
    out: Path = Path("benchmark.json")
    """The JSON file to write."""


class Side(NamedTuple):
    """One way to do the work."""

    run: Callable[[], Any]
    share: float = 1.0
    """How many units of work `run` does; its time is divided by it."""
    note: str = ""
    """Printed beside its times, such as `sample of 4 of 145 masks`."""


class Ratio(NamedTuple):
    """The time of one side divided by that of another in the same round."""

    top: str
    bottom: str
    goal: str = ""


def spread_over(masks_MAH: np.ndarray, count: int, block: int = 1) -> np.ndarray:
    """About `count` of the masks, in whole blocks of neighbours that are spread evenly over all;
    all if there are no more."""
    if count >= len(masks_MAH):
        return masks_MAH
    starts = np.arange(0, len(masks_MAH) - block + 1, block)
    chosen = np.unique(np.linspace(0, len(starts) - 1, max(1, count // block)).round().astype(int))
    return np.concatenate([masks_MAH[start : start + block] for start in starts[chosen]])


def sample(
    run: Callable[[np.ndarray], Any], masks_MAH: np.ndarray, count: int, block: int = 1
) -> Side:
    """A side that does about `count` of the masks, in blocks of neighbours."""
    few_MAH = spread_over(masks_MAH, count, block)
    part, whole = len(few_MAH), len(masks_MAH)
    return Side(
        lambda: run(few_MAH),
        part / whole,
        "" if part == whole else f"sample of {part} of {whole} masks",
    )


class Times(NamedTuple):
    """Seconds for one unit of work, in each round."""

    wall: list[float]
    processor: list[float]
    """Of all threads of this process. Much less than the wall times by its number of cores:
    something else ran as well."""


def alternate(sides: Mapping[str, Side], rounds: int) -> dict[str, Times]:
    """Times of each side.

    Each side runs once before, uncounted, so that no compilation is timed. Every other round goes
    backwards. JAX's results are waited for; PyTorch's must have come to the host.
    """
    for side in sides.values():
        jax.block_until_ready(side.run())
    times = {name: Times([], []) for name in sides}
    for i in range(rounds):
        for name in list(sides)[:: -1 if i % 2 else 1]:
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(sides[name].run())
            stop = time.perf_counter(), time.process_time()
            for seconds, before, after in zip(times[name], start, stop, strict=True):
                seconds.append((after - before) / sides[name].share)
    return times


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {"median": float(np.median(values)), "min": min(values), "max": max(values)}


def compare(
    run: Run,
    unit: str,
    sides: Mapping[str, Side],
    ratios: Sequence[Ratio],
    about: Mapping[str, Any],
) -> None:
    """Times the sides, prints the table and writes `run.out`; `about` says what was measured."""
    times = alternate(sides, run.rounds)
    seconds = {
        name: spread(wall) | {"rounds": wall, "processor": processor, "note": sides[name].note}
        for name, (wall, processor) in times.items()
    }
    paired = {}
    for top, bottom, goal in ratios:
        rounds = [a / b for a, b in zip(times[top].wall, times[bottom].wall, strict=True)]
        paired[f"{top} / {bottom}"] = spread(rounds) | {"rounds": rounds, "goal": goal}
    print(
        f"\nSeconds for {unit}; {run.rounds} rounds in turn after one that is not counted "
        "(compilation)\n"
    )
    _table("side", seconds, "note")
    _table("ratio of times in the same round", paired, "goal")
    setting = {
        name: value.name if isinstance(value, Path) else value
        for name, value in dataclasses.asdict(run).items()
    }
    found = {"setting": setting, "unit": unit, "seconds": seconds, "ratios": paired}
    run.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(run.out, environment() | dict(about) | found)
    print(run.out)


def _table(title: str, rows: Mapping[str, Mapping[str, Any]], last: str) -> None:
    width = max(map(len, (title, *rows)))
    print(f"{title:<{width}}     median        min        max   {last}".rstrip())
    for name, row in rows.items():
        numbers = "".join(f" {row[key]:10.4g}" for key in ("median", "min", "max"))
        print(f"{name:<{width}}{numbers}   {row[last]}".rstrip())
    print()


def environment() -> dict[str, Any]:
    """Command, versions and hardware; of paths in the command only the last part is kept."""
    import torch  # not needed by the processes of `scaling`

    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return {
        "command": " ".join(["python scripts/benchmark", *words]),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [device.device_kind for device in jax.devices()],
        "cores": len(os.sched_getaffinity(0)),
        "torch threads": torch.get_num_threads(),
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def check(
    what: str,
    found: np.ndarray,
    expected: np.ndarray,
    *,
    relative: float = 0.0,
    absolute: float = 0.0,
) -> dict[str, float]:
    """The largest difference and the tolerances; SystemExit if both sides do not agree: then times
    say nothing."""
    worst = float(np.abs(found - expected).max())
    if not np.allclose(found, expected, rtol=relative, atol=absolute):
        raise SystemExit(
            f"{what}: the two sides differ by {worst:.3g} and nothing was timed (allowed: "
            f"{relative=}, {absolute=})"
        )
    return {
        "largest difference": worst,
        "relative tolerance": relative,
        "absolute tolerance": absolute,
    }

"""What `hp-jax speed` measured, as text and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from hp_jax.report.html import Item, Listing
from hp_jax.report.pictures.style import INK, STYLES, WIDTH, picture, styled, to_png, to_svg
from hp_jax.storage.files import write_whole

Rows = list[dict[str, Any]]
"""The rows of speed.json: one for each length, batch, mode and side, the original's side first."""


def write(rows: Rows, folder: Path, device: str) -> str:
    """Writes `folder`/speed.png and speed.svg; the tables as text."""
    figure = plot(rows)
    write_whole(folder / "speed.png", to_png(figure))
    write_whole(folder / "speed.svg", to_svg(figure))
    return "\n".join(tables(rows, device))


def section(rows: Rows, device: str) -> list[Item]:
    """The same for the page of an experiment: how fast the model is without half of its heads
    (Table 4)."""
    first = rows[0]
    lines = [
        {
            "mode": row["mode"],
            "batch": row["batch"],
            "tokens": row["length"],
            "side": row["side"],
            "heads": row["heads"],
            "per second": row["per_second"],
            "times as fast": row["ratio"]["median"],
            "95 % from": row["ratio"]["low"],
            "to": row["ratio"]["high"],
            "FLOP bound": math.nan if row["bound"] is None else row["bound"],
        }
        for row in rows
    ]
    words = (
        f"Examples or sentences a second on {device}, medians of "
        f"{len(first['per_second_rounds'])} rounds, and how many times as fast as the original in "
        "the same round, laid out after the paper's Table 4; random tokens, none of them padding."
    )
    return [
        f"Half of the heads are really removed, the least important first: {lines[-1]['heads']} of "
        f"{first['heads']} are left.",
        picture("speed", plot(rows), "Speed against the share of heads removed."),
        Listing("speed", lines, words),
    ]


def tables(rows: Rows, device: str) -> list[str]:
    """What each side is; how fast, laid out as the paper's Table 4, a table a mode and length; and
    everything beside it."""
    lines = [f"{device}; medians of {len(rows[0]['per_second_rounds'])} rounds", ""]
    sides = {row["side"]: row for row in rows}
    cells = [["side", "heads", "parameters", "MiB", "heads of each row"]]
    for name, row in sides.items():
        counts = " ".join(map(str, row["heads_per_row"].values()))
        cells.append(
            [
                name,
                str(row["heads"]),
                f"{row['parameters'] / 1e6:.2f} M",
                f"{row['bytes'] / 2**20:.1f}",
                counts,
            ]
        )
    lines += [*_aligned(cells), ""]
    for (mode, length), panel in _panels(rows).items():
        unit = "sentences/s (tokens/s)" if "tokens_per_second" in panel[0] else "examples/s"
        batches = list(dict.fromkeys(row["batch"] for row in panel))
        lines += [
            f"{mode}, {length} tokens: {unit}, and how much faster than the original in the same "
            "round",
            "",
        ]
        cells = [["side", *(f"batch {examples}" for examples in batches)]]
        for name in sides:
            cells.append(
                [name, *(_rate(row, rows[0]["side"]) for row in panel if row["side"] == name)]
            )
        lines += [*_aligned(cells), ""]
    cells = [["mode", "batch", "length", "side", "x as fast", "95 %", "FLOP bound", "of its gain"]]
    cells[0] += ["p50 ms", "p90", "p99", "calls", "GFLOP", "activations MiB", "program MiB"]
    return lines + _aligned(cells + [_details(row) for row in rows])


def _rate(row: Mapping[str, Any], original: str) -> str:
    tokens = f" ({row['tokens_per_second']:.4g})" if "tokens_per_second" in row else ""
    change = "" if row["side"] == original else f" {100 * (row['ratio']['median'] - 1):+.1f} %"
    return f"{row['per_second']:.4g}{tokens}{change}"


def _details(row: Mapping[str, Any]) -> list[str]:
    ratio, times = row["ratio"], row["milliseconds"]
    reached = "-" if row["gain_reached"] is None else f"{row['gain_reached']:.0%}"
    return [
        *(str(row[name]) for name in ("mode", "batch", "length", "side")),
        f"{ratio['median']:.3f}",
        f"{ratio['low']:.3f}-{ratio['high']:.3f}",
        "-" if row["bound"] is None else f"{row['bound']:.3f}",
        reached,
        *(f"{times[name]:.4g}" for name in ("p50", "p90", "p99")),
        str(times["calls"]),
        "-" if row["flops"] is None else f"{row['flops'] / 1e9:.4g}",
        *(f"{row[name] / 2**20:.4g}" for name in ("temp_bytes", "program_bytes")),
    ]


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    ]


def _panels(rows: Rows) -> dict[tuple[str, int], Rows]:
    """The rows of each mode and length."""
    panels: dict[tuple[str, int], Rows] = {}
    for row in rows:
        panels.setdefault((row["mode"], row["length"]), []).append(row)
    return panels


@styled
def plot(rows: Rows) -> Figure:
    """Speed-up against the share of heads removed, a line a batch beside the FLOP bound; a panel a
    mode and length."""
    panels = _panels(rows)
    figure = Figure(
        figsize=(WIDTH if len(panels) > 1 else 0.7 * WIDTH, 3.9 * math.ceil(len(panels) / 3)),
        layout="constrained",
    )
    grid = figure.subplots(
        math.ceil(len(panels) / 3), min(len(panels), 3), squeeze=False, sharey=True
    ).ravel()
    for axes in grid[len(panels) :]:
        axes.remove()
    for axes, ((mode, length), panel) in zip(grid, panels.items(), strict=False):
        axes.axhline(1, color=INK, linewidth=1, linestyle=":")
        for number, examples in enumerate(dict.fromkeys(row["batch"] for row in panel)):
            line = [row for row in panel if row["batch"] == examples]
            share = [100 * row["share_removed"] for row in line]
            ratio = [row["ratio"] for row in line]
            style = {key: values[number % len(values)] for key, values in STYLES.items()}
            low, high = ([one[end] for one in ratio] for end in ("low", "high"))
            axes.fill_between(share, low, high, color=style["color"], alpha=0.13, linewidth=0)
            axes.plot(
                share,
                [one["median"] for one in ratio],
                label=f"batch {examples}",
                linewidth=1.8,
                markersize=5,
                **style,
            )
        if line[0]["bound"] is not None:
            axes.plot(
                share, [row["bound"] for row in line], color=INK, linewidth=1, label="FLOP bound"
            )
        axes.set(xlabel="share of heads removed (%)", title=f"{mode}, {length} tokens")
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        axes.set_axisbelow(True)
    for row in range(0, len(panels), 3):
        grid[row].set_ylabel("times as fast as with all heads")
    grid[0].legend(loc="best")
    return figure

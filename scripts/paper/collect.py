"""A page of what `hp-jax reproduce` found in some experiments, with its pictures beside it, as
docs/results has them.

python scripts/paper/collect.py docs/results runs/eutrans runs/pt_en

A folder of its own for each experiment gets a page, pictures and claims.csv; claims.md has what
became of each claim of the paper's in all experiments that have a folder there, those of earlier
calls too.
"""

import csv
import sys
from pathlib import Path

from hp_jax.report.html import Listing, Picture, as_csv
from hp_jax.report.page import read_page
from hp_jax.storage.files import write_whole

PICTURES = (
    "one_off",
    "one_off_histogram",
    "two_splits",
    "pruning",
    "pruning_per",
    "pruning_types",
    "epochs",
    "seeds",
    "speed",
)
TABLES = (
    "claims",
    "one_off_grid",
    "one_on_layers",
    "one_on_best",
    "one_on_chosen",
    "two_splits",
    "pruning_areas",
    "epochs",
    "seeds_areas",
    "speed",
)
"""What is shown, by the name up to the first hyphen."""


def markdown(listing: Listing) -> str:
    """A table and its caption."""
    lines = [listing.headings, ["---"] * len(listing.headings)]
    lines += [[listing.cell(*cell) for cell in row.items()] for row in listing.shown]
    table = "\n".join(
        f"| {' | '.join(cell.replace('*', chr(92) + '*').replace('|', '/') for cell in line)} |"
        for line in lines
    )
    note = f" {listing.note}" if listing.note else ""
    return f"{listing.caption.replace('*', chr(92) + '*')}{note}\n\n{table}\n"


def collect(folder: Path, out: Path) -> None:
    """Writes the page of one experiment, its pictures and its claims."""
    name = folder.resolve().name
    (out / name).mkdir(parents=True, exist_ok=True)
    parts = [f"# {name}\n"]
    for title, items in read_page(folder).sections:
        shown: list[str] = []
        for item in items:
            if isinstance(item, Picture) and item.name.partition("-")[0] in PICTURES:
                write_whole(out / name / f"{item.name}.png", item.png)
                shown.append(f"![{item.caption}]({item.name}.png)\n\n{item.caption}\n")
            elif isinstance(item, Listing) and item.name.partition("-")[0] in TABLES:
                shown.append(markdown(item))
                if item.name == "claims":
                    write_whole(out / name / "claims.csv", as_csv(item.rows).encode())
            elif isinstance(item, str):
                shown.append(f"{item}\n")
        if any(text.startswith(("!", "|")) or "|" in text for text in shown) or title == "Summary":
            parts += [f"## {title}\n", *shown]
    write_whole(out / name / "index.md", "\n".join(parts).encode())


def index(out: Path) -> str:
    """Each claim, and what became of it in each experiment."""
    found: dict[str, list[str]] = {}
    for path in sorted(out.glob("*/claims.csv")):
        name = path.parent.name
        for row in csv.DictReader(path.read_text().splitlines()):
            cells = [f"[{name}]({name}/index.md)", f"**{row['verdict']}**", row["here"]]
            claim = f"{row['claim']} ({row['exhibit']})"
            found.setdefault(claim, []).append(f"| {' | '.join([*cells, row['splits']])} |")
    head = "| experiment | verdict | here | splits |\n|---|---|---|---|"
    return "\n".join("\n".join([f"## {claim}\n", head, *rows, ""]) for claim, rows in found.items())


def main(out: Path, folders: list[Path]) -> None:
    """Writes all pages."""
    for folder in folders:
        collect(folder, out)
    write_whole(out / "claims.md", f"# The paper's claims\n\n{index(out)}".encode())


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("expected a folder for the pages, and the folders of experiments")
    main(Path(sys.argv[1]), list(map(Path, sys.argv[2:])))

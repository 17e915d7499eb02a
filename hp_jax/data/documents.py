"""Documents: a line, a paragraph or a file of text each, or a column of a table."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hp_jax.config_data import DocumentData
from hp_jax.data.columns import Columns, FindColumns
from hp_jax.data.parquet import read_parquet
from hp_jax.data.split_files import split_files
from hp_jax.data.splits import FromSplit, read_split
from hp_jax.data.tables import TEXT_EXTENSIONS, Table, read_table, read_text

log = logging.getLogger("hp_jax")

COLUMNS = ("text", "content", "document", "sentence")
"""The names that a column of documents usually has."""
EXTENSIONS = (*TEXT_EXTENSIONS, "parquet")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Documents(FromSplit):
    """N documents."""

    text: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.text)


def read(data: DocumentData, split: str) -> Documents:
    """The documents of a split such as `validation` or `train[:500]`.

    A slice is a random sample (see `splits.take`); documents keep the order of the file.  Empty
    ones are dropped, and their number is in a warning.  FileNotFoundError or ValueError, with the
    file, for whatever cannot be read.
    """
    return read_split(split, functools.partial(read_whole, data))


def read_whole(data: DocumentData, name: str) -> Documents:
    """The documents of a whole split; see `read`."""
    files = split_files(data.path, data.files, name, EXTENSIONS, "documents")
    plain = files[0].with_suffix("") if files[0].suffix == ".gz" else files[0]
    if files[0].suffix == ".parquet":
        table = read_parquet(files, _column(data))
    elif plain.suffix in (".tsv", ".csv", ".jsonl"):
        table = read_table(files[0], _column(data))
    else:
        table = _plain(files[0], data)
    kept = [n for n, (text,) in enumerate(table.rows) if text.strip()]
    if len(kept) < len(table.rows):
        log.warning("%s: dropped empty documents: %d", table.file, len(table.rows) - len(kept))
    if not kept:
        raise ValueError(f"{table.file}: expected documents, but there are none")
    return Documents(
        text=tuple(table.rows[n][0] for n in kept),
        files={name: table.file},
        line_N=np.array([table.lines[n] for n in kept], np.int64),
        origin_N=np.arange(len(kept)),
    )


def _plain(path: Path, data: DocumentData) -> Table:
    """A file of text alone; only a line feed ends a line."""
    text = read_text(path).replace("\r\n", "\n")
    if data.documents == "file":
        return Table(str(path), ((text,),), (1,))
    text = re.sub(r"(?m)^[^\S\n]+$", "", text)  # a line of blanks is empty
    form = r"[^\n]+" if data.documents == "line" else r"[^\n]+(?:\n[^\n]+)*"
    found = list(re.finditer(form, text))
    starts = np.cumsum([0, *(len(line) + 1 for line in text.split("\n"))])
    lines = np.searchsorted(starts, [match.start() for match in found], side="right")
    return Table(str(path), tuple((match[0],) for match in found), tuple(map(int, lines)))


def _column(data: DocumentData) -> Columns | FindColumns:
    if data.text:
        return ((data.text,),)

    def find(there: Sequence[str], where: str) -> Columns:
        known = [name for name in COLUMNS if name in there]
        if len(known) == 1:
            return (known,)
        either = f" ({' or '.join(known)}?)" if known else ""
        raise ValueError(
            f"{where}: cannot tell which column has the documents{either}: name it with "
            f"--data.text; the columns are {', '.join(there)}"
        )

    return find

"""Columns of parquet files, as hubs of data sets ship them, read by pyarrow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hp_jax.data.columns import Columns, FindColumns
from hp_jax.data.tables import Table, find_column, text_of
from hp_jax.storage.files import read_bytes


def read_parquet(paths: Sequence[Path], columns: Columns | FindColumns) -> Table:
    """Some columns of the parquet files that a split consists of, one after the other, as text, as
    for other files (`tables.read_table`); of class labels the names, if the files say them.

    Lines count rows from 1, through all files.  FileNotFoundError; ValueError, with the file, for
    what is not whole, for a column that is missing or neither of text nor of integers, and for a
    split without examples.
    """
    names, rows = columns, []
    for path in paths:
        table = _read(path)
        there = table.column_names
        names = names(there, str(path)) if callable(names) else names
        found = [find_column(wanted, there, str(path)) for wanted in names]
        values = [_values(table, column, path) for column in found]
        rows += list(zip(*values, strict=True))
    where = str(paths[0])
    if len(paths) > 1:
        where = re.sub(r"-\d+(-of-\d+\.parquet)$", r"-*\1", where)
    if not rows:
        raise ValueError(f"{where}: expected examples, but the file has none")
    return Table(where, tuple(rows), tuple(range(1, len(rows) + 1)))


def read_records(paths: Sequence[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(1-based number through all files, row by column) of each row of the parquet files that a
    split consists of.  FileNotFoundError; ValueError for a file that is not whole."""
    return enumerate((row for path in paths for row in _read(path).to_pylist()), 1)


def shards(folder: Path, split: str) -> list[Path]:
    """The files `SPLIT-00000-of-00002.parquet`, ... of a split, in order; none if there are none.
    FileNotFoundError if some of them are missing."""
    form = re.compile(rf"{re.escape(split)}-(\d+)-of-(\d+)\.parquet")
    there = folder.iterdir() if folder.is_dir() else ()
    found = sorted(path for path in there if form.fullmatch(path.name))
    count = int(re.sub(form, r"\2", found[0].name)) if found else 0
    numbers = [tuple(map(int, re.findall(form, path.name)[0])) for path in found]
    if numbers != [(number, count) for number in range(count)]:
        raise FileNotFoundError(
            f"{folder} has {', '.join(path.name for path in found)}: expected the split "
            f"{split!r} in {count} files, numbered from 0"
        )
    return found


def _read(path: Path) -> Any:
    """A file's `pyarrow.Table`."""
    import pyarrow
    from pyarrow import parquet

    data = read_bytes(path)
    try:
        return parquet.read_table(pyarrow.BufferReader(data))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        cause = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path}: expected a whole parquet file, but: {cause}") from error


def _values(table: Any, column: str, path: Path) -> list[str]:
    """A column as text."""
    import pyarrow

    kind = table.schema.field(column).type
    inside = kind.value_type if pyarrow.types.is_dictionary(kind) else kind
    is_a = pyarrow.types
    is_text = is_a.is_string(inside) or is_a.is_large_string(inside) or is_a.is_string_view(inside)
    if not (is_text or is_a.is_integer(inside) or is_a.is_boolean(inside)):
        raise ValueError(
            f"{path}: expected text or integers in the column {column!r}, but found {kind}"
        )
    names = () if is_text else _class_names(table, column)
    try:
        values = table.column(column).to_pylist()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: the column {column!r} has text that is not UTF-8") from error
    return [
        names[value]
        if names and isinstance(value, int) and 0 <= value < len(names)
        else text_of(value, f"{path}:{number}: column {column!r}")
        for number, value in enumerate(values, 1)
    ]


def _class_names(table: Any, column: str) -> Sequence[str]:
    """What the numbers of a column stand for, in order, if its file was written by Hugging Face's
    `datasets`, which says so in the schema; else none."""
    said = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    try:
        names = json.loads(said)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):
        return ()
    is_text = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names if is_text else ()

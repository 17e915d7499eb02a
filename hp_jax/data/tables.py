"""Labelled text, and reading its columns from .tsv, .txt, .csv and .jsonl files, each also with
.gz."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import itertools
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hp_jax.data.columns import Columns, FindColumns
from hp_jax.storage.files import parse_json, read_bytes

TEXT_EXTENSIONS = ("tsv", "txt", "csv", "jsonl")
_MARKS = ("\ufeff".encode(), "\ufeff".encode().decode("latin-1").encode())
"""The byte-order mark, and the same encoded twice, as at the start of MRPC's files."""

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The wanted columns of a file: `rows[n]` starts on the 1-based line `lines[n]`."""

    file: str
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def read_table(
    path: str | Path,
    columns: Columns | FindColumns,
    *,
    header: Sequence[str] = (),
    drop_short: bool = False,
) -> Table:
    """Some columns of a file, each given by the names it may have; or by a function that finds them
    among those that are there.

    path: .tsv or .txt (tabs, no quoting, as GLUE is distributed), .csv (quoted) or .jsonl (an
    object a line), also with .gz;
        UTF-8, undecodable bytes replaced with a warning.
    header: the names of a file without a header line; a first line that does have all wanted
    columns is a header all the same.
    drop_short: rows with too few fields are dropped (and counted in a warning) and superfluous
    fields ignored, as in TFDS;
        otherwise both are errors.

    FileNotFoundError; ValueError, with file and line, for a missing column, a wrong number of
    fields or a broken line, and for a file without examples.
    """
    path = Path(path)
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower().lstrip(".")
    if suffix not in TEXT_EXTENSIONS:
        raise ValueError(
            f"{path}: expected a file name that ends in .{', .'.join(TEXT_EXTENSIONS)}, each "
            "possibly with .gz, or in .parquet"
        )
    text = read_text(path)
    if suffix == "jsonl":
        records: Iterator[tuple[int, tuple[str, ...]]] = _select_keys(
            _objects(text, path), columns, path
        )
    else:
        fields = _csv_fields(text, path) if suffix == "csv" else _tsv_fields(text)
        records = _select_fields(fields, columns, path, header, drop_short)
    lines, rows = [], []
    for line, row in records:
        lines.append(line)
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}: expected examples, but the file has none")
    return Table(str(path), tuple(rows), tuple(lines))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, also with .gz, without a byte-order mark; undecodable bytes are
    replaced with a warning."""
    return decode_text(_bytes(path), path)


def _bytes(path: Path) -> bytes:
    data = read_bytes(path)
    try:
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file, but {str(error).lower()}") from error


def decode_text(data: bytes, where: object) -> str:
    """UTF-8 without a byte-order mark; undecodable bytes are replaced with a warning."""
    for mark in _MARKS:
        data = data.removeprefix(mark)
    try:
        return data.decode()
    except UnicodeDecodeError:
        broken = sum(not _is_utf8(line) for line in data.split(b"\n"))
        log.warning(
            "%s: lines that are not UTF-8, in which U+FFFD stands for what could not be read: %d",
            where,
            broken,
        )
        return data.decode(errors="replace")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(1-based number, content) of each line that is not blank; only a line feed ends a line, not
    U+2028 or U+0085."""
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if line.strip(" "):
            yield number, line


def _tsv_fields(text: str) -> Iterator[tuple[int, list[str]]]:
    return ((number, line.split("\t")) for number, line in _lines(text))


def _csv_fields(text: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for fields in reader:
            if fields:
                yield start, fields
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}:{start}: expected comma-separated fields, but {error}") from error


def read_objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """(1-based line, object) of each line of a .jsonl file, also with .gz, that is not blank.
    ValueError, with file and line, for what is no JSON object."""
    return _objects(read_text(path), path)


def _objects(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in _lines(text):
        value = parse_json(line, f"{path}:{number}")
        if not isinstance(value, dict):
            raise ValueError(
                f"{path}:{number}: expected a JSON object, but found {type(value).__name__}"
            )
        yield number, value


def find_column(names: Sequence[str], there: Iterable[str], where: str) -> str:
    """The column that has one of these names.  ValueError for none, and for several of one name."""
    there = list(there)
    for name in names:
        if there.count(name) > 1:
            raise ValueError(f"{where}: expected one column {name!r}, but there are several")
        if name in there:
            return name
    raise ValueError(
        f"{where}: there is no column {' or '.join(map(repr, names))}; the columns are "
        f"{', '.join(there)}"
    )


def _wanted(columns: Columns | FindColumns, there: Sequence[str], where: str) -> Columns:
    return columns(there, where) if callable(columns) else columns


def _select_fields(
    records: Iterator[tuple[int, list[str]]],
    columns: Columns | FindColumns,
    path: Path,
    header: Sequence[str],
    drop_short: bool,
) -> Iterator[tuple[int, tuple[str, ...]]]:
    line, first = next(records, (0, []))
    if not first:
        return
    named = not header or (
        not callable(columns) and all(any(name in first for name in names) for names in columns)
    )
    names_there, where = (
        [name.strip() for name in first] if named else list(header),
        f"{path}:{line}",
    )
    found = [
        find_column(names, names_there, where) for names in _wanted(columns, names_there, where)
    ]
    places = [names_there.index(name) for name in found]
    short = 0
    for number, fields in records if named else itertools.chain([(line, first)], records):
        if len(fields) < len(names_there) and drop_short:
            short += 1
            continue
        if len(fields) != len(names_there) and not drop_short:
            raise ValueError(
                f"{path}:{number}: expected {len(names_there)} fields, but found {len(fields)}"
            )
        yield number, tuple(fields[place] for place in places)
    if short:
        log.warning("%s: dropped rows with too few fields: %d", path, short)


def _select_keys(
    records: Iterator[tuple[int, dict[str, object]]], columns: Columns | FindColumns, path: Path
) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, found in records:
        where = f"{path}:{number}"
        columns = _wanted(columns, list(found), where)
        keys = [find_column(names, found, where) for names in columns]
        yield number, tuple(text_of(found[key], f"{where}: column {key!r}") for key in keys)


def text_of(value: object, where: str) -> str:
    """A string, or an integer in digits.  ValueError for anything else."""
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)  # half of a surrogate pair is no text
    if isinstance(value, int):
        return str(int(value))
    raise ValueError(f"{where}: expected a string or an integer, but found {value!r}")

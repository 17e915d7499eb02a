"""Labelled text, and reading its columns from .tsv, .txt, .csv and .jsonl files, each also with .gz."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import itertools
import json
import logging
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

EXTENSIONS = ("tsv", "txt", "csv", "jsonl")
_MARKS = ("\ufeff".encode(), "\ufeff".encode().decode("latin-1").encode())
"""The byte-order mark, and the same encoded twice, as at the start of MRPC's files."""

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
    """N examples of one or two texts each, with a label, and where each of them comes from."""

    name: str
    """The task."""
    split: str
    """The split of which these are some or all, without a slice."""
    text: tuple[tuple[str, ...], ...]
    label: tuple[str, ...]
    """Names, not indices."""
    source: str
    """The file (or prepared folder and split) that was read."""
    line_N: np.ndarray
    """1-based line in the file on which each example starts; int64."""
    origin_N: np.ndarray
    """0-based place of each example in its whole split, ascending; int64."""

    def __len__(self) -> int:
        return len(self.label)

    @property
    def file(self) -> str:
        """The same as `source`."""
        return self.source

    def where(self, index: int) -> str:
        """`file:line` of one example."""
        return f"{self.source}:{self.line_N[index]}"


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """The wanted columns of a file: `rows[n]` starts on the 1-based line `lines[n]`."""

    file: str
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


# --- slices ---------------------------------------------------------------------------------------------------------------


class Sliceable(Protocol):
    """Examples of a split that know where they come from: `Labelled` and `Parallel`."""

    @property
    def split(self) -> str:
        """The split of which these are some or all."""

    @property
    def file(self) -> str:
        """What was read."""

    @property
    def origin_N(self) -> np.ndarray:
        """0-based place of each example in its whole split, ascending."""

    def __len__(self) -> int: ...


T = TypeVar("T", bound=Sliceable)

_SPLIT = re.compile(r"([\w./-]+)(?:\[\s*(-?\d+%?)?\s*:\s*(-?\d+%?)?\s*\])?")


def parse_split(split: str) -> tuple[str, str | None, str | None]:
    """`train[:50%]` as (`train`, None, `50%`); a split without a slice has no bounds.  ValueError for any other form."""
    match = _SPLIT.fullmatch(split)
    if not match:
        raise ValueError(f"cannot read the split {split!r}: expected a form such as train, train[:5000] or validation[50%:]")
    name, start, stop = match.groups()
    return name, start, stop


def take(examples: T, start: str | None, stop: str | None) -> T:
    """The examples between two positions of one fixed pseudo-random order of the whole split, back in the order of the file.

    So every slice is a random sample, and two slices of one split have examples in common exactly if their ranges overlap.  The
    order is numpy's `RandomState(0).permutation(n)`, which numpy keeps frozen. Bounds are TFDS's: counts, or per cent
    rounded to the closest count, negative ones from the end; as in Python a count beyond the end means the end. ValueError
    for an empty slice.
    """
    n = len(examples)
    first, last, _ = slice(_position(start, n), _position(stop, n)).indices(n)
    if first >= last:
        raise ValueError(f"the slice {examples.split}[{start or ''}:{stop or ''}] is empty: {examples.file} has {n} examples")
    chosen = np.sort(np.random.RandomState(0).permutation(n)[first:last])
    columns = {name: value for name, value in vars(examples).items() if isinstance(value, tuple | np.ndarray)}
    changed = {name: v[chosen] if isinstance(v, np.ndarray) else tuple(v[i] for i in chosen) for name, v in columns.items()}
    return dataclasses.replace(examples, **changed)  # type: ignore[type-var]


def _position(bound: str | None, n: int) -> int | None:
    if bound is None or not bound.endswith("%"):
        return None if bound is None else int(bound)
    percent = int(bound[:-1])
    if abs(percent) > 100:
        raise ValueError(f"a slice bound lies between -100% and 100%, but got {bound}")
    return round(percent * n / 100)


def overlap(a: Sliceable, b: Sliceable) -> int:
    """How many examples `a` and `b` have in common: same file, same place."""
    return len(np.intersect1d(a.origin_N, b.origin_N)) if a.file == b.file else 0


# --- labels ---------------------------------------------------------------------------------------------------------------


def label_name(value: str, labels: Sequence[str], where: str) -> str:
    """`value` as one of `labels`: it is either a name or, unless names are themselves numbers, a 0-based index."""
    value = value.strip()
    if value in labels:
        return value
    if value.isdecimal() and int(value) < len(labels) and not any(label.isdecimal() for label in labels):
        return labels[int(value)]
    raise ValueError(f"{where}: {value!r} is not a label; the labels are {', '.join(labels)}")


# --- files ----------------------------------------------------------------------------------------------------------------


def read_table(
    path: str | Path, columns: Sequence[Sequence[str]], *, header: Sequence[str] = (), drop_short: bool = False
) -> Table:
    """Some columns of a file, each given by the names it may have.

    path: .tsv or .txt (tabs, no quoting, as GLUE is distributed), .csv (quoted) or .jsonl (an object a line), also with .gz;
        UTF-8, undecodable bytes replaced with a warning.
    header: the names of a file without a header line; a first line that does have all wanted columns is a header all the same.
    drop_short: rows with too few fields are dropped (and counted in a warning) and superfluous fields ignored, as in TFDS;
        otherwise both are errors.

    FileNotFoundError; ValueError, with file and line, for a missing column, a wrong number of fields or a broken line, and
    for a file without examples.
    """
    path = Path(path)
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower().lstrip(".")
    if suffix not in EXTENSIONS:
        raise ValueError(f"{path}: expected a file name that ends in .{', .'.join(EXTENSIONS)}, each possibly with .gz")
    text = read_text(path)
    if suffix == "jsonl":
        records: Iterator[tuple[int, tuple[str, ...]]] = _select_keys(_objects(text, path), columns, path)
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
    """The text of a UTF-8 file, also with .gz, without a byte-order mark; undecodable bytes are replaced with a warning."""
    return _decode(_bytes(path), path)


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    data = path.read_bytes()
    try:
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected a whole gzip file, but {str(error).lower()}") from error


def _decode(data: bytes, path: Path) -> str:
    for mark in _MARKS:
        data = data.removeprefix(mark)
    try:
        return data.decode()
    except UnicodeDecodeError:
        broken = sum(not _is_utf8(line) for line in data.split(b"\n"))
        log.warning("%s: lines that are not UTF-8, in which U+FFFD stands for what could not be read: %d", path, broken)
        return data.decode(errors="replace")


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """(1-based number, content) of each line that is not blank; only a line feed ends a line, not U+2028 or U+0085."""
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


def _objects(text: str, path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    for number, line in _lines(text):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: expected a JSON object, but {error}") from error
        if not isinstance(value, dict):
            raise ValueError(f"{path}:{number}: expected a JSON object, but found {type(value).__name__}")
        yield number, value


def _find(names: Sequence[str], there: Iterable[str], where: str) -> str:
    there = list(there)
    for name in names:
        if name in there:
            return name
    raise ValueError(f"{where}: there is no column {' or '.join(map(repr, names))}; the columns are {', '.join(there)}")


def _select_fields(
    records: Iterator[tuple[int, list[str]]],
    columns: Sequence[Sequence[str]],
    path: Path,
    header: Sequence[str],
    drop_short: bool,
) -> Iterator[tuple[int, tuple[str, ...]]]:
    line, first = next(records, (0, []))
    if not first:
        return
    named = not header or all(any(name in first for name in names) for names in columns)
    names_there = [name.strip() for name in first] if named else list(header)
    places = [names_there.index(_find(names, names_there, f"{path}:{line}")) for names in columns]
    short = 0
    for number, fields in records if named else itertools.chain([(line, first)], records):
        if len(fields) < len(names_there) and drop_short:
            short += 1
            continue
        if len(fields) != len(names_there) and not drop_short:
            raise ValueError(f"{path}:{number}: expected {len(names_there)} fields, but found {len(fields)}")
        yield number, tuple(fields[place] for place in places)
    if short:
        log.warning("%s: dropped rows with too few fields: %d", path, short)


def _select_keys(
    records: Iterator[tuple[int, dict[str, object]]], columns: Sequence[Sequence[str]], path: Path
) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, found in records:
        where = f"{path}:{number}"
        keys = [_find(names, found, where) for names in columns]
        yield number, tuple(_string(found[key], f"{where}: column {key!r}") for key in keys)


def _string(value: object, where: str) -> str:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)  # half of a surrogate pair is no text
    if isinstance(value, int):
        return str(int(value))
    raise ValueError(f"{where}: expected a string or an integer, but found {value!r}")

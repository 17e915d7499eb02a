"""Labelled text: GLUE tasks and data of one's own, from files or tensorflow-datasets."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hp_jax.config import Data
from hp_jax.data import tfds
from hp_jax.data.columns import Columns, FindColumns, find_columns
from hp_jax.data.glue import TaskSpec, spec
from hp_jax.data.parquet import read_parquet, shards
from hp_jax.data.splits import FromSplit, parse_split, read_split
from hp_jax.data.tables import TEXT_EXTENSIONS, Table, read_table
from hp_jax.storage.files import local

EXTENSIONS = (*TEXT_EXTENSIONS, "parquet")

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Labelled(FromSplit):
    """N examples of one or two texts each, with a label."""

    name: str
    """The task."""
    text: tuple[tuple[str, ...], ...]
    label: tuple[str, ...]
    """Names, not indices."""

    def __len__(self) -> int:
        return len(self.label)


def label_name(
    value: str, labels: Sequence[str], where: str, *, numbered: Sequence[str] = ()
) -> str:
    """`value` as one of `labels`: it is either a name or, unless names are themselves numbers, a
    0-based index, into `numbered` if that is there."""
    value, numbered = value.strip(), numbered or labels
    if value in labels:
        return value
    if (
        value.isdecimal()
        and len(value) < 10
        and int(value) < len(labels)
        and not any(label.isdecimal() for label in labels)
    ):
        return numbered[int(value)]
    raise ValueError(
        f"{where}: {value!r} is not a label; the labels are {', '.join(labels)} (--data.labels "
        "names others, in the order of the model's outputs)"
    )


def read(data: Data, split: str) -> Labelled:
    """The examples of a split such as `train`, `train[:5000]` or `train[:50%]+validation`, from
    files or tensorflow-datasets.

    A slice is a random sample (see `splits.take`); examples keep the order of the file.  MNLI's
    `validation` is its matched one. FileNotFoundError or ValueError, with file and line, for
    whatever cannot be read.
    """
    return read_split(split, functools.partial(read_whole, data))


def read_whole(data: Data, name: str) -> Labelled:
    """The examples of a whole split; see `read`."""
    if data.task == "mnli" and name == "validation" and name not in _named(data)[1]:
        name = "validation_matched"
    own = spec(data)
    return _labelled(_table(data, name, own), data.task, name, own)


def labels_in(data: Data, split: str) -> tuple[str, ...]:
    """The labels that a split has, or those of which it is a slice, sorted, numbers as numbers.
    ValueError if they are not at least two, or as many as examples."""
    own = spec(data)
    names = dict.fromkeys(part.name for part in parse_split(split))
    tables = [_table(data, name, own) for name in names]
    rows = sum(len(table.rows) for table in tables)
    found = {row[-1].strip() for table in tables for row in table.rows}
    if not 1 < len(found) < max(rows, 3):
        raise ValueError(
            f"{tables[0].file}: expected labels, but the column has {len(found)} different values "
            f"in {rows} rows, such as {min(found)!r}; name the labels with --data.labels"
        )
    numbers = all(label.isdecimal() for label in found)
    return tuple(sorted(found, key=(lambda label: (int(label), label)) if numbers else str))


def _table(data: Data, split: str, own: TaskSpec) -> Table:
    """The text columns and, last, the label."""
    columns: Columns | FindColumns = (*own.text, own.label)
    if not (own.text and own.label):
        columns = functools.partial(find_columns, own.text, own.label)
    if data.format == "tfds":
        return tfds.read_table(data.path, own.builder, split, columns)
    first, *more = files = _files(data, split, own)
    if first.suffix == ".parquet" or more:
        return read_parquet(files, columns)
    return read_table(first, columns, header=own.header, drop_short=own.drop_short)


def _labelled(table: Table, task: str, split: str, own: TaskSpec) -> Labelled:
    kept = [i for i, row in enumerate(table.rows) if row[-1].strip() not in own.unlabelled]
    if len(kept) < len(table.rows):
        log.warning(
            "%s: dropped examples without a gold label: %d", table.file, len(table.rows) - len(kept)
        )
    if not kept:
        raise ValueError(
            f"{table.file}: expected examples with a gold label, but the file has none"
        )
    return Labelled(
        name=task,
        text=tuple(table.rows[i][:-1] for i in kept),
        label=tuple(
            label_name(
                table.rows[i][-1],
                own.labels,
                f"{table.file}:{table.lines[i]}",
                numbered=own.numbered,
            )
            for i in kept
        ),
        files={split: table.file},
        line_N=np.array([table.lines[i] for i in kept], np.int64),
        origin_N=np.arange(len(kept)),
    )


def _named(data: Data) -> tuple[Path, dict[str, str]]:
    """The folder, and the file of each split that `data` names; a file as `data.path` is the split
    `validation`."""
    path = local(data.path, "data.path")
    if path.is_file() and data.files:
        raise ValueError(
            f"data.path is the file {path}, but the folder with the files of data.files was "
            "expected"
        )
    return (path.parent, {"validation": path.name}) if path.is_file() else (path, dict(data.files))


def _files(data: Data, split: str, own: TaskSpec) -> list[Path]:
    """The file of a split: the one that `data` names, else the first that exists of the known
    names, in the folder or in the task's own folder in it; or all the parquet files of which it
    consists."""
    folder, files = _named(data)
    if split in files:
        return [folder / files[split]]
    if local(data.path, "data.path").is_file():
        raise ValueError(
            f"data.path is the one file {data.path}, which is the split validation (slices of it "
            f"are splits too, such as validation[:50%]): for the split {split!r} expected a folder "
            f"there, and the files in it as --data.files {split} NAME validation NAME"
        )
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder or file {folder} with the data of {data.task}")
    names = (*own.files.get(split, ()), *(f"{split}.{extension}" for extension in EXTENSIONS))
    for place in (folder, folder / data.task):
        for name in (name + gz for name in names for gz in ("", ".gz")):
            if (place / name).is_file():
                return [place / name]
        if found := shards(place, split):
            return found
    raise _no_file(data.task, split, folder, (*names, f"{split}-00000-of-N.parquet"), files, own)


def _no_file(
    task: str,
    split: str,
    folder: Path,
    names: Sequence[str],
    files: Mapping[str, str],
    own: TaskSpec,
) -> Exception:
    """What is wrong where no file was found for a split: its name, or that there is no file."""
    known = {**files, **own.files}
    if split in known:
        return FileNotFoundError(
            f"{folder} has no file for the split {split!r} of {task}: looked for {', '.join(names)}"
        )
    found = {
        re.sub(r"-\d+-of-\d+$", "", path.name.split(".")[0])
        for path in folder.iterdir()
        if set(path.suffixes[:1]) & {f".{e}" for e in EXTENSIONS}
    }
    there = sorted(known) if known else sorted(found)
    return ValueError(
        f"data.task {task!r} has no split {split!r} in {folder}; the splits are "
        f"{', '.join(there) or 'none'}"
    )

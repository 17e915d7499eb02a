"""A split of labelled text, from files or from tensorflow-datasets."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from hp_jax.config import Data
from hp_jax.data import tfds
from hp_jax.data.glue import TaskSpec, spec
from hp_jax.data.text import EXTENSIONS, Labelled, label_name, parse_split, read_table, take

log = logging.getLogger("hp_jax")


def read(data: Data, split: str) -> Labelled:
    """The examples of a split such as `train`, `train[:5000]` or `validation[50%:]`, from files or tensorflow-datasets.

    A slice is a random sample (see `text.take`); examples keep the order of the file.  MNLI's `validation` is its matched one.
    FileNotFoundError or ValueError, with file and line, for whatever cannot be read.
    """
    name, start, stop = parse_split(split)
    if data.task == "mnli" and name == "validation" and name not in dict(data.files):
        name = "validation_matched"
    own = spec(data)
    whole = tfds.read(data, name, own) if data.source == "tfds" else _read_file(data, name, own)
    return whole if start is None and stop is None else take(whole, start, stop)


def _read_file(data: Data, split: str, own: TaskSpec) -> Labelled:
    table = read_table(_file(data, split, own), (*own.text, own.label), header=own.header, drop_short=own.drop_short)
    kept = [i for i, row in enumerate(table.rows) if row[-1].strip() not in own.unlabelled]
    if len(kept) < len(table.rows):
        log.warning("%s: dropped examples without a gold label: %d", table.file, len(table.rows) - len(kept))
    if not kept:
        raise ValueError(f"{table.file}: expected examples with a gold label, but the file has none")
    return Labelled(
        name=data.task,
        split=split,
        text=tuple(table.rows[i][:-1] for i in kept),
        label=tuple(label_name(table.rows[i][-1], own.labels, f"{table.file}:{table.lines[i]}") for i in kept),
        source=table.file,
        line_N=np.array([table.lines[i] for i in kept], np.int64),
        origin_N=np.arange(len(kept)),
    )


def _file(data: Data, split: str, own: TaskSpec) -> Path:
    """The file of a split: the one that `data` names, else the first that exists of the known names."""
    folder = Path(data.path).expanduser()
    if split in dict(data.files):
        return folder / dict(data.files)[split]
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} with the files of {data.task}")
    names = (*own.files.get(split, ()), *(f"{split}.{extension}" for extension in EXTENSIONS))
    for name in (name + gz for name in names for gz in ("", ".gz")):
        if (folder / name).is_file():
            return folder / name
    known = {**dict(data.files), **own.files}
    if split not in known:
        found = {path.name.split(".")[0] for path in folder.iterdir() if set(path.suffixes[:1]) & {f".{e}" for e in EXTENSIONS}}
        there = sorted(known) if known else sorted(found)
        raise ValueError(f"{data.task} has no split {split!r} in {folder}; the splits are {', '.join(there) or 'none'}")
    raise FileNotFoundError(f"{folder} has no file for the split {split!r} of {data.task}: looked for {', '.join(names)}")

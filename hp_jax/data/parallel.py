"""Sentence pairs: a file a language, a .tsv file, tensorflow-datasets, or the test sets that
sacrebleu knows."""

from __future__ import annotations

import dataclasses
import functools
import logging
from pathlib import Path

import numpy as np

from hp_jax.config import ParallelData
from hp_jax.data import tfds
from hp_jax.data.splits import FromSplit, read_split
from hp_jax.data.tables import Table, read_table, read_text
from hp_jax.storage.files import local

log = logging.getLogger("hp_jax")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Parallel(FromSplit):
    """N sentences with their translations."""

    name: str
    """The data."""
    source: tuple[str, ...]
    target: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source)


def read_parallel(data: ParallelData, split: str) -> Parallel:
    """The pairs of a split such as `train`, `train[:5000]` or, of sacrebleu, `wmt14/full` or
    `wmt09+wmt10`.

    A slice is a random sample (see `splits.take`); pairs keep the order of the file.  Those with an
    empty side are dropped, and their number is in a warning.

    FileNotFoundError or ValueError, with the file, for whatever cannot be read; RuntimeError for
    what cannot be downloaded.
    """
    return read_split(split, functools.partial(read_whole, data))


def read_whole(data: ParallelData, name: str) -> Parallel:
    """The pairs of a whole split; see `read_parallel`."""
    read = {"files": _read_files, "tfds": _read_tfds, "sacrebleu": _read_sacrebleu}[data.format]
    return _parallel(read(data, name), data.name or f"{data.source}-{data.target}", name)


def _parallel(table: Table, name: str, split: str) -> Parallel:
    kept = [n for n, (source, target) in enumerate(table.rows) if source.strip() and target.strip()]
    if len(kept) < len(table.rows):
        first = next(
            line
            for line, row in zip(table.lines, table.rows, strict=True)
            if not all(map(str.strip, row))
        )
        dropped = len(table.rows) - len(kept)
        log.warning(
            "%s: dropped pairs with an empty side, the first on line %d: %d",
            table.file,
            first,
            dropped,
        )
    if not kept:
        raise ValueError(f"{table.file}: expected pairs of sentences, but there are none")
    return Parallel(
        name=name,
        source=tuple(table.rows[n][0] for n in kept),
        target=tuple(table.rows[n][1] for n in kept),
        files={split: table.file},
        line_N=np.array([table.lines[n] for n in kept], np.int64),
        origin_N=np.arange(len(kept)),
    )


def _read_files(data: ParallelData, split: str) -> Table:
    source, target = _files(data, split)
    if source == target:
        return read_table(
            source, ((data.source,), (data.target,)), header=(data.source, data.target)
        )
    return _read_two(source, target)


def _read_two(source: Path, target: Path) -> Table:
    """Line n of the one file is the translation of line n of the other."""
    sources, targets = _lines(source), _lines(target)
    if len(sources) != len(targets):
        raise ValueError(
            f"{source} has {len(sources)} lines, but {target} has {len(targets)}: expected as "
            "many, a translation for each"
        )
    return Table(
        f"{source} and {target.name}",
        tuple(zip(sources, targets, strict=True)),
        tuple(range(1, len(sources) + 1)),
    )


def _lines(path: Path) -> list[str]:
    """All lines, blank ones too; only a line feed ends a line, not U+2028 or U+0085."""
    *lines, rest = read_text(path).split("\n")
    return [line.rstrip("\r") for line in ([*lines, rest] if rest else lines)]


def _files(data: ParallelData, split: str) -> tuple[Path, Path]:
    """The two files of a split, or twice its only one: those that `data` names, else the first that
    exist."""
    folder = local(data.path, "data.path")
    named = {name: (folder / source, folder / target) for name, source, target in data.files}
    if split in named:
        return named[split]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"there is no folder {folder} with the files of {data.source}-{data.target}"
        )
    stems = ((f"{split}.{data.source}", f"{split}.{data.target}"), (f"{split}.tsv",))
    for names in stems:
        found = [path for path in (_existing(folder / name) for name in names) if path]
        if len(found) == len(names):
            return found[0], found[-1]
    pair, table = " with ".join(stems[0]), stems[1][0]
    raise FileNotFoundError(
        f"{folder} has no files for the split {split!r}: expected {pair}, or {table}, each "
        "possibly with .gz"
    )


def _existing(path: Path) -> Path | None:
    return next(
        (file for file in (path, path.with_name(f"{path.name}.gz")) if file.is_file()), None
    )


def _read_tfds(data: ParallelData, split: str) -> Table:
    if not data.name:
        raise ValueError(
            "pairs from tensorflow-datasets need the set's name, such as "
            "ted_hrlr_translate/pt_to_en"
        )
    return tfds.read_table(data.path, data.name, split, ((data.source,), (data.target,)))


def _read_sacrebleu(data: ParallelData, split: str) -> Table:
    """One of sacrebleu's test sets, which it keeps in $SACREBLEU (~/.sacrebleu); of several
    references the first."""
    from sacrebleu.utils import (
        get_available_testsets_for_langpair,
        get_reference_files,
        get_source_file,
    )

    pair = f"{data.source}-{data.target}"
    sets = get_available_testsets_for_langpair(pair)
    if split not in sets:
        raise ValueError(
            f"sacrebleu has no test set {split!r} for {pair}; it has "
            f"{', '.join(sorted(sets)) or 'none'}"
        )
    try:
        source, references = get_source_file(split, pair), get_reference_files(split, pair)
    except (Exception, SystemExit) as error:
        cause = (str(error).splitlines() or [""])[0]
        raise RuntimeError(
            f"sacrebleu could not get the test set {split} for {pair} ({type(error).__name__}: "
            f"{cause}): it needs the network "
            f"once, or a copy of its folder ~/.sacrebleu (or $SACREBLEU) from another machine"
        ) from error
    if len(references) > 1:
        log.warning("%s: references of which only the first is used: %d", split, len(references))
    return _read_two(Path(source), Path(references[0]))

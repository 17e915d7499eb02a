"""The file of a split, or the parquet files of which it consists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hp_jax.data.parquet import shards
from hp_jax.storage.files import local


def split_files(
    path: str, files: Sequence[tuple[str, str]], split: str, kinds: Sequence[str], what: str
) -> list[Path]:
    """The files of a split in the folder `data.path`; or `data.path` itself, if it is one file,
    which is the split `validation`.

    files: pairs of a split and the name of its file; of others the name is the split's, with one of
    the endings `kinds`, each also with .gz.  what: what they have, for messages.

    FileNotFoundError with what there is, or ValueError for another split than a file is.
    """
    place, named = local(path, "data.path"), dict(files)
    if place.is_file():
        if split != "validation" or named:
            wanted = "data.files" if named else f"the split {split!r}"
            raise ValueError(
                f"data.path is the one file {place}, which is the split validation: for {wanted} "
                "a folder was expected"
            )
        return [place]
    if not place.is_dir():
        raise FileNotFoundError(f"there is no folder or file {place} with {what}")
    names = [named[split]] if split in named else [f"{split}.{kind}" for kind in kinds]
    for name in (name + gz for name in names for gz in ("", ".gz")):
        if (place / name).is_file():
            return [place / name]
    if split not in named and (found := shards(place, split)):
        return found
    there = ", ".join(sorted(file.name for file in place.iterdir())) or "nothing"
    raise FileNotFoundError(
        f"{place} has no file for the split {split!r}: expected {' or '.join(names)}, or name it "
        f"with --data.files {split} NAME; there is {there}"
    )

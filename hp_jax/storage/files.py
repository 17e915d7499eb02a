"""Small files, read with clear errors and written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

from hp_jax.typed import decode

Kind = TypeVar("Kind")

_MARKS = ("config.json", "model.npz", "model.pt")
"""What a folder has that may be replaced."""


def local_folder(name: str) -> Path:
    """The folder `name`; ValueError for a bucket, which can have nothing but results in it."""
    if "://" in name:
        raise ValueError(f"{name} is a bucket, but models and reports need a folder on a disk")
    return Path(name)


def check_free(folder: Path, *, force: bool = False) -> None:
    """ValueError if there is something at `folder` that would be overwritten; with `force` it may
    be a folder."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but a folder to write to was expected")
    if not force and folder.exists() and any(folder.iterdir()):
        raise ValueError(
            f"{folder} is not empty; choose another folder, delete it, or overwrite it with --force"
        )


@contextmanager
def new_folder(folder: Path, *, force: bool) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` if all goes well."""
    check_free(folder, force=force)
    old = folder.exists() and any(folder.iterdir())
    if old and not any((folder / name).is_file() for name in _MARKS):
        raise ValueError(
            f"{folder} is not replaced, since it has no model ({', '.join(_MARKS)}); choose "
            "another folder"
        )
    folder = folder.absolute()
    new, away = (
        folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("new", "old")
    )
    new.mkdir(parents=True)
    try:
        yield new
        if old:
            folder.rename(away)
        new.rename(folder)
        shutil.rmtree(away, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if away.exists() and not folder.exists():
            away.rename(folder)


def write_whole(path: Path, content: bytes) -> None:
    """Writes `content`, so that `path` holds all of it or what it held before."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


@overload
def read_json(path: Path) -> dict[str, Any]: ...
@overload
def read_json(path: Path, kind: type[Kind]) -> Kind: ...
def read_json(path: Path, kind: Any = dict[str, Any]) -> Any:
    """The JSON in `path`, as `kind` (see `typed.decode`); FileNotFoundError if there is no such
    file, ValueError names the file and what in it is not as it should be."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON: {error}") from error
    return decode(kind, value, path)

"""Small files, read with clear errors and written whole or not at all; folders, of which only what
hp_jax wrote is ever replaced."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, overload

from hp_jax.typed import check_place, decode

Kind = TypeVar("Kind")

WRITTEN = "hp_jax_files.json"
"""The file of a folder that hp_jax has written which names all its files with their sizes."""
_KINDS = {
    stat.S_ISDIR: "a folder",
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


# --- reading -------------------------------------------------------------------------------------


def check_file(path: Path) -> Path:
    """The path of a file; FileNotFoundError if there is none, ValueError for a folder, a pipe or a
    device, which is never opened."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        link = ", but a link that leads nowhere" if path.is_symlink() else ""
        raise FileNotFoundError(f"there is no file {path}{link}") from None
    kind = next((name for test, name in _KINDS.items() if test(mode)), None)
    if kind:
        raise ValueError(f"{path} is {kind}, but a file was expected")
    return path


def read_bytes(path: Path) -> bytes:
    """The content of a file; see `check_file`."""
    return check_file(path).read_bytes()


@overload
def read_json(path: Path) -> dict[str, Any]: ...
@overload
def read_json(path: Path, kind: type[Kind]) -> Kind: ...
def read_json(path: Path, kind: Any = dict[str, Any]) -> Any:
    """The JSON in `path`, as `kind` (see `typed.decode`); FileNotFoundError if there is no such
    file, ValueError names the file and what in it is not as it should be."""
    return decode(kind, parse_json(read_bytes(path), path), path)


def parse_json(content: bytes | str, where: object) -> Any:
    """The value that JSON text has; ValueError if it is none."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from error
    except RecursionError:
        raise ValueError(f"{where} is not valid JSON: it is nested too deeply") from None


def local(name: str, what: str) -> Path:
    """The file or folder `name`, with `~` for the home; ValueError for an address or a bucket."""
    if "://" in name:
        raise ValueError(f"{what} is {name}, but expected on a disk: copy it there first")
    try:
        return Path(name).expanduser()
    except RuntimeError:
        raise ValueError(f"{what} is {name}, but there is no such home") from None


def inside(folder: Path, name: str) -> Path:
    """The file `name` of a folder, where another file names it; ValueError if it is elsewhere."""
    if not name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{folder} names the file {name!r}, but expected is one inside the folder")
    return folder / name


# --- writing -------------------------------------------------------------------------------------


def local_folder(name: str) -> Path:
    """The folder `name`; ValueError for a bucket, which can have nothing but results in it."""
    check_place(name)
    if "://" in name:
        raise ValueError(f"{name} is a bucket, but models and reports need a folder on a disk")
    return Path(name)


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


def check_free(folder: Path, *, force: bool = False) -> None:
    """ValueError if what is at `folder` may not be replaced: anything at all, or with `force` what
    is not known to be hp_jax's, file by file; nor a link, the home, the root, or a folder that
    one is in."""
    if folder.is_symlink():
        raise ValueError(f"{folder} is a link, but a folder to write to was expected")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file, but a folder to write to was expected")
    place = folder.resolve()
    for name, other in (("home", Path.home()), ("working directory", Path.cwd())):
        if place in (other.resolve(), *other.resolve().parents):
            raise ValueError(
                f"{folder} is or contains the {name} and is not written to; choose another folder"
            )
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not force:
        raise ValueError(
            f"{folder} is not empty; choose another folder, delete it, or overwrite it with --force"
        )
    foreign = _foreign(folder)
    if foreign:
        raise ValueError(
            f"{folder} is not replaced, since {foreign}; choose another folder, or delete it "
            "yourself"
        )


def is_ours(folder: Path) -> bool:
    """Whether nothing is in a folder that hp_jax did not write."""
    return not folder.exists() or not any(folder.iterdir()) or not _foreign(folder)


def _foreign(folder: Path) -> str:
    """What is not as hp_jax left it; empty if there is nothing."""
    if not (folder / WRITTEN).is_file():
        return f"it has no {WRITTEN}, which says what hp_jax wrote there"
    written = read_json(folder / WRITTEN, dict[str, int])
    for name, size in _files(folder).items():
        if name not in written:
            return f"hp_jax did not write {name} there"
        if size != written[name]:
            return f"{name} is no longer as hp_jax wrote it"
    return ""


def _files(folder: Path) -> dict[str, int]:
    """The sizes of everything in a folder but its folders and WRITTEN; links are not followed."""
    found = {
        str(path.relative_to(folder)): path.lstat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or not path.is_dir()
    }
    found.pop(WRITTEN, None)
    return found


def sign(folder: Path) -> None:
    """Says in WRITTEN that hp_jax has written all that is in a folder, so that --force may replace
    it."""
    write_json(folder / WRITTEN, _files(folder))


@contextmanager
def new_folder(folder: Path, *, force: bool = False) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` if all goes well; see `check_free`.  If not,
    nothing is left of it."""
    check_free(folder, force=force)
    folder = folder.absolute()
    new, away = (
        folder.with_name(f".{folder.name}.{os.getpid()}.{what}") for what in ("new", "old")
    )
    with made_folder(folder.parent):
        new.mkdir()
        try:
            yield new
            sign(new)
            check_free(folder, force=force)
            if folder.exists():
                folder.rename(away)
            new.rename(folder)
            shutil.rmtree(away, ignore_errors=True)
        finally:
            shutil.rmtree(new, ignore_errors=True)
            if away.exists() and not folder.exists():
                away.rename(folder)


@contextmanager
def made_folder(folder: Path) -> Iterator[Path]:
    """The folder, which is made if it is not there, and of which nothing empty is left if what
    follows fails."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        for one in made:
            with suppress(OSError):
                one.rmdir()
        raise

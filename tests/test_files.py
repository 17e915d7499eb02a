"""Files are plain files, folders are replaced only where hp_jax wrote all that is in them, and
paths lead where they say."""

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hp_jax.cli import main
from hp_jax.config import TranslationExperiment
from hp_jax.config_data import Data
from hp_jax.config_files import config_path
from hp_jax.data.labelled import read_whole
from hp_jax.data.tables import read_text
from hp_jax.formats.marian.file import read_marian
from hp_jax.formats.tensors import find_folder, read_tensors
from hp_jax.mask_files import file_masks
from hp_jax.storage import files, lock
from hp_jax.text.huggingface import load_tokenizer
from hp_jax.text.loading import load_codec
from hp_jax.typed import check_place


def _folder(path):
    path.mkdir()


def _socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


NO_FILES = {
    "a folder": _folder,
    "a pipe": os.mkfifo,
    "a socket": _socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link that leads nowhere": lambda path: path.symlink_to("nowhere"),
}
DOORS = {
    "some.json": files.read_json,
    "some.tsv": read_text,
    "model.npz": read_marian,
    "model.bin": read_marian,
    "mask.npy": lambda path: file_masks(path, None, ()),
    "mask.txt": lambda path: file_masks(path, None, ()),
    "text.json": lambda path: load_codec(path.parent),
    "config.py": lambda path: config_path(str(path)),
    "tokenizer.json": lambda path: load_tokenizer(path.parent),
    "model.safetensors": lambda path: read_tensors(path.parent),
    "model.safetensors.index.json": lambda path: read_tensors(path.parent),
}


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch, name, kind):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    NO_FILES[kind](Path(name))
    with pytest.raises((ValueError, FileNotFoundError), match=name.split(".")[0]):
        DOORS[name](tmp_path / name)


# --- what another file names ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "", ".."])
def test_a_file_names_only_files_beside_it(tmp_path, name):
    with pytest.raises(ValueError, match="expected is one inside the folder"):
        files.inside(tmp_path, name)
    files.write_json(tmp_path / "text.json", {"kind": "sentencepiece", "files": {"model": name}})
    with pytest.raises(ValueError, match="expected is one inside the folder"):
        load_codec(tmp_path)
    files.write_json(tmp_path / "model.safetensors.index.json", {"weight_map": {"a": name}})
    with pytest.raises(ValueError, match="expected is one inside the folder"):
        read_tensors(tmp_path)


# --- folders -------------------------------------------------------------------------------------


def write(folder, name="new.txt", *, force=False):
    with files.new_folder(folder, force=force) as new:
        (new / name).write_text("new")


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file() and path.name != files.WRITTEN
    }


def test_force_replaces_what_hp_jax_wrote(tmp_path):
    write(tmp_path / "a/b/out", "old.txt")
    with pytest.raises(ValueError, match="is not empty"):
        write(tmp_path / "a/b/out")
    write(tmp_path / "a/b/out", force=True)
    assert content(tmp_path) == {"a/b/out/new.txt": "new"}


FOREIGN = {
    "config.json": "of another program",
    "model.safetensors": "not ours",
    "notes.txt": "mine",
    "below/notes.txt": "mine",
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("ours_too", [False, True])
def test_force_never_takes_what_is_somebody_elses(tmp_path, name, ours_too):
    out = tmp_path / "out"
    if ours_too:
        write(out, "old.txt")
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_text(FOREIGN[name])
    before = content(tmp_path)
    with pytest.raises(ValueError, match="is not replaced, since"):
        write(out, force=True)
    assert content(tmp_path) == before


def test_a_file_that_was_changed_is_not_ours_any_more(tmp_path):
    write(tmp_path / "out")
    (tmp_path / "out/new.txt").write_text("changed by hand")
    with pytest.raises(ValueError, match=r"new\.txt is no longer as hp_jax wrote it"):
        write(tmp_path / "out", force=True)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("name", [".", "..", "./", "below/..", "/", "~", ""])
def test_no_home_no_root_and_no_folder_that_one_is_in(tmp_path, monkeypatch, name, force):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    with pytest.raises(ValueError, match="is or contains the"):
        write(Path(name).expanduser(), force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_link_is_not_replaced(tmp_path):
    write(tmp_path / "out")
    (tmp_path / "link").symlink_to("out")
    with pytest.raises(ValueError, match="is a link"):
        write(tmp_path / "link", force=True)


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="the disk is full"), files.new_folder(tmp_path / "a/b/c"):
        raise OSError("the disk is full")
    with pytest.raises(OSError, match="the disk is full"), files.made_folder(tmp_path / "a/b"):
        raise OSError("the disk is full")
    assert list(tmp_path.iterdir()) == []
    words = ["--shape", "tiny", "--length", "9999", "--out", f"{tmp_path}/x/y"]
    assert main(["speed", *words]) == 1
    assert list(tmp_path.iterdir()) == []


def test_two_trainings_at_once_are_told(tmp_path):
    with lock.alone(tmp_path / "out", "training"):
        with (
            pytest.raises(OSError, match=r"another training is going on in .*out: wait"),
            lock.alone(tmp_path / "out", "training"),
        ):
            pass
        with lock.alone(tmp_path / "other", "training"):
            pass
    with lock.alone(tmp_path / "out", "training"):
        pass


# --- names of folders ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", " ", "a\\b", "~/runs", "a\nb", "a\0b", "\x07", "http://x/y", "https://x", "ftp://x"],
)
def test_a_name_that_would_lead_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match="folder"):
        TranslationExperiment(out=name)
    with pytest.raises(ValueError, match="folder"):
        files.local_folder(name)


@given(st.text(max_size=20))
def test_whatever_name_is_taken_is_where_it_says(name):
    """A local folder's name is one that tensorstore does not read otherwise."""
    with contextlib.suppress(ValueError):
        check_place(name)
        assert name.isprintable()
        assert "\\" not in name


def test_odd_names_are_where_they_say(tmp_path, monkeypatch):
    from hp_jax.storage.zarr import folder_of

    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("a#b", "a?b", "a%20b", "a b ", "ü", "a:b", "../beside", "a//b/."):
        check_place(name)
        folder_of(name).write("found", b"").result()
        assert (Path(name) / "found").is_file()


@pytest.mark.parametrize("url", ["gs://nobody/x", "s3://nobody/x"])
def test_a_bucket_that_does_not_answer_is_told_soon(url, monkeypatch):
    from hp_jax.storage import zarr

    monkeypatch.setattr(zarr, "PATIENCE", 0.2)
    with pytest.raises(OSError, match=f"{url} did not answer within 0.2|cannot reach {url}"):
        zarr.folder_of(url)


@pytest.mark.parametrize("name", ["gs://bucket/m", "http://x/y"])
def test_what_must_be_on_a_disk_is_said(name):
    with pytest.raises(ValueError, match=f"data.path is {name}, but expected on a disk"):
        read_whole(Data(path=name), "validation")
    with pytest.raises(ValueError, match=f"the model is {name}, but expected on a disk"):
        find_folder(name)

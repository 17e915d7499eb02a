"""Results on disk: whole or absent, continued or refused, and damage is named."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

import hp_jax.storage.store
from hp_jax.storage.store import create_store, find_stores, open_store
from hp_jax.storage.zarr import Items


def make(path, fingerprint=(("data", "1"), ("model", "a")), kind="grid", masks=5, chunk=2):
    items = {
        "loss": Items(("mask", "example"), (masks, 3), "float32"),
        "hit": Items(("mask",), (masks,), "int32"),
    }
    fixed = {
        "label": (("example",), np.array([1, 0, 2], np.int32)),
        "masks": (("mask", "head"), np.eye(masks, dtype=bool)),
    }
    return create_store(
        path,
        kind,
        fingerprint=dict(fingerprint),
        about={"seed": 3},
        fixed=fixed,
        items=items,
        chunk=chunk,
    )


def values(masks):
    return {"loss": np.random.rand(masks, 3).astype(np.float32), "hit": np.ones(masks, np.int32)}


def test_a_store_with_other_arrays_is_read_if_it_is_finished_and_never_gone_on_with(tmp_path):
    """As one that an earlier version has begun, which kept less."""
    store = make(tmp_path / "a")
    items = {"loss": Items(("mask", "example"), (5, 3), "float32")}
    now = items | {"more": Items(("mask",), (5,), "int32")}
    about = {"fingerprint": {"data": "1", "model": "a"}, "about": {}, "fixed": {}, "chunk": 2}
    with pytest.raises(
        ValueError, match="begun to keep hit, loss, but now loss, more are kept: del"
    ):
        create_store(tmp_path / "a", "grid", items=now, **about)
    store.write(0, values(5))
    same = create_store(tmp_path / "a", "grid", items=now, **about)
    assert set(same.read_items()) == {"loss", "hit"}


def test_what_is_written_is_read_and_the_rest_is_missing(tmp_path):
    store = make(tmp_path / "run" / "a")
    store.write(2, {"loss": np.full((2, 3), 0.5, np.float32), "hit": np.array([7, 8], np.int32)})
    again = make(tmp_path / "run" / "a")
    assert again.done().tolist() == [False, False, True, True, False]
    np.testing.assert_array_equal(again.read("hit"), [0, 0, 7, 8, 0])
    np.testing.assert_array_equal(again.read("masks"), np.eye(5))
    assert again.manifest["seed"] == 3
    assert again.manifest["arrays"]["loss"] == ["mask", "example"]
    with pytest.raises(ValueError, match="not finished: 3 of 5 items are missing"):
        again.read_items()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text("{}")
    assert [store.path for store in find_stores(tmp_path)] == [str(tmp_path / "run" / "a")]


def test_another_computations_results_are_refused_and_kept(tmp_path):
    make(tmp_path / "a").write(0, values(2))
    with pytest.raises(ValueError, match=r"results of another computation \(different model\)"):
        make(tmp_path / "a", fingerprint=(("data", "1"), ("model", "b")))
    with pytest.raises(ValueError, match="different kind 'grid', not 'ranking'"):
        make(tmp_path / "a", kind="ranking")
    assert open_store(tmp_path / "a").done()[0]


def test_a_folder_without_results_and_a_foreign_manifest_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no results: it has no manifest.json"):
        open_store(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(
        ValueError, match="has the format None, but 'hp_jax results 1' was expected"
    ):
        open_store(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": "hp_jax results 1", "kind": "grid"}')
    with pytest.raises(
        ValueError,
        match=r"manifest.json: expected a setting fingerprint, but there is none",
    ):
        open_store(tmp_path)


def test_a_manifest_cut_in_half_is_named(tmp_path):
    make(tmp_path)
    content = (tmp_path / "manifest.json").read_bytes()
    (tmp_path / "manifest.json").write_bytes(content[: len(content) // 2])
    for read in (open_store, make, find_stores):
        with pytest.raises(
            ValueError, match=rf"{tmp_path}/manifest.json is not valid JSON"
        ) as caught:
            read(tmp_path)
        assert "\n" not in str(caught.value)


def test_wrong_names_are_refused(tmp_path):
    store = make(tmp_path / "a")
    with pytest.raises(ValueError, match=r"holds \['hit', 'loss'\], but \['loss'\] were given"):
        store.write(0, {"loss": np.ones((1, 3), np.float32)})
    with pytest.raises(ValueError, match="has no array 'x'; it has label, masks, loss, hit"):
        store.read("x")


def test_only_whole_chunks_are_written(tmp_path):
    """A part of a file could undo what another job writes into the rest of it."""
    store = make(tmp_path / "a")
    assert store.chunk == store.manifest["chunk"] == 2
    for start, count in ((1, 2), (0, 1), (2, 1), (0, 3)):
        sentence = rf"whole chunks of 2 of its 5 items, but got {count} from {start} on"
        with pytest.raises(ValueError, match=sentence):
            store.write(start, values(count))
    store.write(2, values(3))
    assert store.done().tolist() == [False, False, True, True, True]
    assert make(tmp_path / "a", chunk=4).chunk == 2
    assert make(tmp_path / "b", chunk=64).chunk == 5


def test_what_an_interrupted_creation_left_is_taken_over(tmp_path):
    make(tmp_path / "a", masks=7, chunk=3)
    (tmp_path / "a" / "manifest.json").unlink()
    store = make(tmp_path / "a")
    store.write(0, values(5))
    assert store.read("masks").shape == (5, 5)
    assert store.read_items()["loss"].shape == (5, 3)
    (tmp_path / "a" / "manifest.json").unlink()
    assert make(tmp_path / "a").done().all()  # the same computation
    (tmp_path / "a" / "manifest.json").unlink()
    with pytest.raises(
        OSError,
        match=r"a holds other results without a manifest.json; choose another folder or delete it",
    ):
        make(tmp_path / "a", masks=7)


def test_the_quicker_of_two_jobs_decides(tmp_path, monkeypatch):
    """Both find nothing; while one makes its arrays, the other finishes."""
    real, quicker = hp_jax.storage.store._make, []

    def make_late(*args):
        if not quicker:
            quicker.append(1)
            make(args[0], chunk=lambda: 3).write(0, values(3))
        real(*args)

    monkeypatch.setattr(hp_jax.storage.store, "_make", make_late)
    for store in (
        make(tmp_path / "a"),
        make(tmp_path / "a", chunk=lambda: pytest.fail("asked in vain")),
    ):
        assert store.chunk == 3
        assert store.done().tolist() == [True] * 3 + [False] * 2
    quicker.clear()
    with pytest.raises(ValueError, match="different model"):
        make(tmp_path / "b", fingerprint=(("data", "1"), ("model", "b")))


@pytest.mark.parametrize("scheme", ["file", "memory"])
def test_urls_are_paths_too(tmp_path, scheme):
    place = f"{scheme}://{tmp_path}"
    store = make(f"{place}/run/a")
    store.write(0, values(5))
    assert [found.path for found in find_stores(place)] == [f"{place}/run/a"]
    np.testing.assert_array_equal(
        open_store(f"{place}/run/a/").read_items()["loss"], store.read("loss")
    )
    assert (tmp_path / "run" / "a" / "manifest.json").is_file() == (scheme == "file")
    with pytest.raises(FileNotFoundError, match=f"{place}/b holds no results"):
        open_store(f"{place}/b")


def test_any_folder_name_is_a_path(tmp_path):
    for name in ("a b", "50%25", "#1", "[x]"):
        make(tmp_path / name).write(0, values(5))
        assert open_store(tmp_path / name).done().all()
        (tmp_path / name / "loss" / "c" / "0" / "0").write_bytes(b"")
        with pytest.raises(OSError, match=re.escape(f"{name}/loss/c/0/0")):
            open_store(tmp_path / name).read("loss")
    assert [Path(store.path).name for store in find_stores(tmp_path)] == [
        "#1",
        "50%25",
        "[x]",
        "a b",
    ]


@pytest.mark.parametrize("change", ["truncate", "flip"])
def test_a_damaged_chunk_is_one_sentence_with_its_file(tmp_path, change):
    store = make(tmp_path / "a")
    store.write(0, values(5))
    file = tmp_path / "a" / "loss" / "c" / "1" / "0"
    content = bytearray(file.read_bytes())
    if change == "truncate":
        del content[-1]
    else:
        content[5] ^= 1
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"cannot read .*/a: .*loss/c/1/0") as caught:
        store.read("loss")
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(store.read("hit"), np.ones(5))


@pytest.mark.parametrize("content", [b"", b"something else"])
def test_a_damaged_mark_is_one_sentence_with_its_file(tmp_path, content):
    make(tmp_path / "a").write(0, values(5))
    (tmp_path / "a" / "done" / "c" / "1").write_bytes(content)
    with pytest.raises(OSError, match=r"cannot read .*/a: .*done/c/1"):
        make(tmp_path / "a").done()


def test_lost_files_are_one_sentence(tmp_path):
    store = make(tmp_path / "a")
    store.write(0, {"loss": np.zeros((5, 3), np.float32), "hit": np.zeros(5, np.int32)})
    assert not store.read("loss").any()
    (tmp_path / "a" / "hit" / "c" / "1").unlink()
    with pytest.raises(OSError, match=r"cannot read .*/a: hit/c/1 is missing"):
        store.read_items()
    shutil.rmtree(tmp_path / "a" / "loss")
    for use in (lambda: store.read("loss"), lambda: store.write(0, values(5))):
        with pytest.raises(
            OSError, match=r"cannot (read|write) .*/a: .*loss/zarr.json.* does not exist"
        ) as caught:
            use()
        assert "\n" not in str(caught.value)


@contextlib.contextmanager
def read_only(folder):
    """Folders that this process may not write to, not even as root."""
    places, root = (
        [folder, *(place for place in folder.rglob("*") if place.is_dir())],
        os.geteuid() == 0,
    )
    for place in places:
        place.chmod(0o555)
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for place in places:
            place.chmod(0o755)


def test_a_read_only_folder_is_one_sentence_and_can_be_read():
    with tempfile.TemporaryDirectory() as name:  # others may not look into tmp_path
        folder = Path(name)
        make(folder / "a").write(2, values(3))
        with read_only(folder):
            with pytest.raises(
                OSError, match=r"cannot write .*/b: .*/b/done/zarr.json\": Permission denied"
            ) as caught:
                make(folder / "b")
            assert "\n" not in str(caught.value)
            store = make(folder / "a")
            assert store.read("hit").tolist() == [0, 0, 1, 1, 1]
            with pytest.raises(
                OSError, match=r"cannot write .*/a: .*(loss|hit)/c/0.*: Permission denied"
            ):
                store.write(0, values(2))
            assert [found.path for found in find_stores(folder)] == [store.path]


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    code = f"""
import resource, signal
import numpy as np
import hp_jax.storage.store
from hp_jax.storage.store import Items, create_store
items = {{"loss": Items(("mask", "example"), (2, 4000), "float32")}}
empty = dict(fingerprint={{}}, about={{}}, fixed={{}})
store = create_store({str(tmp_path / "a")!r}, "grid", **empty, items=items, chunk=1)
store.write(0, {{"loss": np.random.rand(1, 4000).astype(np.float32)}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store.write(1, {{"loss": np.random.rand(1, 4000).astype(np.float32)}})
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert re.search(r"OSError: cannot write .*/a: .*loss/c/1/0", result.stderr.splitlines()[-1])
    store = open_store(tmp_path / "a")
    assert store.done().tolist() == [True, False]
    assert store.read("loss")[0].all()


def test_a_path_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot (read|write) .*file/a"):
        make(tmp_path / "file" / "a")


def test_arrays_are_plain_zarr(tmp_path):
    """The documented form: a Zarr v3 group with named dimensions."""
    make(tmp_path / "a")
    described = json.loads((tmp_path / "a" / "loss" / "zarr.json").read_text())
    assert described["zarr_format"] == 3
    assert described["dimension_names"] == ["mask", "example"]
    assert described["shape"] == [5, 3]
    assert json.loads((tmp_path / "a" / "zarr.json").read_text())["node_type"] == "group"

"""Results on disk: whole or absent, continued or refused, and damage is named."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from hp_jax.store import Items, create_store, find_stores, open_store


def make(path, fingerprint=(("data", "1"), ("model", "a")), kind="grid"):
    items = {"loss": Items(("mask", "example"), (5, 3), "float32"), "hit": Items(("mask",), (5,), "int32")}
    fixed = {"label": (("example",), np.array([1, 0, 2], np.int32)), "masks": (("mask", "head"), np.eye(5, dtype=bool))}
    return create_store(path, kind, fingerprint=dict(fingerprint), about={"seed": 3}, fixed=fixed, items=items, chunk=2)


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
    make(tmp_path / "a").write(0, {"loss": np.ones((1, 3), np.float32), "hit": np.ones(1, np.int32)})
    with pytest.raises(ValueError, match=r"results of another computation \(different model\)"):
        make(tmp_path / "a", fingerprint=(("data", "1"), ("model", "b")))
    with pytest.raises(ValueError, match="different kind 'grid', not 'ranking'"):
        make(tmp_path / "a", kind="ranking")
    assert open_store(tmp_path / "a").done()[0]


def test_a_folder_without_results_and_a_foreign_manifest_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no results: it has no manifest.json"):
        open_store(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="has the format None, but 'hp_jax results 1' was expected"):
        open_store(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest.json is not valid JSON"):
        open_store(tmp_path)


def test_wrong_names_are_refused(tmp_path):
    store = make(tmp_path / "a")
    with pytest.raises(ValueError, match=r"holds \['hit', 'loss'\], but \['loss'\] were given"):
        store.write(0, {"loss": np.ones((1, 3), np.float32)})
    with pytest.raises(ValueError, match="has no array 'x'; it has label, masks, loss, hit"):
        store.read("x")


@pytest.mark.parametrize("change", ["truncate", "flip"])
def test_a_damaged_chunk_is_one_sentence_with_its_file(tmp_path, change):
    store = make(tmp_path / "a")
    store.write(0, {"loss": np.random.rand(5, 3).astype(np.float32), "hit": np.ones(5, np.int32)})
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


def test_a_full_disk_is_one_sentence_and_loses_nothing(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    code = f"""
import resource, signal
import numpy as np
from hp_jax.store import Items, create_store
items = {{"loss": Items(("mask", "example"), (2, 4000), "float32")}}
store = create_store({str(tmp_path / "a")!r}, "grid", fingerprint={{}}, about={{}}, fixed={{}}, items=items, chunk=1)
store.write(0, {{"loss": np.random.rand(1, 4000).astype(np.float32)}})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store.write(1, {{"loss": np.random.rand(1, 4000).astype(np.float32)}})
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
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

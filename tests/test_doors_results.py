"""The door of results: whatever is wrong in a manifest or an array is one sentence with its place,
or without influence."""

import json
import math
import os

import pytest
from tiny_report import everything

from hp_jax.cli import main

WRONG = (None, True, "?", math.nan, -7, 0.5, 10**40, [], {}, [None], {"a": -1})
STORES = ("importance", "ablation/validation/one_off", "pruning/one_shot/test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("door") / "out"
    everything(folder)
    return folder


def places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in items:
        yield (*path, key)
        if isinstance(below, dict | list):
            yield from places(below, (*path, key))


def tried(words, capsys):
    """Whether a command succeeds, after one sentence if not."""
    status = main([*words, "--quiet"])
    error = capsys.readouterr().err
    assert status in (0, 1)
    assert "Traceback" not in error
    assert error.count("\n") == (status == 1), error
    return status == 0


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("name", ["manifest.json", "done/zarr.json", "FIRST/zarr.json"])
def test_any_value_of_a_results_folders_json(folder, capsys, store, name):
    array = json.loads((folder / store / "manifest.json").read_text())["filled"][0]
    path = folder / store / name.replace("FIRST", array)
    before = path.read_bytes()
    refused = 0
    for number, place in enumerate(places(json.loads(before))):
        value = json.loads(before)
        at = value
        for key in place[:-1]:
            at = at[key]
        wrong = WRONG[number % len(WRONG)]
        if wrong == at[place[-1]]:
            continue
        at[place[-1]] = wrong
        path.write_text(json.dumps(value))
        refused += not tried(["grid", "status", str(folder / store), "--verify"], capsys)
    path.write_bytes(before)
    assert refused > 3
    assert tried(["grid", "status", str(folder / store), "--verify"], capsys)


@pytest.mark.parametrize("text", ["", "null", "[]", "{", '{"format": "hp_jax results 9"}', "\0"])
@pytest.mark.parametrize("store", STORES)
def test_a_manifest_that_is_none_is_said(folder, capsys, store, text):
    path = folder / store / "manifest.json"
    before = path.read_bytes()
    path.write_text(text)
    for words in (["grid", "status"], ["report"]):
        assert main([*words, str(folder), "--quiet"]) == 1
        out, error = capsys.readouterr()
        assert f"{store}/manifest.json" in out + error or "damaged" in out
        assert error.count("\n") == 1
    path.write_bytes(before)


@pytest.mark.parametrize(
    ("store", "name"),
    [(store, name) for store in STORES for name in ("rows", "heads", "splits")]
    + [(store, name) for store in STORES[1:] for name in ("metric", "labels", "positive")],
)
def test_what_a_report_needs_is_named(folder, capsys, store, name):
    path = folder / store / "manifest.json"
    before = path.read_bytes()
    value = json.loads(before)
    del value[name]
    path.write_text(json.dumps(value))
    assert not tried(["report", str(folder)], capsys)
    path.write_bytes(before)


def _folder(path):
    path.unlink()
    path.mkdir()


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


CHANGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "empty": lambda path: path.write_bytes(b""),
    "lost": lambda path: path.unlink(),
    "flipped": lambda path: path.write_bytes(
        bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
    ),
    "folder": _folder,
    "pipe": _pipe,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("store", STORES)
def test_a_damaged_chunk_is_found(tmp_path, capsys, store, change):
    everything(tmp_path / "out")
    array = json.loads((tmp_path / "out" / store / "manifest.json").read_text())["filled"][0]
    chunk = min(
        path for path in (tmp_path / "out" / store / array / "c").rglob("*") if path.is_file()
    )
    CHANGES[change](chunk)
    assert not tried(["grid", "status", str(tmp_path / "out"), "--verify"], capsys)
    assert not tried(["report", str(tmp_path / "out")], capsys)

"""What a user is told: the state of results on disk, and the progress of a loop."""

import json
import logging

import numpy as np
import pytest

from hp_jax import progress
from hp_jax.cli import main
from hp_jax.storage.store import create_store
from hp_jax.storage.zarr import Items

ABOUT = {
    "masks": "one_off",
    "created": "2026-05-04T10:11:12+00:00",
    "devices": ["cpu", "cpu"],
    "command": [
        "hp-jax",
        "ablate",
        "my config.py",
        *(f"--data.labels-number-{number}" for number in range(9)),
    ],
}


def make(path, done=(), **about):
    """A store of ten items in chunks of two."""
    items = {"loss": Items(("mask", "example"), (10, 3), "float32")}
    fingerprint = {"model": "0123456789abcdef", "data": "fedcba9876543210", "masks": "00"}
    store = create_store(
        path, "grid", fingerprint=fingerprint, about=about, fixed={}, items=items, chunk=2
    )
    for start in done:
        store.write(start, {"loss": np.random.rand(2, 3).astype(np.float32)})


def test_status_says_what_is_there_and_what_is_missing(tmp_path, capsys):
    make(tmp_path / "ablation" / "one_off", done=[2, 8], **ABOUT)
    make(tmp_path / "all", done=range(0, 10, 2))
    assert main(["grid", "status", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ablation/one_off  grid one_off  4/10 done   chunks of 2  ")
    assert lines[0].endswith(" kB")
    assert lines[1:4] == [
        "    missing 0-1, 4-7",
        "    made    2026-05-04T10:11:12+00:00; 2 x cpu; model 01234567; data fedcba98",
        "    by      hp-jax ablate 'my config.py' --data.labels-number-0 --data.labels-number-1 "
        "--data.labels-number-2",
    ]
    assert lines[-2].startswith("all               grid          10/10 done  chunks of 2  ")
    assert max(map(len, lines)) <= 120
    assert main(["grid", "status", str(tmp_path / "all")]) == 0
    assert capsys.readouterr().out.startswith(".  grid  10/10 done  ")


def test_status_as_json(tmp_path, capsys):
    make(f"file://{tmp_path}/a", done=[2, 8], **ABOUT)
    assert main(["grid", "status", str(tmp_path), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found.pop("bytes") > 1000
    assert found.pop("command").startswith("hp-jax ablate 'my config.py' ")
    assert found == {
        "path": str(tmp_path / "a"),
        "kind": "grid",
        "masks": "one_off",
        "items": 10,
        "done": 4,
        "chunk": 2,
        "missing": [[0, 1], [4, 7]],
        "created": ABOUT["created"],
        "devices": ["cpu", "cpu"],
        "fingerprint": {"model": "0123456789abcdef", "data": "fedcba9876543210", "masks": "00"},
    }
    assert main(["grid", "status", f"file://{tmp_path}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["bytes"] is None


def test_a_damaged_store_is_named_and_does_not_hide_the_others(tmp_path, capsys):
    make(tmp_path / "a", done=[0])
    make(tmp_path / "b", done=[2])
    (tmp_path / "b" / "loss" / "c" / "1" / "0").write_bytes(b"no")
    assert main(["grid", "status", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["grid", "status", str(tmp_path), "--verify"]) == 1
    out, err = capsys.readouterr()
    assert err == f"hp-jax: error: 1 of the 2 stores in {tmp_path} cannot be read\n"
    assert out.startswith("a  grid     2/10 done")
    assert "\nb  damaged\n    error   cannot read " in out
    (tmp_path / "a" / "manifest.json").write_text('{"format": "hp_jax results 1", ')
    assert main(["grid", "status", str(tmp_path), "--json"]) == 1
    assert "manifest.json is not valid JSON" in json.loads(capsys.readouterr().out)[0]["error"]


def test_a_folder_without_results_is_one_sentence(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "nowhere"):
        assert main(["grid", "status", str(folder)]) == 1
        assert capsys.readouterr().err.startswith(f"hp-jax: error: {folder} holds no results: ")


# --- progress ------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_log_has_a_line_now_and_then_and_one_at_the_end(clock, caplog):
    caplog.set_level(logging.INFO, "hp_jax")
    counting = {
        "total": 145,
        "done": 32,
        "unit": "masks",
        "size": lambda start: min(16, 145 - start),
        "each": (872, "examples"),
    }
    for _ in progress.track(range(32, 145, 16), "ablation/one_off", **counting):
        clock.now += 12.3
    assert caplog.messages == [
        "ablation/one_off: 64/145 masks, 1.3 masks/s, 1134 examples/s, 62 s left",
        "ablation/one_off: 96/145 masks, 1.3 masks/s, 1134 examples/s, 38 s left",
        "ablation/one_off: 128/145 masks, 1.3 masks/s, 1134 examples/s, 13 s left",
        "ablation/one_off: 145/145 masks, 1.15 masks/s, 1001 examples/s, 0 s left",
    ]


def test_time_left_is_readable_and_the_status_comes_last(clock, caplog):
    caplog.set_level(logging.INFO, "hp_jax")
    for _ in progress.track(
        range(40), "training", total=40, unit="steps", status=lambda: "loss 0.5"
    ):
        clock.now += 100
    assert caplog.messages[0] == "training: 1/40 steps, 0.01 steps/s, 1 h 05 min left, loss 0.5"
    assert caplog.messages[9] == "training: 10/40 steps, 0.01 steps/s, 50 min left, loss 0.5"


def test_a_terminal_shows_the_same(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    for _ in progress.track(
        range(2), "grid", total=8, done=4, unit="masks", size=lambda item: 2, each=(10, "examples")
    ):
        clock.now += 4
    error = capsys.readouterr().err
    assert "grid" in error
    assert "8/8 masks, 0.5 masks/s, 5 examples/s, 0 s left" in error

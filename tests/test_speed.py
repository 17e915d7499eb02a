"""hp-jax speed on tiny models: what is written, what is printed, what is refused.  No time is
judged."""

import dataclasses
import functools
import itertools
import json

import jax
import numpy as np
import pytest
from tiny import TASK, random_params, write_hf_folder
from tiny_translation import CONFIG
from tiny_translation import TASK as PAIRS

from hp_jax.cli import main
from hp_jax.formats.model import load_model
from hp_jax.removal import remove_heads
from hp_jax.shrink import speed
from hp_jax.shrink.budget import alone, read_latency
from hp_jax.storage.files import sign

ROW = {
    *(
        "mode",
        "batch",
        "length",
        "side",
        "heads",
        "heads_removed",
        "share_removed",
        "heads_per_row",
        "parameters",
        "bytes",
    ),
    *(
        "per_second",
        "per_second_rounds",
        "milliseconds",
        "ratio",
        "flops_share",
        "bound",
        "gain_reached",
    ),
    *("flops", "temp_bytes", "program_bytes"),
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(speed, "LEAST", 0.0)


def run(capsys, *words):
    """Exit status, what was printed, and the last line of what was said."""
    status = main(["speed", *map(str, words)])
    printed = capsys.readouterr()
    return status, printed.out, (printed.err.splitlines() or [""])[-1]


def test_a_model_and_a_smaller_one(tmp_path, capsys):
    write_hf_folder(tmp_path / "model", head=True)
    model = load_model(str(tmp_path / "model"))
    mask_AH = np.array([[True, False, False, True], [False] * 4])
    config, params = remove_heads(model.config, model.params, mask_AH)
    dataclasses.replace(model, config=config, params=params).save(tmp_path / "small", {})
    command = [
        tmp_path / "model",
        tmp_path / "small",
        "--batch",
        1,
        3,
        "--length",
        16,
        "--rounds",
        3,
    ]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/speed.json").write_text("{}")
    sign(tmp_path / "out")
    status, _, said = run(capsys, *command, "--out", tmp_path / "out")
    assert (status, "is not empty; choose another folder" in said) == (1, True)
    status, printed, _ = run(capsys, *command, "--out", tmp_path / "out", "--force")
    assert status == 0
    found = json.loads((tmp_path / "out/speed.json").read_text())
    assert str(tmp_path) not in json.dumps(found)
    assert {
        "command",
        "created",
        "setting",
        "original",
        "tokens",
        "versions",
        "device",
        "cores",
        "variables",
    } <= set(found)
    assert [(row["batch"], row["side"]) for row in found["rows"]] == [
        (batch, side) for batch in (1, 3) for side in ("original", "removed")
    ]
    for row in found["rows"]:
        assert set(row) == ROW
        assert len(row["ratio"]["rounds"]) == len(row["per_second_rounds"]) == 3
        assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
        assert (
            0
            < row["milliseconds"]["p50"]
            <= row["milliseconds"]["p90"]
            <= row["milliseconds"]["p99"]
        )
        assert row["program_bytes"] > row["bytes"] == 4 * row["parameters"]
        assert row["bound"] == pytest.approx(1 / row["flops_share"])
    whole, small = found["rows"][:2]
    assert (whole["heads"], small["heads"], small["share_removed"]) == (8, 2, 0.75)
    assert small["heads_per_row"] == {"enc.0": 2, "enc.1": 0}
    assert whole["gain_reached"] is None
    assert small["gain_reached"] == pytest.approx(
        (small["ratio"]["median"] - 1) / (small["bound"] - 1)
    )
    for name in ("speed.png", "speed.svg"):
        assert (tmp_path / "out" / name).stat().st_size > 5000
    for words in (
        "forward, 16 tokens: examples/s",
        "batch 3",
        "of its gain",
        "activations MiB",
        "speed.json",
    ):
        assert words in printed
    flops = alone(100.0, model.task.present_AH, 5 * model.task.present_AH)
    assert (
        read_latency(tmp_path / "out/speed.json", flops, batch=3, length=16).whole
        == found["rows"][2]["milliseconds"]["p50"]
    )

    status, _, said = run(
        capsys, tmp_path / "small", tmp_path / "model", "--out", tmp_path / "other"
    )
    assert (
        status,
        said.endswith("small with fewer heads: it has heads that the other has not"),
    ) == (1, True)
    assert not (tmp_path / "other").exists()


def test_translation_with_random_heads_removed(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(speed.SHAPES, "transformer", CONFIG)
    words = [
        "--shape",
        "transformer",
        "--shares",
        0.5,
        "--batch",
        2,
        "--length",
        6,
        "--beam",
        2,
        "--rounds",
        2,
        "--seed",
        3,
    ]
    status, printed, _ = run(capsys, *words, "--out", tmp_path / "out")
    assert status == 0
    found = json.loads((tmp_path / "out/speed.json").read_text())
    modes = ["forward", "beam 2"]
    assert [(row["mode"], row["side"]) for row in found["rows"]] == [
        (mode, side) for mode in modes for side in ("original", "50 %")
    ]
    for row in found["rows"]:
        assert row["tokens_per_second"] == pytest.approx(6 * row["per_second"])
        assert (row["bound"] is None) == (row["mode"] != "forward")
        assert row["flops_share"] == found["rows"][row["side"] != "original"]["flops_share"]
    assert found["rows"][1]["heads_removed"] == 12
    assert "beam 2, 6 tokens: sentences/s (tokens/s)" in printed


def test_every_translation_has_the_length_of_its_source():
    batch = speed.random_batch(PAIRS, 3, 7, seed=0)
    search = jax.jit(functools.partial(speed.translate, speed.fixed_length(3, 7), PAIRS))
    found = search(random_params(PAIRS), batch)
    assert found.token_RWT.shape == (3, 3, 7)
    ends_RWT = np.asarray(found.token_RWT) == CONFIG.eos
    assert ends_RWT[..., -1].all()
    assert not ends_RWT[..., :-1].any()
    assert np.isfinite(found.score_RW).all()


def test_random_heads_are_nested_and_rounded():
    present_AH = np.ones((6, 8), bool)
    order = speed.random_order(present_AH, 1)
    masks = [speed.without_share(present_AH, order, share) for share in (0.25, 0.5, 0.6)]
    assert [int((~mask_AH).sum()) for mask_AH in masks] == [12, 24, 28]
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(masks))
    rounded_A = speed.without_share(present_AH, order, 0.5, multiple=2).sum(1)
    assert (rounded_A % 2 == 0).all()
    assert rounded_A.sum() <= 24


def test_sides_alternate_and_are_timed_long_enough():
    called = []
    sides = {name: lambda name=name: called.append(name) for name in "ab"}
    times = speed.alternate(sides, 2, least=0.0)
    assert "".join(called) == "aba" + "ab" + "ba"
    assert {name: list(map(len, rounds)) for name, rounds in times.items()} == {
        "a": [1, 1],
        "b": [1, 1],
    }
    assert len(speed.alternate(sides, 1, least=0.001)["b"][0]) > 1


def test_the_ratio_is_that_of_the_same_round():
    found = speed.ratio_of([[2.0], [4.0], [3.0]], [[1.0], [1.0], [1.0]], seed=0)
    assert (found["median"], found["low"], found["high"], found["rounds"]) == (3, 2, 4, [2, 4, 3])


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "expected a model's folder or --shape, one of the two, but got '' and ''"),
        ({"shape": "huge"}, "there is no shape 'huge'; the shapes are tiny, mini, "),
        (
            {"shape": "tiny", "removed": "small"},
            "small is the same model with fewer heads, but --shape has random weights",
        ),
        (
            {"shape": "tiny", "shares": (0.5, 1.5)},
            r"shares\[1\]: expected a number <= 1\.0, but found 1\.5",
        ),
        ({"shape": "tiny", "batch": (0,)}, r"batch\[0\]: expected an integer >= 1, but found 0"),
        ({"shape": "tiny", "shares": ()}, "--shares is empty"),
    ],
)
def test_settings_that_make_no_sense(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        speed.Setting(**settings)


def test_more_tokens_than_positions():
    with pytest.raises(ValueError, match="--length is 25, but the model has 24 positions"):
        speed.random_batch(TASK, 1, 25, seed=0)

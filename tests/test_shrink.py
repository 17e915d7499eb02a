"""`hp-jax remove`: which heads go, what is written, every step on what is left, and one sentence
for whatever is wrong."""

import csv
import dataclasses
import itertools
import json
import pathlib

import jax
import numpy as np
import pytest
from tiny import config_file, write_hf_folder, write_sst2

from hp_jax import experiment, heads
from hp_jax.cli import main
from hp_jax.cli.steps import STEPS
from hp_jax.config import FINE_TUNING, Ablation, ClassificationExperiment, Data, Importance, Pruning
from hp_jax.formats.model import load_model
from hp_jax.report.page import write_report
from hp_jax.shrink.orders import read_order
from hp_jax.storage import fingerprint
from hp_jax.storage.store import open_store


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shrink")
    write_hf_folder(folder / "hf", head=True)
    write_sst2(folder / "sst2", train=32, validation=16)
    config = ClassificationExperiment(
        model=str(folder / "hf"),
        out=str(folder / "out"),
        data=Data(task="sst2", path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=16),
        train=dataclasses.replace(FINE_TUNING, epochs=1, batch=16),
        importance=Importance(split="train"),
        ablation=Ablation(masks_at_once=4),
        pruning=Pruning(heads=(2, 5), orders=("re_estimated",), test="validation"),
    )
    experiment.importance(experiment.load(config))
    experiment.prune_orders(experiment.load(config))
    return config


@pytest.fixture(scope="module")
def smaller(config):
    """The model without head 2 of the first row and all but head 1 of the second (0-based)."""
    folder = pathlib.Path(config.out) / "smaller"
    assert main(["remove", config.model, str(folder), "--heads", "1:3 2:1,3,4"]) == 0
    return folder


def order_of(path, config):
    """The order of `path` and the hash of the model."""
    model = load_model(config.model)
    return read_order(
        path, model.task.present_AH, model.task.rows, model=fingerprint.of_arrays(model.params)
    )


def test_a_folder_of_hp_jax_with_heads_by_their_first_numbers(smaller, config, capsys):
    model = load_model(str(smaller))
    assert model.config.kept == ((0, 1, 3), (1,))
    described = json.loads((smaller / "config.json").read_text())
    assert described["heads removed"] == {"enc.0": [2], "enc.1": [0, 2, 3]}
    assert described["removed from"] == config.model
    before, after = described["before"], described["after"]
    assert (before["heads"], after["heads"]) == (8, 4)
    assert (
        after["parameters"]
        == sum(leaf.size for leaf in jax.tree.leaves(model.params))
        < before["parameters"]
    )
    assert after["bytes"] == 4 * after["parameters"]
    again = smaller.parent / "again"
    assert main(["remove", str(smaller), str(again), "--heads", "1:2", "--length", "16"]) == 0
    assert load_model(str(again)).config.kept == ((0, 3), (1,))
    assert "FLOPs (1 example, 16 tokens)" in capsys.readouterr().out


def test_every_step_works_on_what_is_left(smaller, config):
    """Same losses and importance as the masked model's; heads have their first numbers in results
    and in the report."""
    pruning, ablation = (
        Pruning(heads=(2,), orders=("one_shot",), test="validation"),
        Ablation(sets=("one_off",)),
    )
    changed = {
        "model": str(smaller),
        "out": str(smaller.parent / "own"),
        "pruning": pruning,
        "ablation": ablation,
    }
    own = dataclasses.replace(config, **changed)
    mask_AH = np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool)
    assert main(["run", config_file(smaller.parent, own), "--steps", *STEPS]) == 0
    out = pathlib.Path(own.out)
    assert load_model(str(out / "model")).config.kept == ((0, 1, 3), (1,))
    store = open_store(out / "ablation/validation/one_off")
    np.testing.assert_array_equal(
        store.read("masks"), np.concatenate([mask_AH[None], heads.one_off(mask_AH)])
    )
    trained = experiment.load(own)
    assert (
        np.asarray(experiment.importance(experiment.load(own))) > 0
    ).tolist() == mask_AH.tolist()
    np.testing.assert_array_equal(trained.present_AH, mask_AH)
    page = write_report(out).read_text()
    assert "4 heads in 2 rows" in page
    with (out / "report/one_off.csv").open() as file:
        assert {f"{line['row']}.{line['head']}" for line in csv.DictReader(file)} == {
            "enc.0.0",
            "enc.0.1",
            "enc.0.3",
            "enc.1.1",
        }


def test_orders_are_those_of_the_results(config):
    importance_AH = experiment.importance(experiment.load(config))
    order = order_of(f"{config.out}/importance", config)
    assert sorted(order) == heads.living_heads(np.ones((2, 4)))
    assert all(importance_AH[a] <= importance_AH[b] for a, b in itertools.pairwise(order))
    masks_MAH = open_store(f"{config.out}/pruning/re_estimated/test").read("masks")
    order = order_of(f"{config.out}/pruning/re_estimated", config)
    for count, mask_AH in zip((0, 2, 5), masks_MAH, strict=True):
        assert sorted(order[count:]) == heads.living_heads(mask_AH)


def test_the_order_of_a_pruning_is_its_own(config, tmp_path):
    """One from some rows alone has their heads alone, and what was retrained on the way is another
    order; a folder above several orders has none."""
    data = dataclasses.replace(config, out=str(tmp_path / "out"))
    pruning = dataclasses.replace(
        config.pruning, rows=("all", "enc", "enc.1"), heads=(0, 2), shares=(), retrain_steps=1
    )
    experiment.prune_orders(experiment.load(dataclasses.replace(data, pruning=pruning)))
    orders = f"{data.out}/pruning"
    every = heads.living_heads(np.ones((2, 4)))
    assert sorted(order_of(f"{orders}/re_estimated", config)) == every
    assert sorted(order_of(f"{orders}/re_estimated.enc", config)) == every
    assert sorted(order_of(f"{orders}/re_estimated.enc.1", config)) == every[4:]
    for name, folder in (("all", ""), ("enc.1", ".enc.1")):
        for below in ("", "/retrain"):
            path = f"{orders}/re_estimated{folder}{below}"
            before, after = open_store(f"{path}/test").read("masks")
            gone = heads.living_heads(before & ~after)
            assert sorted(order_of(path, config)[:2]) == gone, (name, below)
    assert sorted(order_of(f"{orders}/re_estimated.enc.1/retrain", config)) == every[4:]
    with pytest.raises(ValueError, match=r"below it there are .*re_estimated\.enc\.1,"):
        order_of(orders, config)


@pytest.mark.parametrize(
    ("keep", "more", "kept"),
    [("0.5", [], 4), ("3", [], 3), ("0.5", ["--floor", "2"], 4), ("0.7", ["--multiple", "2"], 4)],
)
def test_within_a_budget(config, tmp_path, capsys, keep, more, kept):
    order = f"{config.out}/importance"
    assert (
        main(
            [
                "remove",
                config.model,
                str(tmp_path / "new"),
                "--order",
                order,
                "--keep",
                "heads",
                keep,
                *more,
            ]
        )
        == 0
    )
    model = load_model(str(tmp_path / "new"))
    assert model.task.present_AH.sum() == kept
    assert "reached: heads" in capsys.readouterr().out
    if not more:
        assert heads.living_heads(model.task.present_AH) == sorted(
            order_of(order, config)[8 - kept :]
        )
    if "--floor" in more:
        assert (model.task.present_AH.sum(1) == 2).all()


def test_a_mask_file_and_parameters(config, tmp_path):
    mask_AH = np.array([[1, 0, 0, 1], [0, 1, 0, 0]])
    np.save(tmp_path / "mask.npy", mask_AH)
    assert (
        main(["remove", config.model, str(tmp_path / "a"), "--mask", str(tmp_path / "mask.npy")])
        == 0
    )
    np.testing.assert_array_equal(load_model(str(tmp_path / "a")).task.present_AH, mask_AH)
    budget = ["--order", f"{config.out}/importance", "--keep", "parameters", "0.8"]
    assert main(["remove", config.model, str(tmp_path / "b"), *budget]) == 0
    described = json.loads((tmp_path / "b" / "config.json").read_text())
    assert described["after"]["parameters"] <= 0.8 * described["before"]["parameters"]
    assert described["budget"]["most"] == 0.8


def test_bad_input_is_one_sentence_and_nothing_is_overwritten(config, smaller, tmp_path, capsys):
    np.save(tmp_path / "wide.npy", np.ones((2, 5), bool))
    np.save(tmp_path / "two.npy", np.ones((2, 2, 4), bool))
    order = ["--order", f"{config.out}/importance"]
    new, before = (
        str(tmp_path / "new"),
        {path: path.read_bytes() for path in smaller.rglob("*") if path.is_file()},
    )
    for words, message in (
        ([config.model, str(smaller), "--heads", "1:1"], "is not empty"),
        ([config.model, new, "--heads", "1:1,2,3,4 2:1,2,3,4"], "would remove all 8 heads"),
        ([config.model, new, "--heads", "1:5"], "head 4 of row 'enc.0' (0-based) is out of range"),
        ([config.model, new, "--heads", "7:1"], "there is no row 'enc.6'"),
        ([str(smaller), new, "--heads", "1:3"], "is not there any more"),
        ([config.model, new], "expected one of --heads, --mask"),
        ([config.model, new, "--heads", "1:1", "--mask", "x"], "but got 2 of them"),
        ([config.model, new, "--mask", str(tmp_path / "wide.npy")], "has shape (2, 5)"),
        (
            [config.model, new, "--mask", str(tmp_path / "two.npy")],
            "has 2 masks, but one was expected",
        ),
        ([config.model, new, "--mask", str(tmp_path / "none.npy")], "there is no file"),
        ([config.model, new, *order], "expected both, but one is missing"),
        (
            [config.model, new, *order, "--keep", "layers", "3"],
            "but heads, parameters, flops, cache or latency and a number",
        ),
        (
            [config.model, new, *order, "--keep", "latency", "0.5"],
            "needs a table of `hp-jax speed`",
        ),
        ([config.model, new, *order, "--keep", "parameters", "0.01"], "cannot be reached"),
        ([str(smaller), new, *order, "--keep", "heads", "2"], "is about another model"),
        (
            [config.model, new, "--order", str(tmp_path), "--keep", "heads", "2"],
            "but it has neither",
        ),
        ([str(tmp_path / "nowhere"), new, "--heads", "1:1"], "nowhere"),
    ):
        capsys.readouterr()
        assert main(["remove", *words]) == 1, words
        told = capsys.readouterr().err
        assert message in told, (words, told)
        assert told.count("\n") == 1, told
        assert not pathlib.Path(new).exists()
    assert {path: path.read_bytes() for path in smaller.rglob("*") if path.is_file()} == before


def test_with_force_a_folder_is_replaced(config, smaller, tmp_path):
    folder = tmp_path / "model"
    for text in ("1:1", "1:2"):
        assert main(["remove", config.model, str(folder), "--heads", text, "--force"]) == 0
    assert load_model(str(folder)).config.kept[0] == (0, 2, 3)
    assert main(["remove", str(folder), str(folder), "--heads", "2:1", "--force"]) == 0  # in place
    assert load_model(str(folder)).config.kept == ((0, 2, 3), (1, 2, 3))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

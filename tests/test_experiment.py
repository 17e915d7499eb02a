"""The whole job on tiny input: each step's results, continuing, refusing, and one sentence for
whatever is wrong."""

import collections
import dataclasses
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from tiny import config_file, write_hf_folder, write_sst2

from hp_jax import experiment, heads
from hp_jax.cli import load_config, main
from hp_jax.config import (
    FINE_TUNING,
    KINDS_OF_EXPERIMENT,
    Ablation,
    ClassificationExperiment,
    Data,
    Importance,
    Pruning,
)
from hp_jax.data import tables
from hp_jax.data.splits import APART, folder_name, overlap
from hp_jax.experiment import corpus, scorers, scoring, training
from hp_jax.formats import model
from hp_jax.formats.huggingface import bert
from hp_jax.grid import whole
from hp_jax.storage import checkpoint
from hp_jax.storage.store import open_store

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    write_hf_folder(folder / "hf")
    write_sst2(folder / "sst2")
    return ClassificationExperiment(
        model=str(folder / "hf"),
        out=str(folder / "out"),
        data=Data(task="sst2", path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=16),
        train=dataclasses.replace(FINE_TUNING, epochs=3, batch=8, learning_rate=2e-2),
        importance=Importance(split="train[:32]", keep_gradients=True),
        ablation=Ablation(masks_at_once=4),
        pruning=Pruning(shares=(0.0, 0.3, 0.6, 1.0)),
    )


@pytest.fixture(scope="module")
def finished(config):
    experiment.train_model(config)
    experiment.importance(experiment.load(config))
    experiment.ablate(experiment.load(config))
    experiment.prune_orders(experiment.load(config))
    return pathlib.Path(config.out)


def test_the_model_was_learned(finished):
    described = json.loads((finished / "model" / "config.json").read_text())
    assert described["training"]["history"][-1]["accuracy"] > 0.9


def test_ablations_are_kept_with_every_example(finished, config):
    store = open_store(finished / "ablation/validation/one_off")
    np.testing.assert_array_equal(store.read("masks")[1:], heads.one_off(heads.all_on(2, 4)))
    assert store.read("loss").shape == store.read("prediction").shape == (9, 24)
    setup = experiment.load(config)
    label_N = setup.examples("validation").label_N
    np.testing.assert_array_equal(store.read("label"), label_N)
    assert store.manifest["splits"] == {"test": "validation"}
    assert store.manifest["rows"] == ["enc.0", "enc.1"]
    for part in ("experiment", "versions", "devices", "seed", "command", "created", "fingerprint"):
        assert store.manifest[part] is not None


def test_importance_and_its_gradients_agree(finished, config):
    store = open_store(finished / "importance")
    assert store.read("total").shape == (1, 2, 4)
    gradients = open_store(finished / "importance_gradients").read("gradient")
    assert gradients.shape == (32, 2, 4)
    assert (
        np.abs(gradients).sum(0) <= store.read("total").sum(0) + 1e-5
    ).all()  # the triangle inequality


@pytest.mark.parametrize("order", ["one_shot", "re_estimated", "oracle"])
def test_every_order_prunes_the_papers_counts_and_names_its_splits(finished, order):
    store = open_store(finished / "pruning" / order / "test")
    masks_MAH = store.read("masks")
    np.testing.assert_array_equal(8 - masks_MAH.sum((1, 2)), [0, 2, 4, 8])
    assert not (masks_MAH[1:] & ~masks_MAH[:-1]).any()
    judge = {"select": "validation[:50%]"} if order == "oracle" else {"score": "train[:32]"}
    assert store.manifest["splits"] == judge | {"test": "validation[50%:]"}
    ranking = open_store(finished / "pruning" / order / "ranking")
    assert ranking.read("score").shape == (3, 2, 4)
    np.testing.assert_array_equal(ranking.read("mask")[1:], masks_MAH[1:3])
    same = (ranking.read("score") == ranking.read("score")[0]).all()
    assert same == (order != "re_estimated")


def test_a_grid_on_two_splits_is_two_grids_side_by_side(finished, config, tmp_path):
    """Each place says its split, and the rows in scope; the oracle order takes what is there."""
    halves = ("validation[:50%]", "validation[50%:]")
    other = dataclasses.replace(
        config,
        model=str(finished / "model"),
        out=str(tmp_path),
        ablation=Ablation(splits=halves, masks_at_once=4),
        pruning=Pruning(orders=("oracle",), select=halves[0], test=halves[1], heads=(0, 2)),
    )
    experiment.ablate(experiment.load(other))
    experiment.prune_orders(experiment.load(other))
    assert not (tmp_path / "pruning/oracle/select").exists()
    stores = [open_store(tmp_path / f"ablation/{folder_name(half)}/one_off") for half in halves]
    assert [store.manifest["splits"]["test"] for store in stores] == list(halves)
    whole = open_store(finished / "ablation/validation/one_off")
    whole_MN, place_N = whole.read("prediction"), np.argsort(whole.read("origin"))
    both_MN, origin_N = (
        np.concatenate([store.read(name) for store in stores], -1)
        for name in ("prediction", "origin")
    )
    np.testing.assert_array_equal(both_MN[:, np.argsort(origin_N)], whole_MN[:, place_N])
    part = dataclasses.replace(other, ablation=Ablation(sets=("one_off",), rows=("enc.1",)))
    experiment.ablate(experiment.load(part))
    alone = open_store(tmp_path / "ablation/validation/one_off.enc.1")
    np.testing.assert_array_equal(alone.read("prediction")[1:], whole_MN[5:])
    assert main(["report", str(tmp_path)]) == 0
    page = (tmp_path / "report/index.html").read_text()
    for title in ("Without one head", "One head alone"):
        assert f"{title}, on {halves[0]} and {halves[1]}<" in page
    assert "Without one head (Table 1, Figure 1), on validation, enc.1<" in page
    assert (tmp_path / "report/one_off-validation.enc.1.csv").exists()


def test_the_mean_loss_can_judge(finished, config, tmp_path, capsys):
    other = dataclasses.replace(
        config,
        model=str(finished / "model"),
        out=str(tmp_path),
        data=dataclasses.replace(config.data, metric="loss"),
        ablation=Ablation(sets=("one_off",), masks_at_once=4),
        pruning=Pruning(orders=("oracle",), select="validation", heads=(0, 2)),
    )
    setup = experiment.load(other)
    experiment.ablate(setup)
    experiment.prune_orders(setup)
    loss_M = (
        open_store(tmp_path / "ablation/validation/one_off").read("loss").mean(1, dtype=np.float64)
    )
    score_AH = open_store(tmp_path / "pruning/oracle/ranking").read("score")[0]
    np.testing.assert_allclose(score_AH.ravel(), loss_M[1:] - loss_M[0], atol=1e-12)
    mask_AH = open_store(tmp_path / "pruning/oracle/test").read("masks")[1]
    assert sorted(np.flatnonzero(~mask_AH)) == sorted(np.argsort(loss_M[1:], kind="stable")[:2])
    assert main(["report", str(tmp_path)]) == 0
    assert (
        "mean loss is shown to be less than 0.01 nats worse"
        in (tmp_path / "report/index.html").read_text()
    )


def test_nothing_is_done_twice(finished, config, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("computed again")

    for module, name in (
        (whole, "evaluate_masks"),
        (scoring, "sum_importance"),
        (scorers, "head_importance"),
    ):
        monkeypatch.setattr(module, name, refuse)
    monkeypatch.setattr(training, "train", refuse)
    experiment.train_model(config)
    experiment.importance(experiment.load(config))
    experiment.ablate(experiment.load(config))
    experiment.prune_orders(experiment.load(config))


def test_changed_input_is_refused_with_its_name(finished, config):
    with pytest.raises(ValueError, match=r"was made from other input \(different recipe\)"):
        experiment.train_model(
            dataclasses.replace(config, train=dataclasses.replace(FINE_TUNING, epochs=1))
        )
    with pytest.raises(
        ValueError, match=r"importance holds results of another computation \(different data\)"
    ):
        experiment.importance(
            experiment.load(dataclasses.replace(config, importance=Importance(split="train[:20]")))
        )


def test_overlapping_splits_are_said(finished, config, caplog):
    pruning = dataclasses.replace(config.pruning, select="validation", orders=())
    experiment.prune_orders(experiment.load(dataclasses.replace(config, pruning=pruning)))
    assert (
        "12 examples of the select split validation are in the test split validation[50%:] too"
        in caplog.text
    )


def test_an_interrupt_in_pruning_loses_no_step(finished, config, tmp_path, monkeypatch):
    other = dataclasses.replace(config, model=str(finished / "model"), out=str(tmp_path / "out"))
    other = dataclasses.replace(
        other, pruning=dataclasses.replace(other.pruning, orders=("re_estimated",))
    )
    real, calls = scorers.head_importance, []

    def interrupted(*args, **options):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return real(*args, **options)

    monkeypatch.setattr(scorers, "head_importance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.prune_orders(experiment.load(other))
    assert open_store(tmp_path / "out/pruning/re_estimated/ranking").done().tolist() == [
        True,
        True,
        False,
    ]
    calls[:] = [1]
    experiment.prune_orders(experiment.load(other))
    found = open_store(tmp_path / "out/pruning/re_estimated/test").read("masks")
    np.testing.assert_array_equal(
        found, open_store(finished / "pruning/re_estimated/test").read("masks")
    )


def test_splits_that_are_joined_are_encoded_as_each_is(finished, config):
    """Whatever was encoded before; and what they share with another split is told."""
    setup = experiment.load(config)
    parts = [setup.examples(split) for split in ("train[:10]", "validation")]
    for split in ("train[:10]+validation", "train+validation", "train[:10]+validation"):
        found = setup.examples(split)
        assert found.split == "train+validation"
    for name in ("tokens", "types", "label_N"):
        whole = [row for part in parts for row in getattr(part, name)]
        assert all(map(np.array_equal, getattr(found, name), whole))
    assert len(found) == len(whole) == 34
    assert (
        overlap(setup.text("train[:20]+validation[:3]"), setup.text("validation+train[5:]")) == 18
    )


def test_a_grid_on_joined_splits_has_what_grids_on_the_parts_have(finished, config, tmp_path):
    both = "validation+train[:9]"
    other = dataclasses.replace(
        config,
        model=str(finished / "model"),
        out=str(tmp_path),
        ablation=Ablation(splits=(both, *both.split("+")), sets=("one_off",), masks_at_once=4),
    )
    experiment.ablate(experiment.load(other))
    stores = [
        open_store(tmp_path / f"ablation/{folder_name(split)}/one_off")
        for split in other.ablation.splits
    ]
    whole, *parts = [store.read("loss") for store in stores]
    np.testing.assert_allclose(whole, np.concatenate(parts, 1), atol=1e-5)
    number_N, place_N = np.divmod(stores[0].read("origin"), APART)
    assert list(number_N) == [0] * 24 + [1] * 9
    np.testing.assert_array_equal(place_N[24:], stores[2].read("origin"))
    assert main(["report", str(tmp_path)]) == 0
    assert both in (tmp_path / "report/index.html").read_text()


# --- the command ---------------------------------------------------------------------------------


def test_the_command_runs_a_step_and_reports(finished, config, tmp_path, capsys):
    path = config_file(tmp_path, config)
    assert main(["ablate", path]) == 0
    assert main(["report", config.out]) == 0
    page = pathlib.Path(capsys.readouterr().out.strip().splitlines()[-1])
    assert page == finished / "report" / "index.html"
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data.label", "mood"], r"train.tsv:1: .*'mood'.*sentence, label"),
        (["--model", "./nowhere"], "the model folder './nowhere' does not exist"),
        (["--data.path", "./nowhere"], "nowhere"),
        (["--importance.split", "trian"], "has no split 'trian'"),
        (["--data.max-length", "64"], "max_length is 64, but .* has 32 positions"),
        (
            ["--data.labels", "x", "y"],
            r"has the labels \('negative', 'positive'\), but the data has \('x', 'y'\)",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_a_non_zero_exit(
    finished, config, tmp_path, capsys, arguments, sentence
):
    fresh = ["--out", str(tmp_path / "out"), "--model", str(finished / "model")]
    assert main(["importance", config_file(tmp_path, config), *fresh, *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hp-jax: error: ")
    assert error.count("\n") == 1
    import re

    assert re.search(sentence, error)


def test_config_files_that_are_not_there_or_not_configs_are_named(tmp_path, capsys):
    assert main(["prune", str(tmp_path / "no.py")]) == 1
    assert "the config file" in capsys.readouterr().err
    (tmp_path / "odd.py").write_text("config = 3")
    assert main(["prune", str(tmp_path / "odd.py")]) == 1
    said = capsys.readouterr().err
    assert "defines config = 3, but a ClassificationExperiment or TranslationExperiment or" in said


def test_the_shipped_configs_load_and_say_how_they_are_run():
    for path in sorted((ROOT / "configs").glob("*.py")):
        assert isinstance(load_config(str(path)), KINDS_OF_EXPERIMENT)
        assert re.search(rf"hp-jax \w+ {path.stem} ", path.read_text())


# --- the house -----------------------------------------------------------------------------------


def test_importing_hp_jax_defines_names_only():
    code = "import sys, hp_jax; print('jax' in sys.modules, 'flax' in sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "False"]


def test_a_split_and_the_model_are_read_once_a_command(config, tmp_path, monkeypatch, capsys):
    """Once each, however many steps and slices ask for them."""
    calls = collections.Counter()

    def counted(module, name, key):
        real = getattr(module, name)

        def wrapper(*args, **options):
            calls[key(*args)] += 1
            return real(*args, **options)

        monkeypatch.setattr(module, name, wrapper)

    counted(tables, "read_text", lambda path: path.name)
    counted(corpus, "encode", lambda tokenizer, text, *_: f"encoded {text.split}")
    counted(bert, "read_tensors", lambda folder: "model")
    counted(checkpoint, "load_params", lambda *_: "own model")
    counted(model, "read_json", lambda path: path.name)
    small = dataclasses.replace(
        config,
        out=str(tmp_path / "out"),
        train=dataclasses.replace(config.train, epochs=1),
        importance=Importance(split="train[:16]"),
        ablation=Ablation(sets=("one_off",), masks_at_once=9),
        pruning=Pruning(shares=(0.0, 0.5)),
    )
    assert main(["run", config_file(tmp_path, small)]) == 0
    assert calls == {
        "train.tsv": 1,
        "dev.tsv": 1,
        "encoded train": 1,
        "encoded validation": 1,
        "model": 1,
        "config.json": 1,
    }


def test_a_trained_model_need_not_be_named_again(config, finished):
    """`hp-jax run` and `reproduce` go on without --model: it is known what it was trained from."""
    again = experiment.train_if_needed(dataclasses.replace(config, model=""))
    assert again.model.digest == experiment.load(config).model.digest

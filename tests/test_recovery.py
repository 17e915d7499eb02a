"""Recovery of pruned models: folded scales are gates, calibration lowers its loss, repair is the
library's, retraining learns, goes on and is shown."""

import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pytest
from test_experiment_translation import SMALL, WIDTHS, write_parallel
from test_removal import FAMILIES, data, some_masks
from tiny import FULL, TASK, batched, examples, random_params, write_hf_folder, write_sst2
from tiny_report import CURVE_MAH, everything, grid

import hp_jax.train
from hp_jax import calibration, experiment
from hp_jax.architecture import Seq2SeqConfig
from hp_jax.calibration import calibrate, fold_scales
from hp_jax.config import (
    FINE_TUNING,
    Ablation,
    ClassificationExperiment,
    Data,
    Importance,
    ParallelData,
    Pruning,
    TranslationExperiment,
)
from hp_jax.experiment import recovery
from hp_jax.experiment.setup import load_setup
from hp_jax.grid import whole
from hp_jax.grid.whole import evaluate_grid
from hp_jax.heads import gates
from hp_jax.importance import head_importance, normalize_rows
from hp_jax.least_squares import repair
from hp_jax.removal import remove_heads
from hp_jax.report.page import write_report
from hp_jax.report.pictures import style
from hp_jax.storage.store import open_store

BATCHES = batched(examples(count=24), size=8, buckets=(16,))
PARAMS = random_params()
MASK = np.array([[1, 0, 1, 0], [0, 1, 1, 1]], bool)


loss = jax.jit(lambda batch, scale_AH: TASK.loss(PARAMS, batch, gates(scale_AH, TASK.present_AH)))


def mean_loss(scale_AH):
    """By the definition, example by example."""
    losses = [
        np.asarray(loss(batch, np.float32(scale_AH)))[batch["weight_B"] > 0] for batch in BATCHES
    ]
    return float(np.concatenate(losses).astype(np.float64).mean())


# --- scales --------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "distilbert", "pre-norm", "ssru"])
def test_folded_scales_are_gates(family):
    """Under the 0/1 mask, and in the model without the heads; of a model that has lost heads
    already, too."""
    task = FAMILIES[family]
    params, mask_AH, batch = random_params(task), some_masks(task)["mixed"], data(task)[0]
    scale_AH = np.where(
        mask_AH, np.random.default_rng(5).uniform(-0.5, 2, mask_AH.shape), 0
    ).astype(np.float32)
    loss = jax.jit(lambda params, gates: task.loss(params, batch, gates))
    expected_B = loss(params, gates(scale_AH, task.present_AH))
    folded = fold_scales(task.config, params, scale_AH)
    np.testing.assert_allclose(
        loss(folded, gates(mask_AH, task.present_AH)), expected_B, rtol=1e-5, atol=1e-5
    )
    config, fewer = remove_heads(task.config, params, mask_AH)
    _, after = remove_heads(task.config, folded, mask_AH)
    jax.tree.map(np.testing.assert_array_equal, fold_scales(config, fewer, scale_AH), after)


def test_scales_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"has shape \(3, 4\), but the model has shape \(2, 4\)"):
        fold_scales(TASK.config, PARAMS, np.ones((3, 4)))
    with pytest.raises(ValueError, match="at least one batch with an example"):
        calibrate(TASK, PARAMS, [], MASK)


def test_calibration_lowers_the_loss_that_it_tells_and_touches_no_head_that_is_off():
    fitted = calibrate(TASK, PARAMS, BATCHES, MASK)
    assert fitted.after < fitted.before
    assert fitted.before == pytest.approx(mean_loss(MASK), rel=1e-5)
    assert fitted.after == pytest.approx(mean_loss(fitted.scale_AH), rel=1e-5)
    assert not fitted.scale_AH[~MASK].any()
    assert (fitted.scale_AH[MASK] != 1).all()
    again = calibrate(TASK, PARAMS, BATCHES, MASK)
    np.testing.assert_array_equal(again.scale_AH, fitted.scale_AH)


def test_calibration_finds_what_trying_every_scale_finds():
    """With one head left, the loss is a curve."""
    alone_AH = np.zeros((2, 4), bool)
    alone_AH[1, 2] = True
    tried = {scale: mean_loss(alone_AH * scale) for scale in np.linspace(-1, 3, 41)}
    fitted = calibrate(TASK, PARAMS, BATCHES, alone_AH, passes=100)
    assert fitted.after <= min(tried.values()) + 1e-4
    assert fitted.scale_AH[1, 2] == pytest.approx(min(tried, key=tried.get), abs=0.1)


@pytest.mark.parametrize(
    "mask_AH", [np.asarray(FULL), np.zeros((2, 4), bool)], ids=["all heads", "no head"]
)
def test_there_is_nothing_to_calibrate(mask_AH):
    fitted = calibrate(TASK, PARAMS, BATCHES, mask_AH)
    np.testing.assert_array_equal(fitted.scale_AH, mask_AH)
    assert fitted.after == fitted.before


def test_a_worse_fit_is_not_taken(monkeypatch):
    monkeypatch.setattr(calibration, "RATE", 1e4)
    fitted = calibrate(TASK, PARAMS, BATCHES, MASK, passes=1)
    np.testing.assert_array_equal(fitted.scale_AH, MASK)
    assert fitted.after == fitted.before


# --- in an experiment ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recovery")
    write_hf_folder(folder / "hf", head=True)
    write_sst2(folder / "sst2", train=64)
    return ClassificationExperiment(
        model=str(folder / "hf"),
        out=str(folder / "out"),
        data=Data(task="sst2", path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=16),
        train=dataclasses.replace(FINE_TUNING, batch=8, save_every=3),
        importance=Importance(split="train[:32]"),
        ablation=Ablation(masks_at_once=1),
        pruning=Pruning(
            orders=("one_shot", "re_estimated"),
            shares=(0.0, 0.3, 0.6),
            calibrate=20,
            repair=20,
            rescale=20,
            retrain_steps=5,
            retrain_rate=1e-2,
        ),
    )


@pytest.fixture(scope="module")
def finished(config):
    experiment.prune_orders(experiment.load(config))
    return pathlib.Path(config.out) / "pruning"


def test_every_curve_starts_with_the_whole_model_and_keeps_its_models(finished, config):
    for order in ("one_shot", "re_estimated"):
        plain = open_store(finished / order / "test")
        learned = {"calibrate": "train[:32]", "repair": "train[:32]", "rescale": "train[:32]"}
        learned["retrain"] = "train"
        for kind, split in learned.items():
            store = open_store(finished / order / kind / "test")
            assert store.manifest["splits"] == {
                "score": "train[:32]",
                kind: split,
                "test": "validation[50%:]",
            }
            np.testing.assert_allclose(store.read("loss")[0], plain.read("loss")[0], rtol=1e-6)
            assert (store.read("loss")[1:] != plain.read("loss")[1:]).any(1).all()
            assert sorted(path.name for path in (finished / order / kind / "models").iterdir()) == [
                "02",
                "04",
            ]
            masks_MAH = store.read("masks")
            if kind != "retrain" or order == "one_shot":
                np.testing.assert_array_equal(masks_MAH, plain.read("masks"))
            kept = load_setup(config, str(finished / order / kind / "models" / "04"))
            np.testing.assert_array_equal(kept.task.present_AH, masks_MAH[2])
            batches = kept.batches("validation[50%:]")
            found = evaluate_grid(kept.task, kept.params, batches, masks_MAH[2:], chunk=1)
            np.testing.assert_allclose(
                found["loss"][0], store.read("loss")[2], rtol=1e-4, atol=1e-5
            )


def test_calibration_changes_output_projections_alone(finished, config):
    start = experiment.load(config)
    mask_AH = open_store(finished / "one_shot/test").read("masks")[1]
    _, before = remove_heads(start.task.config, start.params, mask_AH)
    kept = load_setup(config, str(finished / "one_shot/calibrate/models/02"))
    told = json.loads((finished / "one_shot/calibrate/models/02/config.json").read_text())[
        "recovery"
    ]
    assert told["loss after"] <= told["loss before"]
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(kept.params), jax.tree.leaves(before), strict=True
    ):
        if not jax.tree_util.keystr(path).endswith("['out']['kernel']"):
            np.testing.assert_array_equal(new, old)
    row = [head for head in range(4) if mask_AH[0, head]]
    scale_h = np.array(told["scales"])[0, row]
    kernel = ("layer_0", "attention", "out", "kernel")
    new, old = (leaf_at(params, kernel) for params in (kept.params, before))
    np.testing.assert_allclose(new, old * scale_h[:, None, None], rtol=1e-5)


@pytest.mark.parametrize(("method", "fit"), [("repair", "weights"), ("rescale", "scales")])
def test_repair_is_that_of_the_library_on_the_first_batches(finished, config, method, fit):
    """Three batches of eight have the twenty examples that are asked for, and a few more."""
    setup = experiment.load(config)
    mask_AH = open_store(finished / "one_shot/test").read("masks")[1]
    some = list(setup.training_batches(setup.examples("train[:32]", training=False), 0))[:3]
    fitted = repair(setup.task, setup.params, some, mask_AH, fit=fit)
    _, expected = remove_heads(setup.model.config, fitted.params, mask_AH)
    kept = load_setup(config, str(finished / f"one_shot/{method}/models/02"))
    jax.tree.map(
        lambda new, old: np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-6),
        kept.params,
        expected,
    )
    told = json.loads((finished / f"one_shot/{method}/models/02/config.json").read_text())
    told = told["recovery"]
    assert list(told["missing before"]) == ["enc.0", "enc.1"]
    for row in ("enc.0", "enc.1"):
        assert told["missing after"][row] <= told["missing before"][row]


def leaf_at(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def test_retraining_goes_on_from_the_step_before_and_leaves_no_states(finished):
    first, second = (
        json.loads((finished / f"one_shot/retrain/models/{removed}/config.json").read_text())
        for removed in ("02", "04")
    )
    assert second["recovery"]["inputs"]["start"] == first["params"]
    assert not list((finished / "one_shot/retrain/states").iterdir())


def test_re_estimated_scores_are_those_of_the_retrained_model(finished, config):
    setup = experiment.load(config)
    own = open_store(finished / "re_estimated/retrain/ranking")
    np.testing.assert_array_equal(
        own.read("score")[0], open_store(finished / "re_estimated/ranking").read("score")[0]
    )
    kept = load_setup(config, str(finished / "re_estimated/retrain/models/02"))
    scored = setup.batches("train[:32]")
    score_AH = head_importance(kept.task, kept.params, scored, own.read("mask")[1])
    expected_AH = normalize_rows(score_AH, own.read("mask")[1])
    np.testing.assert_allclose(own.read("score")[1], expected_AH, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("after", [4, 9])
def test_an_interrupted_recovery_gives_the_same_models_bit_for_bit(
    finished, config, tmp_path, monkeypatch, after
):
    """Interrupted in the first step's training, and in the second's."""
    other = dataclasses.replace(
        config,
        out=str(tmp_path / "out"),
        pruning=dataclasses.replace(
            config.pruning, orders=("one_shot",), calibrate=0, repair=0, rescale=0
        ),
    )
    calls, place = [], hp_jax.train.place_batch

    def interrupted(batch, mesh):
        if len(calls) == after:
            raise KeyboardInterrupt
        calls.append(1)
        return place(batch, mesh)

    monkeypatch.setattr(hp_jax.train, "place_batch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiment.prune_orders(experiment.load(other))
    calls.clear()
    monkeypatch.setattr(
        hp_jax.train, "place_batch", lambda batch, mesh: calls.append(1) or place(batch, mesh)
    )
    experiment.prune_orders(experiment.load(other))
    assert len(calls) == {4: 10 - 3, 9: 10 - 5 - 3}[after]  # saved every 3 steps
    for removed in ("02", "04"):
        hashes = [
            json.loads((folder / f"one_shot/retrain/models/{removed}/config.json").read_text())[
                "params"
            ]
            for folder in (finished, tmp_path / "out/pruning")
        ]
        assert hashes[0] == hashes[1]


def test_nothing_is_recovered_twice_and_other_settings_are_refused(finished, config, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("computed again")

    for module, name in (
        (recovery, "train"),
        (recovery, "calibrate"),
        (recovery, "repair"),
        (whole, "evaluate_masks"),
    ):
        monkeypatch.setattr(module, name, refuse)
    experiment.prune_orders(experiment.load(config))
    for change in ({"pruning": dataclasses.replace(config.pruning, calibrate=8)}, {"seed": 1}):
        with pytest.raises(
            ValueError,
            match=r"calibrate/test holds results of another computation \(different recovery\)",
        ):
            experiment.prune_orders(experiment.load(dataclasses.replace(config, **change)))
    with pytest.raises(
        ValueError, match=r"pruning\.retrain_steps: expected an integer >= 0, but found -1"
    ):
        Pruning(retrain_steps=-1)


def test_without_a_recovery_nothing_of_it_is_there(finished, config, tmp_path):
    """The stores are those of an experiment with recoveries, but for these."""
    plain = Pruning(orders=config.pruning.orders, shares=config.pruning.shares)
    experiment.prune_orders(
        experiment.load(dataclasses.replace(config, out=str(tmp_path / "out"), pruning=plain))
    )
    for order in plain.orders:
        assert sorted(path.name for path in (tmp_path / "out/pruning" / order).iterdir()) == [
            "ranking",
            "test",
        ]
        for name in ("ranking", "test"):
            found, expected = (
                open_store(folder / order / name) for folder in (tmp_path / "out/pruning", finished)
            )
            assert found.manifest["fingerprint"] == expected.manifest["fingerprint"]
            assert not [key for key in found.manifest["fingerprint"] if "recovery" in key]


def test_overlap_with_what_is_learned_from_is_said(config, caplog):
    pruning = dataclasses.replace(config.pruning, test="train[:8]", orders=())
    experiment.prune_orders(experiment.load(dataclasses.replace(config, pruning=pruning)))
    assert (
        "8 examples of the retrain split train are in the test split train[:8] too" in caplog.text
    )


@pytest.mark.slow
def test_translation_by_type_of_attention(tmp_path, monkeypatch):
    """Narrow rows, parameters of a new model, and the report's names."""
    monkeypatch.setattr(style, "DPI", 30)
    write_parallel(tmp_path / "text", train=48, test=20)
    config = TranslationExperiment(
        out=str(tmp_path / "out"),
        data=ParallelData(
            source="xx",
            target="yy",
            path=str(tmp_path / "text"),
            max_length=16,
            buckets=(16,),
            batch=24,
        ),
        metric="token_accuracy",
        vocabulary=34,
        architecture=Seq2SeqConfig(**SMALL, **WIDTHS),
        train=dataclasses.replace(
            FINE_TUNING, epochs=1, evaluate="test", batch=8, learning_rate=1e-2
        ),
        importance=Importance(split="train[:24]"),
        ablation=Ablation(masks_at_once=1),
        pruning=Pruning(
            orders=("one_shot",),
            rows=("cross",),
            heads=(0, 2),
            test="test",
            select="test",
            calibrate=16,
            repair=16,
            rescale=16,
            retrain_steps=3,
        ),
    )
    experiment.train_model(config)
    experiment.prune_orders(experiment.load(config))
    folder = tmp_path / "out/pruning/one_shot.cross"
    losses = {
        name: open_store(folder / name / "test").read("loss").mean(1)
        for name in (".", "calibrate", "repair", "rescale", "retrain")
    }
    assert losses["retrain"][1] < losses["."][1]
    assert len({values[1] for values in losses.values()}) == 5
    np.testing.assert_allclose([values[0] for values in losses.values()], losses["."][0], rtol=1e-6)
    kept = load_setup(config, str(folder / "retrain/models/02"))
    assert kept.task.config.heads_per_row == {"enc.0": 2, "dec.0": 2, "cross.0": 2}
    assert "cross-attention only, retrained" in write_report(tmp_path / "out").read_text()
    assert (tmp_path / "out/report/recovery_one_shot_cross.csv").is_file()


# --- the report ----------------------------------------------------------------------------------


def test_the_report_shows_each_recovery_beside_the_curve_without(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)
    everything(tmp_path)
    before = write_report(tmp_path).read_text()
    assert "Recovery" not in before
    for kind, seed in (("calibrate", 1), ("repair", 3), ("rescale", 4), ("retrain", 2)):
        grid(
            tmp_path / f"pruning/one_shot/{kind}/test",
            CURVE_MAH,
            split="validation[50%:]",
            seed=seed,
        )
    text = write_report(tmp_path).read_text()
    assert text.count("<svg ") == before.count("<svg ") + 1
    assert "In the retrained one_shot order" in text
    table = (tmp_path / "report/recovery_one_shot.csv").read_text().splitlines()
    assert table[0].startswith("removed,share,no recovery,calibrated,repaired,rescaled,retrained,")
    assert len(table) == 1 + len(CURVE_MAH)
    for kind, place in (("calibrate", 3), ("repair", 4), ("rescale", 5), ("retrain", 6)):
        store = open_store(tmp_path / f"pruning/one_shot/{kind}/test")
        right_M = (store.read("prediction") == store.read("label")).mean(1)
        assert [float(line.split(",")[place]) for line in table[1:]] == pytest.approx(right_M)
    assert not re.search("one_shot/retrain is not", text)

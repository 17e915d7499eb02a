"""`run` trains what is not trained, never another model than the one that is named; `evaluate` has
the numbers of plain NumPy."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from tiny import config_file, write_hf_folder, write_sst2

from hp_jax import metrics
from hp_jax.cli import main
from hp_jax.config import ClassificationExperiment, Data, Importance
from hp_jax.experiment import evaluation, load, train_if_needed, training
from hp_jax.heads import gates, remove
from hp_jax.storage import checkpoint


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """An experiment with a model that is trained."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_hf_folder(folder / "trained", head=True)
    write_hf_folder(folder / "pretrained")
    write_sst2(folder / "sst2", train=16, validation=20)
    return ClassificationExperiment(
        model=str(folder / "trained"),
        out=str(folder / "out"),
        data=Data(path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=8),
        importance=Importance(split="validation"),
    )


# --- which model ---------------------------------------------------------------------------------


def test_a_trained_model_is_not_trained(config, monkeypatch, caplog):
    caplog.set_level("INFO", "hp_jax")
    monkeypatch.setattr(training, "train_model", lambda config, setup=None: "trained now")
    setup = train_if_needed(config)
    assert setup.model.digest == load(config).model.digest
    assert f"{config.model} is a trained model: it is not trained again" in caplog.text
    pretrained = config.model.replace("trained", "pretrained")
    assert train_if_needed(dataclasses.replace(config, model=pretrained)) == "trained now"


def test_another_model_than_the_one_that_is_named_is_never_used(config, tmp_path, monkeypatch):
    changed = dataclasses.replace(config, out=str(tmp_path / "out"))
    load(changed).model.save(
        tmp_path / "out/model", {"experiment": dataclasses.asdict(changed), "training": {}}
    )
    for name in (config.model, "", str(tmp_path / "out/model")):
        load(dataclasses.replace(changed, model=name))
    other = dataclasses.replace(changed, model=config.model.replace("trained", "pretrained"))
    for use in (load, training.train_model):
        with pytest.raises(ValueError, match=r"out/model was trained from .*trained, but --model"):
            use(other)
    assert checkpoint.is_model(tmp_path / "out/model")


def test_steps_are_chosen(config, tmp_path, capsys):
    path = config_file(tmp_path, dataclasses.replace(config, out=str(tmp_path / "out")))
    assert main(["run", str(path), "--steps", "importance", "--quiet"]) == 0
    found, page = capsys.readouterr().out.splitlines()
    assert "importance: on validation the highest scores have" in found
    assert page == f"{tmp_path}/out/report/index.html"
    assert not (tmp_path / "out/model").exists()


# --- evaluate ------------------------------------------------------------------------------------


def test_evaluation_is_what_numpy_says(config):
    setup = load(config)
    mask_AH = np.asarray(remove(setup.present_AH, {"enc.0": [1, 2]}, setup.rows))
    found = evaluation.evaluate(setup, "validation", mask_AH)
    logits = []
    for batch in setup.batches("validation"):
        logits_BC = setup.task.logits(setup.params, batch, gates(mask_AH, setup.present_AH))
        logits.append(np.asarray(logits_BC)[np.asarray(batch["weight_B"]) > 0])
    logits_NC = np.concatenate(logits).astype(np.float64)
    label_N = setup.examples("validation").label_N
    order = np.concatenate(
        [np.asarray(b["index_B"])[b["weight_B"] > 0] for b in setup.batches("validation")]
    )
    odds_NC = np.asarray(jax.nn.softmax(logits_NC, axis=1))
    right_N = logits_NC.argmax(1) == label_N[order]
    assert found["accuracy"]["value"] == pytest.approx(right_N.mean())
    loss_N = -np.log(odds_NC[np.arange(len(order)), label_N[order]])
    assert found["loss"]["value"] == pytest.approx(loss_N.mean(), rel=1e-5)
    for name in ("accuracy", "loss"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    assert (found["heads off"], found["examples"]) == (2, 20)
    assert found["change"]["low"] <= found["change"]["value"] <= found["change"]["high"]
    gap = 0.0
    for low in np.arange(0, 1, 0.1):
        inside = (odds_NC.max(1) > low) & (odds_NC.max(1) <= low + 0.1)
        gap += abs(np.sum(odds_NC.max(1)[inside]) - np.sum(right_N[inside])) / len(order)
    assert found["calibration error"] == pytest.approx(gap, rel=1e-4)


def test_calibration_error_of_the_sure_and_the_honest():
    right_MN = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    confidence_MN = np.stack([np.ones(4), np.full(4, 0.75)])
    assert metrics.calibration_error(confidence_MN, right_MN) == pytest.approx([0.5, 0])


def test_the_command_prints_numbers_with_intervals(config, tmp_path, capsys):
    path = config_file(tmp_path, config)
    words = ["evaluate", str(path), "--split", "validation[:10]", "--without", "enc.0.1", "--quiet"]
    assert main(words) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "validation[:10]: 10 examples, 1 of 8 heads off"
    assert [line.split()[0] for line in lines] == ["accuracy", "loss", "change", "calibration"]
    assert all("95 % interval" in line for line in lines[:3])
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["heads off"] == 1
    assert main(["evaluate", str(path), "--without", "enc.7.1"]) == 1
    assert "enc.7" in capsys.readouterr().err

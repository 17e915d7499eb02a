"""Labels of data and of models: which output stands for which, said and found."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import write_hf_folder

from hp_jax.config import ClassificationExperiment, Data
from hp_jax.experiment import grids
from hp_jax.experiment.setup import load_setup


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labels")
    write_hf_folder(folder / "bare")
    for name, labels in {
        "named": {"0": "sad", "1": "glad"},
        "numbered": {"0": "LABEL_0", "1": "LABEL_1"},
        "twice": {"0": "Sad", "1": "sad"},
    }.items():
        write_hf_folder(folder / name, head=True)
        raw = json.loads((folder / name / "config.json").read_text())
        (folder / name / "config.json").write_text(json.dumps(raw | {"id2label": labels}))
    (folder / "train.csv").write_text("text,label\ngood,glad\nbad,sad\nfine,glad\n")
    (folder / "validation.csv").write_text("text,label\ngood,glad\nbad,sad\nfine,glad\n")
    (folder / "numbers.csv").write_text("text,label\ngood,1\nbad,0\n")
    return folder


def loaded(folder, model, file="validation.csv", *, fresh=False, **data):
    own = Data(**{"task": "mine", "path": str(folder / file), "max_length": 16} | data)
    return load_setup(ClassificationExperiment(data=own), str(folder / model), fresh=fresh)


def test_labels_of_the_models_config_need_not_be_typed_again(folder, caplog):
    caplog.set_level("INFO", "hp_jax")
    setup = loaded(folder, "named")
    assert setup.examples("validation").label_N.tolist() == [1, 0, 1]
    assert "the labels are sad, glad, in the order of the model's outputs" in caplog.text
    assert loaded(folder, "named", "numbers.csv").examples("validation").label_N.tolist() == [1, 0]
    assert setup.corpus.about() == {
        "task": "mine",
        "metric": "accuracy",
        "labels": ["sad", "glad"],
        "positive": 1,
    }


@pytest.mark.parametrize(
    ("labels", "places"), [(("glad", "sad"), [0, 1, 0]), (("sad", "glad"), [1, 0, 1])]
)
def test_the_order_of_outputs_without_names_is_said_and_can_be_changed(
    folder, caplog, labels, places
):
    caplog.set_level("INFO", "hp_jax")
    setup = loaded(folder, "numbered", labels=labels)
    assert setup.examples("validation").label_N.tolist() == places
    assert f"its outputs are taken as {labels[0]}, {labels[1]}, in this order" in caplog.text
    with pytest.raises(ValueError, match="'glad' is not a label; the labels are LABEL_0, LABEL_1"):
        loaded(folder, "numbered").examples("validation")


def test_a_new_classifier_has_the_labels_of_the_training_file(folder):
    setup = loaded(folder, "bare", "", fresh=True)
    assert setup.corpus.labels == ("glad", "sad")
    assert setup.examples("train").label_N.tolist() == [0, 1, 0]
    assert loaded(folder, "named", "", fresh=True).corpus.labels == ("sad", "glad")
    with pytest.raises(ValueError, match=r"is the split validation .* for the split 'train'"):
        loaded(folder, "bare", fresh=True)


def test_two_labels_of_one_name_are_refused(folder):
    with pytest.raises(ValueError, match="each label once, but got 'Sad', 'sad'"):
        loaded(folder, "twice")


@pytest.mark.parametrize(("right", "warned"), [(10, False), (7, False), (0, True), (1, True)])
def test_a_model_below_chance_is_warned_about(caplog, right, warned):
    """Of 20 examples in two classes; 1 has p = 2e-5, 7 has p = 0.13."""
    label_N = np.zeros(20, int)
    prediction_MN = np.stack([np.arange(20) >= right, np.ones(20)]).astype(int)
    store = SimpleNamespace(
        done=lambda: np.array([True, False]),
        read={"label": label_N, "prediction": prediction_MN}.get,
    )
    setup = SimpleNamespace(corpus=SimpleNamespace(labels=("sad", "glad")))
    request = SimpleNamespace(splits={"test": "validation"}, measured="test")
    grids._warn_below_chance(setup, store, request)
    assert ("less than chance (50.0 %)" in caplog.text) == warned
    assert ("--data.labels" in caplog.text) == warned

"""Grids that measure only what is undecided: what they say holds, and goes on where it stopped."""

import contextlib
import io
import pathlib
import runpy
import types

import numpy as np
import pytest
from tiny import config_file, write_hf_folder, write_sst2

from hp_jax import estimates
from hp_jax.cli import main
from hp_jax.config import Ablation, ClassificationExperiment, Data
from hp_jax.estimates import changes
from hp_jax.experiment import estimates as steps
from hp_jax.grid import Grid
from hp_jax.linear import LinearMap
from hp_jax.metrics import LabelMetric, MeanLoss, scores
from hp_jax.report.sections.estimates import table
from hp_jax.storage.store import open_store

METRICS = {name: LabelMetric(name, 2) for name in ("accuracy", "f1", "matthews")}


def population(seed, *, examples=400, masks=12):
    """Labels, what is predicted and what is so; the full model comes first and is predicted
    exactly, the others at some of the examples not."""
    random = np.random.default_rng(seed)
    label_N = random.integers(0, 2, examples)
    wrong = random.random((masks, examples)) < np.linspace(0.1, 0.4, masks)[:, None]
    predicted_MN = np.where(wrong, 1 - label_N, label_N)
    errors = random.random((masks, examples)) < np.linspace(0, 0.02, masks)[:, None]
    true_MN = np.where(errors, 1 - predicted_MN, predicted_MN)
    return label_N, predicted_MN, true_MN


def arrays(label_N, predicted_MN, true_MN, measured, *, seed, certain=20):
    """As an estimate's store has them, with `measured` examples."""
    order_N = np.random.default_rng(seed).permutation(len(label_N))
    done_N = np.arange(len(label_N)) < measured
    measured_NM = np.repeat(done_N[:, None], len(predicted_MN), 1)
    return {
        "label": label_N,
        "predicted": predicted_MN,
        "certain": order_N[:certain],
        "audit": order_N[certain:],
        "prediction": np.where(measured_NM, true_MN[:, order_N].T, 0),
        "measured": measured_NM,
    }


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_measured_on_all_examples_it_is_the_grids_own_number(metric):
    label_N, predicted_MN, true_MN = population(0)
    known = changes(arrays(label_N, predicted_MN, true_MN, 400, seed=1), metric)
    exact_M = scores(metric, {"label": label_N, "prediction": true_MN})
    for part in known[:3]:
        np.testing.assert_allclose(part, exact_M - exact_M[0], atol=1e-12)


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_intervals_hold_what_all_examples_give(metric):
    """All looks of a sequence together, for at least 95 % of the masks (60 orders, 11 masks)."""
    held = []
    for seed in range(60):
        label_N, predicted_MN, true_MN = population(seed)
        exact_M = scores(metric, {"label": label_N, "prediction": true_MN})
        exact_M = exact_M - exact_M[0]
        looks = [
            changes(arrays(label_N, predicted_MN, true_MN, measured, seed=seed), metric)
            for measured in (20, 60, 120, 240)
        ]
        held.append(
            np.all([(k.low - 1e-9 <= exact_M) & (exact_M <= k.high + 1e-9) for k in looks], axis=0)[
                1:
            ]
        )
    assert np.mean(held) >= 0.95
    widths = [np.mean(k.high - k.low) for k in looks]
    assert widths == sorted(widths, reverse=True)


def test_masks_may_stop_at_different_numbers_of_examples():
    label_N, predicted_MN, true_MN = population(3)
    known = arrays(label_N, predicted_MN, true_MN, 120, seed=0)
    alone = changes(known, METRICS["accuracy"])
    more = arrays(label_N, predicted_MN, true_MN, 240, seed=0)
    more["measured"] = more["measured"] & ((np.arange(400) < 120)[:, None] | (np.arange(12) == 5))
    mixed = changes(more, METRICS["accuracy"])
    later = changes(arrays(label_N, predicted_MN, true_MN, 240, seed=0), METRICS["accuracy"])
    for mask, expected in ((4, alone), (5, later)):
        assert [part[mask] for part in mixed] == [part[mask] for part in expected]


def test_risk_is_of_the_label_that_is_nearest_to_change():
    """Margins by hand: class 2 wins by 1 over class 1 and by 3 over class 0."""
    slope_NOAH = np.zeros((1, 2, 1, 2))
    slope_NOAH[0, :, 0, 0] = 0.5, 0.0  # without it class 1 falls by 0.5
    slope_NOAH[0, :, 0, 1] = 0.0, 1.5  # without it class 2 falls by 1.5
    linear = LinearMap(np.array([[2.0, 3.0]]), slope_NOAH, np.ones((1, 2)), np.array([2]))
    first, second = np.array([[[0, 1]]]), np.array([[[1, 0]]])
    assert linear.risk(first) == pytest.approx([0.5])
    assert linear.risk(second) == pytest.approx([1.5])
    assert linear.risk(np.concatenate([first, second])) == pytest.approx([1.5])


# --- through the command -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A config, the exact grid of all single heads, and settings with rounds of few examples."""
    folder = tmp_path_factory.mktemp("estimates")
    write_hf_folder(folder / "hf", head=True)
    write_sst2(folder / "sst2", train=16, validation=48)
    config = ClassificationExperiment(
        model=str(folder / "hf"),
        out=str(folder / "exact"),
        data=Data(path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=16),
        ablation=Ablation(sets=("one_off",), splits=("validation",), masks_at_once=4),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "LEAST", 8)
        path = config_file(folder, config)
        assert main(["ablate", path]) == 0
        yield path, folder


def estimated(folder):
    store = open_store(folder / "estimates/validation/one_off")
    return store, {name: store.read(name) for name in store.manifest["arrays"]}


def test_what_it_says_holds_and_goes_on_where_it_stopped(made):
    path, folder = made
    once, twice = folder / "once", folder / "twice"

    def ablate(out, *more):
        assert main(["ablate", path, "--out", str(out), *more]) == 0

    ablate(once, "--ablation.precision", "12")
    ablate(twice, "--ablation.precision", "40")
    few = estimated(twice)[0].done().sum()
    ablate(twice, "--ablation.precision", "12")
    assert 0 < few < estimated(twice)[0].done().sum()
    for name, array in estimated(once)[1].items():
        np.testing.assert_array_equal(array, estimated(twice)[1][name], err_msg=name)
    exact = open_store(folder / "exact/ablation/validation/one_off")
    values = {name: exact.read(name) for name in ("label", "prediction")}
    exact_M = scores(METRICS["accuracy"], values)
    store, found = estimated(once)
    known = changes(found, METRICS["accuracy"])
    assert (known.high - known.low <= 0.24 + 1e-9).all()
    assert (known.low <= exact_M - exact_M[0] + 1e-9).all()
    assert (exact_M - exact_M[0] <= known.high + 1e-9).all()
    np.testing.assert_array_equal(found["predicted"][0], values["prediction"][0])
    drops = {row["without"]: row["change"] for row in table(store)}
    assert len(drops) == 8
    assert drops["enc.0.0"] == pytest.approx(100 * known.value[1])


def test_an_interrupted_round_is_measured_again(made, monkeypatch):
    path, folder = made
    out, evaluate, rounds = folder / "killed", Grid.evaluate, []

    def interrupted(self, chunk=None):
        rounds.append(chunk)
        if len(rounds) == 2:
            raise KeyboardInterrupt
        return evaluate(self, chunk)

    with monkeypatch.context() as patch:
        patch.setattr(Grid, "evaluate", interrupted)
        assert main(["ablate", path, "--out", str(out), "--ablation.precision", "12"]) != 0
    assert estimated(out)[0].done().sum() == 8
    assert main(["ablate", path, "--out", str(out), "--ablation.precision", "12"]) == 0
    for name, array in estimated(folder / "once")[1].items():
        np.testing.assert_array_equal(array, estimated(out)[1][name], err_msg=name)


def test_a_fine_precision_measures_everything(made):
    path, folder = made
    out = folder / "all"
    assert main(["ablate", path, "--out", str(out), "--ablation.precision", "0.001"]) == 0
    store, found = estimated(out)
    assert store.done().all()
    exact = open_store(folder / "exact/ablation/validation/one_off")
    order_N = np.concatenate([found["certain"], found["audit"]])
    measured = found["measured"][:, 1:] != 0
    expected_NM = exact.read("prediction")[1:, order_N].T
    np.testing.assert_array_equal(found["prediction"][:, 1:][measured], expected_NM[measured])


def test_decisions_are_right_and_decided_masks_leave(made):
    path, folder = made
    out = folder / "decide"
    assert main(["ablate", path, "--out", str(out), "--ablation.decide", "50"]) == 0
    _, found = estimated(out)
    known = changes(found, METRICS["accuracy"], alpha=0.05 / 8)
    assert ((-known.high[1:] >= 0.5) | (-known.low[1:] < 0.5)).all()


def test_a_large_split_has_all_examples_at_risk_in_its_first_round():
    """So that a job that is stopped after any round has something to say."""
    linear = LinearMap(
        np.linspace(-1, 1, 9815)[:, None], np.ones((9815, 1, 1, 1)), np.ones((1, 1)), np.zeros(9815)
    )
    sample, size = estimates.ordered(linear, np.zeros((1, 1, 1)), seed=0)
    assert size >= len(sample.certain) == 491
    assert np.abs(linear.output_NO[sample.certain]).max() < 0.06  # the smallest margins


def test_what_an_estimate_is_not_for_is_said(made, capsys):
    path, folder = made
    few = ["--out", str(folder / "parts"), "--ablation.precision", "12"]
    assert main(["ablate", path, *few, "--ablation.part", "1", "2"]) != 0
    assert "ablation.part is (1, 2)" in capsys.readouterr().err
    assert main(["reproduce", path, *few]) != 0
    assert "figures need every example measured" in capsys.readouterr().err
    assert not (folder / "parts/estimates").exists()


def test_losses_and_translations_are_refused():
    setup = types.SimpleNamespace(
        config=types.SimpleNamespace(ablation=Ablation(precision=1.0)), metric=MeanLoss()
    )
    with pytest.raises(ValueError, match="but the metric is loss"):
        steps.estimate(setup, types.SimpleNamespace(masks_MAH=np.ones((2, 1, 1))))


def run_script(name, *words):
    """Its last line."""
    script, said = pathlib.Path(__file__).parent.parent / "scripts" / name, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setattr("sys.argv", [name, *words])
        runpy.run_path(str(script), run_name="__main__")
    return said.getvalue().strip().splitlines()[-1]


def test_a_script_counts_how_often_estimates_of_a_real_grid_hold(made):
    path, folder = made
    assert main(["linear", path]) == 0
    words = ["--split", "validation", "--precision", "20", "--seeds", "3"]
    cells = [
        float(cell) for cell in run_script("estimates.py", str(folder / "exact"), *words).split("|")
    ]
    assert cells[0] == 20
    assert 0 < cells[1] <= 100
    assert min(cells[2:]) >= 90


def test_a_script_counts_how_many_examples_a_precision_needs():
    """Of 9,815 examples, of which 20 predictions of the audit are off: more than without any."""
    cells = [cell.strip() for cell in run_script("coverage.py").strip("| ").split("|")]
    assert cells[:2] == ["9,815", "20"]
    assert 1000 < int(cells[-1].replace(",", "")) < 8343

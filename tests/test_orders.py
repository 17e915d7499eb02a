"""The greedy orders in an experiment: what is kept of them, and that it is what one finds by
hand."""

import dataclasses
import pathlib

import numpy as np
import pytest
from tiny import write_hf_folder, write_sst2

from hp_jax import experiment, heads
from hp_jax.attribution import mean_of
from hp_jax.config import Ablation, ClassificationExperiment, Data, Importance, Pruning
from hp_jax.experiment import shapley
from hp_jax.experiment.scorers import Schedule
from hp_jax.grid import evaluate_grid
from hp_jax.linear import linear_map
from hp_jax.quadratic import fisher, gauss_newton
from hp_jax.report.page import write_report
from hp_jax.report.results import stores_below
from hp_jax.report.sections.pruning import how_far, read_curves
from hp_jax.storage.store import open_store

ORDERS = ("linear", "fisher", "gauss_newton", "verified", "shapley")
GREEDY = ("linear", "fisher", "gauss_newton", "verified")
SELECT, COUNTS = "validation[:50%]", [0, 2, 5, 8]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("orders")
    write_hf_folder(folder / "hf", head=True)
    write_sst2(folder / "sst2")
    return ClassificationExperiment(
        model=str(folder / "hf"),
        out=str(folder / "out"),
        data=Data(task="sst2", path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=16),
        importance=Importance(split="train[:32]"),
        ablation=Ablation(masks_at_once=4),
        pruning=Pruning(orders=ORDERS, heads=(2, 5, 8), proposals=3, permutations=2),
    )


@pytest.fixture(scope="module")
def finished(config):
    experiment.prune_orders(experiment.load(config))
    return config.out


def without_by_hand(setup, order, mask_AH):
    """What each order goes by, at the mask of a step: the loss, or its change, of any mask."""
    found = linear_map(setup.task, setup.params, setup.batches("train[:32]"), mask_AH)
    predict = {
        "fisher": fisher(found).predict,
        "gauss_newton": gauss_newton(found).predict,
    }.get(order, lambda masks_MAH: found.values(masks_MAH)["loss"].mean(1, dtype=np.float64))

    def verified(masks_MAH):
        best = np.argsort(predict(masks_MAH), kind="stable")[:3]
        loss_M = np.full(len(masks_MAH), np.inf)
        loss_M[best] = evaluate_grid(
            setup.task, setup.params, setup.batches(SELECT), masks_MAH[best]
        )["loss"].mean(1)
        return loss_M

    return verified if order == "verified" else predict


@pytest.mark.parametrize("order", GREEDY)
def test_heads_go_one_by_one_and_the_map_is_taken_anew_at_every_step(finished, config, order):
    setup = experiment.load(config)
    left_AH, expected = heads.all_on(2, 4), []
    for count in COUNTS:
        loss_of = without_by_hand(setup, order, left_AH)
        while left_AH.sum() > 8 - count:
            masks_MAH = heads.one_off(left_AH)
            left_AH = masks_MAH[np.argmin(loss_of(masks_MAH))]
        expected.append(left_AH)
    store = open_store(f"{finished}/pruning/{order}/test")
    np.testing.assert_array_equal(store.read("masks"), expected)
    selected = {"select": SELECT} if order == "verified" else {}
    looked = {"score": "train[:32]"} | selected
    assert store.manifest["splits"] == looked | {"test": "validation[50%:]"}
    ranking = open_store(f"{finished}/pruning/{order}/ranking")
    assert ranking.done().all()
    assert ranking.manifest["splits"] == looked
    np.testing.assert_array_equal(ranking.read("mask"), expected[:3])


def test_the_report_has_them_as_it_has_the_others(finished):
    curves = read_curves(stores_below(pathlib.Path(finished)))
    assert list(curves) == list(ORDERS)
    said = " ".join(how_far(curves))
    for order in ORDERS:
        assert f"In the {order} order" in said


def test_shapley_values_are_kept_draw_by_draw_and_add_up(finished, config):
    store = open_store(f"{finished}/pruning/shapley/values")
    setup = experiment.load(config)
    ends_MAH = np.stack([heads.all_on(2, 4), ~heads.all_on(2, 4)])
    loss_MN = evaluate_grid(setup.task, setup.params, setup.batches(SELECT), ends_MAH)["loss"]
    rise = np.subtract(*loss_MN.mean(1)[::-1])
    value_RAH = store.read("value").sum(1)
    np.testing.assert_allclose(value_RAH.sum((1, 2)), [rise, rise], rtol=1e-4)
    ranking = open_store(f"{finished}/pruning/shapley/ranking")
    np.testing.assert_array_equal(ranking.read("score")[0], value_RAH.mean(0))
    assert ranking.manifest["splits"] == {"select": SELECT}
    assert ranking.manifest["draws"] == 2
    assert "within" not in ranking.manifest


def drawing(config, out, **changes):
    """What is drawn with other settings, and what the ranking says of it."""
    pruning = dataclasses.replace(config.pruning, orders=("shapley",), **changes)
    other = dataclasses.replace(config, out=str(out), pruning=pruning)
    experiment.prune_orders(experiment.load(other))
    store = open_store(f"{out}/pruning/shapley/values")
    return store, open_store(f"{out}/pruning/shapley/ranking").manifest


def test_shapley_values_are_drawn_until_they_are_near_enough(config, tmp_path, caplog, monkeypatch):
    """The first draws that are; a kill in the middle gives the same; too few are said to be."""
    whole, all_of_them = drawing(config, tmp_path / "all", permutations=12)
    value_RAH = whole.read("value").sum(1)
    reach_R = [mean_of(value_RAH[:draws]).reach() for draws in range(1, 13)]
    assert all_of_them["draws"] == 12
    assert all_of_them["within"] == reach_R[-1]
    precision = reach_R[7]
    wanted = 1 + next(place for place, reach in enumerate(reach_R) if reach <= precision)
    calls, loss = [], shapley.shapley

    def interrupted(*given):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return loss(*given)

    monkeypatch.setattr(shapley, "shapley", interrupted)
    settings = {"permutations": 12, "precision": precision}
    with pytest.raises(KeyboardInterrupt):
        drawing(config, tmp_path / "some", **settings)
    store, found = drawing(config, tmp_path / "some", **settings)
    assert len(calls) == wanted + 1
    assert found["draws"] == store.done().sum() == wanted
    assert found["passes"]["forward"] == wanted * 16 * 12
    np.testing.assert_array_equal(store.read("value")[:wanted].sum(1), value_RAH[:wanted])
    page = write_report(tmp_path / "some").read_text()
    assert f"Shapley values are of {wanted} random orders" in page
    drawing(config, tmp_path / "few", permutations=3, precision=precision)
    assert "after 3 of at most 3 draws each value is within inf nats" in caplog.text
    with pytest.raises(ValueError, match=r"different settings"):
        drawing(config, tmp_path / "few", permutations=3)


def test_heads_out_of_scope_and_below_the_floor_stay(finished, config, tmp_path):
    """And divergence makes another order's fingerprint."""
    other = dataclasses.replace(
        config,
        out=str(tmp_path),
        pruning=dataclasses.replace(
            config.pruning,
            orders=("linear", "verified"),
            rows=("enc.1",),
            heads=(1, 4),
            floor=1,
            linear="divergence",
        ),
    )
    experiment.prune_orders(experiment.load(other))
    for order in ("linear", "verified"):
        masks_MAH = open_store(tmp_path / f"pruning/{order}.enc.1/test").read("masks")
        np.testing.assert_array_equal(masks_MAH.sum(2), [[4, 4], [4, 3], [4, 1]])
    again = dataclasses.replace(config, pruning=dataclasses.replace(other.pruning, rows=("all",)))
    with pytest.raises(ValueError, match="settings"):
        experiment.prune_orders(experiment.load(again))


def test_a_schedule_says_how_many_heads_go_next():
    schedule = Schedule(heads.all_on(2, 4), COUNTS, 0)
    for gone, more in ((0, 2), (2, 3), (3, 2), (5, 3), (8, 0)):
        left_AH = (np.arange(8) >= gone).reshape(2, 4)
        assert schedule.next(left_AH) == more

"""All orders beside each other: what the report says of them is what one finds by hand, and what an
order costs is what was counted."""

import csv
import dataclasses
import itertools
import pathlib

import jax
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from statsmodels.stats.multitest import multipletests
from tiny import (
    batched,
    config_file,
    examples,
    random_params,
    with_config,
    write_hf_folder,
    write_sst2,
)
from translation_files import write_parallel

from hp_jax import experiment, heads
from hp_jax.architecture import Decoding, Seq2SeqConfig
from hp_jax.attribution import shapley, shapley_masks
from hp_jax.cli import main
from hp_jax.config import (
    FINE_TUNING,
    FROM_SCRATCH,
    Ablation,
    ClassificationExperiment,
    Data,
    Importance,
    Paper,
    ParallelData,
    Pruning,
    TranslationExperiment,
)
from hp_jax.data.splits import rows_of
from hp_jax.experiment import Curve, scorers
from hp_jax.experiment.scorers import half_scorer
from hp_jax.grid import Grid, evaluate_grid
from hp_jax.importance import PAPER, head_importance, importance_sums, normalize_rows
from hp_jax.linear import linear_map, map_batch
from hp_jax.pruning import greedy_scores
from hp_jax.quadratic import gauss_newton
from hp_jax.report import curves as report_curves
from hp_jax.report.results import stores_below
from hp_jax.report.sections import models, pruning
from hp_jax.report.sections import orders as section
from hp_jax.stats import non_inferior, non_inferior_right
from hp_jax.storage.store import find_stores, open_store
from hp_jax.task import loss_of_each

ORDERS = [
    "one_shot",
    "re_estimated",
    "oracle",
    "linear",
    "fisher",
    "gauss_newton",
    "verified",
    "shapley",
]
SELECT, TEST = "validation[:50%]", "validation[50%:]"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    write_hf_folder(folder / "hf")
    write_sst2(folder / "sst2", validation=60)
    return ClassificationExperiment(
        model=str(folder / "hf"),
        out=str(folder / "out"),
        data=Data(task="sst2", path=str(folder / "sst2"), max_length=16, buckets=(16,), batch=16),
        train=dataclasses.replace(FINE_TUNING, epochs=1, batch=16, learning_rate=3e-3),
        importance=Importance(split="train[:33]"),
        ablation=Ablation(masks_at_once=4),
        pruning=Pruning(oracle="loss", heads=(2, 5, 8), proposals=3, permutations=2, tolerance=0.4),
    )


@pytest.fixture(scope="module")
def out(config, tmp_path_factory):
    """The folder of everything that `hp-jax compare` makes."""
    folder = tmp_path_factory.mktemp("config")
    assert main(["compare", config_file(folder, config), "--quiet"]) == 0
    return pathlib.Path(config.out)


def table(out, name):
    with open(out / f"report/{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def right(out, path):
    """How many heads are gone, and which answers are right, at each point of a curve."""
    store = open_store(f"{out}/pruning/{path}/test")
    gone_M = 8 - store.read("masks").sum((1, 2))
    return gone_M, store.read("prediction") == store.read("label")


def path_of(name):
    """A name of the report's, such as `repaired linear`, as a folder."""
    recovery, _, order = name.rpartition(" ")
    return f"{order}/repair" if recovery else order


# --- the report ----------------------------------------------------------------------------------


def test_all_orders_that_a_classifier_can_have_are_there(out):
    assert [row["order"] for row in table(out, "orders")] == ORDERS
    text = (out / "report/index.html").read_text()
    assert ">Orders compared</h2>" in text
    assert "Beside the one_shot order, in the mean of accuracy over the shares removed" in text


def test_the_means_are_those_of_scipy(out):
    for row in table(out, "orders"):
        gone_M, right_MN = right(out, row["order"])
        by_hand = scipy.integrate.trapezoid(right_MN.mean(1), gone_M / 8)
        assert float(row["mean accuracy"]) == pytest.approx(by_hand)


def test_the_differences_are_those_of_a_bootstrap_by_hand_corrected_as_by_statsmodels(out):
    rows = table(out, "orders_areas")
    random = np.random.default_rng(5)
    for other, group in itertools.groupby(rows, lambda row: row["other"]):
        group = list(group)
        assert [row["order"] for row in group] == [name for name in ORDERS if name != other]
        p = [float(row["p_area"]) for row in group]
        corrected = [float(row["p_corrected"]) for row in group]
        np.testing.assert_allclose(corrected, multipletests(p, method="holm")[1])
        for row in group:
            gone_M, one_MN = right(out, row["order"])
            _, other_MN = right(out, other)
            each_N = np.trapezoid(100.0 * one_MN - 100.0 * other_MN, gone_M / 8, axis=0)
            assert float(row["area"]) == pytest.approx(each_N.mean(), abs=1e-9)
            resampled = each_N[random.integers(len(each_N), size=(4000, len(each_N)))].mean(1)
            spread = each_N.std() / np.sqrt(len(each_N))
            for end, found in zip(
                np.quantile(resampled, [0.025, 0.975]), (row["low"], row["high"]), strict=True
            ):
                assert abs(end - float(found)) <= 0.35 * spread + 1e-9


def test_how_many_heads_can_go_is_a_claim_of_no_harm_at_the_tolerated_loss(out):
    found = {row["order"]: row for row in table(out, "orders")}
    for name in ("one_shot", "oracle", "verified"):
        gone_M, right_MN = right(out, name)
        p_M = non_inferior_right(right_MN[1:], right_MN[0], 0.4 * right_MN[0].mean()).p
        most = 0
        for gone, p in zip(gone_M[1:], p_M, strict=True):
            if p > 0.025:
                break
            most = gone
        assert int(found[name]["heads that can go"]) == most
        assert float(found[name]["share"]) == pytest.approx(100 * most / 8)
    assert any(int(row["heads that can go"]) for row in found.values())


def test_a_full_model_of_no_worth_gives_no_tolerance(out):
    curves = pruning.read_curves(stores_below(out))
    comparison = curves["one_shot"]["all"]
    nothing = dataclasses.replace(comparison, metric_M=np.zeros_like(comparison.metric_M))
    assert pruning.single(nothing).most_removed(0.4) is None
    assert pruning.single(comparison).most_removed(0.0) is None


# --- reliability ---------------------------------------------------------------------------------


def by_hand(setup, order, half):
    """The scores of an order's first step from every other example."""

    def some(split):
        data = setup.examples(split)
        return setup.batches_of(rows_of(data, np.arange(half, len(data), 2)))

    full_AH, task, params = setup.present_AH, setup.task, setup.params
    if order in ("one_shot", "re_estimated"):
        return normalize_rows(
            head_importance(task, params, some("train[:33]"), full_AH, estimator=PAPER), full_AH
        )
    if order == "linear":
        found = linear_map(task, params, some("train[:33]"), full_AH)
        return greedy_scores(found.without, full_AH)
    masks_MAH = np.concatenate([full_AH[None], heads.one_off(full_AH)])
    loss_M = evaluate_grid(task, params, some(SELECT), masks_MAH)["loss"].mean(1)
    return (loss_M[1:] - loss_M[0]).reshape(2, 4)


@pytest.mark.parametrize("order", ["one_shot", "re_estimated", "linear", "oracle"])
def test_reliability_is_the_rank_correlation_of_two_halves(order, out, config):
    setup = experiment.load(config)
    halves = [by_hand(setup, order, half).ravel() for half in (0, 1)]
    (row,) = (row for row in table(out, "orders") if row["order"] == order)
    assert float(row["spearman"]) == pytest.approx(scipy.stats.spearmanr(*halves).statistic)
    assert float(row["spearman_low"]) <= float(row["spearman"]) <= float(row["spearman_high"])


def test_the_halves_say_that_they_are_halves(out):
    found = {half: open_store(f"{out}/halves/{half}/pruning/verified/ranking") for half in (1, 2)}
    assert found[2].manifest["splits"] == {
        "score": "train[:33], part 2 of 2",
        "select": f"{SELECT}, part 2 of 2",
    }
    assert found[1].manifest["fingerprint"]["data"] != found[2].manifest["fingerprint"]["data"]
    known = {row["order"] for row in table(out, "orders") if row["spearman"] != "nan"}
    assert known == set(ORDERS)


def test_halves_of_shapley_values_share_neither_examples_nor_masks(out, config):
    """As if each had been drawn by itself."""
    setup = experiment.load(config)
    data = setup.examples(SELECT)
    masks_RMAH = shapley_masks(setup.present_AH, 2, seed=config.seed)
    found = []
    for half in (0, 1):
        some = setup.batches_of(rows_of(data, np.arange(half, len(data), 2)))
        loss_MN = evaluate_grid(setup.task, setup.params, some, masks_RMAH[half])["loss"]
        expected_AH = shapley(loss_MN.mean(1)[None], masks_RMAH[half : half + 1])[0]
        store = open_store(f"{out}/halves/{half + 1}/pruning/shapley/ranking")
        assert store.manifest["splits"] == {"select": f"{SELECT}, part {half + 1} of 2"}
        np.testing.assert_allclose(store.read("score")[0], expected_AH, rtol=1e-4, atol=1e-6)
        found.append(expected_AH.ravel())
    (row,) = (row for row in table(out, "orders") if row["order"] == "shapley")
    assert float(row["spearman"]) == pytest.approx(scipy.stats.spearmanr(*found).statistic)


def test_of_one_draw_there_are_no_halves(config, tmp_path):
    setup = experiment.load(config)
    settings = dataclasses.replace(config.pruning, permutations=1)
    assert half_scorer(setup.having(out=str(tmp_path), pruning=settings), 0) is None


# --- costs ---------------------------------------------------------------------------------------


def counted(monkeypatch):
    """Counters of the passes that are made from now on."""
    found = {"importance": 0, "mapped": 0, "masked": 0}

    def counting(name, function):
        def passed(task, params, batch, *rest, **named):
            found[name] += int(np.sum(batch["weight_B"]))
            return function(task, params, batch, *rest, **named)

        return passed

    monkeypatch.setattr(
        "hp_jax.importance.importance_sums", counting("importance", importance_sums)
    )
    monkeypatch.setattr("hp_jax.linear.map_batch", counting("mapped", map_batch))

    def counting_masks(whole):
        def measured(grid, *rest, **named):
            count = sum(int(np.sum(batch["weight_B"])) for batch in grid.batches)
            found["masked"] += len(grid.masks_MAH) * count
            return whole(grid, *rest, **named)

        return measured

    for method in (Grid.evaluate, Grid.fill):
        monkeypatch.setattr(Grid, method.__name__, counting_masks(method))
    return found


@pytest.mark.parametrize("order", ORDERS)
def test_what_an_order_costs_is_what_was_counted(order, config, tmp_path, monkeypatch):
    setup = experiment.load(config).having(out=str(tmp_path))
    found = counted(monkeypatch)
    curve = Curve(setup, order)
    curve.rank(curve.folder, curve.scorer)
    ranking = open_store(tmp_path / f"pruning/{order}/ranking")
    assert ranking.manifest["passes"] == {
        "forward": sum(found.values()),
        "backward": found["importance"] + found["mapped"],
        "translated": 0,
    }
    assert sum(found.values()) > 0


def test_divergence_maps_the_full_model_once_more(config, tmp_path, monkeypatch):
    kept = dataclasses.replace(config.pruning, linear="divergence", heads=(3, 3, 6))
    setup = experiment.load(config).having(out=str(tmp_path), pruning=kept)
    found = counted(monkeypatch)
    curve = Curve(setup, "linear")
    curve.rank(curve.folder, curve.scorer)
    passes = open_store(tmp_path / "pruning/linear/ranking").manifest["passes"]
    assert passes["forward"] == passes["backward"] == found["mapped"] == 3 * 33


def test_a_backward_pass_to_the_gates_is_about_as_much_work_as_a_forward_pass():
    """By the compiler's count of operations."""
    task = with_config(width=128, ffn=512, labels=("a", "b"))  # most of the work is in the layers
    params, batch = random_params(task), batched(examples(4, classes=2), 4, (16,))[0]
    gate_AH = np.ones((2, 4), np.float32)

    def forward(params, batch, gate_AH):
        return loss_of_each(task, params, batch, heads.gates(gate_AH, task.present_AH))

    def operations(function):
        compiled = jax.jit(function).lower(params, batch, gate_AH).compile()
        return compiled.cost_analysis()["flops"]

    once = operations(forward)
    importance = operations(lambda *given: importance_sums(task, *given, estimator=PAPER))
    mapped = operations(lambda *given: map_batch(task, *given))
    assert importance / once == pytest.approx(2, abs=0.3)
    assert mapped / once == pytest.approx(2, abs=0.3)


# --- what is there is not done again -------------------------------------------------------------


def test_a_comparison_that_was_interrupted_goes_on_and_shares_what_prune_has(
    config, out, tmp_path, monkeypatch
):
    own = dataclasses.replace(config, out=str(tmp_path / "out"))
    file = config_file(tmp_path, own)
    assert main(["train", file, "--quiet"]) == 0
    assert main(["prune", file, "--pruning.orders", "oracle", "one_shot", "--quiet"]) == 0
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("manifest.json")}
    calls, orders = itertools.count(), ["--orders", "linear", "verified", "oracle"]

    def stopped(*given, **named):
        if next(calls) == 4:  # of 3 for linear, 3 for verified, and those of the halves
            raise KeyboardInterrupt
        return linear_map(*given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(scorers, "linear_map", stopped)
        assert main(["compare", file, *orders, "--quiet"]) == 130
    assert main(["compare", file, *orders, "--quiet"]) == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    for name in ("orders", "orders_areas"):
        whole = {(row["order"], row.get("other")): row for row in table(out, name)}
        found = table(tmp_path / "out", name)
        assert {row["order"] for row in found} == {*ORDERS[:3], "linear", "verified"}
        for row in found:
            expected = whole[row["order"], row.get("other")] | {
                key: row[key] for key in row if key == "p_corrected"
            }  # of fewer tests
            assert row == expected


def test_nothing_is_measured_when_all_is_there(config, out, tmp_path, monkeypatch, capsys):
    found, before = counted(monkeypatch), len(find_stores(out))
    monkeypatch.setattr(Grid, "evaluate", None)
    assert main(["compare", config_file(tmp_path, config), "--quiet"]) == 0
    assert found["importance"] == found["mapped"] == 0
    assert len(find_stores(out)) == before
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == str(out / "report/index.html")
    assert "Beside the re_estimated order" in said


def test_the_orders_of_importance_are_always_among_them(config, tmp_path):
    own = dataclasses.replace(config, out=str(tmp_path / "out"))
    settings = ["--orders", "linear", "--pruning.rows", "all", "enc.1", "--pruning.heads", "2", "4"]
    assert main(["compare", config_file(tmp_path, own), *settings, "--quiet"]) == 0
    rows = table(tmp_path / "out", "orders")
    assert [(row["heads"], row["order"]) for row in rows] == [
        (scope, order) for scope in ("all", "enc.1") for order in (*ORDERS[:2], "linear")
    ]
    assert {row["spearman"] for row in rows if row["heads"] == "enc.1"} != {"nan"}


def test_curves_without_points_are_refused_at_once(config, tmp_path, capsys):
    own = dataclasses.replace(config, out=str(tmp_path / "out"))
    words = ["compare", config_file(tmp_path, own), "--pruning.heads", "0", "--quiet"]
    assert main(words) == 1
    assert "no head goes at any point of the curves" in capsys.readouterr().err
    assert not find_stores(tmp_path / "out")


# --- translation, and seeds ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def translation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("translation")
    write_parallel(folder / "text", train=96, validation=24, test=20)
    return TranslationExperiment(
        out=str(folder / "out"),
        data=ParallelData(
            source="xx",
            target="yy",
            path=str(folder / "text"),
            max_length=16,
            buckets=(16,),
            batch=24,
        ),
        vocabulary=34,
        architecture=Seq2SeqConfig(
            encoder_layers=1,
            decoder_layers=1,
            encoder_heads=2,
            decoder_heads=2,
            cross_heads=2,
            width=16,
            encoder_ffn=16,
            decoder_ffn=16,
            norm="pre",
            dropout=0.0,
        ),
        train=dataclasses.replace(
            FROM_SCRATCH, epochs=2, batch=8, batch_tokens=0, learning_rate=1e-2, warmup=20
        ),
        metric="chrf",
        decoding=Decoding(beam=1),
        importance=Importance(split="train[:32]"),
        ablation=Ablation(masks_at_once=7),
        pruning=Pruning(
            select="validation", test="test", shares=(0.0, 0.5), repair=8, tolerance=0.3
        ),
        paper=Paper(seeds=(0, 1)),
    )


@pytest.fixture(scope="module")
def translated(translation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("config")
    words = ["--orders", "oracle", "fisher", "--quiet"]
    assert main(["compare", config_file(folder, translation), *words]) == 0
    return pathlib.Path(translation.out)


def test_translation_models_are_compared_over_seeds(translated):
    plain = [*ORDERS[:3], "fisher"]
    names = plain + [f"repaired {name}" for name in plain]
    assert [row["order"] for row in table(translated, "orders")] == names
    found = models.seeds(stores_below(translated))
    assert sorted(found) == sorted(names)
    for row in table(translated, "orders_seeds"):
        means = []
        for seed in ("", "seeds/1/"):
            store = open_store(f"{translated}/{seed}pruning/{path_of(row['order'])}/test")
            curve = pruning.single(pruning.compare_in(store, "all"))
            means.append(np.trapezoid(curve.metric_M, curve.share_M) / 50)
        assert float(row["mean chrF"]) == pytest.approx(np.mean(means))
        curve = found[row["order"]]
        full = np.mean([comparison.metric_M[0] for comparison in curve.by_seed.values()])
        worse = curve.differences._replace(
            measured_M=-curve.differences.measured_M, resampled_MR=-curve.differences.resampled_MR
        )
        shown = non_inferior(worse, 0.3 * full).p[1] <= 0.025
        assert int(row["heads that can go"]) == 3 * shown
    for row in table(translated, "orders_seeds_areas"):
        one, other = found[row["order"]], found[row["other"]]
        area = np.trapezoid(one.metric_M - other.metric_M, one.share_M) / 50
        assert float(row["area"]) == pytest.approx(area)


def test_repaired_models_stand_beside_the_papers_orders_with_repair_and_without(translated):
    plain = [*ORDERS[:3], "fisher"]
    repaired = [f"repaired {name}" for name in plain]
    expected = [(name, other) for other in plain[:2] for name in plain + repaired if name != other]
    expected += [(name, other) for other in repaired[:2] for name in repaired if name != other]
    for file in ("orders_areas", "orders_seeds_areas"):
        found = [(row["order"], row["other"]) for row in table(translated, file)]
        assert sorted(found) == sorted(expected)


def test_translations_are_counted_apart(translated):
    found = {row["order"]: row for row in table(translated, "orders")}
    assert found["oracle"]["translations"] == str(7 * 24)
    assert found["oracle"]["cost"] == str(2 * 7 * 24)
    assert found["fisher"]["translations"] == "0"
    assert found["fisher"]["cost"] == str(2 * 32)
    assert "nan" not in found["oracle"]["spearman"]


def test_curves_of_other_seeds_are_not_compared(translated):
    found = models.seeds(stores_below(translated))
    one, other = found["one_shot"], found["fisher"]
    assert one.comparable(other)
    alone = report_curves.Curve({0: other.by_seed[0]})
    assert not one.comparable(alone)
    swapped = report_curves.Curve({0: other.by_seed[1], 1: other.by_seed[0]})
    assert not one.comparable(swapped)


def test_of_a_translation_model_gauss_newton_goes_by_labels_that_it_draws(
    translation, translated, tmp_path
):
    """And says what that costs; other draws are another order."""
    settings = dataclasses.replace(translation.pruning, heads=(1, 4), label_draws=3)
    own = {"model": str(translated / "model"), "out": str(tmp_path), "seed": 7}
    setup = experiment.load(dataclasses.replace(translation, pruning=settings, **own))
    curve = Curve(setup, "gauss_newton")
    masks_MAH = curve.rank(curve.folder, curve.scorer)
    left_AH, expected = setup.present_AH, [setup.present_AH]
    for count in (1, 3):
        given = setup.task, setup.params, setup.batches("train[:32]"), left_AH
        found = gauss_newton(linear_map(*given, draws=3, seed=7))
        for _ in range(count):
            some_MAH = heads.one_off(left_AH)
            left_AH = some_MAH[np.argmin(found.predict(some_MAH))]
        expected.append(left_AH)
    np.testing.assert_array_equal(masks_MAH, expected)
    ranking = open_store(tmp_path / "pruning/gauss_newton/ranking")
    assert ranking.manifest["passes"] == {
        "forward": 2 * 32,
        "backward": 2 * 32 * (1 + 3),
        "translated": 0,
    }
    other = Curve(setup.having(pruning=dataclasses.replace(settings, label_draws=2)), curve.order)
    with pytest.raises(ValueError, match="different settings"):
        other.rank(curve.folder, other.scorer)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--orders", "linear", "--pruning.linear", "divergence"], "this is no classifier"),
    ],
)
@pytest.mark.parametrize("command", ["compare", "prune"])
def test_orders_that_a_translation_model_cannot_have_are_refused_at_once(
    command, words, sentence, translation, translated, tmp_path, capsys
):
    if command == "prune":
        words = ["--pruning.orders", *words[1:]]
    own = dataclasses.replace(
        translation,
        model=str(translated / "model"),
        out=str(tmp_path / "out"),
        paper=Paper(),
    )
    assert main([command, config_file(tmp_path, own), *words, "--quiet"]) == 1
    assert sentence in capsys.readouterr().err
    assert not find_stores(tmp_path / "out")


def test_by_default_those_that_it_can_have():
    class Translator:
        """A task without log-odds."""

    class Setup:
        task = Translator()
        config = TranslationExperiment()

    assert not [order for order in ORDERS if scorers.lacks(Setup, order)]


def test_more_orders_than_three_are_compared_with_the_papers_in_words(out):
    curves = pruning.read_curves(stores_below(out))
    assert len(section.verdicts(curves)) == 2
    assert not any("order is better than" in said for said in pruning.how_far(curves))
    few = {order: curves[order] for order in ORDERS[:3]}
    assert section.verdicts(few) == []
    assert sum("average over the shares" in said for said in pruning.how_far(few)) == 3

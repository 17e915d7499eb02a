"""The report: its numbers against plain recomputations, its pictures' scales, and a page that
stands alone."""

import csv
import dataclasses
import json
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
import scipy.stats
from tiny_report import CURVE_MAH, FULL_AH, HEADS, ROWS, N, everything, grid, importance, with_full

from hp_jax import heads, stats
from hp_jax.importance import stored_scores
from hp_jax.report import ablations, interactions, results, tables
from hp_jax.report.comparison import compare
from hp_jax.report.html import Listing, as_csv, as_text, show
from hp_jax.report.page import write_report
from hp_jax.report.pictures import heatmaps, plots, style
from hp_jax.report.scale import SCALES
from hp_jax.report.sections import heads as section
from hp_jax.report.sections import pruning


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


@pytest.fixture
def one_off(tmp_path):
    return grid(tmp_path / "ablation/one_off", with_full(heads.one_off(FULL_AH)))


def test_head_table_is_what_one_computes_by_hand(one_off):
    rows = tables.head_table(compare(one_off))
    label_N, prediction_MN, loss_MN = (
        one_off.read(name) for name in ("label", "prediction", "loss")
    )
    names = [(ROWS[row], head) for row, head in heads.living_heads(FULL_AH)]
    assert sorted((row["row"], row["head"]) for row in rows) == sorted(names)
    assert [row["metric"] for row in rows] == sorted(row["metric"] for row in rows)
    for row in rows:
        place = 1 + names.index((row["row"], row["head"]))
        right_N, full_N = prediction_MN[place] == label_N, prediction_MN[0] == label_N
        assert row["metric"] == pytest.approx(right_N.mean())
        assert row["change"] == pytest.approx(100 * (right_N.mean() - full_N.mean()))
        assert row["low"] <= row["change"] <= row["high"]
        assert row["loss_change"] == pytest.approx(
            loss_MN[place].mean() - loss_MN[0].mean(), abs=1e-6
        )
        lost, won = int((full_N & ~right_N).sum()), int((right_N & ~full_N).sum())
        assert row["p_mcnemar"] == pytest.approx(scipy.stats.binomtest(lost, lost + won).pvalue)


def test_f1_is_that_of_its_class_and_the_bootstrap_decides(tmp_path):
    store = grid(tmp_path / "grid", with_full(heads.one_off(FULL_AH)), metric="f1")
    comparison = compare(store)
    truth_N, said_N = store.read("label") == 1, store.read("prediction")[0] == 1
    assert comparison.metric_M[0] == pytest.approx(
        2 * (truth_N & said_N).sum() / (truth_N.sum() + said_N.sum())
    )
    assert comparison.constant == pytest.approx(2 * truth_N.sum() / (truth_N.sum() + N))
    assert comparison.test == "bootstrap"
    np.testing.assert_array_equal(comparison.p_M, comparison.change.p)


def test_best_per_row_has_the_highest_metric_then_the_lowest_loss(tmp_path):
    comparison = compare(grid(tmp_path / "grid", with_full(heads.one_on(FULL_AH))))
    assert [row["row"] for row in tables.best_per_row(comparison)] == ROWS
    for best in tables.best_per_row(comparison):
        others = [row for row in tables.head_table(comparison) if row["row"] == best["row"]]
        assert (best["metric"], -best["loss"]) == max(
            (row["metric"], -row["loss"]) for row in others
        )


def test_grid_table_has_a_dash_for_heads_that_are_not_there_and_stars(one_off):
    comparison = dataclasses.replace(
        compare(one_off), mcnemar_M=np.array([1, 0.5, 0.001, 0.005, 0.5, 0.5])
    )
    first, second = tables.grid_table(comparison)
    assert [first[head][-1] for head in "12"] == ["†", "*"]  # 5 * 0.001; 4 * 0.005
    assert first["0"][-1].isdigit()
    assert second["2"] == "–"


def test_importance_is_the_mean_and_rows_have_norm_one(tmp_path):
    store = importance(tmp_path / "two")
    score_AH, normalised_AH = results.importance_scores(store)
    np.testing.assert_allclose(score_AH[0], np.array([4, 2, 2]) / 4)
    np.testing.assert_allclose(np.linalg.norm(normalised_AH, axis=1), 1)
    rows = tables.importance_table(store)
    assert [row["normalised"] for row in rows] == sorted(
        (row["normalised"] for row in rows), reverse=True
    )
    assert len(rows) == sum(HEADS)
    raw = tables.importance_table(importance(tmp_path / "raw", norm=0))
    assert list(raw[0]) == ["row", "head", "score"]
    assert raw[0]["score"] == np.where(FULL_AH, score_AH, 0).max()


def test_curve_counts_the_heads_that_are_gone_and_finds_the_first_drop(tmp_path):
    comparison = compare(grid(tmp_path / "grid", CURVE_MAH))
    rows = tables.curve_table(comparison)
    assert [row["removed"] for row in rows] == [0, 1, 3, 5]
    assert [row["share"] for row in rows] == pytest.approx([0, 20, 60, 100])
    assert (rows[0]["change"], rows[0]["p_mcnemar"]) == (0, 1)
    assert removable(comparison, [np.nan, 0.02, 0.03, 0.02]) == (1, 3)
    assert removable(comparison, [np.nan, 0.026, 0.001, 0.001]) == (0, 1)
    assert removable(comparison, [np.nan, 0.02, 0.025, 0.001]) == (5, None)
    gone_AH = tables.removal_shares(comparison)
    np.testing.assert_allclose(gone_AH[FULL_AH], [20, 60, 60, 100, 100])
    stays = compare(grid(tmp_path / "stays", CURVE_MAH[:3]))
    assert np.isinf(tables.removal_shares(stays)[1, 1])


def removable(comparison, p):
    """Heads that can go where the claims of no harm have these p, and those at the first step that
    cannot."""
    changed = dataclasses.replace(comparison)
    vars(changed)["no_harm"] = stats.Claim(np.array(p), np.ones(4))
    last, then = tables.removable(changed)
    return last["removed"], then and then["removed"]


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_no_harm_is_claimed_by_the_margin_of_the_experiment(tmp_path, metric):
    """With the largest margin all can go, with the smallest none; the full model has no p."""
    store = grid(tmp_path / "grid", with_full(heads.one_off(FULL_AH)), metric=metric)
    right_MN = store.read("prediction") == store.read("label")
    for margin, expected in ((60, 5), (1e-6, 0)):
        comparison = compare(store)
        comparison.manifest["experiment"]["margin"] = margin
        assert comparison.harmless_M.sum() == expected
        no_harm, free = comparison.no_harm, comparison.free
        assert np.isnan([no_harm.p[0], no_harm.adjusted[0], free.p[0]]).all()
        assert (free.p[1:] >= no_harm.p[1:]).all()
        assert (no_harm.adjusted[1:] >= no_harm.p[1:]).all()
        if metric == "accuracy":
            theirs = stats.non_inferior_right(right_MN[1:], right_MN[0], margin / 100)
            np.testing.assert_allclose(no_harm.adjusted[1:], theirs.adjusted)
        else:
            worse = stats.Differences(*(-part[1:] for part in comparison.differences))
            np.testing.assert_allclose(no_harm.p[1:], stats.non_inferior(worse, margin).p)


def test_what_the_section_says_of_no_harm_and_of_the_least_effect(one_off):
    comparison = compare(one_off)
    comparison.manifest["experiment"]["margin"] = 20
    claims, least = section.no_harm(comparison)
    harmless = (comparison.no_harm.adjusted[1:] <= 0.025).sum()
    assert claims.startswith(f"{harmless} of 5 heads are each shown to do no harm")
    assert f"uncorrected {comparison.harmless_M.sum()})" in claims
    free = (comparison.free.adjusted[1:] <= 0.025).sum()
    assert f"{free} are shown to be free: within 20 points" in claims
    assert "neither that they can go nor that they cannot" in claims
    error = comparison.differences.resampled_MR[1:].std(1)
    effect = scipy.stats.norm.ppf([1 - 0.01 / 10, 0.8]).sum() * error
    assert f"(at 0.01 / 5) {np.median(effect):.2f} points ({effect.min():.2f} to" in least


def test_a_mask_file_has_the_other_tests_too(one_off):
    comparison = compare(one_off)
    right_MN = one_off.read("prediction") == one_off.read("label")
    for row in tables.mask_table(comparison)[1:]:
        right_N, base_N = right_MN[row["mask"]].astype(float), right_MN[0].astype(float)
        assert row["p_paired_t"] == pytest.approx(scipy.stats.ttest_rel(right_N, base_N).pvalue)
        assert row["p_unpaired_t"] == pytest.approx(scipy.stats.ttest_ind(right_N, base_N).pvalue)
        assert row["p_mid"] < row["p_mcnemar"]
        assert row["p_no_harm"] <= row["p_free"] <= row["p_free_corrected"]


def test_calibration_stands_beside_accuracy_where_confidence_is_kept(tmp_path, one_off):
    assert "ece" not in tables.head_table(compare(one_off))[0]
    path = tmp_path / "sure"
    store = grid(path, with_full(heads.one_off(FULL_AH)), confidence=True)
    right_MN, sure_MN = store.read("prediction") == store.read("label"), store.read("confidence")
    for row in tables.mask_table(compare(store)):
        gap, right_N, sure_N = 0.0, right_MN[row["mask"]], sure_MN[row["mask"]]
        for place in range(10):
            inside = (sure_N > place / 10) & (sure_N <= (place + 1) / 10)
            if inside.any():
                gap += inside.mean() * abs(right_N[inside].mean() - sure_N[inside].mean())
        assert row["ece"] == pytest.approx(gap, rel=1e-4)
        assert list(row).index("ece") < list(row).index("loss")


def test_ranks_begin_and_end_where_they_can(one_off):
    rows = tables.head_table(compare(one_off))
    for place, row in enumerate(rows, 1):
        assert 1 <= row["rank_low"] <= row["rank_high"] <= 5
        assert row["rank_low"] <= place <= row["rank_high"]


def test_bands_hold_the_intervals_and_are_drawn(tmp_path):
    comparison = compare(grid(tmp_path / "grid", CURVE_MAH))
    rows = tables.curve_table(comparison)
    assert rows[0]["band_low"] == rows[0]["band_high"] == 0
    for row in rows[1:]:
        assert row["band_low"] < row["low"] + 0.5
        assert row["band_high"] > row["high"] - 0.5
        assert row["band_low"] < row["change"] < row["band_high"]
    figure = plots.curves(
        {"": {"one_shot": tables.drawn_curve(comparison)}}, 0.9, np.nan, comparison.scale
    )
    (band,) = figure.axes[0].collections[1:]
    drawn = band.get_datalim(figure.axes[0].transData)
    assert drawn.y0 == pytest.approx(0.9 + min(row["band_low"] for row in rows) / 100)


@pytest.mark.parametrize(
    ("name", "root"),
    [
        ("pruning/linear/test", ""),
        ("linear/validation", ""),
        ("epochs/03/pruning/linear/ranking", "epochs/03"),
        ("halves/1/importance", "halves/1"),
        ("other/run/ablation/validation/one_off", "other/run"),
    ],
)
def test_a_store_belongs_to_the_experiment_that_its_path_names(name, root):
    assert results.root(name) == root


def test_the_area_between_orders_is_paired_and_claimed_only_if_it_is_there(tmp_path):
    for order, seed in (("one_shot", 0), ("oracle", 1)):
        grid(tmp_path / f"pruning/{order}/test", CURVE_MAH, seed=seed)
    curves = pruning.read_curves(results.stores_below(tmp_path))
    write_report(tmp_path)
    (row,) = _read_csv(tmp_path / "report/pruning_areas.csv")
    share_M = [line["share"] for line in tables.curve_table(curves["oracle"]["all"])]
    one_M, other_M = (scopes["all"].change.difference for scopes in curves.values())
    area = np.trapezoid(one_M - other_M, share_M) / 100
    assert float(row["area"]) == pytest.approx(area)
    assert float(row["low"]) <= area <= float(row["high"])
    assert (row["order"], row["other"]) == ("one_shot", "oracle")
    assert (
        "That the one_shot and the oracle order differ is not shown:" in pruning.how_far(curves)[2]
    )
    one = curves["one_shot"]["all"]
    better = one.differences._replace(
        measured_M=one.differences.measured_M + 9, resampled_MR=one.differences.resampled_MR + 9
    )
    changed = {**curves, "oracle": {"all": dataclasses.replace(one, differences=better)}}
    said = pruning.how_far(changed)[2]
    assert said.startswith("The one_shot order is worse than the oracle order: -9.00 points")
    # Other points, or another model: no area.
    grid(tmp_path / "three/pruning/one_shot/test", CURVE_MAH[:3])
    grid(tmp_path / "three/pruning/oracle/test", CURVE_MAH)
    curves = pruning.read_curves(results.stores_below(tmp_path / "three"))
    assert len(pruning.how_far(curves)) == 2


def test_importance_says_how_reliable_it_is(tmp_path, monkeypatch):
    store = importance(tmp_path / "importance")
    halves = [
        stored_scores(
            {name: sums[[part]] for name, sums in store.read_items().items()}, FULL_AH, norm=2
        )[1][FULL_AH]
        for part in range(2)
    ]
    r = np.corrcoef(*halves)[0, 1]
    assert tables.reliability(store) == pytest.approx(2 * r / (1 + r))
    assert r < 0
    assert "halves of the 2 parts do not agree on these scores" in section.importance(store)[1]
    for found, said in ((0.87, "reliability of these scores: 0.870 ("), (np.nan, "cannot be told")):
        monkeypatch.setattr(tables, "reliability", lambda store, found=found: found)
        assert said in section.importance(store)[1]


def test_without_a_full_model_there_is_a_metric_but_no_change(tmp_path):
    row = tables.curve_table(compare(grid(tmp_path / "pruning/oracle/test", CURVE_MAH[1:])))[0]
    assert row["metric"] > 0
    assert np.isnan(
        [row[name] for name in ("change", "low", "high", "p_bootstrap", "p_mcnemar", "loss_change")]
    ).all()
    text = write_report(tmp_path).read_text()
    assert "Summary" not in text
    assert text.count("<svg") == 2


def test_correlations_are_scipys_and_nothing_where_nothing_varies(tmp_path, one_off):
    comparison, scores = compare(one_off), importance(tmp_path / "importance")
    rows = {
        (row["importance"], row["effect"]): row
        for row in tables.correlation_table(scores, comparison)
    }
    expected = scipy.stats.pearsonr(
        results.importance_scores(scores)[1][FULL_AH], -comparison.change.difference[1:]
    )
    found = rows["row-normalised", "drop of accuracy"]
    assert (found["pearson"], found["p_pearson"]) == pytest.approx(
        (expected.statistic, expected.pvalue)
    )
    assert found["n"] == sum(HEADS)
    *none, n = tables.correlations(np.ones(5), np.arange(5.0)).values()
    assert (np.isnan(none).all(), n) == (True, 5)


def test_two_splits_stand_side_by_side_unless_they_share_examples(tmp_path):
    """Effects against effects, and what was chosen on one split as it does on the other."""
    off, on = with_full(heads.one_off(FULL_AH)), with_full(heads.one_on(FULL_AH))
    for seed, split in enumerate(("dev", "test", "test[:10]")):
        grid(tmp_path / f"ablation/{split}/one_off", off, split=split, seed=seed)
        grid(tmp_path / f"ablation/{split}/one_on", on, split=split, seed=seed)
    text = write_report(tmp_path).read_text()
    assert "Without one head, on dev and test<" in text
    assert "Without one head, on dev and test[:10]<" in text
    assert "on test and test[:10]" not in text  # it cannot be told that they share none
    assert "Without one head (Table 1, Figure 1), on test[:10]<" in text
    grids = ablations.read_ablations(results.stores_below(tmp_path))
    dev, test, _ = grids["one_off"]
    (row, loss) = _read_csv(tmp_path / "report/two_splits-dev-test.csv")
    x, y = (one.comparison.metric_M[1:] for one in (dev, test))
    assert float(row["pearson"]) == pytest.approx(np.corrcoef(x, y)[0, 1])
    x, y = (one.comparison.loss_M[1:] for one in (dev, test))
    assert float(loss["spearman"]) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    chosen = _read_csv(tmp_path / "report/one_on_chosen-dev-test.csv")
    where, there = (one.comparison for one in grids["one_on"][:2])
    assert [row["row"] for row in chosen] == ROWS
    for row in chosen:
        own = [n for n, name in enumerate(where.names, 1) if name.startswith(row["row"])]
        best = max(own, key=lambda mask: (where.metric_M[mask], -where.loss_M[mask]))
        assert where.names[best - 1] == f"{row['row']}.{row['head']}"
        assert float(row["chosen"]) == pytest.approx(where.change.difference[best])
        assert float(row["change"]) == pytest.approx(there.change.difference[best])


def _read_csv(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_interactions_are_symmetric_second_differences(tmp_path, one_off):
    pairs = grid(tmp_path / "ablation/pairs", with_full(heads.pairs(FULL_AH)))
    together, found = interactions.interactions(pairs, one_off)
    assert found == heads.living_heads(FULL_AH)
    np.testing.assert_array_equal(together, together.T)
    single, double = one_off.read("loss").mean(1), pairs.read("loss").mean(1)
    seventh = 1, 4  # of the pairs 01 02 03 04 12 13 14 23 24 34
    expected = (double[7] - double[0]) - sum(single[1 + head] - single[0] for head in seventh)
    assert together[seventh] == pytest.approx(expected, abs=1e-6)


def test_effects_have_symmetric_colours_and_absent_heads_are_hatched():
    values_AH = np.array([[0.1, -3.0, 0.2], [0.0, 1.0, np.nan]])
    figure = heatmaps.heatmap(values_AH, ROWS, "points", centred=True, marked_AH=values_AH < -1)
    (image,) = figure.axes[0].images
    assert (image.norm.vmin, image.norm.vmax) == (-3, 3)
    patches = [patch for axes in figure.axes[:2] for patch in axes.patches]  # a block a type
    assert sum(patch.get_hatch() is not None for patch in patches) == 1
    assert sum(not patch.get_fill() for patch in patches) == 1
    assert (
        heatmaps.centred_limit(np.zeros(3)) == heatmaps.centred_limit(np.r_[np.ones(99), -100]) == 1
    )


def test_histograms_are_the_same_bytes_each_time_and_count_every_head():
    first, second = (
        plots.histogram(np.array([0.8, 0.82, 0.82]), 0.82, "accuracy", 0.01) for _ in range(2)
    )
    assert style.to_svg(first) == style.to_svg(second)
    assert style.to_png(first) == style.to_png(second)
    metric_n = np.random.default_rng(0).integers(700, 900, 144) / 1000
    figure = plots.histogram(metric_n, 0.9, "accuracy", 0.001)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 144


class Page(HTMLParser):
    """Checks that tags close, and collects what the page refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.refers, self.tags, self.scripts = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.refers += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.scripts += [data] if self.open[-1:] == ["script"] else []


def test_page_stands_alone_and_escapes_what_it_shows(tmp_path):
    everything(tmp_path)
    path = write_report(tmp_path)
    text = path.read_text()
    page = Page(text)
    assert path == tmp_path / "report/index.html"
    assert page.open == []
    own = "#", "data:text/csv;charset=utf-8,", "data:image/png;base64,"
    assert all(target.startswith(own) for target in page.refers)
    assert not page.tags & {"link", "iframe", "img", "i", "dec"}
    assert page.scripts == [resources.files("hp_jax.report").joinpath("page.js").read_text()]
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;dec&gt;.0" in text
    assert all(target.startswith("#s") for target in re.findall(r"url\(([^)]*)", text))
    found = {file.name for file in path.parent.iterdir()}
    pictures = {
        "importance",
        "one_off",
        "one_off_histogram",
        "one_on",
        "agreement",
        "pruning",
        "removal",
        "pairs",
    }
    assert {f"{name}.{form}" for name in pictures for form in ("png", "svg")} <= found
    assert text.count("<svg ") == len(pictures)
    assert not [name for name in found if name.startswith(".")]
    for splits in ("train[:&lt;9]", "validation[50%:]", "on validation (60 examples)"):
        assert splits in text
    last, _ = tables.removable(compare(results.stores_below(tmp_path)["pruning/one_shot/test"]))
    shown = f"{last['removed']} of" if last["removed"] else "it is not shown that any heads can go"
    assert f"In the one_shot order {shown}" in text
    with open(path.parent / "one_off.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    comparison = compare(results.stores_below(tmp_path)["ablation/validation/one_off"])
    assert [float(row["metric"]) for row in rows] == [
        row["metric"] for row in tables.head_table(comparison)
    ]


def test_a_grid_that_says_nothing_of_its_experiment_is_reported(tmp_path, one_off):
    path = tmp_path / "ablation/one_off/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["experiment"]
    path.write_text(json.dumps(manifest))
    assert "Without one head" in write_report(tmp_path).read_text()


def test_unfinished_and_missing_results_are_said(tmp_path):
    grid(tmp_path / "ablation/one_off", with_full(heads.one_off(FULL_AH)), finished=False)
    text = write_report(tmp_path).read_text()
    assert "ablation/one_off is not finished and not shown: 2 of 6 masks done." in text
    assert "<svg" not in text
    importance(tmp_path / "importance")
    assert write_report(tmp_path).read_text().count("<svg") == 1
    with pytest.raises(FileNotFoundError, match="holds no results to report"):
        write_report(tmp_path / "elsewhere")


def test_a_grid_without_losses_is_shown(tmp_path):
    importance(tmp_path / "importance")
    for name, masks in {
        "one_off": heads.one_off,
        "one_on": heads.one_on,
        "pairs": heads.pairs,
    }.items():
        grid(
            tmp_path / "ablation" / name, with_full(masks(FULL_AH)), losses=False, metric="matthews"
        )
    text = write_report(tmp_path).read_text()
    assert "Matthews correlation" in text
    assert "comes from losses without each of the same heads" in text
    assert not (tmp_path / "report/pairs.png").exists()


def test_results_of_different_models_are_pointed_out(tmp_path):
    store = grid(tmp_path / "ablation/one_off", with_full(heads.one_off(FULL_AH)))
    importance(tmp_path / "importance")
    manifest = store.manifest | {"fingerprint": {"model": "another", "data": "d"}}
    (tmp_path / "ablation/one_off/manifest.json").write_text(json.dumps(manifest))
    assert "different models" in write_report(tmp_path).read_text()


def test_cells_as_people_read_them():
    assert show("p_mcnemar", 1e-6) == "<0.001"
    assert show("change", 0.0) == "0.00"
    assert show("change", -0.114) == "-0.11"
    assert show("loss", float("nan")) == "–"
    rows = [{"row": "enc.0", "metric": 0.9}, {"row": "enc.10", "metric": 36.05}]
    assert as_csv(rows) == "row,metric\nenc.0,0.9\nenc.10,36.05\n"
    text = as_text(Listing("name", rows, "Said.", note="Noted.", scale=SCALES["bleu"]))
    assert re.split(r"\s+", text.strip()) == [
        "Said.",
        "Noted.",
        "row",
        "BLEU",
        "enc.0",
        "0.9000",
        "enc.10",
        "36.05",
    ]


def test_results_of_version_0_1_are_reported_too(tmp_path):
    """Their manifests call some settings by other names."""
    importance(tmp_path / "importance")
    path = tmp_path / "importance" / "manifest.json"
    manifest = json.loads(path.read_text())
    settings = manifest["experiment"]["importance"]
    settings["order"], settings["kind"] = settings.pop("norm"), settings.pop("measure")
    for step in ("ablation", "pruning"):
        manifest["experiment"][step]["attention"] = manifest["experiment"][step].pop("rows")
    path.write_text(json.dumps(manifest))
    page = write_report(tmp_path).read_text()
    assert "each row divided by its l2 norm" in page


def test_several_experiments_are_not_one(tmp_path, caplog):
    for name in ("a", "b"):
        everything(tmp_path / "runs" / name)
    with pytest.raises(ValueError, match=r"runs holds no results itself, .* one of .*/a, .*/b$"):
        write_report(tmp_path / "runs")
    alone = write_report(tmp_path / "runs/a").read_text()
    everything(tmp_path / "runs/a/again")
    assert "runs/a: left out are other experiments below it: again" not in caplog.text
    text = write_report(tmp_path / "runs/a").read_text()
    assert "left out are other experiments below it: again" in caplog.text
    assert text.count("<h2") == alone.count("<h2")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pruning/linear/test", ""),
        ("linear/validation", ""),
        ("seeds/1/pruning/linear/test", "seeds/1"),
        ("seeds/1/importance", "seeds/1"),
        ("elsewhere", ""),
    ],
)
def test_the_experiment_of_a_store_is_the_folder_before_its_step(name, expected):
    """The linear order is no experiment called pruning with a linear map."""
    assert results.root(name) == expected

"""The report: its numbers against plain recomputations, its pictures' scales, and a page that stands alone."""

import csv
import dataclasses
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.stats
from sacrebleu import corpus_bleu, corpus_chrf

from hp_jax import heads
from hp_jax.bleu import TextMetric
from hp_jax.config import ClassificationExperiment, TranslationExperiment
from hp_jax.report import heatmaps, plots, pruning, style, tables
from hp_jax.report.attention import by_type
from hp_jax.report.html import Listing, as_csv, as_text, show
from hp_jax.report.judging import judge, touched
from hp_jax.report.page import write_report
from hp_jax.stats import paired_bootstrap, resamples
from hp_jax.store import Items, create_store

ROWS, HEADS, N = ["enc.0", "<dec>.0"], [3, 2], 60
FULL_AH = np.asarray(heads.all_on(2, HEADS))
LABELS = ["no", "maybe", "yes"]
ABOUT = {
    "experiment": dataclasses.asdict(ClassificationExperiment(model="<script>alert(1)</script>")),
    "devices": ["cpu <b>"],
    "command": ["hp-jax", "run", "<i>&.py"],
    "metric": "accuracy",
    "positive": 1,
    "labels": LABELS,
    "rows": ROWS,
    "heads": HEADS,
}


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


def make_grid(path, about, fixed, values):
    axes = ("mask", "example", "count")
    items = {name: Items(axes[: value.ndim], value.shape, str(value.dtype)) for name, value in values.items()}
    return create_store(path, "grid", fingerprint={"model": "m", "data": "d"}, about=about, fixed=fixed, items=items, chunk=1)


def grid(path, masks_MAH, *, split="validation", metric="accuracy", losses=True, finished=True, seed=0):
    """A grid whose models get worse with every head they lack, at random examples."""
    masks_MAH = np.asarray(masks_MAH)
    random = np.random.default_rng(seed)
    label_N = random.integers(0, 3, N).astype(np.int32)
    missing_M = FULL_AH.sum() - masks_MAH.sum((1, 2))
    wrong_MN = random.random((len(masks_MAH), N)) < 0.1 + 0.13 * missing_M[:, None]
    values = {"prediction": np.where(wrong_MN, (label_N + 1) % 3, label_N).astype(np.int32)}
    if losses:
        values["loss"] = random.random((len(masks_MAH), N)).astype(np.float32) + wrong_MN
    fixed = {"masks": (("mask", "row", "head"), masks_MAH), "label": (("example",), label_N)}
    store = make_grid(path, ABOUT | {"metric": metric, "splits": {"test": split}}, fixed, values)
    count = len(masks_MAH) if finished else 2
    store.write(0, {name: value[:count].astype(store.read(name).dtype) for name, value in values.items()})
    return store


def with_full(masks_MAH):
    return np.concatenate([FULL_AH[None], np.asarray(masks_MAH)])


def importance(path, order=2.0):
    total = np.array([[[3.0, 1, 2], [4, 0, 9]], [[1.0, 1, 0], [0, 3, 9]]])
    values = {"total": total, "count": np.array([[1.0, 2], [3, 2]])}
    experiment = json.loads(json.dumps(ABOUT["experiment"]))
    experiment["importance"]["order"] = order
    store = create_store(
        path,
        "importance",
        fingerprint={"model": "m"},
        about=ABOUT | {"splits": {"score": "train[:<9]"}, "experiment": experiment},
        fixed={"mask": (("row", "head"), FULL_AH)},
        items={name: Items(("part", "row", "head")[: value.ndim], value.shape, "float64") for name, value in values.items()},
        chunk=1,
    )
    store.write(0, values)
    return store


CURVE_MAH = np.stack([heads.keep_top(FULL_AH, np.arange(6.0).reshape(2, 3), n) for n in (5, 4, 2, 0)])


def everything(folder):
    importance(folder / "importance")
    grid(folder / "ablation/one_off", with_full(heads.one_off(FULL_AH)))
    grid(folder / "ablation/one_on", with_full(heads.one_on(FULL_AH)))
    grid(folder / "ablation/pairs", with_full(heads.pairs(FULL_AH)))
    grid(folder / "pruning/one_shot/test", CURVE_MAH, split="validation[50%:]")
    grid(folder / "pruning/oracle/test", CURVE_MAH, split="validation[50%:]")
    (folder / "model").mkdir()
    history = [{"epoch": 1, "training loss": 0.5, "accuracy": 0.7}, {"epoch": 2, "training loss": 0.25, "accuracy": 0.75}]
    (folder / "model/config.json").write_text(json.dumps({"training": {"history": history}}))


@pytest.fixture
def one_off(tmp_path):
    return grid(tmp_path / "ablation/one_off", with_full(heads.one_off(FULL_AH)))


def test_head_table_is_what_one_computes_by_hand(one_off):
    rows = tables.head_table(judge(one_off))
    label_N, prediction_MN, loss_MN = (one_off.read(name) for name in ("label", "prediction", "loss"))
    names = [(ROWS[row], head) for row, head in heads.living_heads(FULL_AH)]
    assert sorted((row["row"], row["head"]) for row in rows) == sorted(names)
    assert [row["metric"] for row in rows] == sorted(row["metric"] for row in rows)
    for row in rows:
        place = 1 + names.index((row["row"], row["head"]))
        right_N, full_N = prediction_MN[place] == label_N, prediction_MN[0] == label_N
        assert row["metric"] == pytest.approx(right_N.mean())
        assert row["change"] == pytest.approx(100 * (right_N.mean() - full_N.mean()))
        assert row["low"] <= row["change"] <= row["high"]
        assert row["loss_change"] == pytest.approx(loss_MN[place].mean() - loss_MN[0].mean(), abs=1e-6)
        lost, won = int((full_N & ~right_N).sum()), int((right_N & ~full_N).sum())
        assert row["p_mcnemar"] == pytest.approx(scipy.stats.binomtest(lost, lost + won).pvalue)


def test_f1_is_that_of_its_class_and_the_bootstrap_decides(tmp_path):
    store = grid(tmp_path / "grid", with_full(heads.one_off(FULL_AH)), metric="f1")
    judged = judge(store)
    truth_N, said_N = store.read("label") == 1, store.read("prediction")[0] == 1
    assert judged.metric_M[0] == pytest.approx(2 * (truth_N & said_N).sum() / (truth_N.sum() + said_N.sum()))
    assert judged.constant == pytest.approx(2 * truth_N.sum() / (truth_N.sum() + N))
    assert judged.test == "bootstrap"
    np.testing.assert_array_equal(judged.p_M, judged.change.p)


def test_best_per_row_has_the_highest_metric_then_the_lowest_loss(tmp_path):
    judged = judge(grid(tmp_path / "grid", with_full(heads.one_on(FULL_AH))))
    assert [row["row"] for row in tables.best_per_row(judged)] == ROWS
    for best in tables.best_per_row(judged):
        others = [row for row in tables.head_table(judged) if row["row"] == best["row"]]
        assert (best["metric"], -best["loss"]) == max((row["metric"], -row["loss"]) for row in others)


def test_grid_table_has_a_dash_for_heads_that_are_not_there_and_stars(one_off):
    judged = dataclasses.replace(judge(one_off), mcnemar_M=np.array([1, 0.5, 0.001, 0.5, 0.5, 0.5]))
    first, second = tables.grid_table(judged)
    assert first["1"].endswith("*")
    assert not first["0"].endswith("*")
    assert second["2"] == "–"


def test_importance_is_the_mean_and_rows_have_norm_one(tmp_path):
    store = importance(tmp_path / "two")
    score_AH, normalised_AH = tables.importance_scores(store)
    np.testing.assert_allclose(score_AH[0], np.array([4, 2, 2]) / 4)
    np.testing.assert_allclose(np.linalg.norm(normalised_AH, axis=1), 1)
    rows = tables.importance_table(store)
    assert [row["normalised"] for row in rows] == sorted((row["normalised"] for row in rows), reverse=True)
    assert len(rows) == sum(HEADS)
    raw = tables.importance_table(importance(tmp_path / "raw", order=0))
    assert list(raw[0]) == ["row", "head", "score"]
    assert raw[0]["score"] == np.where(FULL_AH, score_AH, 0).max()


def test_curve_counts_the_heads_that_are_gone_and_finds_the_first_drop(tmp_path):
    judged = judge(grid(tmp_path / "grid", CURVE_MAH))
    rows = tables.curve_table(judged)
    assert [row["removed"] for row in rows] == [0, 1, 3, 5]
    assert [row["share"] for row in rows] == pytest.approx([0, 20, 60, 100])
    assert (rows[0]["change"], rows[0]["p_mcnemar"]) == (0, 1)
    last, drop = tables.removable(dataclasses.replace(judged, mcnemar_M=np.array([1, 0.5, 0.001, 0.5])))
    assert (last["removed"], drop["removed"]) == (1, 3)
    last, drop = tables.removable(dataclasses.replace(judged, mcnemar_M=np.ones(4)))
    assert (last["removed"], drop) == (5, None)
    gone_AH = tables.removal_shares(judged)
    np.testing.assert_allclose(gone_AH[FULL_AH], [20, 60, 60, 100, 100])
    stays = dataclasses.replace(judged, masks_MAH=judged.masks_MAH[:3])
    assert np.isinf(tables.removal_shares(stays)[1, 1])


def test_without_a_full_model_there_is_a_metric_but_no_change(tmp_path):
    row = tables.curve_table(judge(grid(tmp_path / "pruning/oracle/test", CURVE_MAH[1:])))[0]
    assert row["metric"] > 0
    assert np.isnan([row[name] for name in ("change", "low", "high", "p_bootstrap", "p_mcnemar", "loss_change")]).all()
    text = write_report(tmp_path).read_text()
    assert "Summary" not in text
    assert text.count("<img") == 2


def test_correlations_are_scipys_and_nothing_where_nothing_varies(tmp_path, one_off):
    judged, scores = judge(one_off), importance(tmp_path / "importance")
    rows = {(row["importance"], row["effect"]): row for row in tables.correlation_table(scores, judged)}
    expected = scipy.stats.pearsonr(tables.importance_scores(scores)[1][FULL_AH], -judged.change.difference[1:])
    found = rows["row-normalised", "drop of accuracy"]
    assert (found["pearson"], found["p_pearson"]) == pytest.approx((expected.statistic, expected.pvalue))
    assert found["n"] == sum(HEADS)
    assert np.isnan(tables.correlations(np.ones(5), np.arange(5.0))).all()


def test_interactions_are_symmetric_second_differences(tmp_path, one_off):
    pairs = grid(tmp_path / "ablation/pairs", with_full(heads.pairs(FULL_AH)))
    together, found = tables.interactions(pairs, one_off)
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
    assert heatmaps.centred_limit(np.zeros(3)) == heatmaps.centred_limit(np.r_[np.ones(99), -100]) == 1


def test_histograms_are_the_same_bytes_each_time_and_count_every_head():
    first, second = (plots.histogram(np.array([0.8, 0.82, 0.82]), 0.82, "accuracy", 0.01) for _ in range(2))
    assert style.to_svg(first) == style.to_svg(second)
    assert style.to_png(first) == style.to_png(second)
    metric_n = np.random.default_rng(0).integers(700, 900, 144) / 1000
    figure = plots.histogram(metric_n, 0.9, "accuracy", 0.001)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 144


class Page(HTMLParser):
    """Checks that tags close, and collects what the page refers to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.refers, self.tags = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.refers += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_stands_alone_and_escapes_what_it_shows(tmp_path):
    everything(tmp_path)
    path = write_report(tmp_path)
    text = path.read_text()
    page = Page(text)
    assert path == tmp_path / "report/index.html"
    assert page.open == []
    assert all(target.startswith(("#s", "data:image/png;base64,")) for target in page.refers)
    assert not page.tags & {"script", "link", "iframe", "i", "dec"}
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;dec&gt;.0" in text
    assert "url(" not in text
    found = {file.name for file in path.parent.iterdir()}
    pictures = {"importance", "one_off", "one_off_histogram", "one_on", "agreement", "pruning", "removal", "pairs"}
    assert {f"{name}.{form}" for name in pictures for form in ("png", "svg")} <= found
    assert text.count("<img ") == len(pictures)
    assert not [name for name in found if name.startswith(".")]
    for splits in ("train[:&lt;9]", "validation[50%:]", "on validation (60 examples)"):
        assert splits in text
    last, _ = tables.removable(judge(tables.stores_below(tmp_path)["pruning/one_shot/test"]))
    assert f"In the one_shot order {last['removed']} of 5 heads" in text
    with open(path.parent / "one_off.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    judged = judge(tables.stores_below(tmp_path)["ablation/one_off"])
    assert [float(row["metric"]) for row in rows] == [row["metric"] for row in tables.head_table(judged)]


def test_unfinished_and_missing_results_are_said(tmp_path):
    grid(tmp_path / "ablation/one_off", with_full(heads.one_off(FULL_AH)), finished=False)
    text = write_report(tmp_path).read_text()
    assert "ablation/one_off is not finished and not shown: 2 of 6 masks done." in text
    assert "<img" not in text
    importance(tmp_path / "importance")
    assert write_report(tmp_path).read_text().count("<img") == 1
    with pytest.raises(FileNotFoundError, match="holds no results to report"):
        write_report(tmp_path / "elsewhere")


def test_a_grid_without_losses_is_shown(tmp_path):
    importance(tmp_path / "importance")
    for name, masks in {"one_off": heads.one_off, "one_on": heads.one_on, "pairs": heads.pairs}.items():
        grid(tmp_path / "ablation" / name, with_full(masks(FULL_AH)), losses=False, metric="matthews")
    text = write_report(tmp_path).read_text()
    assert "Matthews correlation" in text
    assert "Pairs of heads" not in text


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
    text = as_text(Listing("name", rows, "Said.", note="Noted.", metric="BLEU"))
    assert re.split(r"\s+", text.strip()) == ["Said.", "Noted.", "row", "BLEU", "enc.0", "0.9000", "enc.10", "36.05"]


# --- translation -----------------------------------------------------------------------------------------------------------

WORDS = [f"word{n}" for n in range(30)]
BLEU, CHRF = TextMetric("bleu"), TextMetric("chrf")
TRANSLATION_ROWS = ["enc.0", "enc.1", "dec.0", "cross.0", "dec.1", "cross.1"]
TRANSLATION_AH = np.asarray(heads.all_on(6, [2, 2, 1, 3, 1, 3]))
TRANSLATION = {
    "experiment": dataclasses.asdict(TranslationExperiment(model="m")),
    "task": "de-en",
    "metric": "bleu",
    "tokenize": "13a",
    "signatures": {"bleu": BLEU.signature(), "chrf": CHRF.signature()},
    "rows": TRANSLATION_ROWS,
    "heads": [2, 2, 1, 3, 1, 3],
}


def only(name):
    """The heads of the rows with this name, or of this type."""
    return TRANSLATION_AH & np.array([row == name or row.startswith(f"{name}.") for row in TRANSLATION_ROWS])[:, None]


def about(make, part_AH=TRANSLATION_AH):
    """The full mask, and those of a set about some heads, as an experiment has them."""
    return np.concatenate([TRANSLATION_AH[None], np.asarray(make(part_AH)) | (TRANSLATION_AH & ~part_AH)])


def translations(path, masks_MAH, *, metric="bleu", examples=25, seed=0):
    """A grid of random translations that get worse with every head they lack; and its texts `[M, N]`, and the references."""
    random = np.random.default_rng(seed)
    references = [list(random.choice(WORDS, length)) for length in random.integers(4, 15, examples)]
    text_MN = []
    for mask_AH in masks_MAH:
        wrong = 1 - 0.8 * 0.75 ** (TRANSLATION_AH & ~mask_AH).sum()
        text_MN.append([[w if random.random() > wrong else random.choice(WORDS) for w in line] for line in references])
    pairs = [list(zip(text_N, references, strict=True)) for text_N in text_MN]
    correct_MN = np.array([[sum(a == b for a, b in zip(*pair, strict=True)) for pair in line] for line in pairs], np.int32)
    tokens_N = np.array([len(line) for line in references], np.int32)
    values = {"loss": (tokens_N - correct_MN).astype(np.float32), "correct": correct_MN}
    texts, lines = [[" ".join(words) for words in text_N] for text_N in text_MN], [" ".join(words) for words in references]
    manifest = TRANSLATION | {"metric": metric, "splits": {"test": "test"}}
    if metric == "token_accuracy":
        manifest["signatures"] = {}
    else:
        for kind in (BLEU, CHRF):
            values[kind.name] = np.stack([kind.statistics(text, lines) for text in texts])
    fixed = {"masks": (("mask", "row", "head"), np.asarray(masks_MAH)), "tokens": (("example",), tokens_N)}
    store = make_grid(path, manifest, fixed, values)
    store.write(0, values)
    return store, texts, lines


def curve(part_AH, shares=(0, 0.5, 1)):
    """Masks that remove shares of some heads."""
    score_AH, total = np.arange(TRANSLATION_AH.size, dtype=float).reshape(TRANSLATION_AH.shape), part_AH.sum()
    kept = [np.asarray(heads.keep_top(part_AH, score_AH, int(total - int(share * total)))) for share in shares]
    return np.stack(kept) | (TRANSLATION_AH & ~part_AH)


def test_bleu_chrf_and_token_accuracy_are_those_of_the_texts(tmp_path):
    store, texts, lines = translations(tmp_path / "grid", about(heads.one_off))
    judged = judge(store)
    bleu_M = [corpus_bleu(text, [lines]).score for text in texts]
    np.testing.assert_allclose(judged.metric_M, bleu_M, rtol=1e-12)
    rows = tables.head_table(judged)
    assert {(row["row"], row["head"]) for row in rows} == {
        (TRANSLATION_ROWS[row], head) for row, head in heads.living_heads(TRANSLATION_AH)
    }
    for row in rows:
        place = 1 + judged.names.index(f"{row['row']}.{row['head']}")
        assert row["metric"] == pytest.approx(bleu_M[place])
        assert row["change"] == pytest.approx(bleu_M[place] - bleu_M[0])
        assert row["chrf"] == pytest.approx(corpus_chrf(texts[place], [lines]).score)
        right = [
            sum(a == b for a, b in zip(x.split(), y.split(), strict=True)) for x, y in zip(texts[place], lines, strict=True)
        ]
        assert row["token_accuracy"] == pytest.approx(sum(right) / sum(len(line.split()) for line in lines))
        assert "p_mcnemar" not in row
    assert (judged.test, judged.unit) == ("bootstrap", "sentence")
    assert np.isnan(judged.constant)


def test_the_bootstrap_of_bleu_is_that_of_resampled_texts(tmp_path):
    store, texts, lines = translations(tmp_path / "grid", about(heads.one_off)[:2])
    judged = judge(store, only("enc"))
    differences = []
    for draw_N in resamples(len(lines), 1000, 0).astype(int)[:40]:
        at = np.repeat(np.arange(len(lines)), draw_N)
        full, without = (corpus_bleu([text[n] for n in at], [[lines[n] for n in at]]).score for text in texts[:2])
        differences.append(without - full)
    measured = paired_bootstrap(store.read("bleu"), store.read("bleu")[0], BLEU.score, count=1000)
    assert judged.change.p[1] == measured.p[1]
    assert measured.low[1] - 3 < min(differences) < max(differences) < measured.high[1] + 3
    assert np.mean([measured.low[1] <= difference <= measured.high[1] for difference in differences]) > 0.8


def test_chrf_and_token_accuracy_can_decide(tmp_path):
    judged = judge(translations(tmp_path / "chrf", about(heads.one_off), metric="chrf")[0])
    assert (judged.metric_name, list(judged.others)) == ("chrF", ["bleu", "token_accuracy"])
    store, _, _ = translations(tmp_path / "ablation/one_off", about(heads.one_off), metric="token_accuracy")
    judged = judge(store)
    share_M = store.read("correct").sum(1) / store.read("tokens").sum()
    np.testing.assert_allclose(judged.change.difference, 100 * (share_M - share_M[0]))
    assert (judged.others, judged.signature) == ({}, "")
    text = write_report(tmp_path).read_text()
    assert "token accuracy" in text
    assert "sacreBLEU:" not in text


@pytest.mark.parametrize("make", [heads.one_off, heads.one_on, heads.pairs])
@pytest.mark.parametrize("name", ["enc", "cross", "cross.1"])
def test_the_heads_that_a_restricted_set_is_about_come_from_its_masks(make, name):
    np.testing.assert_array_equal(touched(about(make, only(name)), TRANSLATION), only(name))
    np.testing.assert_array_equal(touched(about(make), TRANSLATION), TRANSLATION_AH)


def test_rows_that_a_restricted_set_does_not_touch_are_left_out(tmp_path):
    one_off, texts, lines = translations(tmp_path / "ablation/one_off", about(heads.one_off, only("cross")))
    judged = judge(one_off)
    assert judged.rows == ["cross.0", "cross.1"]
    rows = {(row["row"], row["head"]): row["metric"] for row in tables.head_table(judged)}
    assert sorted(rows) == [(f"cross.{layer}", head) for layer in range(2) for head in range(3)]
    assert rows["cross.1", 0] == pytest.approx(corpus_bleu(texts[4], [lines]).score)
    assert [row["row"] for row in tables.grid_table(judged)] == ["cross.0", "cross.1"]
    one_on = judge(translations(tmp_path / "ablation/one_on", about(heads.one_on, only("dec")))[0])
    assert [(row["row"], row["head"]) for row in tables.best_per_row(one_on)] == [("dec.0", 0), ("dec.1", 0)]
    text = write_report(tmp_path).read_text()
    assert "only heads of cross-attention" in text
    assert "only heads of decoder self-attention" in text


def test_pairs_of_some_heads_find_what_each_adds_alone(tmp_path):
    single, _, _ = translations(tmp_path / "one_off", about(heads.one_off))
    pairs, _, _ = translations(tmp_path / "pairs", about(heads.pairs, only("cross.1")), seed=1)
    assert tables.comparable(pairs, single)
    together, found = tables.interactions(pairs, single)
    assert found == [(5, 0), (5, 1), (5, 2)]
    one, two = single.read("loss").mean(1), pairs.read("loss").mean(1)
    assert together[0, 2] == pytest.approx((two[2] - two[0]) - (one[-3] - one[0]) - (one[-1] - one[0]), abs=1e-5)
    assert not tables.comparable(single, pairs)


def test_rows_are_shown_by_type(tmp_path):
    assert by_type(TRANSLATION_ROWS) == {"enc": [0, 1], "dec": [2, 4], "cross": [3, 5]}
    one_on = judge(translations(tmp_path / "one_on", about(heads.one_on))[0])
    assert [row["row"] for row in tables.grid_table(one_on)] == ["enc.0", "enc.1", "dec.0", "dec.1", "cross.0", "cross.1"]
    best = {row["row"]: row for row in tables.best_per_row(one_on)}
    _, line = tables.layer_table(one_on)
    assert list(line) == ["layer", "encoder self-attention", "decoder self-attention", "cross-attention"]
    assert line["cross-attention"].startswith(f"head {best['cross.1']['head']}: {best['cross.1']['change']:+.2f}")
    values_AH = np.where(TRANSLATION_AH, np.arange(18.0).reshape(6, 3), np.nan)
    figure = heatmaps.heatmap(values_AH, TRANSLATION_ROWS, "nats", centred=False)
    blocks = figure.axes[:3]
    assert [axes.get_title(loc="left") for axes in blocks] == list(line)[1:]
    np.testing.assert_array_equal(blocks[2].images[0].get_array(), values_AH[[3, 5]])
    assert [label.get_text() for label in blocks[1].get_yticklabels()] == ["dec.0", "dec.1"]


def test_shares_of_one_type_are_of_its_heads(tmp_path):
    for name in ("all", "enc", "cross", "dec.1"):
        part_AH = TRANSLATION_AH if name == "all" else only(name)
        folder = "one_shot" if name == "all" else f"one_shot.{name}"
        translations(tmp_path / f"pruning/{folder}/test", curve(part_AH))
    curves = pruning.read_curves(tables.stores_below(tmp_path))
    assert {order: list(parts) for order, parts in curves.items()} == {"one_shot": ["all", "enc", "cross", "dec.1"]}
    counts = {name: [row["removed"] for row in tables.curve_table(judged)] for name, judged in curves["one_shot"].items()}
    assert counts == {"all": [0, 6, 12], "enc": [0, 2, 4], "cross": [0, 3, 6], "dec.1": [0, 0, 1]}
    assert [row["share"] for row in tables.curve_table(curves["one_shot"]["cross"])] == [0, 50, 100]
    last, _ = tables.removable(curves["one_shot"]["cross"])
    text = write_report(tmp_path).read_text()
    assert f"cross-attention {last['removed']} of 6" in text
    assert "paper&#x27;s Figure 4" in text
    found = {file.name for file in (tmp_path / "report").iterdir()}
    assert {"pruning_types.png", "pruning_one_shot_cross.csv", "pruning_one_shot.csv", "removal.svg"} <= found
    lines = {"all heads": tables.curve_table(curves["one_shot"]["all"])}
    figure = plots.curves({"a": lines, "b": lines}, 30.0, np.nan, "BLEU", 1.0)
    np.testing.assert_allclose(figure.axes[1].lines[-1].get_xdata(), [0, 50, 100])


def test_numbers_of_bleu_carry_their_signature(tmp_path):
    translations(tmp_path / "ablation/one_off", about(heads.one_off))
    translations(tmp_path / "ablation/one_on", about(heads.one_on))
    translations(tmp_path / "pruning/oracle/test", curve(TRANSLATION_AH))
    (tmp_path / "model").mkdir()
    training = {"history": [{"epoch": 1, "bleu": 20.0}], "final": {"bleu": 21.0}}
    model = {"experiment": TRANSLATION["experiment"], "versions": {"sacrebleu": "0.0.1"}, "training": training}
    (tmp_path / "model/config.json").write_text(json.dumps(model))
    text = write_report(tmp_path).read_text()
    sections = {
        re.match(r'<section id="s\d+"><h2>(.*?)</h2>', part)[1]: part for part in re.findall("(?s)<section.*?</section>", text)
    }
    told = ("Summary", "Without one head", "One head alone in its row", "Pruning")
    assert all(BLEU.signature() in sections[name] for name in told)
    assert BLEU.signature().rpartition(":")[0] + ":0.0.1" in sections["Training"]
    assert "20.00" in sections["Training"]
    for block in (tmp_path / "report/tables.txt").read_text().split("\n\n\n"):
        assert ("BLEU" in block) == ("nrefs:1|case:mixed|eff:no|tok:13a" in block)
        assert ("chrF" in block) == (CHRF.signature() in block)
    assert "(25 sentences)" in text
    assert "examples" not in re.sub("(?s)<pre>.*?</pre>", "", text)
    drops = tables.greatest_drops(judge(tables.stores_below(tmp_path)["ablation/one_off"]))
    assert drops
    assert f"{drops[0]['head']} ({drops[0]['change']:+.2f})" in sections["Summary"]


def test_values_far_from_the_others_are_told_beside_the_histogram():
    figure = plots.histogram(np.r_[np.linspace(35.5, 36.3, 99), 20.0], 36.0, "BLEU", 0.0)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 99
    assert any("1 head beyond: 20" in text.get_text() for text in figure.axes[0].texts)

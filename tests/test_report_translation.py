"""The report on translation: BLEU from stored counts, types of attention, restricted sets,
signatures."""

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from sacrebleu import corpus_bleu, corpus_chrf
from tiny_report import make_grid

from hp_jax import heads
from hp_jax.config import Ablation, RandomSets, TranslationExperiment
from hp_jax.experiment.mask_sets import masks_of
from hp_jax.metrics import CorpusMetric, TextMetric
from hp_jax.report import interactions, results, tables
from hp_jax.report.comparison import compare, touched
from hp_jax.report.page import write_report
from hp_jax.report.pictures import heatmaps, plots, style
from hp_jax.report.row_types import by_type
from hp_jax.report.scale import SCALES
from hp_jax.report.sections import pruning
from hp_jax.stats import paired_bootstrap, resamples


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


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
    "heads": TRANSLATION_AH.astype(int).tolist(),
}


def only(name):
    """The heads of the rows with this name, or of this type."""
    return (
        TRANSLATION_AH
        & np.array([row == name or row.startswith(f"{name}.") for row in TRANSLATION_ROWS])[:, None]
    )


def about(make, scope_AH=TRANSLATION_AH):
    """The full mask, and those of a set about some heads, as an experiment has them."""
    return np.concatenate(
        [TRANSLATION_AH[None], np.asarray(make(scope_AH)) | (TRANSLATION_AH & ~scope_AH)]
    )


def translations(path, masks_MAH, *, metric="bleu", examples=25, seed=0):
    """A grid of random translations that get worse with every head they lack; and its texts `[M,
    N]`, and the references."""
    random = np.random.default_rng(seed)
    references = [list(random.choice(WORDS, length)) for length in random.integers(4, 15, examples)]
    text_MN = []
    for mask_AH in masks_MAH:
        wrong = 1 - 0.8 * 0.75 ** (TRANSLATION_AH & ~mask_AH).sum()
        text_MN.append(
            [
                [w if random.random() > wrong else random.choice(WORDS) for w in line]
                for line in references
            ]
        )
    pairs = [list(zip(text_N, references, strict=True)) for text_N in text_MN]
    correct_MN = np.array(
        [[sum(a == b for a, b in zip(*pair, strict=True)) for pair in line] for line in pairs],
        np.int32,
    )
    tokens_N = np.array([len(line) for line in references], np.int32)
    values = {"loss": (tokens_N - correct_MN).astype(np.float32), "correct": correct_MN}
    texts, lines = (
        [[" ".join(words) for words in text_N] for text_N in text_MN],
        [" ".join(words) for words in references],
    )
    manifest = TRANSLATION | {"metric": metric, "splits": {"test": "test"}}
    if metric == "token_accuracy":
        manifest["signatures"] = {}
    else:
        for kind in (BLEU, CHRF):
            values[kind.name] = np.stack([kind.statistics(text, lines) for text in texts])
    fixed = {
        "masks": (("mask", "row", "head"), np.asarray(masks_MAH)),
        "tokens": (("example",), tokens_N),
    }
    store = make_grid(path, manifest, fixed, values)
    store.write(0, values)
    return store, texts, lines


def curve(scope_AH, shares=(0, 0.5, 1)):
    """Masks that remove shares of some heads."""
    score_AH, total = (
        np.arange(TRANSLATION_AH.size, dtype=float).reshape(TRANSLATION_AH.shape),
        scope_AH.sum(),
    )
    kept = [
        np.asarray(heads.keep_top(scope_AH, score_AH, int(total - int(share * total))))
        for share in shares
    ]
    return np.stack(kept) | (TRANSLATION_AH & ~scope_AH)


def test_bleu_chrf_and_token_accuracy_are_those_of_the_texts(tmp_path):
    store, texts, lines = translations(tmp_path / "grid", about(heads.one_off))
    comparison = compare(store)
    bleu_M = [corpus_bleu(text, [lines]).score for text in texts]
    np.testing.assert_allclose(comparison.metric_M, bleu_M, rtol=1e-12)
    rows = tables.head_table(comparison)
    assert {(row["row"], row["head"]) for row in rows} == {
        (TRANSLATION_ROWS[row], head) for row, head in heads.living_heads(TRANSLATION_AH)
    }
    for row in rows:
        place = 1 + comparison.names.index(f"{row['row']}.{row['head']}")
        assert row["metric"] == pytest.approx(bleu_M[place])
        assert row["change"] == pytest.approx(bleu_M[place] - bleu_M[0])
        assert row["chrf"] == pytest.approx(corpus_chrf(texts[place], [lines]).score)
        right = [
            sum(a == b for a, b in zip(x.split(), y.split(), strict=True))
            for x, y in zip(texts[place], lines, strict=True)
        ]
        assert row["token_accuracy"] == pytest.approx(
            sum(right) / sum(len(line.split()) for line in lines)
        )
        assert "p_mcnemar" not in row
    assert (comparison.test, comparison.example_word) == ("bootstrap", "sentence")
    assert np.isnan(comparison.constant)


def test_the_bootstrap_of_bleu_is_that_of_resampled_texts(tmp_path):
    store, texts, lines = translations(tmp_path / "grid", about(heads.one_off)[:2])
    comparison = compare(store, only("enc"))
    differences = []
    for draw_N in resamples(len(lines), 40, 0).astype(int):
        at = np.repeat(np.arange(len(lines)), draw_N)
        full, without = (
            corpus_bleu([text[n] for n in at], [[lines[n] for n in at]]).score for text in texts[:2]
        )
        differences.append(without - full)
    count, bleu_MNS = comparison.resamples, store.read("bleu")
    measured = paired_bootstrap(bleu_MNS, bleu_MNS[0], CorpusMetric(BLEU), count=count)
    assert comparison.change.p[1] == measured.p[1]
    assert measured.low[1] - 3 < min(differences) < max(differences) < measured.high[1] + 3
    assert (
        np.mean([measured.low[1] <= difference <= measured.high[1] for difference in differences])
        > 0.8
    )


def test_chrf_and_token_accuracy_can_decide(tmp_path):
    comparison = compare(translations(tmp_path / "chrf", about(heads.one_off), metric="chrf")[0])
    assert (comparison.scale.name, list(comparison.others)) == ("chrF", ["bleu", "token_accuracy"])
    store, _, _ = translations(
        tmp_path / "ablation/one_off", about(heads.one_off), metric="token_accuracy"
    )
    comparison = compare(store)
    share_M = store.read("correct").sum(1) / store.read("tokens").sum()
    np.testing.assert_allclose(comparison.change.difference, 100 * (share_M - share_M[0]))
    assert (comparison.others, comparison.signature) == ({}, "")
    text = write_report(tmp_path).read_text()
    assert "token accuracy" in text
    assert "sacreBLEU:" not in text


@pytest.mark.parametrize("make", [heads.one_off, heads.one_on, heads.pairs])
@pytest.mark.parametrize("name", ["enc", "cross", "cross.1"])
def test_the_heads_that_a_restricted_set_is_about_come_from_its_masks(make, name):
    np.testing.assert_array_equal(touched(about(make, only(name)), TRANSLATION), only(name))
    np.testing.assert_array_equal(touched(about(make), TRANSLATION), TRANSLATION_AH)


def test_sets_of_many_heads_are_reported_in_bleu(tmp_path):
    settings = Ablation(random=RandomSets(shares=(0.5,), count=2))
    for name in ("rows_off", "random", "prefixes"):
        masks_MAH = masks_of(
            name,
            settings,
            TRANSLATION_AH,
            TRANSLATION_AH,
            TRANSLATION_ROWS,
            lambda: np.ones((6, 3)),
        )
        _, texts, lines = translations(tmp_path / "ablation" / name, masks_MAH)
    text = write_report(tmp_path).read_text()
    assert all(
        f"<h2>{title}</h2>" in text
        for title in ("Without a whole row", "Heads in one order", "Random subsets")
    )
    rows = list(csv.DictReader((tmp_path / "report/prefixes_masks.csv").read_text().splitlines()))
    assert [row["removed"] for row in rows] == [str(count) for count in range(13)]
    np.testing.assert_allclose(
        [float(row["chrf"]) for row in rows], [corpus_chrf(text, [lines]).score for text in texts]
    )
    assert rows[-1]["without"] == "enc.0.0,1 enc.1.0,1 dec.0.0 cross.0.0-2 dec.1.0 cross.1.0-2"


def test_rows_that_a_restricted_set_does_not_touch_are_left_out(tmp_path):
    one_off, texts, lines = translations(
        tmp_path / "ablation/one_off", about(heads.one_off, only("cross"))
    )
    comparison = compare(one_off)
    assert comparison.rows == ["cross.0", "cross.1"]
    rows = {(row["row"], row["head"]): row["metric"] for row in tables.head_table(comparison)}
    assert sorted(rows) == [(f"cross.{layer}", head) for layer in range(2) for head in range(3)]
    assert rows["cross.1", 0] == pytest.approx(corpus_bleu(texts[4], [lines]).score)
    assert [row["row"] for row in tables.grid_table(comparison)] == ["cross.0", "cross.1"]
    one_on = compare(
        translations(tmp_path / "ablation/one_on", about(heads.one_on, only("dec")))[0]
    )
    assert [(row["row"], row["head"]) for row in tables.best_per_row(one_on)] == [
        ("dec.0", 0),
        ("dec.1", 0),
    ]
    text = write_report(tmp_path).read_text()
    assert "only heads of cross-attention" in text
    assert "only heads of decoder self-attention" in text


def test_pairs_of_some_heads_find_what_each_adds_alone(tmp_path):
    single, _, _ = translations(tmp_path / "one_off", about(heads.one_off))
    pairs, _, _ = translations(tmp_path / "pairs", about(heads.pairs, only("cross.1")), seed=1)
    assert interactions.comparable(pairs, single)
    together, found = interactions.interactions(pairs, single)
    assert found == [(5, 0), (5, 1), (5, 2)]
    one, two = single.read("loss").mean(1), pairs.read("loss").mean(1)
    assert together[0, 2] == pytest.approx(
        (two[2] - two[0]) - (one[-3] - one[0]) - (one[-1] - one[0]), abs=1e-5
    )
    assert not interactions.comparable(single, pairs)


def test_rows_are_shown_by_type(tmp_path):
    assert by_type(TRANSLATION_ROWS) == {"enc": [0, 1], "dec": [2, 4], "cross": [3, 5]}
    one_on = compare(translations(tmp_path / "one_on", about(heads.one_on))[0])
    assert [row["row"] for row in tables.grid_table(one_on)] == [
        "enc.0",
        "enc.1",
        "dec.0",
        "dec.1",
        "cross.0",
        "cross.1",
    ]
    best = {row["row"]: row for row in tables.best_per_row(one_on)}
    _, line = tables.layer_table(one_on)
    assert list(line) == [
        "layer",
        "encoder self-attention",
        "decoder self-attention",
        "cross-attention",
    ]
    assert line["cross-attention"].startswith(
        f"head {best['cross.1']['head']}: {best['cross.1']['change']:+.2f}"
    )
    values_AH = np.where(TRANSLATION_AH, np.arange(18.0).reshape(6, 3), np.nan)
    figure = heatmaps.heatmap(values_AH, TRANSLATION_ROWS, "nats", centred=False)
    blocks = figure.axes[:3]
    assert [axes.get_title(loc="left") for axes in blocks] == list(line)[1:]
    np.testing.assert_array_equal(blocks[2].images[0].get_array(), values_AH[[3, 5]])
    assert [label.get_text() for label in blocks[1].get_yticklabels()] == ["dec.0", "dec.1"]


def test_shares_of_one_type_are_of_its_heads(tmp_path):
    for name in ("all", "enc", "cross", "dec.1"):
        scope_AH = TRANSLATION_AH if name == "all" else only(name)
        folder = "one_shot" if name == "all" else f"one_shot.{name}"
        translations(tmp_path / f"pruning/{folder}/test", curve(scope_AH))
    curves = pruning.read_curves(results.stores_below(tmp_path))
    assert {order: list(parts) for order, parts in curves.items()} == {
        "one_shot": ["all", "enc", "cross", "dec.1"]
    }
    counts = {
        name: [row["removed"] for row in tables.curve_table(comparison)]
        for name, comparison in curves["one_shot"].items()
    }
    assert counts == {"all": [0, 6, 12], "enc": [0, 2, 4], "cross": [0, 3, 6], "dec.1": [0, 0, 1]}
    assert [row["share"] for row in tables.curve_table(curves["one_shot"]["cross"])] == [0, 50, 100]
    last, _ = tables.removable(curves["one_shot"]["cross"])
    text = write_report(tmp_path).read_text()
    assert f"cross-attention {last['removed']} of 6" in text
    assert "paper&#x27;s Figure 4" in text
    found = {file.name for file in (tmp_path / "report").iterdir()}
    assert {
        "pruning_types.png",
        "pruning_one_shot_cross.csv",
        "pruning_one_shot.csv",
        "removal.svg",
    } <= found
    lines = {"all heads": tables.curve_table(curves["one_shot"]["all"])}
    figure = plots.curves({"a": lines, "b": lines}, 30.0, np.nan, SCALES["bleu"])
    np.testing.assert_allclose(figure.axes[1].lines[-1].get_xdata(), [0, 50, 100])


def test_numbers_of_bleu_carry_their_signature(tmp_path):
    translations(tmp_path / "ablation/one_off", about(heads.one_off))
    translations(tmp_path / "ablation/one_on", about(heads.one_on))
    translations(tmp_path / "pruning/oracle/test", curve(TRANSLATION_AH))
    (tmp_path / "model").mkdir()
    training = {"history": [{"epoch": 1, "bleu": 20.0}], "final": {"bleu": 21.0}}
    model = {
        "experiment": TRANSLATION["experiment"],
        "versions": {"sacrebleu": "0.0.1"},
        "training": training,
    }
    (tmp_path / "model/config.json").write_text(json.dumps(model))
    text = write_report(tmp_path).read_text()
    sections = {
        re.match(r'<section id="s\d+"><h2>(.*?)</h2>', part)[1]: part
        for part in re.findall("(?s)<section.*?</section>", text)
    }
    told = ("Summary", "Without one head", "One head alone in its row", "Pruning")
    for name in told:
        (section,) = (part for title, part in sections.items() if title.startswith(name))
        assert BLEU.signature() in section
    assert BLEU.signature().rpartition(":")[0] + ":0.0.1" in sections["Training"]
    assert "20.00" in sections["Training"]
    for block in (tmp_path / "report/tables.txt").read_text().split("\n\n\n"):
        assert ("BLEU" in block) == ("nrefs:1|case:mixed|eff:no|tok:13a" in block)
        assert ("chrF" in block) == (CHRF.signature() in block)
    assert "(25 sentences)" in text
    assert "examples" not in re.sub("(?s)<pre>.*?</pre>", "", text)
    drops = tables.greatest_drops(compare(results.stores_below(tmp_path)["ablation/one_off"]))
    assert drops
    assert f"{drops[0]['head']} ({drops[0]['change']:+.2f})" in sections["Summary"]


def test_values_far_from_the_others_are_told_beside_the_histogram():
    figure = plots.histogram(np.r_[np.linspace(35.5, 36.3, 99), 20.0], 36.0, "BLEU", 0.0)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 99
    assert any("1 head beyond: 20" in text.get_text() for text in figure.axes[0].texts)

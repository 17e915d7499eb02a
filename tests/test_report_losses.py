"""The report on metrics of which less is better: heads that are missed are those without which the
metric rises."""

import re

import numpy as np
import pytest
from tiny_report import ABOUT, FULL_AH, importance, make_grid, with_full

from hp_jax import heads
from hp_jax.report import interactions, tables
from hp_jax.report.comparison import compare
from hp_jax.report.html import Listing, as_text
from hp_jax.report.page import write_report
from hp_jax.report.pictures import style
from hp_jax.report.scale import SCALES
from hp_jax.report.sections import subsets

N = 40
MISSED, HARMFUL = ["enc.0.1", "<dec>.0.0"], ["enc.0.2", "<dec>.0.1"]
WITHOUT_AH = np.array([[0.0, 0.5, -0.5], [0.25, -0.25, 0.0]])
"""What each head's removal adds to the loss, in nats."""


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


def losses(path, masks_MAH, metric, **settings):
    """A grid in which every head that is missing adds its own to the loss of every example."""
    masks_MAH, random = np.asarray(masks_MAH), np.random.default_rng(0)
    added_M = ((FULL_AH & ~masks_MAH) * WITHOUT_AH).sum((1, 2))
    tokens_N = random.integers(2, 9, N).astype(np.int32)
    noise_MN = random.normal(0, 0.05, (len(masks_MAH), N))
    loss_MN = ((3 + added_M[:, None] + noise_MN) * tokens_N).astype(np.float32)
    manifest = ABOUT | {"metric": metric, "splits": {"test": "validation"}}
    manifest["experiment"] = manifest["experiment"] | {"ablation": {"rows": []} | settings}
    fixed = {
        "masks": (("mask", "row", "head"), masks_MAH),
        "tokens": (("example",), tokens_N),
    }
    store = make_grid(path, manifest, fixed, {"loss": loss_MN})
    store.write(0, {"loss": loss_MN})
    return store


@pytest.mark.parametrize("metric", ["loss", "perplexity"])
def test_the_report_names_the_heads_that_are_missed(tmp_path, metric):
    store = losses(tmp_path / "ablation/one_off", with_full(heads.one_off(FULL_AH)), metric)
    comparison = compare(store)
    assert [row["head"] for row in tables.greatest_drops(comparison)] == MISSED
    loss_M = store.read("loss").sum(1, dtype=np.float64)
    by_hand = {"loss": loss_M / N, "perplexity": np.exp(loss_M / store.read("tokens").sum())}
    np.testing.assert_allclose(comparison.metric_M, by_hand[metric], rtol=1e-12)
    change_M = by_hand[metric] - by_hand[metric][0]
    np.testing.assert_allclose(comparison.change.difference, change_M, atol=1e-9)
    np.testing.assert_allclose(comparison.drop_M, change_M, atol=1e-9)
    rows = [f"{row['row']}.{row['head']}" for row in tables.head_table(comparison)]
    assert (rows[:2], rows[-2:]) == (MISSED, HARMFUL[::-1])
    best = [f"{row['row']}.{row['head']}" for row in tables.best_per_row(comparison)]
    assert best == HARMFUL
    text = write_report(tmp_path).read_text()
    (named,) = re.findall("all with a significant rise: (.*?); in ", text)
    assert [word.partition(" (")[0] for word in named.split("), ")] == [
        name.replace("<", "&lt;").replace(">", "&gt;") for name in MISSED
    ]
    assert (
        "4 of 5 changes are significant at p &lt; 0.01 after Westfall and Young&#x27;s correction "
        "for 5 tests, 2 of them rises (bootstrap)" in text
    )
    assert f"the greatest rise of {SCALES[metric].name} first" in text
    assert "red is worse" in text
    assert "drop" not in re.sub(r"(?s)<(pre|style)>.*?</\1>", "", text)


@pytest.mark.parametrize("metric", ["loss", "perplexity"])
def test_heads_can_go_until_the_metric_may_rise(tmp_path, metric):
    order = np.array([[2.0, 4, 0], [3, 1, 9]])  # first the harmful heads, then one of no effect
    masks_MAH = [heads.keep_top(FULL_AH, order, left) for left in (5, 4, 3, 2, 1, 0)]
    comparison = compare(losses(tmp_path / "pruning/oracle/test", masks_MAH, metric))
    last, rise = tables.removable(comparison)
    # -0.5, -0.75, -0.75, -0.5, 0: all are better than the full model or as good.
    assert (last["removed"], rise) == (5, None)
    better = compare(losses(tmp_path / "better", masks_MAH[2:0:-1] + masks_MAH[:1], metric))
    assert better.drop_M[0] < better.drop_M[1] < -0.4
    worse_MAH = with_full([heads.keep_top(FULL_AH, -order, left) for left in (4, 3)])
    last, rise = tables.removable(compare(losses(tmp_path / "worse", worse_MAH, metric)))
    assert (last["removed"], rise["removed"]) == (0, 1)
    text = write_report(tmp_path).read_text()
    name = SCALES[metric].name
    margin = {"loss": "0.01 nats", "perplexity": "0.05 points"}[metric]
    assert f"5 of 5 heads (100 %) can go: {name} is shown to be less than {margin} worse." in text


def test_random_subsets_count_rises(tmp_path):
    masks_MAH = with_full(heads.one_off(FULL_AH))
    random = {"count": 5, "seed": 0}
    store = losses(tmp_path / "ablation/random", masks_MAH, "perplexity", random=random)
    items = subsets.random(compare(store), {}, None)
    (row,) = next(item.rows for item in items if isinstance(item, Listing))
    assert row["significant rises"] == 2


def test_mean_loss_is_shown_once_and_in_nats(tmp_path):
    importance(tmp_path / "importance")
    one_off = losses(tmp_path / "ablation/one_off", with_full(heads.one_off(FULL_AH)), "loss")
    pairs = losses(tmp_path / "ablation/pairs", with_full(heads.pairs(FULL_AH)), "loss")
    comparison = compare(one_off)
    table = tables.listing(comparison, "heads", tables.head_table(comparison), "Said.")
    assert table.headings[2:4] == ["mean loss", "change (nats)"]
    assert not {"loss", "loss_change"} & set(table.rows[0])
    assert re.search(r"Losses are nats per sentence.*\+\d\.\d{3} ", as_text(table), re.DOTALL)
    effects = tables.effects(comparison)
    assert {name: unit for name, (unit, _) in effects.items()} == {"rise of mean loss": "nats"}
    together, found = interactions.interactions(pairs, one_off)
    row = interactions.pair_table(compare(pairs), together, found)[0]
    assert list(row) == ["mask", "first", "second", "change", "p_bootstrap", "extra"]
    text = write_report(tmp_path).read_text()
    assert "rise of mean loss" in text
    assert "points" not in re.sub("(?s)<pre>.*?</pre>", "", text).replace("Each point", "")

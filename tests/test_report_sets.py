"""The report on sets of heads that are removed together: its numbers, what stands beside what, and
every grid in a section."""

import csv
import json

import numpy as np
import pytest
from tiny_report import FULL_AH, ROWS, N, grid, with_full

from hp_jax import heads
from hp_jax.config import Ablation, RandomSets
from hp_jax.experiment.mask_sets import masks_of
from hp_jax.report import ablations, interactions, results, tables
from hp_jax.report.comparison import compare
from hp_jax.report.html import Listing
from hp_jax.report.page import write_report
from hp_jax.report.pictures import plots, style
from hp_jax.report.scale import SCALES
from hp_jax.report.sections import pruning, subsets

ENC_AH = FULL_AH & np.array([[True], [False]])
SCORE_AH = np.array([[3.0, 1, 4], [5, 2, 0]])


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


def made(folder, name, *, scope_AH=FULL_AH, about=(), **options):
    """The finished grid of a set, with settings in its manifest."""
    settings = Ablation(random=RandomSets(count=4), masks="mine.npy")
    masks_MAH = with_full(heads.pairs(FULL_AH)[:3]) if name == "file" else None
    if masks_MAH is None:
        masks_MAH = masks_of(name, settings, FULL_AH, scope_AH, ROWS, lambda: SCORE_AH)
    store = grid(folder / f"ablation/{name}", masks_MAH, **options)
    manifest = json.loads(json.dumps(store.manifest))
    manifest["experiment"]["ablation"] |= {
        "random": {"count": 4, "seed": 0},
        "masks": "mine.npy",
        **dict(about),
    }
    (folder / f"ablation/{name}/manifest.json").write_text(json.dumps(manifest))
    return results.stores_below(folder)[f"ablation/{name}"]


def listed(items, name):
    return next(item for item in items if isinstance(item, Listing) and item.name == name).rows


def test_rows_are_told_with_their_numbers_of_heads(tmp_path):
    store = made(tmp_path, "rows_off")
    comparison = ablations.in_scope(store)
    rows = {row["row"]: row for row in listed(subsets.rows_off(comparison), "rows_off")}
    assert [rows[name]["removed"] for name in ROWS] == [3, 2]
    right_MN = store.read("prediction") == store.read("label")
    for place, name in enumerate(ROWS, 1):
        assert rows[name]["change"] == pytest.approx(
            100 * (right_MN[place].mean() - right_MN[0].mean())
        )
    figure = plots.dots(["a", "b"], [-1, 2], [-2, 1], [0, 3], [True, False], "points")
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() for dot in dots] == [style.STYLES["color"][0], "white"]


def test_random_subsets_are_summed_up_by_number_with_orders_beside(tmp_path):
    store = made(tmp_path, "random")
    comparison, prefixes = ablations.in_scope(store), ablations.in_scope(made(tmp_path, "prefixes"))
    items = subsets.random(comparison, {}, prefixes)
    curve = {row["removed"]: row["metric"] for row in tables.curve_table(prefixes)}
    right_MN = store.read("prediction") == store.read("label")
    for row in listed(items, "random"):
        alike_M = (np.asarray(FULL_AH) & ~store.read("masks")).sum((1, 2)) == row["removed"]
        accuracy = right_MN[alike_M].mean(1)
        assert row["subsets"] == alike_M.sum() > 0
        assert row["share"] == pytest.approx(20 * row["removed"])
        assert (row["lowest"], row["highest"]) == pytest.approx((accuracy.min(), accuracy.max()))
        assert (row["mean"], row["median"]) == pytest.approx((accuracy.mean(), np.median(accuracy)))
        assert (
            row["significant drops"]
            == ((comparison.p_M < 0.01) & (comparison.change.difference < 0) & alike_M).sum()
        )
        assert row["importance order"] == curve[row["removed"]]


def test_only_curves_of_the_same_data_and_heads_stand_beside_random_subsets(tmp_path):
    comparison = ablations.in_scope(made(tmp_path, "random"))
    curve_MAH = heads.keep_top(FULL_AH, SCORE_AH, 2)[None]
    for order in ("one_shot", "oracle"):
        grid(tmp_path / f"pruning/{order}/test", with_full(curve_MAH))
    grid(
        tmp_path / "pruning/re_estimated/test", curve_MAH
    )  # without a full model nothing can be told of it
    path = tmp_path / "pruning/oracle/test/manifest.json"
    path.write_text(path.read_text().replace('"data": "d"', '"data": "other"'))
    curves = pruning.read_curves(results.stores_below(tmp_path))
    columns = list(listed(subsets.random(comparison, curves, None), "random")[0])
    assert columns[-2:] == ["significant drops", "one_shot order"]
    part = ablations.in_scope(
        made(tmp_path / "part", "random", scope_AH=ENC_AH, about={"rows": ["enc"]})
    )
    assert list(listed(subsets.random(part, curves, None), "random")[0])[-1] == "significant drops"
    assert part.scope == "encoder self-attention"


def test_shares_are_of_the_heads_that_the_settings_name_whichever_are_drawn(tmp_path):
    store = made(tmp_path, "random", scope_AH=ENC_AH, about={"rows": ["enc"]})
    masks_MAH = store.read("masks")
    for row, mask_AH in zip(tables.curve_table(ablations.in_scope(store)), masks_MAH, strict=True):
        assert row["share"] == pytest.approx(100 * (np.asarray(FULL_AH) & ~mask_AH).sum() / 3)


def test_prefixes_name_the_head_that_goes(tmp_path):
    comparison = ablations.in_scope(made(tmp_path, "prefixes"))
    items = subsets.prefixes(comparison)
    rows = listed(items, "prefixes")
    assert [row["head that goes"] for row in rows] == [
        "–",
        "enc.0.1",
        "<dec>.0.1",
        "enc.0.0",
        "enc.0.2",
        "<dec>.0.0",
    ]
    assert [row["removed"] for row in rows] == list(range(6))
    assert any(
        isinstance(item, str) and item.startswith("In the importance order") for item in items
    )


def test_masks_are_told_by_what_they_lack(tmp_path):
    rows = tables.mask_table(compare(made(tmp_path, "file")))
    assert [(row["mask"], row["removed"], row["without"]) for row in rows] == [
        (0, 0, "-"),
        (1, 2, "enc.0.0,1"),
        (2, 2, "enc.0.0,2"),
        (3, 2, "enc.0.0 <dec>.0.0"),
    ]


def test_interactions_are_listed_the_strongest_first_with_their_masks(tmp_path):
    store, singles = made(tmp_path, "pairs"), made(tmp_path, "one_off")
    comparison = compare(store)
    together, found = interactions.interactions(store, singles)
    rows = interactions.pair_table(comparison, together, found)
    assert [abs(row["extra"]) for row in rows] == sorted(
        (abs(row["extra"]) for row in rows), reverse=True
    )
    assert sorted(row["mask"] for row in rows) == list(range(1, 11))
    single, double = singles.read("loss").mean(1), store.read("loss").mean(1)
    for row in rows:
        alone = [
            single[1 + comparison.names.index(row[name])] - single[0]
            for name in ("first", "second")
        ]
        assert row["extra"] == pytest.approx(double[row["mask"]] - double[0] - sum(alone), abs=1e-6)
        assert tables.mask_table(comparison)[row["mask"]]["removed"] == 2


def test_every_finished_grid_has_a_section_and_its_masks_as_csv(tmp_path):
    names = ("one_off", "one_on", "pairs", "rows_off", "random", "prefixes", "file")
    stores = {name: made(tmp_path, name) for name in names}
    text = write_report(tmp_path).read_text()
    for title in (
        "Pairs of heads",
        "Without a whole row",
        "Heads in one order",
        "Random subsets",
        "Masks of a file",
    ):
        assert f"<h2>{title}</h2>" in text
    assert "mine.npy" in text
    for name, store in stores.items():
        with open(tmp_path / f"report/{name}_masks.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert list(rows[0])[:7] == [
            "mask",
            "removed",
            "without",
            "metric",
            "change",
            "low",
            "high",
        ]
        assert len(rows) == len(store.read("masks"))
    assert {f"{name}.svg" for name in ("rows_off", "random", "prefixes", "pairs")} <= {
        file.name for file in (tmp_path / "report").iterdir()
    }


@pytest.mark.parametrize("name", ["one_on", "pairs", "rows_off", "random", "prefixes", "file"])
@pytest.mark.parametrize("metric", ["f1", "loss"])
def test_each_set_alone_is_a_report_with_losses_or_predictions_only(tmp_path, name, metric):
    made(tmp_path, name, losses=metric == "loss", metric=metric)
    text = write_report(tmp_path).read_text()
    assert f"the full model has {SCALES[metric].name}" in text
    assert f"({N} examples)" in text


def test_tables_that_are_for_machines_are_not_shown(tmp_path):
    listing = tables.masks_file(compare(made(tmp_path, "pairs")), "pairs")
    assert (len(listing.rows), listing.shown) == (11, [])
    made(tmp_path, "one_off")
    text = write_report(tmp_path).read_text()
    assert "pairs_masks.csv</a>: every mask of this grid" in text
    assert "every mask of this grid" not in (tmp_path / "report/tables.txt").read_text()

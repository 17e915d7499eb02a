"""What the report's page holds before its script does anything."""

import base64
import hashlib
import re
from html import unescape
from urllib.parse import unquote

import numpy as np
import pytest
from tiny_report import everything

from hp_jax.report import html
from hp_jax.report.html import Listing, judged, to_html
from hp_jax.report.page import write_report
from hp_jax.report.pictures import heatmaps, plots, style
from hp_jax.report.scale import SCALES


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(style, "DPI", 30)


def shown(*items):
    return to_html("Title", [], [("Section", items)])


def test_each_csv_is_in_its_link_and_a_large_one_beside_the_page(tmp_path):
    everything(tmp_path)
    page = write_report(tmp_path)
    links = re.findall(
        r'<a download="([^"]*)" href="data:text/csv;charset=utf-8,([^"]*)"', page.read_text()
    )
    files = {file.name: file.read_text() for file in page.parent.glob("*.csv")}
    assert {name: unquote(data) for name, data in links} == files
    assert len(links) == len(files)


def test_a_large_csv_is_not_in_the_page(monkeypatch):
    listing = Listing("a b", [{"row": "enc.0", "metric": 0.125}], "Said.")
    assert "0.125" in shown(listing)
    monkeypatch.setattr(html, "MOST_EMBEDDED", 10)
    assert '<a href="a%20b.csv">a b.csv</a> (beside this page)' in shown(listing)


def test_only_the_page_s_own_script_may_run():
    text = shown("Words.")
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|//\w", script + policy)


def test_cells_have_the_values_of_the_csv_and_changes_say_their_interval_and_p():
    row = {"row": "enc.0", "head": 1, "metric": 0.87654321, "change": -1.2345, "low": -2.0}
    row |= {"high": -0.5, "p_mcnemar": 1e-9, "p_corrected": float("nan")}
    text = shown(Listing("name", [row], "Said.", scale=SCALES["accuracy"]))
    cells = re.findall(r"<td[^>]*>", text)
    assert [re.findall(r'data-v="([^"]*)"', cell) for cell in cells] == [
        [],
        [],
        ["0.87654321"],
        ["-1.2345"],
        ["-2.0"],
        ["-0.5"],
        ["1e-09"],
        ["nan"],
    ]
    said = "change -1.23 points; 95 % interval -2.00 to -0.50; p, McNemar: <0.001"
    assert judged(row, SCALES["accuracy"]) == said
    assert [unescape(title) for title in re.findall(r'title="([^"]*)"', text)] == [said]


def test_cells_of_a_heat_map_say_their_numbers_side_by_side():
    values_AH = np.array([[0.5, -1.25], [0.0, np.nan]])
    figure = heatmaps.heatmap(values_AH, ["enc.0", "enc.1"], "points", centred=True)
    first, right, below = style.picture("name", figure, "Said.").spots
    assert [spot.text for spot in (first, right, below)] == [
        "enc.0.0: points +0.50",
        "enc.0.1: points -1.25",
        "enc.1.0: points 0.00",
    ]
    assert (right.x, below.y) == pytest.approx((first.x + first.width, first.y + first.height))


def test_spots_are_where_matplotlib_draws():
    figure = plots.histogram(np.array([0.8, 0.82, 0.82]), 0.82, "accuracy", 0.01)
    picture = style.picture("name", figure, "Said.")
    drawn = []
    for path in re.findall(r'<path d="([^"]*)"[^>]*fill: #7fb3d5', picture.svg.decode()):
        corners = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float)
        drawn.append([*corners.min(0), *np.ptp(corners, 0)])
    spots = [spot[:4] for spot in picture.spots]
    tall = [bar for bar in drawn if bar[3] > 0]
    np.testing.assert_allclose(spots, tall, atol=0.3)
    assert [spot.text.split(":")[0] for spot in picture.spots] == ["1 head", "2 heads"]


def test_what_callers_say_of_a_cell_a_point_and_a_dot_is_said():
    said = {"enc.0.0": "first", "enc.0.1": "second"}
    x = np.array([0.5, -1.0])
    for figure in (
        heatmaps.heatmap(x[None], ["enc.0"], "points", centred=True, said=said),
        plots.scatter(x, {"y": x}, [""], list(said), "x", list(said.values())),
        plots.dots(list(said), x, x, x, [True, False], "x", list(said.values())),
    ):
        picture = style.picture("name", figure, "Said.")
        assert [spot.text for spot in picture.spots] == ["enc.0.0: first", "enc.0.1: second"]
        assert shown(picture).count("<title>enc.0.") == 2


def test_of_a_large_matrix_the_strongest_pairs_say_their_numbers(monkeypatch):
    monkeypatch.setattr(heatmaps, "MOST_SAID", 4)
    together = np.array([[np.nan, 1, -3], [1, np.nan, 2], [-3, 2, np.nan]])
    figure = heatmaps.interactions(together, [(0, 0), (0, 1), (1, 0)], ["a.0", "a.1"], "nats")
    texts = [spot.text for spot in style.picture("name", figure, "").spots]
    assert (
        sorted(text.split(": ")[1] for text in texts) == ["+2.0000 nats"] * 2 + ["-3.0000 nats"] * 2
    )

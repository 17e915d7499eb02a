"""The report's page in a real browser: what its script adds, and what people see of it."""

import csv
import itertools
import json
import re

import pytest
from browser import BROWSER, Browser
from tiny_report import everything

from hp_jax.report.page import write_report
from hp_jax.report.pictures import style

pytestmark = pytest.mark.skipif(
    not BROWSER, reason="no chromium, chromium-browser or google-chrome on the path"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    everything(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 30)
        return write_report(folder)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(started, page):
    started.open(page, 1280)
    started.run("document.querySelectorAll('details').forEach((one) => (one.open = true)), 0")
    yield started
    assert started.complaints() == []


def table(name):
    """The table beside the link to a CSV, as JavaScript."""
    link = f"document.querySelector('a[download=\"{name}.csv\"]')"
    return f"{link}.closest('.tools').previousElementSibling.querySelector('table')"


def read(page, name):
    with open(page.parent / f"{name}.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def column(browser, name, heading):
    """The values of a column as they stand, and its aria-sort."""
    return browser.run(
        f"""(() => {{
          const heading = {table(name)}.querySelector('th[data-c="{heading}"]');
          const cell = (row) => row.cells[heading.cellIndex];
          const cells = [...{table(name)}.tBodies[0].rows].map(cell);
          return [cells.map((one) => one.dataset.v ?? one.textContent), heading.ariaSort];
        }})()"""
    )


def test_nothing_is_wider_than_the_page_on_a_phone_and_on_a_desk(browser, page):
    for width, scheme in itertools.product((360, 1280), ("light", "dark")):
        browser.open(page, width, scheme=scheme)
        browser.run("document.querySelectorAll('details').forEach((one) => (one.open = true)), 0")
        wide, window = browser.run("[document.documentElement.scrollWidth, innerWidth]")
        assert wide <= window == width


@pytest.mark.parametrize(
    ("name", "heading"), [("importance", "score"), ("one_off_grid", "1"), ("one_off", "row")]
)
def test_a_column_is_sorted_up_and_down_and_as_it_was(browser, name, heading):
    first, sort = column(browser, name, heading)
    assert sort == "none"
    press = f"{table(name)}.querySelector('th[data-c=\"{heading}\"] button')"
    seen = []
    for key in ("Enter", "Enter", "Enter"):
        browser.run(f"{press}.focus()")
        browser.press(key)
        seen.append(column(browser, name, heading))
    number = (lambda text: text) if heading == "row" else lambda text: float(text.rstrip("*†"))
    up, down = sorted(first, key=number), sorted(first, key=number, reverse=True)
    assert seen == [[up, "ascending"], [down, "descending"], [first, "none"]]
    assert up != down


def test_values_that_are_missing_stand_last(browser):
    browser.run(f"{table('one_off_grid')}.querySelector('th[data-c=\"2\"] button').click()")
    assert column(browser, "one_off_grid", "2")[0][-1] == "–"
    browser.run(f"{table('one_off_grid')}.querySelector('th[data-c=\"2\"] button').click()")
    assert column(browser, "one_off_grid", "2")[0][-1] == "–"


def test_what_is_copied_is_the_csv(browser, page):
    """With the clipboard, and where a page may not use it."""
    names = browser.run("[...document.querySelectorAll('.tools a')].map((link) => link.download)")
    assert len(names) > 10
    browser.run("navigator.clipboard.writeText = async (text) => (window.copied = text), 0")
    for name in names:
        press = f"document.querySelector('.tools a[download=\"{name}\"]').previousElementSibling"
        browser.run(f"{press}.click()")
        browser.until(f"{press}.textContent === 'Copied'")
        with open(page.parent / name, encoding="utf-8") as file:
            expected = list(csv.reader(file))
        copied = list(csv.reader(browser.run("copied").splitlines(), delimiter="\t"))
        assert copied == expected[: len(copied)]
        assert len(copied) == min(21, len(expected))
    browser.run("navigator.clipboard.writeText = () => Promise.reject('no'), 0")
    browser.run(
        "document.addEventListener('copy', () => (window.selected = String(getSelection())))"
    )
    browser.run(f"{table('one_off')}.parentElement.nextElementSibling.firstChild.focus()")
    browser.press("Enter")
    browser.until("window.selected !== undefined")
    assert browser.run("selected").startswith("row\thead\tmetric")


def test_each_cell_of_a_heat_map_says_the_number_of_the_table(browser, page):
    picture = "document.querySelector('[data-name=one_off]').closest('figure')"
    said = browser.run(
        f"[...{picture}.querySelectorAll('.spots rect')].map((one) => one.ariaLabel)"
    )
    names = {f"{row['row']}.{row['head']}": float(row["change"]) for row in read(page, "one_off")}
    assert len(said) == len(names)
    for text in said:
        name, _, words = text.partition(": ")
        (number,) = re.findall(r"[+-]?\d+\.\d\d\b", words.split(";")[0])
        assert float(number) == pytest.approx(names[name], abs=0.0051)
        assert "95 % interval" in words
        assert "p, McNemar" in words


def test_places_speak_to_the_pointer_and_to_the_keyboard(browser):
    said = "[document.getElementById('tip').hidden, document.getElementById('tip').textContent]"
    browser.point("figure.picture .spots rect:nth-child(2)")
    browser.until("document.getElementById('tip') && !document.getElementById('tip').hidden")
    assert browser.run(said)[1].startswith("enc.0.1: ")
    browser.run("document.querySelector('figure.picture .spots rect').focus()")
    for key, name in (("ArrowRight", "enc.0.1"), ("ArrowDown", "<dec>.0.1")):
        browser.press(key)
        hidden, text = browser.run(said)
        assert not hidden
        assert text.startswith(f"{name}: ")
    browser.press("Escape")
    assert browser.run(said)[0]


def test_every_point_of_a_curve_says_its_interval_and_p(browser, page):
    picture = "document.querySelector('[data-name=pruning]').closest('figure')"
    said = browser.run(
        f"[...{picture}.querySelectorAll('.spots rect')].map((one) => one.ariaLabel)"
    )
    assert len(said) == 2 * len(read(page, "pruning_one_shot"))
    for words in ("95 % interval", "p, McNemar"):
        assert all(words in text for text in said)
    title = browser.run(f"{table('one_off')}.querySelector('td[title*=interval]').title")
    assert "p, McNemar" in title


def test_a_picture_opens_large_and_closes_by_keyboard(browser):
    press = "document.querySelector('figure.picture .tools button')"
    browser.run(f"{press}.focus()")
    width = "document.querySelector('[aria-label^=\"Change of accuracy\"]').clientWidth"
    small = browser.run(width)
    browser.press("Enter")
    assert browser.run("document.querySelector('dialog[open] svg') !== null")
    assert browser.run(width) > small
    browser.press("Escape")
    browser.until("document.querySelector('figure.picture .card svg') !== null")
    assert browser.run("document.querySelector('dialog').open") is False
    assert browser.run(f"document.activeElement === {press}")


def test_pictures_are_saved_from_the_page_itself(browser, page):
    """What a link would save; the SVG is the file's drawing, the PNG has its shape."""
    browser.run(
        """HTMLAnchorElement.prototype.click = async function () {
          window.saved = [this.download, await (await new Response(blobs.at(-1))).text()];
        };
        window.blobs = [];
        URL.createObjectURL = (blob) => (blobs.push(blob), 'blob:');
        window.saved = undefined"""
    )
    browser.run("document.querySelector('[data-name=one_off] button:nth-child(3)').click()")
    browser.until("window.saved !== undefined")
    name, text = browser.run("saved")
    assert name == "one_off.svg"
    drawn = re.compile(r'\bd="([^"]*)"')
    found, expected = (
        [" ".join(path.replace("&#10;", " ").split()) for path in drawn.findall(svg)]
        for svg in (text, (page.parent / name).read_text())
    )
    assert found == expected != []
    browser.run("window.saved = undefined")
    browser.run("document.querySelector('[data-name=one_off] button:nth-child(2)').click()")
    browser.until("window.saved !== undefined")
    assert browser.run("saved")[0] == "one_off.png"
    assert browser.run("saved")[1][1:4] == "PNG"


CONTRASTS = """
(() => {
  const light = (rgb) => {
    const linear = (one) => (one <= .03928 ? one / 12.92 : ((one + .055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((one) => linear(one / 255));
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = parts(getComputedStyle(element).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
  };
  const found = {};
  for (const element of document.querySelectorAll('body, body *:not(script, svg, svg *)')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own) continue;
    const [one, other] = [parts(getComputedStyle(element).color), behind(element)].map(light);
    const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    const kind = `${element.tagName}.${element.className}`;
    found[kind] = Math.min(found[kind] ?? 99, ratio);
  }
  const figure = document.querySelector('.picture .card');
  const words = getComputedStyle(figure.querySelector('svg > g:not(.spots) use')).fill;
  const [one, other] = [parts(words), behind(figure)].map(light);
  found.picture = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
  return found;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(browser, page, scheme):
    browser.open(page, 1280, scheme=scheme)
    dark = browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 25, 29)"
    assert dark == (scheme == "dark")
    found = browser.run(CONTRASTS)
    assert {"P.", "P.note", "A.", "FIGCAPTION.", "BUTTON.", "picture"} <= found.keys()
    assert {kind: ratio for kind, ratio in found.items() if ratio < 4.5} == {}


def test_landmarks_headings_and_names_are_in_order(browser):
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map((one) => one.tagName)")
    assert levels == ["H1"] + ["H2"] * (len(levels) - 1)
    for selector in ("main", "nav[aria-label]"):
        assert browser.run(f"document.querySelectorAll({json.dumps(selector)}).length") == 1
    browser.run("document.activeElement.blur()")
    browser.press("Tab")
    assert browser.run("document.activeElement.textContent") == "Skip to the results"
    ids = browser.run("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))
    unnamed = "[tabindex='0']:is(div):not([aria-label])"
    assert browser.run(f'document.querySelectorAll("{unnamed}").length') == 0

"""The page in a real browser, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.catalog.report.chromium import Page, chromium, find_chromium
from tests.catalog.report.small import DAY, NOW, SmallCatalog, bins
from tests.catalog.report.test_page import HOSTILE

from storagering.catalog.report.page import draw_page

PROGRAM = find_chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no chromium on the PATH: apt-get install chromium")
DATASETS = 14


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert PROGRAM is not None
    with chromium(PROGRAM, tmp_path_factory.mktemp("chromium")) as page:
        page.resize(1280, 900)
        yield page


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of some datasets, of which the largest has hostile columns."""
    catalog = SmallCatalog()
    for number in range(DATASETS):
        catalog.add_dataset(f"set-{number:02d}", nbytes=1_000_000 - 1000 * number, num_entries=100 + number)
        catalog.add_column(f"set-{number:02d}", "pt", unit="GeV", histogram=bins(1, 4, 9, 3), quantiles=[*range(7)])
        catalog.add("residents", dataset=f"set-{number:02d}", chunk=0, tier="disk", nbytes=9, uses=1)
        catalog.add_access(f"set-{number:02d}", NOW - number * DAY)
    catalog.add_column("set-00", HOSTILE, 1, unit=HOSTILE, doc=HOSTILE + HOSTILE)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(draw_page(catalog.facts(details=DATASETS)), encoding="utf-8")
    catalog.close()
    return path


@pytest.fixture
def page(browser: Page, report: Path) -> Page:
    browser.emulate()
    browser.open(report.as_uri())
    return browser


def first_names(page: Page) -> list[str]:
    script = "[...document.querySelectorAll('#datasets tbody tr:not([hidden])')].map(r => r.cells[0].textContent)"
    names: list[str] = page.value(script)
    return names


def test_it_is_whole_and_asks_for_nothing(page: Page, report: Path) -> None:
    assert page.errors == []
    assert page.requests == [report.as_uri()]
    assert first_names(page) == [f"set-{number:02d}" for number in range(DATASETS)]
    assert page.value("document.querySelectorAll('svg.dist').length") == DATASETS + 1
    drawn = "[...document.querySelectorAll('details[open] svg')].every(s => s.getBoundingClientRect().width > 50)"
    assert page.value(drawn)
    assert page.value("getComputedStyle(document.querySelector('.bars')).fill") == "rgb(42, 93, 176)"


def test_hostile_text_is_text(page: Page) -> None:
    assert page.value("document.scripts.length") == 1
    assert page.value("document.images.length") == 0
    names = page.value("[...document.querySelectorAll('.name')].map(e => e.textContent)")
    assert HOSTILE.replace("\x1b", "\\x1b") in names


def test_the_policy_stops_what_is_not_its_own(browser: Page, report: Path, tmp_path: Path) -> None:
    """Should escaping ever fail: markup of others in the page neither runs nor loads anything."""
    bad = "<script>window.ran = 1</script><img src='http://127.0.0.1:9/x.png' onerror='window.ran = 2'>"
    broken = tmp_path / "broken.html"
    broken.write_text(report.read_text().replace("<main>", f"<main>{bad}<p style='color: red' id='p'>x</p>"))
    browser.open(broken.as_uri())
    assert browser.value("window.ran") is None
    assert browser.value("getComputedStyle(document.getElementById('p')).color") != "rgb(255, 0, 0)"
    assert sum("Content Security Policy" in error for error in browser.errors) >= 3
    open_page = tmp_path / "open.html"  # what the browser would tell without the policy
    open_page.write_text(f"<body>{bad}")
    browser.open(open_page.as_uri())
    assert browser.value("window.ran") in (1, 2)
    assert "http://127.0.0.1:9/x.png" in browser.requests


def test_tables_are_sorted_and_filtered(page: Page) -> None:
    heads = "document.querySelectorAll('#datasets th')"
    page.value(f"{heads}[1].click()")
    assert first_names(page)[0] == f"set-{DATASETS - 1:02d}", "the largest first"
    assert page.value(f"{heads}[1].ariaSort") == "descending"
    page.value(f"{heads}[1].click()")
    assert first_names(page)[0] == "set-00"
    page.value(f"{heads}[0].click(), {heads}[0].click()")
    assert first_names(page) == [f"set-{number:02d}" for number in reversed(range(DATASETS))]
    page.value("(f => { f.value = 'SET-1'; f.dispatchEvent(new Event('input')) })(document.querySelector('input'))")
    assert first_names(page) == [f"set-{number}" for number in (13, 12, 11, 10)]
    assert page.errors == []


def test_a_link_unfolds_what_it_leads_to(page: Page) -> None:
    assert page.value("document.querySelectorAll('details[open]').length") == 1
    script = "new Promise(done => { addEventListener('hashchange', () => done(0)); location.hash = '#d5' })"
    page.value(script)
    assert page.value("document.getElementById('d5').open")


def test_it_follows_the_reader_to_the_dark(page: Page, report: Path) -> None:
    script = "['--paper', '--ink'].map(n => getComputedStyle(document.documentElement).getPropertyValue(n))"
    light = page.value(script)
    shown = page.screenshot()
    page.emulate(scheme="dark")
    assert page.value(script) != light
    assert page.value("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    assert page.screenshot() != shown


def test_it_fits_a_telephone_and_paper(page: Page) -> None:
    try:
        page.resize(390, 800)
        assert page.value("document.documentElement.scrollWidth") <= 390
    finally:
        page.resize(1280, 900)
    paper = page.pdf()
    assert paper.startswith(b"%PDF")
    assert page.value("document.querySelectorAll('details:not([open])').length") == 0

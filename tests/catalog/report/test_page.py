from __future__ import annotations

import re

import pytest
from tests.catalog.report.small import NOW, SmallCatalog, bins
from tests.catalog.report.test_html import Reader

from storagering.catalog.report.page import MARK, draw_page

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[2J&amp;"


def tags_of(page: str) -> list[str]:
    return [tag for tag, _ in Reader(page).tags]


def test_the_page_tells_what_there_is(catalog: SmallCatalog) -> None:
    catalog.add_dataset("jets", 15_700_000, 28_000_000, num_entries=33_000, selection="jet_pt > 550")
    catalog.add_column("jets", "jet_pt", unit="GeV", doc="transverse momentum", histogram=bins(1, 5, 2), nan_count=3)
    catalog.add("source_files", dataset="jets", source=0, url="root://x//top.root", label="top", tree="Events",
                entries=33_000, nbytes=21_000_000, format="ttree", verified=True)  # fmt: skip
    catalog.add("skipped_columns", dataset="jets", name="odd", typename="TF1", reason="no such type")
    catalog.add("skipped_sources", dataset="jets", url="bad.root", reason="it is truncated")
    catalog.add("residents", dataset="jets", chunk=0, tier="disk", nbytes=4_000_000, uses=3)
    catalog.add_access("jets", nbytes=28_000_000)
    catalog.add("trainings", time=NOW, recipe="jet-deepset", dataset="jets", version=1, metrics={"auc": 0.962})
    page = draw_page(catalog.facts())
    read = Reader(page)
    text = read.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    for said in (
        "1 dataset, 28.0 MB of data", "33 000", "15.7 MB", "1.78×", "jet_pt > 550", "transverse momentum", "GeV",
        "3 NaN", "root://x//top.root", "1 verified", "no such type", "it is truncated", "4.00 MB of chunks",
        "40 % of the quota of 10.0 MB", "11.7 MB are known but not on this disk",
        "1 read (epochs, SQL, exports) by 1 user on 1 host",
        "jet-deepset", "0.962",
    ):  # fmt: skip
        assert said in text, said
    assert sum(tag == "svg" and ("class", "dist") in attrs for tag, attrs in read.tags) == 1
    assert "ada" not in text, "it names no users"


def test_an_empty_cache(catalog: SmallCatalog) -> None:
    page = draw_page(catalog.facts())
    assert "The cache is empty" in page
    assert "Nothing has been read yet" in page
    assert "<table" not in page


def test_nothing_from_data_becomes_markup(catalog: SmallCatalog) -> None:
    """Names, units, titles, reasons, URLs, metrics: whatever a file or journal can hold."""

    def fill(text: str) -> str:
        small = SmallCatalog()
        small.add_dataset(text, selection=text, classes=[text], digest=text, spec_key=text, software=text, format=text)
        small.add_column(text, text, unit=text, doc=f"{text} ", dtype=text, kind="nested", histogram=bins(1, 2))
        small.add("source_files", dataset=text, source=0, url=text, label=text, tree=text, entries=1, nbytes=1,
                  format=text)  # fmt: skip
        for version in (1, 2):
            numbers = {"created": NOW, "num_entries": 1, "num_chunks": 1, "nbytes": 1}
            small.add("versions", dataset=text, version=version, digest=text, parent=text, **numbers)
        small.add("skipped_columns", dataset=text, name=text, typename=text, reason=text)
        small.add("skipped_sources", dataset=text, url=text, reason=text)
        small.add("residents", dataset=text, chunk=0, tier=text, nbytes=1, uses=1)
        small.add_access(text, tier=text)
        small.add("trainings", time=NOW, recipe=text, model=text, dataset=text, version=1, metrics={text: 1.0})
        page = draw_page(small.facts())
        small.close()
        return page

    hostile, harmless = fill(HOSTILE), fill("x" * 20)
    assert tags_of(hostile) == tags_of(harmless)
    assert {name for _, attrs in Reader(hostile).tags for name, _ in attrs if name.startswith("on")} == set()
    assert "\x1b" not in hostile
    assert Reader(hostile).text.count("<script>alert(1)</script>") > 20


def test_only_its_own_style_and_script_may_run(catalog: SmallCatalog) -> None:
    catalog.add_dataset("jets")
    page = draw_page(catalog.facts())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src &#x27;none&#x27;; style-src &#x27;sha256-")
    assert "unsafe" not in policy[1]
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "url(" not in page
    assert "@import" not in page
    assert " style=" not in page


def test_ten_thousand_datasets_are_a_few_megabytes(catalog: SmallCatalog) -> None:
    catalog.connection.execute(
        """INSERT INTO datasets SELECT 'set-' || lpad(i::VARCHAR, 5, '0'), 1000000 + i, 300, 100, 200000000 + i,
        500000000, 'zarr', 'small', ['top', 'qcd'], 'jet_pt > 500', NULL, md5(i::VARCHAR), 1, '', md5(i::VARCHAR),
        to_timestamp(1.7e9 + i), 'storagering 0' FROM range(10000) t(i)"""
    )
    catalog.connection.execute(
        """INSERT INTO columns SELECT 'set-' || lpad((9960 + i // 300)::VARCHAR, 5, '0'), i % 300, 'column_' || i % 300,
        'float32', 'jagged', 'GeV', 'a title of some length', NULL, 1000, 0, 100, 50, 10, 0, 0, 20,
        [1, 5, 25, 50, 75, 95, 99], [{'low': x, 'high': x + 1, 'count': hash(i, x) % 999} for x in range(64)]
        FROM range(12000) t(i)"""
    )
    catalog.connection.execute(
        """INSERT INTO accesses BY NAME SELECT to_timestamp(1.7e9 + i * 600) AS time, 'set-00001' AS dataset,
        'disk' AS tier, 1000 AS nbytes FROM range(50000) t(i)"""
    )
    page = draw_page(catalog.facts())
    assert page.count("<details") == 40
    assert page.count('class="dist"') == 39 * 60
    assert len(re.findall(r"<td>(<a[^>]*>)?set-\d{5}", page)) == 10_000
    assert len(page.encode()) < 6e6


@pytest.mark.parametrize("count", [1, 12, 13])
def test_many_datasets_can_be_filtered(catalog: SmallCatalog, count: int) -> None:
    for number in range(count):
        catalog.add_dataset(f"d{number}")
    assert ('<input type="search"' in draw_page(catalog.facts())) == (count > 12)
    assert draw_page(catalog.facts()).startswith(MARK)

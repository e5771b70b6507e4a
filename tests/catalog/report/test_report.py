from __future__ import annotations

import os
from pathlib import Path

import pytest
from tests.catalog.report.test_html import Reader

from storagering import append, convert
from storagering.catalog.report import write_report
from storagering.errors import NotFoundError, OutputError
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def toys(tmp_path: Path) -> None:
    for number in range(2):
        write_toy_tree(tmp_path / f"{number}.root", entries=100, seed=number)
    convert(str(tmp_path / "0.root"), name="toys", workers=1)


@pytest.mark.usefixtures("toys")
def test_a_real_cache(tmp_path: Path) -> None:
    append("toys", str(tmp_path / "1.root"), workers=1)
    report = write_report(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_bytes()
    assert (report.out, report.nbytes) == (tmp_path / "r.html", len(page))
    assert (report.datasets, report.details) == (1, 1)
    text = Reader(page.decode()).text
    for said in ("1 dataset", "toys", "200 entries", "MET_pt", "jagged float32", str(tmp_path / "1.root"), "2 sources"):
        assert said in text, said
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_empty_cache(tmp_path: Path) -> None:
    report = write_report(tmp_path / "r.html")
    assert (report.datasets, report.details) == (0, 0)


def test_only_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "r.html"
    write_report(out)
    before = out.stat().st_ino
    write_report(out)
    assert out.stat().st_ino != before
    for contents in (b"", b"<!doctype html><html><body>mine"):
        out.write_bytes(contents)
        with pytest.raises(OutputError, match=r"r\.html is there already; .*--force"):
            write_report(out)
        assert out.read_bytes() == contents
    write_report(out, force=True)
    assert out.stat().st_size > 1000
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is there already"):
        write_report(tmp_path / "pipe")
    with pytest.raises(NotFoundError, match="no folder"):
        write_report(tmp_path / "no" / "r.html")


def test_a_disk_that_refuses_leaves_the_earlier_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "r.html"
    write_report(out)
    before = out.read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storagering.files.disk.rename", refuse)
    with pytest.raises(OutputError, match=r"r\.html: cannot write it: No space left"):
        write_report(out)
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".html"] == ["r.html"]

"""A local source is opened once for all steps of a build in one process, and never taken for another one."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from storagering.api import convert
from storagering.cache.opened import KeptSource
from storagering.config import load_settings
from storagering.formats import readers
from storagering.formats.readers import open_source
from storagering.formats.source import Location, Source
from storagering.testing.toys import write_toy_tree


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_toy_tree(tmp_path / "toy.root", entries=3000)
    return tmp_path / "toy.root"


@pytest.fixture
def kept() -> Iterator[KeptSource]:
    with closing(KeptSource()) as kept:
        yield kept


def opened(path: Path) -> Source:
    return open_source(str(path), None, load_settings())


@pytest.mark.parametrize("options", [{}, {"where": "MET_pt > 10"}, {"chunk_bytes": 20_000}])
def test_one_file_is_opened_once(path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    calls: list[str] = []
    original = readers._open_array_file

    def count(blob: Any, *arguments: Any) -> Source:
        calls.append(blob.url)
        return original(blob, *arguments)

    monkeypatch.setattr(readers, "_open_array_file", count)
    dataset = convert(str(path), name="toy", workers=1, **options)
    assert calls == [str(path)]
    assert dataset.manifest.sources[0].entries == 3000


def test_only_the_same_file_is_taken(path: Path, kept: KeptSource) -> None:
    location, source = Location(str(path)), opened(path)
    kept.leave(location, source)
    assert kept.take(Location(str(path), checksum="adler32:0"), "Events") is None
    assert kept.take(location, "Other") is None
    assert kept.take(location, "Events") is source
    assert kept.take(location, "Events") is None
    source.close()


@pytest.mark.parametrize("change", ["touched", "grown", "gone"])
def test_a_file_that_changed_is_opened_anew(path: Path, kept: KeptSource, change: str) -> None:
    location = Location(str(path))
    kept.leave(location, opened(path))
    if change == "touched":
        os.utime(path, ns=(1, 1))
    elif change == "grown":
        before = path.stat()
        path.write_bytes(path.read_bytes() + b"x")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        path.unlink()
    assert kept.take(location, "Events") is None

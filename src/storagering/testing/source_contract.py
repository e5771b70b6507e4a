"""The contract that the reader of every format keeps, as a pytest class to subclass.

    class TestMyFormat(SourceContract):
        format = "mine"

        def write(self, path, columns): ...

Needs pytest.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak
import numpy as np
import pytest

from storagering.api import convert
from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, NotFoundError, StorageringError
from storagering.formats.forms import assign_keys, describe_column, to_batch
from storagering.formats.readers import open_source
from storagering.formats.source import Source, UnreadableColumnsError
from storagering.testing.contracts import bits, sample_columns
from storagering.testing.http import http_server
from storagering.types import StoreFormat

#: Names that have gone wrong somewhere: paths, quotes, other scripts, very long ones.
ODD_NAMES = (
    "a/b",
    "../x",
    "a.b",
    "a b",
    "naïve",
    "粒子",
    "x'y",
    'x"y',
    "; DROP",
    "zarr.json",
    "n" * 300,
    "a\nb",
    "A/B",
)
_SLOWEST_SECONDS = 10.0


class SourceContract(ABC):
    """What every `Source` must do; set ``format`` and give `write`, and whatever else differs.

    Attributes:
        format: what `Source.format` says.
        can_be_empty: whether there can be a file of no entries.
        framed: whether every file that was cut short is told from a whole one.
        checked: what `Source.self_checked` says: damage is then seen wherever it is.
        names: odd names that columns of this format can have.
        samples: damaged files to try.
    """

    format: ClassVar[str]
    can_be_empty: ClassVar[bool] = True
    framed: ClassVar[bool] = True
    checked: ClassVar[bool] = False
    names: ClassVar[Sequence[str]] = ODD_NAMES
    samples: ClassVar[int] = 100

    @abstractmethod
    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        """Write a file of these columns (Awkward arrays of one length), in several blocks if there can be."""

    def columns(self, entries: int) -> dict[str, Any]:
        """Columns of every kind that the format holds."""
        return sample_columns(entries)

    @pytest.fixture
    def settings(self) -> Settings:
        return load_settings()

    def _written(self, path: Path, entries: int) -> dict[str, Any]:
        columns = {name: ak.Array(array) for name, array in self.columns(entries).items()}
        self.write(path, columns)
        return columns

    @pytest.mark.parametrize("entries", [1, 2, 257])
    def test_every_column_comes_back(self, tmp_path: Path, settings: Settings, entries: int) -> None:
        """Also under a name that says something else."""
        path = tmp_path / ("data.csv" if self.format != "csv" else "data.root")
        columns = self._written(path, entries)
        with closing(open_source(str(path), None, settings)) as source:
            assert (source.format, source.entries) == (self.format, entries)
            assert (source.nbytes, source.url) == (path.stat().st_size, str(path))
            assert source.version
            assert source.self_checked == self.checked
            assert list(source.columns) == list(columns)
            assert not source.repeated
            assert all(isinstance(source.doc(name), str) for name in columns)
            assert_same(source.read(list(columns), 0, entries), columns)

    def test_ranges_add_up(self, tmp_path: Path, settings: Settings) -> None:
        columns = self._written(tmp_path / "data", 257)
        rng = np.random.default_rng(1)
        with closing(open_source(str(tmp_path / "data"), None, settings)) as source:
            for _ in range(2):
                cuts = [0, *sorted(rng.integers(0, 257, 4).tolist()), 257]
                for start, stop in pairwise(cuts):
                    want = {name: array[start:stop] for name, array in columns.items()}
                    assert_same(source.read(list(columns), start, stop), want)

    def test_boundaries(self, tmp_path: Path, settings: Settings) -> None:
        columns = self._written(tmp_path / "data", 257)
        with closing(open_source(str(tmp_path / "data"), None, settings)) as source:
            for names in ([], list(columns)[:1], list(columns)):
                found = source.boundaries(names)
                assert (found[0], found[-1]) == (0, 257)
                assert found == sorted(set(found))

    def test_any_columns_in_any_order(self, tmp_path: Path, settings: Settings) -> None:
        columns = self._written(tmp_path / "data", 20)
        names = list(columns)[::-2]
        with closing(open_source(str(tmp_path / "data"), None, settings)) as source:
            assert list(source.read(names, 3, 9)) == names
            assert_same(source.read(names, 3, 9), {name: columns[name][3:9] for name in names})
            assert source.read([], 0, 20) == {}
            assert 0 <= source.nbytes_of(names) <= source.nbytes

    def test_a_column_that_is_not_there(self, tmp_path: Path, settings: Settings) -> None:
        columns = self._written(tmp_path / "data", 3)
        with (
            closing(open_source(str(tmp_path / "data"), None, settings)) as source,
            pytest.raises(StorageringError, match="no-such-column"),
        ):
            source.read([*columns, "no-such-column"], 0, 3)

    def test_several_threads(self, tmp_path: Path, settings: Settings) -> None:
        columns = self._written(tmp_path / "data", 257)
        names = list(columns)
        with closing(open_source(str(tmp_path / "data"), None, settings)) as source, ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda n: source.read([names[n % len(names)]], n, 257), range(2 * len(names))))
        for number, arrays in enumerate(found):
            name = names[number % len(names)]
            assert_same(arrays, {name: columns[name][number:]})

    def test_closing_twice(self, tmp_path: Path, settings: Settings) -> None:
        columns = self._written(tmp_path / "data", 5)
        source = open_source(str(tmp_path / "data"), None, settings)
        arrays = source.read(list(columns), 0, 5)
        source.close()
        source.close()
        assert_same(arrays, columns)

    @pytest.mark.scenario(44)
    def test_no_entries(self, tmp_path: Path, settings: Settings) -> None:
        if not self.can_be_empty:
            pytest.skip("files of this format without entries are not told apart")
        columns = {name: array[:0] for name, array in self._written(tmp_path / "data", 2).items()}
        self.write(tmp_path / "empty", columns)
        with closing(open_source(str(tmp_path / "empty"), None, settings)) as source:
            assert (source.format, source.entries, source.boundaries(list(columns))) == (self.format, 0, [0])
            assert list(source.columns) == list(columns)

    @pytest.mark.scenario(47)
    def test_odd_names(self, tmp_path: Path, settings: Settings) -> None:
        columns = {name: ak.Array(np.arange(3) + n) for n, name in enumerate(self.names)}
        self.write(tmp_path / "data", columns)
        with closing(open_source(str(tmp_path / "data"), None, settings)) as source:
            assert list(source.columns) == list(columns)
            assert_same(source.read(list(columns), 0, 3), columns)
            for name in columns:
                assert_same(source.read([name], 1, 2), {name: columns[name][1:2]})

    def test_a_missing_file(self, tmp_path: Path, settings: Settings) -> None:
        with pytest.raises(NotFoundError, match="absent"):
            open_source(str(tmp_path / "absent"), None, settings)

    def test_a_file_cut_short(self, tmp_path: Path, settings: Settings) -> None:
        columns = self._written(tmp_path / "data", 40)
        data = (tmp_path / "data").read_bytes()
        lengths = {*range(0, len(data), max(1, len(data) // self.samples)), len(data) - 1}
        for length in sorted(lengths):
            (tmp_path / "cut").write_bytes(data[:length])
            try:
                found = read_all(tmp_path / "cut", settings)
            except CorruptDataError as error:
                assert "cut" in str(error)
                continue
            except UnreadableColumnsError:
                assert not self.framed, length
                continue
            assert not self.framed or is_same(found, columns), length

    @pytest.mark.scenario(41)
    def test_damaged_files(self, tmp_path: Path, settings: Settings) -> None:
        """Every outcome is the same data or an error of ours; without checksums it may be other data, in time."""
        columns = self._written(tmp_path / "data", 12)
        data = (tmp_path / "data").read_bytes()
        rng = np.random.default_rng(7)
        for number in range(self.samples):
            damaged = bytearray(data)
            at = int(rng.integers(len(data)))
            if number % 4 == 3:
                damaged[at : at + 8] = bytes(len(damaged[at : at + 8]))
            else:
                damaged[at] ^= 1 << int(rng.integers(8))
            (tmp_path / f"damaged-{number}").write_bytes(damaged)
            started = time.perf_counter()
            try:
                found = read_all(tmp_path / f"damaged-{number}", settings)
                assert not self.checked or is_same(found, columns), (number, at)
            except StorageringError as error:
                assert f"damaged-{number}" in str(error)
            assert time.perf_counter() - started < _SLOWEST_SECONDS

    def test_from_a_server(self, tmp_path: Path, settings: Settings) -> None:
        (tmp_path / "served").mkdir()
        columns = self._written(tmp_path / "served" / "data", 100)
        with http_server(tmp_path / "served") as server:
            for spool in ("", str(tmp_path / "spool"), str(tmp_path / "spool")):
                with closing(open_source(server.url("data"), None, settings, spool)) as source:
                    assert_same(source.read(list(columns), 0, 100), columns)

    @pytest.mark.parametrize("stored", ["zarr", "parquet"])
    def test_conversion(self, tmp_path: Path, stored: StoreFormat) -> None:
        columns = self._written(tmp_path / "data", 100)
        dataset = convert(str(tmp_path / "data"), name="converted", format=stored, chunk_bytes=8192, workers=1)
        assert {s.name for s in dataset.manifest.skipped} == set()
        arrays = dataset.arrays()
        assert_same({name: arrays[name] for name in columns}, columns)
        assert [(s.format, s.entries) for s in dataset.manifest.sources] == [(self.format, 100)]


def read_all(path: Path, settings: Settings) -> dict[str, Any]:
    """Everything in a file."""
    with closing(open_source(str(path), None, settings)) as source:
        return _read_whole(source)


def _read_whole(source: Source) -> dict[str, Any]:
    return source.read(list(source.columns), 0, source.entries)


def assert_same(found: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """Check that all columns are of the same type, and the same bit for bit."""
    assert set(found) == set(want)
    for name, array in want.items():
        assert ak.Array(found[name]).type == ak.Array(array).type, name
        assert _bits(name, found[name]) == _bits(name, array), name


def is_same(found: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    """Whether `assert_same` holds."""
    return set(found) == set(want) and all(
        ak.Array(found[name]).type == ak.Array(array).type and _bits(name, found[name]) == _bits(name, array)
        for name, array in want.items()
    )


def _bits(name: str, array: Any) -> Any:
    schema = assign_keys([describe_column(name, array)])
    return bits(to_batch(schema, {name: array}, len(array)).arrays[name])

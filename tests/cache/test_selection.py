"""Selections: what they keep, and how little is read for it."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot
from hypothesis import given
from hypothesis import strategies as st

from storagering.api import convert
from storagering.cache.pruning import PrunedReader
from storagering.cache.selection import Selection
from storagering.errors import SpecError
from storagering.formats.source import Source
from storagering.testing.http import HTTPServer, http_server
from storagering.testing.toys import toy_columns, write_toy_rntuple, write_toy_tree
from storagering.types import Array, ConversionSpec, Manifest, Span


class WholeReader(PrunedReader):
    """The plain way, to compare with: read everything, then select."""

    def read(
        self, span: Span, made: Mapping[str, Array], known: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], int, int]:
        arrays = dict(known or self.source.read([*self._early, *self._late], span.start, span.stop))
        columns, entries = self._selection.apply(arrays, span.stop - span.start, made)
        return {n: columns[n] for n in self._outputs} if entries else {}, entries, 0


class MemorySource(Source):
    """Arrays with blocks of their own, which remembers what was read."""

    def __init__(self, arrays: dict[str, Any], bounds: dict[str, list[int]]) -> None:
        self.entries = len(next(iter(arrays.values())))
        self.arrays, self.bounds = arrays, bounds
        self.columns = dict.fromkeys(arrays, "")
        self.reads: list[tuple[str, int, int]] = []

    def boundaries(self, names: Iterable[str]) -> list[int]:
        return sorted(set.intersection(*(set(self.bounds[name]) for name in names)))

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        self.reads += [(name, start, stop) for name in names]
        return {name: self.arrays[name][start:stop] for name in names}

    def close(self) -> None:
        pass


def spec_of(**options: Any) -> ConversionSpec:
    return ConversionSpec(sources=(("x", None),), **options)


@st.composite
def pruned_cases(draw: st.DrawFn) -> tuple[MemorySource, list[bool], Span]:
    entries = draw(st.integers(1, 60))
    keep = draw(st.lists(st.booleans(), min_size=entries, max_size=entries))
    if draw(st.booleans()):  # clustered
        first = draw(st.integers(0, entries - 1))
        keep = [first <= i < first + 4 for i in range(entries)]
    counts = np.arange(entries) % 4
    jagged = ak.unflatten(np.arange(int(counts.sum()), dtype=np.float32), counts)
    arrays = {"keep": ak.Array(np.array(keep)), "jagged": jagged, "text": ak.Array([f"e{i}" for i in range(entries)])}
    arrays |= {f"c{i}": ak.Array(np.arange(entries) * i) for i in range(draw(st.integers(1, 12)))}
    arrays["image"] = ak.Array(np.arange(entries * 6).reshape(entries, 2, 3))
    cuts = st.lists(st.integers(0, entries), max_size=12)
    bounds = {name: sorted({0, entries, *draw(cuts)}) for name in arrays}
    start = draw(st.integers(0, entries - 1))
    return MemorySource(arrays, bounds), keep, Span(0, start, draw(st.integers(start + 1, entries)))


@given(pruned_cases())
def test_pruned_is_equal_to_selecting_from_everything(case: tuple[MemorySource, list[bool], Span]) -> None:
    source, keep, span = case
    spec = spec_of(where="keep", define=(("sum", "c0 + sum(jagged)"),), columns=None)
    selection = Selection(spec, list(source.columns))
    outputs = [*source.columns, "sum", "label"]
    made = {"label": np.arange(span.start, span.stop)}
    got, entries, size = PrunedReader(source, selection, list(source.columns), outputs).read(span, made)
    reads, source.reads = source.reads, []
    want, expected, _ = WholeReader(source, selection, list(source.columns), outputs).read(span, made)
    assert entries == expected == sum(keep[span.start : span.stop])
    assert list(got) == list(want)
    for name, array in want.items():
        assert ak.array_equal(got[name], array, dtype_exact=True)
    assert size > 0
    late = [r for r in reads if r[0] != "keep"]
    assert all(span.start <= start < stop <= span.stop for _, start, stop in late)
    if not entries:
        assert not late
    by_column: dict[str, list[tuple[int, int]]] = {}
    for name, start, stop in late:
        by_column.setdefault(name, []).append((start, stop))
    for runs in by_column.values():
        assert all(a[1] <= b[0] for a, b in itertools.pairwise(runs))


def test_only_blocks_with_survivors_are_read() -> None:
    entries = 100
    arrays = {"x": ak.Array(np.arange(entries)), "a": ak.Array(np.arange(entries)), "b": ak.Array(np.arange(entries))}
    bounds = {"x": [0, 100], "a": list(range(0, 101, 10)), "b": [0, 25, 50, 75, 100]}
    source = MemorySource(arrays, bounds)
    selection = Selection(spec_of(where="(x == 33) | (x == 40) | (x == 88)"), list(arrays))
    columns, kept, size = PrunedReader(source, selection, list(arrays), list(arrays)).read(Span(0, 0, entries), {})
    assert (kept, columns["b"].tolist()) == (3, [33, 40, 88])
    assert source.reads == [("x", 0, 100), ("a", 30, 50), ("a", 80, 90), ("b", 25, 50), ("b", 75, 100)]
    assert size == 8 * (100 + 30 + 50)


def test_a_definition_may_hide_a_column_of_the_source() -> None:
    arrays = {"pt": np.array([1.0, 2.0, 3.0]), "label": np.array([0, 1, 1])}
    define = (("top", "label"), ("qcd", "1 - label"), ("label", "top + 2 * qcd"))
    late = Selection(spec_of(define=define, where="top == 1"), list(arrays))
    columns, entries = late.apply(arrays, 3, {})
    assert (entries, columns["label"].tolist(), columns["qcd"].tolist()) == (2, [1, 1], [0, 0])
    early = Selection(spec_of(define=define, where="label == 1"), list(arrays))
    columns, entries = early.apply(arrays, 3, {})
    assert (entries, columns["label"].tolist(), columns["qcd"].tolist()) == (2, [1, 1], [0, 0])
    scaled = Selection(spec_of(define=(("pt", "pt * 2"),), where="pt > 3"), ["pt"])
    assert scaled.apply({"pt": arrays["pt"]}, 3, {})[0]["pt"].tolist() == [4.0, 6.0]


@pytest.mark.parametrize("where", ["nVtx > 38", "event < 1152921504606847080", "num(tight) > 2", "nVtx < 0"])
@pytest.mark.parametrize("write", [write_toy_tree, write_toy_rntuple])
def test_pruning_does_not_change_a_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, where: str
) -> None:
    size = "basket_entries" if write is write_toy_tree else "cluster_entries"
    for number in range(2):
        write(tmp_path / f"toy{number}.root", entries=600, seed=number, **{size: 100})
    define = {"tight": "Jet_pt[Jet_pt > 60]", "lead": "fill(max(tight), 0)", "ht": "sum(Jet_pt)"}

    def build(reader: type[PrunedReader], cache: str, workers: int) -> Manifest:
        monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / cache))
        monkeypatch.setattr("storagering.cache.worker.PrunedReader", reader)
        sources = [str(tmp_path / "toy0.root"), str(tmp_path / "toy1.root")]
        options: dict[str, Any] = {"where": where, "define": define, "chunk_bytes": 15_000, "workers": workers}
        return convert(sources, name="toy", **options).manifest

    want = build(WholeReader, "whole", 1)
    assert build(PrunedReader, "pruned", 1) == want
    if where == "num(tight) > 2":
        assert build(PrunedReader, "pruned-by-two", 2) == want
    assert all(chunk.raw_bytes < 60_000 for chunk in want.chunks)


def sent(server: HTTPServer) -> int:
    ranges = [request.range for request in server.requests if request.range]
    bounds = [part.split("-") for ranged in ranges for part in ranged.removeprefix("bytes=").split(",")]
    return sum(int(stop) + 1 - int(start) for start, stop in bounds)


def test_a_clustered_selection_moves_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    folder = tmp_path / "served"
    folder.mkdir()
    with uproot.recreate(folder / "wide.root", compression=None) as file:
        names = [f"x{i:03d}" for i in range(100)]
        tree = file.mktree("Events", dict.fromkeys(names, np.float32) | {"run": np.int32})
        for run in range(25):
            floats = {n: rng.normal(size=2000).astype(np.float32) for n in names}
            tree.extend(floats | {"run": np.full(2000, run, np.int32)})
    moved = {}
    with http_server(folder) as server:
        for reader in (WholeReader, PrunedReader):
            monkeypatch.setattr("storagering.cache.worker.PrunedReader", reader)
            server.requests.clear()
            options: dict[str, Any] = {"where": "run == 12", "workers": 1, "chunk_bytes": 1 << 20}
            dataset = convert(server.url("wide.root"), name=reader.__name__, **options)
            moved[reader.__name__] = sent(server)
            assert len(dataset) == 2000
    assert moved["PrunedReader"] < 0.3 * moved["WholeReader"], moved
    whole, pruned = (convert(server.url("wide.root"), name=n, where="run == 12", chunk_bytes=1 << 20) for n in moved)
    assert [c.digest for c in whole.manifest.chunks] == [c.digest for c in pruned.manifest.chunks]


def test_errors_name_the_expression(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=3000, basket_entries=500)
    with pytest.raises(SpecError, match="no item 3 in Jet_pt"):
        convert(str(tmp_path / "toy.root"), name="toy", where="Jet_pt[:, 3] > 20", workers=1)
    assert toy_columns(1)["nVtx"].dtype == np.int32

"""Sources as streams of pieces: all entries once, on block boundaries, never much at a time."""

from contextlib import closing
from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from storagering.config import load_settings
from storagering.errors import SchemaError
from storagering.formats import streaming
from storagering.formats.readers import open_source
from storagering.formats.streaming import SourceStream
from storagering.testing.toys import toy_columns, write_toy_tree


@pytest.mark.parametrize(("basket_entries", "most"), [(100, 800), (1000, 2000), (10_000, 8 * 500)])
def test_pieces_are_small_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, basket_entries: int, most: int
) -> None:
    path = tmp_path / "toy.root"
    write_toy_tree(path, entries=10_000, basket_entries=basket_entries)
    with closing(open_source(str(path), None, load_settings())) as source:
        stream = SourceStream(source, ["MET_pt", "event"], "fail")
        monkeypatch.setattr(streaming, "_PIECE_BYTES", 500 * 12)
        totals: list[int] = []
        pieces = list(stream.pieces(["MET_pt", "event"], 150, 9_990, totals.append))
    assert totals == [9_840]
    assert max(entries for _, entries in pieces) <= most
    if basket_entries < 500:  # blocks are taken together, and not cut
        assert len(pieces) < 9_840 / basket_entries
        assert {(150 + sum(n for _, n in pieces[:i])) % basket_entries for i in range(1, len(pieces))} == {0}
    want = toy_columns(10_000)["event"][150:9_990]
    assert np.array_equal(ak.to_numpy(ak.concatenate([arrays["event"] for arrays, _ in pieces])), want)


def test_a_source_without_entries_has_a_schema(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=0)
    with closing(open_source(str(tmp_path / "toy.root"), None, load_settings())) as source:
        stream = SourceStream(source, ["MET_pt", "Jet_pt"], "skip")
        assert list(stream.pieces(["MET_pt"], 0, 0, lambda _: None)) == []
    assert [c.kind for c in stream.schema.columns] == ["flat", "jagged"]


def test_columns_that_cannot_be_read_are_skipped_or_fail(shared_data: Path) -> None:
    path = shared_data / "rootfiles" / "uproot-issue475.root"
    with closing(open_source(str(path), "Event/Sim/SimHeader", load_settings())) as source:
        stream = SourceStream(source, list(source.columns), "skip")
        bad = [s.name for s in stream.skipped]
        assert "SimHeader/m_event" in bad
        assert sorted([*bad, *stream.schema.names]) == sorted(source.columns)
        assert all(s.reason and s.typename == source.columns[s.name] for s in stream.skipped)
        with pytest.raises(SchemaError, match=r"'SimHeader/.*cannot be read: "):
            SourceStream(source, list(source.columns), "fail")

"""The same answers by SQL over both formats and by uproot; selections read what they should. Nothing is timed."""

from pathlib import Path

import pytest

from benchmarks import indexing


def test_answers_are_equal_and_few_chunks_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGERING_WORKERS", "1")
    monkeypatch.setattr(indexing, "BUNCH", 15)
    figures = indexing.measure(tmp_path, entries=6_000, repeats=1, chunk_bytes=8 << 10)
    assert figures["aggregate"]["rows"] > indexing.RUNS / 3
    for name in ("zarr", "parquet"):
        cut, rare = figures["cut"][name], figures["bitmaps"][name]
        assert cut["all_chunks"]["chunks_read"] == cut["statistics"]["chunks"] > 40
        assert cut["statistics"]["chunks_read"] <= 0.05 * cut["statistics"]["chunks"]
        assert 0 < rare["index"]["chunks_read"] < rare["statistics"]["chunks_read"] < rare["statistics"]["chunks"]


def test_a_difference_is_noticed() -> None:
    with pytest.raises(ValueError, match="most differs"):
        indexing.check_equal({"most": [1.0], "mean": [2.0]}, {"most": [1.0 + 1e-12], "mean": [2.0]})
    with pytest.raises(ValueError, match="mean differs"):
        indexing.check_equal({"mean": [1.0]}, {"mean": [1.00001]})

"""``precision=``: what is stored is rounded, says so, and is smaller."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uproot

from storagering import convert, sql
from storagering.errors import SpecError
from storagering.formats.precision import round_mantissa
from storagering.testing.toys import toy_columns, write_toy_tree


@pytest.fixture
def toy(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=1000, basket_entries=100)
    return str(tmp_path / "toy.root")


@pytest.mark.parametrize("where", [None, "nVtx > 30"])
@pytest.mark.parametrize("store", ["zarr", "parquet"])
def test_columns_are_rounded_after_selection_and_definition(toy: str, store: Any, where: str | None) -> None:
    options: dict[str, Any] = {"format": store, "where": where, "define": {"ht": "sum(Jet_pt)"}, "chunk_bytes": 20_000}
    exact = convert(toy, name="exact", **options)
    rounded = convert(toy, name="rounded", precision={"Jet_pt": 10, "ht": 12, "image": 4}, **options)
    kept = {"Jet_pt": 10, "ht": 12, "image": 4}
    assert {c.name: c.mantissa_bits for c in rounded.schema.columns if c.mantissa_bits} == kept
    got, want = rounded.arrays(), exact.arrays()
    for name in exact.schema.names:
        for part, other in zip(*(next(d.batches([name])).arrays[name] for d in (rounded, exact)), strict=True):
            bits = kept.get(name)
            assert np.array_equal(part, round_mantissa(other, bits) if bits and other.dtype.kind == "f" else other), (
                name
            )
    statistics = dict(zip(rounded.schema.names, rounded.manifest.statistics, strict=True))
    lists = np.asarray(got.ht)
    assert statistics["ht"] is not None
    assert statistics["ht"].max == lists.max() != np.asarray(want.ht).max()
    table = sql("SELECT name, mantissa_bits FROM columns WHERE dataset = 'rounded' AND mantissa_bits IS NOT NULL")
    assert dict(zip(*table.to_pydict().values(), strict=True)) == kept


def test_the_first_pattern_counts_and_workers_do_not(toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    precision = {"Jet_eta": 5, "Jet_*": 9, "*": 20}
    digests = set()
    for workers in (1, 2):
        monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / f"cache{workers}"))
        manifest = convert(toy, name="toy", precision=precision, workers=workers, chunk_bytes=10_000).manifest
        digests.add(manifest.digest)
    assert len(digests) == 1
    bits = {c.name: c.mantissa_bits for c in manifest.schema.columns}
    assert (bits["Jet_eta"], bits["Jet_pt"], bits["MET_pt"], bits["weight"]) == (5, 9, 20, 20)
    assert bits["nJet"] is bits["Jet_id"] is bits["passed"] is None
    assert set(toy_columns(1)) == set(bits)


def test_a_pattern_must_match_floats(toy: str) -> None:
    with pytest.raises(SpecError, match=r"matches no column of floats.*MET_pt"):
        convert(toy, name="toy", precision={"MET_Pt": 8})
    with pytest.raises(SpecError, match="no column of floats"):
        convert(toy, name="toy", precision={"nJet": 8})


def test_kinematics_become_smaller_by_the_promised_factor(tmp_path: Path) -> None:
    """Smooth distributions without structure: nothing but the mantissa is left to save."""
    rng = np.random.default_rng(5)
    columns = {
        "pt": rng.exponential(40, 200_000).astype(np.float32) + 20,
        "eta": rng.normal(0, 1.5, 200_000).astype(np.float32),
        "phi": rng.uniform(-np.pi, np.pi, 200_000).astype(np.float32),
        "mass": rng.gamma(2, 5, 200_000).astype(np.float32),
    }
    with uproot.recreate(tmp_path / "jets.root") as file:
        file.mktree("jets", {n: c.dtype for n, c in columns.items()}).extend(columns)
    sizes = [
        sum(c.nbytes for c in convert(str(tmp_path / "jets.root"), name=n, precision=p).manifest.chunks)
        for n, p in (("all", None), ("ten", {"*": 10}))
    ]
    assert sizes[0] / sizes[1] > 2.0

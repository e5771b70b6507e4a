"""What every chunk store owes sparse columns, as a pytest class to subclass; see `contracts`. Needs pytest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import awkward as ak
import numpy as np
import pytest

from storagering.cache.store import ChunkStore, read_batch
from storagering.errors import CorruptDataError
from storagering.formats.forms import to_awkward, to_batch
from storagering.testing.contracts import PROFILES, REAL, bits, check_flip, make_batch, sample_numbers, write_chunk
from storagering.types import Batch, Profile


def sample_images(entries: int, dtypes: Sequence[str] = REAL) -> dict[str, Any]:
    """Arrays of fixed shape, one in six numbers of which has any bits, and one column without a place lit."""
    lit = np.random.default_rng(entries).random((entries, 5, 3)) < 1 / 6
    columns: dict[str, Any] = {}
    for dtype in dtypes:
        columns[f"image_{dtype}"] = np.zeros((entries, 5, 3), dtype)
        columns[f"image_{dtype}"][lit] = sample_numbers(dtype, int(lit.sum()))
    regular = ak.to_regular(ak.Array(np.where(lit, 1.5, 0)), axis=None)
    wide = np.zeros((entries, 70_000), "i2")
    wide[:, [0, 65_535, 65_536, 69_999]] = -1
    return columns | {"image_of_lists": regular, "image_wide": wide, "image_dark": np.zeros((entries, 4), "f4")}


class SparseStoreContract:
    """What every `ChunkStore` must do; set ``store``, and ``unions`` as in `StoreContract`."""

    store: ClassVar[ChunkStore]
    unions: ClassVar[bool] = True

    @pytest.mark.scenario(48)
    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize("entries", [1, 2, 65])
    def test_sparse_columns_come_back_bit_equal(self, tmp_path: Path, profile: Profile, entries: int) -> None:
        columns = sample_images(entries, (*REAL, "c8", "c16") if self.unions else REAL)
        batch, dense = make_batch(columns, sparse=["*"]), make_batch(columns)
        chunk = write_chunk(self.store, tmp_path / "chunk", batch, profile)
        reader = self.store.open(tmp_path / "chunk", chunk, batch.schema)
        for column in batch.schema.columns:
            want = batch.arrays[column.name]
            assert bits(reader.read_column(column.name)) == bits(want), column
            assert bits((reader.read_offsets(column.name),)) == bits(want[:1])
            assert reader.view_column(column.name) is None
            places, values = np.ones_like(want[1]), np.ones_like(want[2])
            got = reader.read_column(column.name, values, places)
            assert (got[1] is places, got[2] is values) == (True, True)
            assert bits(got) == bits(want)
        whole = to_awkward(read_batch(reader, batch.schema, entries))
        back = to_batch(dense.schema, {name: whole[name] for name in columns}, entries)
        assert {n: bits(back.arrays[n]) for n in columns} == {n: bits(dense.arrays[n]) for n in columns}

    @pytest.mark.scenario(21)
    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize("what", ["place", "fewer places", "more values", "counts"])
    def test_sparse_parts_that_do_not_fit_are_an_error(self, tmp_path: Path, what: str, profile: Profile) -> None:
        """Sound bytes that would be written outside the array that they belong to."""
        batch = make_batch({"image": sample_images(40, ["f4"])["image_f4"]}, sparse=["image"])
        offsets, places, values = batch.arrays["image"]
        wrong = {
            "place": (offsets, np.where(np.arange(len(places)) == 7, 15, places).astype(places.dtype), values),
            "fewer places": (offsets, places[:-1], values),
            "more values": (offsets, places, np.append(values, values[:1])),
            "counts": (offsets + np.arange(41), places, values),
        }
        if self.unions or what == "place":  # Parquet keeps a value and its place together
            chunk = write_chunk(
                self.store, tmp_path / "chunk", Batch(batch.schema, 40, {"image": wrong[what]}), profile
            )
            with pytest.raises(CorruptDataError, match=r"chunk.*'image'"):
                self.store.open(tmp_path / "chunk", replace(chunk, raw_bytes=1 << 20), batch.schema).read_column(
                    "image"
                )

    @pytest.mark.scenario(17)
    def test_every_flipped_bit_of_a_sparse_column_is_found(self, tmp_path: Path) -> None:
        image = np.zeros((3, 2, 40), "f4")
        image[:2, 1] = sample_numbers("f4", 80).reshape(2, 40)
        batch = make_batch({"image": image}, sparse=["image"])
        chunk = write_chunk(self.store, tmp_path / "chunk", batch, "fast")
        for bit in range(chunk.nbytes * 8):
            check_flip(self.store, tmp_path / "chunk", chunk, batch, bit)

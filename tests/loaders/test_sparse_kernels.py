"""The compiled scatter against dense arrays that are indexed."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.loaders.sparse_kernels import scatter_images
from storagering.testing.contracts import bits, make_batch
from storagering.testing.sparse_contract import sample_images
from storagering.types import Array

ENTRIES = 40
DTYPES = ("bool", "i1", "u2", "f2", "i4", "f4", "u8", "f8")
DENSE = {name: array for name, array in sample_images(ENTRIES, DTYPES).items() if isinstance(array, np.ndarray)}
SPARSE = make_batch(DENSE, ["*"]).arrays


def taken(name: str, rows: Array, dtype: str = "") -> Array:
    """Those entries, dense, in memory that held something else before."""
    offsets, places, values = SPARSE[name]
    out = np.ones((len(rows), DENSE[name][0].size), dtype or DENSE[name].dtype)
    scatter_images(offsets, places, values, rows, out)
    return out


@pytest.mark.parametrize("name", sorted(DENSE))
@given(rows=st.lists(st.integers(0, ENTRIES - 1), max_size=9))
@settings(deadline=None, max_examples=10)
def test_any_entries_of_any_type(name: str, rows: list[int]) -> None:
    chosen = np.array(rows, np.int64)
    assert bits((taken(name, chosen),)) == bits((DENSE[name][chosen].reshape(len(rows), DENSE[name][0].size),))


@pytest.mark.parametrize(("name", "dtype"), [("image_u2", "i4"), ("image_u8", "f4"), ("image_f4", "f8")])
def test_values_become_the_type_of_the_batch(name: str, dtype: str) -> None:
    rows = np.arange(ENTRIES)[::-1].copy()
    out = taken(name, rows, dtype)
    np.testing.assert_array_equal(out, DENSE[name][rows].reshape(ENTRIES, -1).astype(dtype))


@pytest.mark.parametrize("row", [-1, ENTRIES, 1 << 40])
def test_an_entry_that_there_is_not(row: int) -> None:
    with pytest.raises(IndexError):
        taken("image_f4", np.array([0, row]))


def test_threads_write_halves_of_one_batch() -> None:
    rows = np.random.default_rng(3).integers(0, ENTRIES, 128)
    out = np.ones((128, 15), "f4")
    halves = [
        threading.Thread(target=scatter_images, args=(*SPARSE["image_f4"], rows[part], out[part]))
        for part in (slice(0, 64), slice(64, 128))
    ]
    for half in halves:
        half.start()
    for half in halves:
        half.join()
    assert bits((out,)) == bits((DENSE["image_f4"][rows].reshape(128, -1),))

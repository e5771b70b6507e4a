"""The compiled scatter against dense arrays that are indexed."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.loaders.sparse_kernels import Images, number_images
from storagering.testing.contracts import bits, make_batch
from storagering.testing.sparse_contract import sample_images
from storagering.types import Array

ENTRIES = 40
DTYPES = ("bool", "i1", "u2", "f2", "i4", "f4", "u8", "f8")
DENSE = {name: array for name, array in sample_images(ENTRIES, DTYPES).items() if isinstance(array, np.ndarray)}
SPARSE = make_batch(DENSE, ["*"]).arrays


def taken(name: str, rows: Array, dtype: str = "") -> Array:
    """Those entries, dense, in memory that held something else before."""
    out = np.ones((len(rows), DENSE[name][0].size), dtype or DENSE[name].dtype)
    stored(name).scatter(addresses(rows), out)
    return out


def stored(name: str) -> Images:
    """The entries as those of the second of two chunks; the first has one of them only."""
    offsets, places, values = SPARSE[name]
    images = Images(2, places.dtype, values.dtype)
    images.put(0, offsets[:2], places[: offsets[1]], values[: offsets[1]])
    images.put(1, offsets, places, values)
    return images


def addresses(rows: Array) -> Array:
    """Where these entries lie: the first in either chunk."""
    return np.stack([np.where(rows == 0, 1, 2), rows], axis=1).astype(np.int32)


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


@pytest.mark.parametrize("row", [(2, -1), (2, ENTRIES), (1, 1), (3, 0)])
def test_an_entry_that_there_is_not(row: tuple[int, int]) -> None:
    with pytest.raises(IndexError):
        stored("image_f4").scatter(np.array([(2, 0), row], np.int32), np.zeros((2, 15), "f4"))


def test_padding_is_zeros() -> None:
    out = np.ones((2, 15), "f4")
    stored("image_f4").scatter(np.array([(0, 0), (2, 3)], np.int32), out)
    assert not out[0].any()
    assert bits((out[1:],)) == bits((DENSE["image_f4"][3:4].reshape(1, -1),))


@given(st.lists(st.integers(-1, 9), max_size=12))
@settings(deadline=None, max_examples=20)
def test_entries_are_noted_where_they_are_wanted(targets: list[int]) -> None:
    rows = np.zeros((10, 2), np.int32)
    number_images(3, 5, np.array(targets, np.int32), rows)
    wanted = {target: (3, 5 + n) for n, target in enumerate(targets) if target >= 0}
    assert {n: tuple(row) for n, row in enumerate(rows.tolist()) if any(row)} == wanted


def test_threads_write_halves_of_one_batch() -> None:
    rows = np.random.default_rng(3).integers(0, ENTRIES, 128)
    out = np.ones((128, 15), "f4")
    halves = [
        threading.Thread(target=stored("image_f4").scatter, args=(addresses(rows[part]), out[part]))
        for part in (slice(0, 64), slice(64, 128))
    ]
    for half in halves:
        half.start()
    for half in halves:
        half.join()
    assert bits((out,)) == bits((DENSE["image_f4"][rows].reshape(128, -1),))

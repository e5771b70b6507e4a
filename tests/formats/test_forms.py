"""Awkward arrays to columns and parts and back, and the names that parts get."""

import io
import zipfile
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storagering.cache.zarr_store import ZarrStore
from storagering.errors import CorruptDataError, SchemaError
from storagering.formats.arrow import arrow_type, from_arrow, to_arrow
from storagering.formats.forms import (
    UnsupportedTypeError,
    assign_keys,
    describe_column,
    empty_array,
    to_awkward,
    to_batch,
)
from storagering.testing.contracts import layouts, make_batch, sample_columns, sample_unions
from storagering.types import Batch, Schema

EVIL_NAMES = [
    "../x", "/abs", "a/b", "nul\0inside", "new\nline", "x" * 300, ".", "..", "", " ", "CON", "con", "zarr.json",
    "c/0", "c", "storagering.index", "__array__", "pt", "рt", "Pt", "PT", "col000001", "COL000002", "\u202egnp",
    "'", '"', '"; DROP TABLE datasets; --', "a\\b", "~", "-x", "é", "e\u0301", "\ud7ff", "a" * 100, "a" * 101,
]  # fmt: skip


@pytest.mark.parametrize("entries", [0, 1, 7, 100])
def test_every_kind_round_trips(entries: int) -> None:
    columns = sample_columns(max(1, entries)) | sample_unions(max(1, entries))
    for name, array in columns.items():
        array = ak.Array(array)[:entries]
        column = describe_column(name, array)
        batch = to_batch(Schema((column,)), {name: array}, entries).check()
        back = to_awkward(batch)[name]
        assert back.type == array.type, name
        assert ak.array_equal(back, array, equal_nan=True, same_content_types=False), name
        assert [p.dtype for p in column.parts] == [a.dtype.str for a in batch.arrays[name]]


@pytest.mark.parametrize("name", [*sample_columns(1), *sample_unions(2)])
def test_an_empty_array_has_the_columns_type(name: str) -> None:
    array = ak.Array((sample_columns(5) | sample_unions(5))[name])
    column = describe_column(name, array)
    empty = empty_array(column)
    assert len(empty) == 0
    assert empty.type.content == array.type.content
    assert describe_column(name, empty) == column


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_layout_goes_through_arrow(data: st.DataObject) -> None:
    length = data.draw(st.integers(0, 6))
    array = ak.Array(data.draw(layouts(length)))
    column = describe_column("x", array)
    batch = to_batch(Schema((column,)), {"x": array}, length)
    arrow = to_arrow(column, batch.arrays["x"], length)
    arrow.validate(full=True)
    assert arrow.type == arrow_type(column)
    for got, want in zip(from_arrow(column, arrow), batch.arrays["x"], strict=True):
        assert (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_views_are_stored_as_what_they_show(data: st.DataObject) -> None:
    array = ak.Array(data.draw(layouts(8)))
    order = data.draw(st.lists(st.integers(0, 7), max_size=8))
    view = array[np.array(order, int)]
    if len(order) == 0:
        return
    batch = make_batch({"x": view})
    assert ak.array_equal(to_awkward(batch)["x"], view, equal_nan=True, same_content_types=False)
    again = make_batch({"x": ak.to_packed(view)})
    assert [a.tobytes() for a in batch.arrays["x"]] == [a.tobytes() for a in again.arrays["x"]]


@pytest.mark.parametrize(
    ("array", "kind", "dtype", "parts"),
    [
        (np.zeros(2, "f4"), "flat", "float32", [""]),
        (np.zeros((2, 3, 4), "u2"), "fixed-shape", "uint16", [""]),
        (ak.Array([[1.0], []]), "jagged", "float64", ["counts", "values"]),
        (ak.Array([[[1], []], []]), "doubly-jagged", "int64", ["counts", "item/counts", "item/values"]),
        (ak.Array(["a", ""]), "string", "string", ["counts", "values"]),
        (ak.Array([["a"], []]), "doubly-jagged", "string", ["counts", "item/counts", "item/values"]),
        (ak.Array([[{"x": 1, "y": [2]}], []]), "nested", "", ["counts", "x", "y/counts", "y/values"]),
        (ak.Array([None, 1.5]), "nested", "?float64", ["index", "values"]),
        (ak.Array([[[[1]]], []]), "nested", "", ["counts", "item/counts", "item/item/counts", "item/item/values"]),
        (ak.Array([[{"counts": 1}], []]), "nested", "", ["counts", "counts_"]),
        (ak.Array([{"a/b": 1, "field0": 2}]), "nested", "", ["field0", "field0_"]),
        (sample_unions(4)["union"], "nested", "", ["tags", "index", "values", "case1/counts", "case1/values"]),
    ],
)
def test_kinds_and_parts(array: Any, kind: str, dtype: str, parts: list[str]) -> None:
    column = describe_column("x", ak.Array(array))
    assert column.kind == kind
    if dtype:
        assert column.dtype == dtype
    names = [p.name for p in column.parts]
    assert len(set(names)) == len(names)
    if "case1/counts" not in parts:
        assert names == parts
    assert column.is_numeric == (kind in ("flat", "fixed-shape", "jagged"))


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (ak.Array([[], []]), "unknown"),
        (np.array(["2020-01-01"], "M8[s]"), "not numbers"),
        (np.array([1], "m8[s]"), "not numbers"),
        (ak.to_regular(ak.Array([[], []])), "length 0|unknown"),
        (ak.Array(ak.contents.RegularArray(ak.to_layout([1.0])[:0], 0, zeros_length=2)), "length 0"),
    ],
)
def test_types_that_no_column_holds(array: Any, why: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=why):
        describe_column("x", ak.Array(array))


def test_titles_are_not_part_of_the_form() -> None:
    plain = ak.Array(["a", "b"])
    titled = ak.with_parameter(plain, "__doc__", "a title")
    assert describe_column("x", titled).form == describe_column("x", plain).form
    assert describe_column("x", titled).kind == "string"


@pytest.mark.parametrize(
    ("doc", "unit"),
    [("pT [GeV]", "GeV"), ("mass (MeV)", "MeV"), ("d0 [cm]", "cm"), ("angle in (rad)", "rad"), ("chi2", ""),
     ("E [GeV^2]", "GeV^2"), ("x (some note)", ""), ("lifetime [ps]", "ps")],
)  # fmt: skip
def test_units_are_taken_from_titles(doc: str, unit: str) -> None:
    assert describe_column("x", np.zeros(1), doc=doc).unit == unit


@pytest.mark.scenario(48)
@pytest.mark.parametrize("dtype", [">f4", ">i8", ">u2", ">f2"])
def test_big_endian_numbers_keep_their_values(dtype: str) -> None:
    array = np.arange(5).astype(dtype)
    try:
        batch = make_batch({"x": array})
    except (UnsupportedTypeError, TypeError):
        return
    got = batch.check().arrays["x"][0]
    assert got.dtype == np.dtype(dtype).newbyteorder("<")
    np.testing.assert_array_equal(got, array)


def test_keys_are_safe_and_unique() -> None:
    schema = assign_keys([describe_column(name, np.zeros(1)) for name in EVIL_NAMES])
    keys = [c.key for c in schema.columns]
    assert schema.names == tuple(EVIL_NAMES)
    assert len({key.lower() for key in keys}) == len(keys)
    for name, key in zip(EVIL_NAMES, keys, strict=True):
        assert key.isascii()
        assert key.isprintable()
        assert 0 < len(key) <= 100
        assert not set(key) & set("/\\\0\"' ~")
        assert not key.startswith((".", "-", "__"))
        assert key == name or key.startswith("col")
    assert keys[EVIL_NAMES.index("pt")] == "pt"
    assert keys[EVIL_NAMES.index("Pt")] != "Pt"
    assert keys[EVIL_NAMES.index("zarr.json")] != "zarr.json"


def test_names_never_become_paths_in_a_chunk() -> None:
    fields = ak.zip({name: np.zeros(2) for name in EVIL_NAMES if name})
    batch = make_batch({name: np.zeros(2) for name in EVIL_NAMES} | {"fields": fields})
    data = ZarrStore().encode(batch, "small").data
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = file.namelist()
    assert len(set(names)) == len(names)
    for name in names:
        assert not name.startswith("/")
        assert ".." not in name.split("/")
        assert name.isascii()
        assert name.isprintable()


def test_a_batch_of_another_type_is_refused() -> None:
    schema = make_batch({"x": np.zeros(3, "f4")}).schema
    with pytest.raises(SchemaError, match="'x' is int64 here and float32 in the first file"):
        to_batch(schema, {"x": np.zeros(3, "i8")}, 3)
    with pytest.raises(SchemaError, match="'x' has 3 entries, not 4"):
        to_batch(schema, {"x": np.zeros(3, "f4")}, 4)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": (np.zeros(3, "f8"),)}, "float64"),
        ({"x": (np.zeros((3, 1), "f4"),)}, "not <f4"),
        ({"x": (np.zeros(2, "f4"),)}, "2 entries, not 3"),
        ({"x": (np.zeros(3, "f4"), np.zeros(3, "f4"))}, "2 arrays, not 1"),
        ({"x": ()}, "0 arrays"),
    ],
)
def test_check_refuses_what_the_schema_does_not_say(arrays: dict[str, Any], why: str) -> None:
    schema = make_batch({"x": np.zeros(3, "f4")}).schema
    with pytest.raises(CorruptDataError, match=f"'x'.*{why}"):
        Batch(schema, 3, arrays).check()


@pytest.mark.parametrize(
    ("offsets", "values"),
    [([0, 1, 2], 3), ([0, 2], 2), ([0, 1, 2, 4], 3), ([0, 1, 2, 2], 3), ([1, 1, 2, 3], 3), ([0, 2, 1, 3], 3)],
)
def test_check_refuses_lists_that_do_not_cut_their_values(offsets: list[int], values: int) -> None:
    schema = make_batch({"x": ak.Array([[1.0], [2.0], [3.0]])}).schema
    with pytest.raises(CorruptDataError, match="'x'"):
        Batch(schema, 3, {"x": (np.array(offsets, "i8"), np.zeros(values))}).check()


def test_select_lists_the_nearest_names() -> None:
    schema = make_batch({"Jet_pt": np.zeros(1), "Jet_eta": np.zeros(1), "run": np.zeros(1)}).schema
    assert schema.select(["run", "Jet_pt"]).names == ("run", "Jet_pt")
    with pytest.raises(SchemaError, match="'Jet_pT'; nearest names: 'Jet_pt'"):
        schema.select(["Jet_pT"])
    with pytest.raises(SchemaError, match="'run' is asked for twice"):
        schema.select(["run", "run"])

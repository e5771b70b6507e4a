"""Parquet and Arrow files of any writer: types, missing values, large row groups, damage."""

import warnings
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError, TruncatedError
from storagering.formats.arrow import to_arrow
from storagering.formats.forms import assign_keys, describe_column, to_batch
from storagering.formats.readers import open_source
from storagering.formats.readers import parquet as parquet_reader
from storagering.formats.readers.arrow_arrays import declared_flags, found_flags, to_awkward, type_text
from storagering.formats.source import UnreadableColumnsError
from storagering.formats.writers.arrow_table import file_schema
from storagering.testing.contracts import layouts
from storagering.testing.source_contract import assert_same, read_all


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def write_parquet(path: Path, table: pa.Table, **options: Any) -> None:
    pq.write_table(table, path, **options)


def write_arrow(path: Path, table: pa.Table, **_options: Any) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def write_stream(path: Path, table: pa.Table, **_options: Any) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)


WRITERS = {"parquet": write_parquet, "arrow": write_arrow, "arrow-stream": write_stream}
TENSOR = pa.fixed_shape_tensor(pa.float32(), (2, 2))
TYPES: list[tuple[pa.Array, str, list[Any]]] = [
    (pa.array(["a", None, "b"]).dictionary_encode(), "?string", ["a", None, "b"]),
    (pa.array(["a", "b", "a"]).dictionary_encode(), "string", ["a", "b", "a"]),
    (pa.array([b"ab", b"cd", b"\0\xff"], pa.binary(2)), "bytes", [b"ab", b"cd", b"\0\xff"]),
    (pa.array([1, 2, 3], pa.timestamp("ns", "UTC")), "int64", [1, 2, 3]),
    (pa.array([1, None, 3], pa.timestamp("ms")), "?int64", [1, None, 3]),
    (pa.array([1, 2, 3], pa.date32()), "int32", [1, 2, 3]),
    (pa.array([1, 2, 3], pa.time32("ms")), "int32", [1, 2, 3]),
    (pa.array([Decimal(5), Decimal(-7), Decimal(0)], pa.decimal128(18)), "int64", [5, -7, 0]),
    (pa.array([[("k", 1)], [], [("x", None)]], pa.map_(pa.string(), pa.int8())), "var * {key: string, value: ?int8}",
     [[{"key": "k", "value": 1}], [], [{"key": "x", "value": None}]]),
    (pa.array([[1, 2], None, []], pa.list_(pa.int16())), "option[var * int16]", [[1, 2], None, []]),
    (pa.array([[1, 2], [None], []], pa.list_(pa.int16())), "var * ?int16", [[1, 2], [None], []]),
    (pa.array([{"x": 1, "y": "a"}, None, {"x": 2, "y": "b"}]), "?{x: int64, y: string}",
     [{"x": 1, "y": "a"}, None, {"x": 2, "y": "b"}]),
    (pa.array([[{"x": [1.5]}], [], [{"x": []}]]), "var * {x: var * float64}", [[{"x": [1.5]}], [], [{"x": []}]]),
    (pa.array([[1, 2], [3, 4], None], pa.list_(pa.int8(), 2)), "option[2 * int8]", [[1, 2], [3, 4], None]),
    (pa.array([True, None, False]), "?bool", [True, None, False]),
    (pa.ExtensionArray.from_storage(TENSOR, pa.array([[1, 2, 3, 4]] * 3, pa.list_(pa.float32(), 4))), "4 * float32",
     [[1, 2, 3, 4]] * 3),
]  # fmt: skip


@pytest.mark.parametrize(("array", "kind", "want"), TYPES, ids=[kind for _, kind, _ in TYPES])
@pytest.mark.parametrize("writer", WRITERS)
def test_types(tmp_path: Path, settings: Settings, writer: str, array: pa.Array, kind: str, want: list[Any]) -> None:
    WRITERS[writer](tmp_path / "x", pa.table({"v": array, "n": [1, 2, 3]}))
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        found = source.read(["v"], 0, 3)["v"]
        assert str(found.type) == f"3 * {kind}"
        assert found.to_list() == want
        assert source.read(["v"], 1, 2)["v"].to_list() == want[1:2]
        assert source.read(["v"], 1, 2)["v"].type.content == found.type.content


@pytest.mark.parametrize(
    ("array", "kind"),
    [
        (pa.StringArray.from_pandas(["a", "b", "c"]).cast(pa.string_view()), "string"),
        (pa.array([b"a", b"b", b"c"], pa.binary_view()), "bytes"),
        (pa.array([[1], [], [2, 3]], pa.list_view(pa.int32())), "var * int32"),
        (pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array([1.5, 2.5])), "float64"),
        (pa.UnionArray.from_dense(pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()),
                                  [pa.array([1, 2]), pa.array(["x"])]), "union[int64, string]"),
        (pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["x", "y", "z"])]),
         "union[int64, string]"),
    ],
)  # fmt: skip
def test_types_that_only_arrow_has(array: pa.Array, kind: str) -> None:
    found = to_awkward(array, found_flags(array))
    assert str(found.type) == f"3 * {kind}"
    assert found.to_list() == array.to_pylist()
    assert to_awkward(array[1:], found_flags(array)).to_list() == array.to_pylist()[1:]
    assert type_text(array.type) == kind


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (pa.nulls(3), "no values, so its type is unknown"),
        (pa.array([Decimal("1.25")] * 3), "no exact binary type"),
        (pa.array([(1, 2, 3)] * 3, pa.month_day_nano_interval()), "no counterpart"),
        (pa.array([[]] * 3, pa.list_(pa.int8(), 0)), "fixed length 0"),
    ],
)
def test_types_without_columns(tmp_path: Path, settings: Settings, array: pa.Array, reason: str) -> None:
    write_arrow(tmp_path / "x", pa.table({"v": array, "n": [1, 2, 3]}))
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        with pytest.raises(UnreadableColumnsError, match=reason) as caught:
            source.read(["n", "v"], 0, 3)
        assert list(caught.value.reasons) == ["v"]
        assert source.read(["n"], 0, 3)["n"].to_list() == [1, 2, 3]


@given(data=st.data(), length=st.integers(1, 6))
@examples(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_arrow_array(data: st.DataObject, length: int) -> None:
    array = ak.Array(data.draw(layouts(length)))
    column = describe_column("x", array)
    batch = to_batch(assign_keys([column]), {"x": array}, length)
    arrow = to_arrow(column, batch.arrays["x"], length)
    field = file_schema(batch.schema).field(0)
    flags = declared_flags(field)
    assert_same({"x": to_awkward(arrow, flags)}, {"x": array})
    start = data.draw(st.integers(0, length - 1))
    assert_same({"x": to_awkward(arrow[start:], flags)}, {"x": array[start:]})
    assert all(declared or not found for declared, found in zip(flags, found_flags(arrow), strict=True))


def test_slices_of_missing_fixed_lists_of_fixed_lists() -> None:
    """pyarrow's own filter reads foreign memory here."""
    numbers = pa.array(np.arange(36, dtype=np.int8))
    inner = pa.FixedSizeListArray.from_arrays(pa.FixedSizeListArray.from_arrays(numbers, 3), 3)
    array = inner.take(pa.array([None, None, 2, None, 3, 1]))
    record = pa.StructArray.from_arrays([array], ["x"], mask=pa.array([False, True, False, True, False, False]))
    for start in range(6):
        found = to_awkward(array[start:], (True, False, False))
        assert found.to_list() == array[start:].to_pylist()
        assert to_awkward(record[start:], (True, True, False, False)).to_list() == record[start:].to_pylist()


def test_missing_values_anywhere_make_the_type_everywhere(tmp_path: Path, settings: Settings) -> None:
    """The first row group has none, and the statistics cannot tell missing from empty lists."""
    late = pa.array([[1.0], []] * 50 + [[None]])
    flat = pa.array([*range(100), None])
    for statistics in (True, False):
        table = pa.table({"late": late, "flat": flat, "never": pa.array([[1.0], []] * 50 + [[2.0]])})
        pq.write_table(table, tmp_path / "x", row_group_size=20, write_statistics=statistics)
        with closing(open_source(str(tmp_path / "x"), None, settings, str(tmp_path / f"spool-{statistics}"))) as source:
            kinds = {name: str(array.type) for name, array in source.read(["late", "flat", "never"], 0, 20).items()}
        assert kinds == {"late": "20 * var * ?float64", "flat": "20 * ?int64", "never": "20 * var * float64"}


def test_parts_of_a_large_row_group(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_reader, "_WHOLE_BYTES", 1000)
    monkeypatch.setattr(parquet_reader, "_STEP_ENTRIES", 100)
    rng = np.random.default_rng(1)
    columns = {"x": ak.Array(rng.normal(size=2500)), "j": ak.unflatten(np.arange(5000), np.full(2500, 2))}
    table = pa.table({name: ak.to_arrow(array, extensionarray=False) for name, array in columns.items()})
    pq.write_table(table, tmp_path / "x", row_group_size=1000)
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        for start, stop in [(0, 2500), (0, 1), (99, 101), (950, 1050), (450, 2450), (1000, 2000), (2499, 2500), (7, 7)]:
            want = {name: array[start:stop] for name, array in columns.items()}
            assert_same(source.read(["x", "j"], start, stop), want)
        assert source.boundaries(["x"]) == [0, 1000, 2000, 2500]
        storage = source.storage()
        assert storage["x"].blocks == 3
        assert storage["x"].compression == "snappy"
        assert 0 < source.nbytes_of(["x"]) < source.nbytes
        assert (storage["x"].decoded_bytes or 0) >= 2500 * 8


def test_names_that_look_like_paths(tmp_path: Path, settings: Settings) -> None:
    table = pa.table({"a": pa.array([{"b": 1, "c": 2}]), "a.b": [3], "a.c": [4], "": [5], ".": [6], "a.": [7]})
    pq.write_table(table, tmp_path / "x")
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        for name, want in [("a", {"b": 1, "c": 2}), ("a.b", 3), ("a.c", 4), ("", 5), (".", 6), ("a.", 7)]:
            assert source.read([name], 0, 1)[name].to_list() == [want], name
        assert source.read(["a.c", "a"], 0, 1)["a.c"].to_list() == [4]


def test_repeated_names(tmp_path: Path, settings: Settings) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["x", "y", "x"])
    for writer in (write_parquet, write_arrow):
        writer(tmp_path / "x", table)
        with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
            assert (list(source.columns), source.repeated) == (["x", "y"], ["x"])
            assert {n: a.to_list() for n, a in source.read(["x", "y"], 0, 1).items()} == {"x": [1], "y": [2]}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_said_of_columns(tmp_path: Path, settings: Settings, writer: str) -> None:
    fields = [
        pa.field("pt", pa.float32(), metadata={"doc": "transverse momentum", "unit": "GeV"}),
        pa.field("mass", pa.float32(), metadata={"description": "mass [GeV]", "unit": "GeV"}),
        pa.field("when", pa.timestamp("us", "UTC")),
        pa.field("n", pa.int32()),
    ]
    arrays = [pa.array([1], field.type) for field in fields]
    WRITERS[writer](tmp_path / "x", pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        assert [source.doc(name) for name in source.columns] == [
            "transverse momentum [GeV]",
            "mass [GeV]",
            "time since 1970-01-01 UTC, shown in UTC [us]",
            "",
        ]


def test_no_columns(tmp_path: Path, settings: Settings) -> None:
    write_arrow(tmp_path / "x", pa.table({}))
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        assert (source.columns, source.entries, source.read([], 0, 0)) == ({}, 0, {})


def test_page_checksums_are_compared(tmp_path: Path, settings: Settings) -> None:
    values = np.random.default_rng(2).normal(size=2000)
    pq.write_table(
        pa.table({"x": values}), tmp_path / "x", write_page_checksum=True, compression=None, use_dictionary=False
    )
    data = bytearray((tmp_path / "x").read_bytes())
    at = data.index(values[1000:1002].tobytes())
    data[at] ^= 1
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(CorruptDataError, match="column 'x' is damaged"):
        read_all(tmp_path / "x", settings)


def test_encrypted_files_are_named(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "x").write_bytes(b"PARE" + bytes(100) + b"PARE")
    with pytest.raises(FormatError, match="encrypted Parquet"):
        open_source(str(tmp_path / "x"), None, settings)
    (tmp_path / "x").write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(TruncatedError, match="does not end as a Parquet file does"):
        open_source(str(tmp_path / "x"), None, settings)


def test_feather_version_1(tmp_path: Path, settings: Settings) -> None:
    table = pa.table({"x": [1, None, 3], "y": [1.5, 2.5, -0.0], "s": ["a", "b", "ü"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pyarrow.feather.write_feather(table, tmp_path / "x", version=1)
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        assert source.format == "feather"
        found = source.read(["x", "y", "s"], 0, 3)
    assert {name: array.to_list() for name, array in found.items()} == table.to_pydict()
    assert str(found["y"].type) == "3 * float64"


def test_offsets_that_lead_astray(tmp_path: Path, settings: Settings) -> None:
    """An Arrow file without checksums: pyarrow itself would read beyond the buffer."""
    write_arrow(tmp_path / "x", pa.table({"j": pa.array([[1, 2], [3], []], pa.list_(pa.int64()))}))
    data = (tmp_path / "x").read_bytes()
    offsets = np.array([0, 2, 3, 3], "<i4").tobytes()
    assert data.count(offsets) == 1
    for wrong in ([0, 2, 3, 2**30], [0, 3, 2, 3], [-5, 2, 3, 3]):
        (tmp_path / "bad").write_bytes(data.replace(offsets, np.array(wrong, "<i4").tobytes()))
        with pytest.raises(CorruptDataError, match="column 'j'"):
            read_all(tmp_path / "bad", settings)


def test_places_beyond_a_dictionary(tmp_path: Path, settings: Settings) -> None:
    """Decoding a stream's dictionaries unseen would end the process."""
    write_stream(tmp_path / "x", pa.table({"d": pa.array(["a", "b"]).dictionary_encode()}))
    data = (tmp_path / "x").read_bytes()
    assert data[-16:-8] == np.array([0, 1], "<i4").tobytes()  # before the mark of the end
    (tmp_path / "bad").write_bytes(data[:-12] + np.array([2**30], "<i4").tobytes() + data[-8:])
    with pytest.raises(CorruptDataError, match=r"bad.*is damaged"):
        open_source(str(tmp_path / "bad"), None, settings)


def test_streams_end_with_their_mark(tmp_path: Path, settings: Settings) -> None:
    write_stream(tmp_path / "x", pa.table({"x": np.arange(7)}))  # 4 batches
    data = (tmp_path / "x").read_bytes()
    for cut in range(8, 400, 8):
        (tmp_path / f"cut{cut}").write_bytes(data[:-cut])
        with pytest.raises(CorruptDataError) as caught:
            open_source(str(tmp_path / f"cut{cut}"), None, settings)
        assert cut > 8 or "ends without the mark" in str(caught.value)
    (tmp_path / "twice").write_bytes(data + data)
    with pytest.raises(CorruptDataError, match=f"twice: {len(data):,} bytes follow the mark"):
        open_source(str(tmp_path / "twice"), None, settings)


def test_dictionaries_that_change_inside_lists_and_records(tmp_path: Path, settings: Settings) -> None:
    def batch(*words: str) -> pa.RecordBatch:
        coded = pa.array(words).dictionary_encode()
        lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), coded)
        return pa.record_batch({"l": lists, "r": pa.StructArray.from_arrays([coded], ["w"])})

    batches = [batch("a", "b"), batch("c", "d")]
    with pa.OSFile(str(tmp_path / "x"), "wb") as file, pa.ipc.new_stream(file, batches[0].schema) as writer:
        for one in batches:
            writer.write_batch(one)
    found = read_all(tmp_path / "x", settings)
    assert found["l"].to_list() == [["a"], ["b"], ["c"], ["d"]]
    assert found["r"].to_list() == [{"w": "a"}, {"w": "b"}, {"w": "c"}, {"w": "d"}]


def test_a_footer_of_two_minds(tmp_path: Path, settings: Settings) -> None:
    """Statistics of a column chunk that claims another type would end the process."""
    write_parquet(tmp_path / "x", pa.table({"v": np.arange(3.0), "n": [1, 2, 3]}), store_schema=False)
    data = (tmp_path / "x").read_bytes()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    refused = 0
    for place in range(footer, len(data) - 8):
        if data[place] not in (0x04, 0x0A):  # INT64 and DOUBLE in Thrift's compact form
            continue
        (tmp_path / "bad").write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            open_source(str(tmp_path / "bad"), None, settings).close()
        except CorruptDataError as error:
            refused += "of row group 0 is" in str(error)
    assert refused >= 2


def test_times_of_96_bits(tmp_path: Path, settings: Settings) -> None:
    times = pa.array([-62135596800000000, 253402214400000000], pa.timestamp("us"))  # the years 1 and 9999
    write_parquet(tmp_path / "x", pa.table({"t": times}), use_deprecated_int96_timestamps=True)
    assert read_all(tmp_path / "x", settings)["t"].to_list() == times.cast(pa.int64()).to_pylist()


def test_samples_of_experiments(shared_data: Path, settings: Settings) -> None:
    for name in ("pythia_jets/top.parquet", "hep_samples/nano_dy.parquet"):
        table = pq.ParquetFile(shared_data / name)
        with closing(open_source(str(shared_data / name), None, settings)) as source:
            assert list(source.columns) == table.schema_arrow.names
            some = list(source.columns)[:: 1 + len(source.columns) // 12]
            found = source.read(some, 0, source.entries)
        for column in some:
            want = table.read(columns=[column]).column(column).to_pylist()
            assert repr(want) == repr(found[column].to_list()), column

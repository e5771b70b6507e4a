"""Every format's reader keeps the contract of sources."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import awkward as ak
import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import uproot

from storagering.formats.readers.arrow_arrays import declared_flags, found_flags
from storagering.testing.contracts import sample_columns, sample_numbers
from storagering.testing.source_contract import ODD_NAMES, SourceContract
from storagering.testing.toys import toy_columns

_BLOCK = 60


def to_table(columns: Mapping[str, Any]) -> pa.Table:
    """A table as most libraries write it: everything nullable."""
    arrays = [ak.to_arrow(array, extensionarray=False) for array in columns.values()]
    return pa.Table.from_arrays([array.cast(nullable(array.type)) for array in arrays], list(columns))


def nullable(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, nullable(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(nullable(kind.value_type), kind.list_size)
    return pa.large_list(nullable(kind.value_type)) if pa.types.is_large_list(kind) else kind


def really_missing(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Without columns whose values could be missing but are not: Arrow knows only which are."""
    kept = {}
    for name, array in columns.items():
        if all(value is None for value in ak.to_list(array)):
            continue
        arrow = ak.to_arrow(ak.Array(array), extensionarray=False)
        is_option = isinstance(ak.Array(array).type.content, ak.types.OptionType)
        if found_flags(arrow) == declared_flags(pa.field(name, arrow.type, is_option)):
            kept[name] = array
    return kept


class ArrowContract(SourceContract):
    def columns(self, entries: int) -> dict[str, Any]:
        return really_missing(super().columns(entries))


class TestParquet(ArrowContract):
    format = "parquet"

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        pq.write_table(to_table(columns), path, row_group_size=_BLOCK, write_page_checksum=True)


class TestArrow(ArrowContract):
    format = "arrow"

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        table = to_table(columns)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=_BLOCK)


class FewColumns(ArrowContract):
    def columns(self, entries: int) -> dict[str, Any]:
        return dict(list(super().columns(entries).items())[::5])


class TestFeatherCompressed(FewColumns):
    format = "arrow"

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        pyarrow.feather.write_feather(to_table(columns), path, compression="zstd", chunksize=_BLOCK)


class TestArrowStream(FewColumns):
    format = "arrow-stream"
    framed = False  # the mark of the end is optional

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        table = to_table(columns)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=_BLOCK)


class TestNpz(SourceContract):
    format = "npz"
    checked = True
    names = tuple(name for name in ODD_NAMES if name != "../x")

    def columns(self, entries: int) -> dict[str, Any]:
        return {
            name: array
            for name, array in sample_columns(entries).items()
            if name.startswith(("flat", "jagged_", "fixed")) and name not in ("jagged_string", "jagged_empty")
        }

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        members = {}
        for name, array in columns.items():
            layout = ak.to_packed(array).layout
            if layout.is_list and not layout.is_regular:
                members[f"{name}.offsets"] = np.asarray(layout.offsets)
                members[f"{name}.values"] = ak.to_numpy(layout.content)
            else:
                members[name] = ak.to_numpy(array)
        with path.open("wb") as file:
            self.save(file, **members)

    def save(self, file: Any, **members: Any) -> None:
        np.savez(file, **members)


class TestNpzCompressed(TestNpz):
    samples = 40

    def columns(self, entries: int) -> dict[str, Any]:
        return dict(list(super().columns(entries).items())[::3])

    def save(self, file: Any, **members: Any) -> None:
        np.savez_compressed(file, **members)


class TestNpy(SourceContract):
    format = "npy"
    names = tuple(name for name in ODD_NAMES if name.isprintable())

    def columns(self, entries: int) -> dict[str, Any]:
        return {name: a for name, a in sample_columns(entries).items() if name.startswith(("flat", "fixed"))}

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        arrays = {name: ak.to_numpy(array) for name, array in columns.items()}
        first = next(iter(arrays.values()))
        table = np.zeros(len(first), [(name, a.dtype, a.shape[1:]) for name, a in arrays.items()])
        for name, array in arrays.items():
            table[name] = array
        with path.open("wb") as file:
            np.lib.format.write_array(file, table, version=(3, 0), allow_pickle=False)


class TestAvro(SourceContract):
    format = "avro"
    framed = False  # a file that ends after a block is a whole file
    names = ("a", "_b", "A", "n" * 300)  # no others are allowed

    def columns(self, entries: int) -> dict[str, Any]:
        wanted = ("f4", "f8", "i4", "i8", "bool")
        found = sample_columns(entries)
        names = [f"{kind}_{number}" for kind in ("flat", "jagged") for number in wanted]
        names += ["string", "jagged_string", "bytes", "option", "option_string"]
        records = ak.zip({"pt": found["jagged_f4"], "charge": found["jagged_i4"]})
        return {name: _quiet(ak.Array(found[name])) for name in names} | {"records": records}

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        fields = [{"name": n, "type": _avro_type(a.type.content, n)} for n, a in columns.items()]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*map(ak.to_list, columns.values()), strict=True)]
        with path.open("wb") as file:
            schema = fastavro.parse_schema({"type": "record", "name": "Event", "fields": fields})
            fastavro.writer(file, schema, rows, codec="deflate", sync_interval=2000)


def _quiet(array: Any) -> Any:
    """Without NaNs that Python's floats change."""
    return ak.nan_to_num(array) if "float" in str(array.type) else array


def _avro_type(kind: Any, name: str) -> Any:
    if isinstance(kind, ak.types.OptionType):
        return ["null", _avro_type(kind.content, name)]
    if kind.parameter("__array__") in ("string", "bytestring"):
        return "string" if kind.parameter("__array__") == "string" else "bytes"
    if isinstance(kind, ak.types.ListType):
        return {"type": "array", "items": _avro_type(kind.content, f"{name}_")}
    if isinstance(kind, ak.types.RecordType):
        pairs = zip(kind.fields, kind.contents, strict=True)
        return {
            "type": "record",
            "name": name,
            "fields": [{"name": f, "type": _avro_type(c, f"{name}{f}")} for f, c in pairs],
        }
    return {"float32": "float", "float64": "double", "int64": "long", "bool": "boolean"}.get(kind.primitive, "int")


class TestCSV(SourceContract):
    format = "csv"
    framed = False
    names = tuple(name for name in ODD_NAMES if name != "#")

    def columns(self, entries: int) -> dict[str, Any]:
        found = {f"flat_{kind}": sample_numbers(kind, entries) for kind in ("f8", "i8", "u8")}
        found["flat_u8"][0] = 2**64 - 1
        found["flat_f8"] = np.where(np.isnan(found["flat_f8"]), np.nan, found["flat_f8"])
        found["flat_f8"][-1] = 0.5
        texts = ["a", "b,c", 'q"uote', "two\nlines", " spaces ", "粒子"]
        return found | {
            "bool": np.arange(entries) % 3 == 0,
            "text": ak.Array([texts[n % 6] for n in range(entries)]),
        }

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        import csv

        with path.open("w", newline="") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_MINIMAL)
            writer.writerow(columns)
            writer.writerows(zip(*map(ak.to_list, columns.values()), strict=True))

    test_no_entries = None  # type: ignore[assignment]  # without rows a header has no types: see test_delimited


class TestJSONLines(SourceContract):
    format = "json-lines"
    framed = False

    def columns(self, entries: int) -> dict[str, Any]:
        names = [
            "flat_f8",
            "flat_i8",
            "flat_bool",
            "jagged_f8",
            "jagged_i8",
            "string",
            "jagged_string",
            "option_string",
        ]
        found = {name: ak.Array(sample_columns(entries)[name]) for name in names}
        found = {name: _known(array) for name, array in found.items()}
        numbers = sample_numbers("u8", entries)
        numbers[0] = 2**64 - 1
        charges = ak.Array([[{"q": -1, "w": 0.5}, {"q": 1, "w": 0.25}]] * entries)
        words = ak.Array([["x", None][n % 2] for n in range(entries)])
        return really_missing(found | {"big": numbers, "tracks": charges, "words": words})

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        rows = zip(*map(ak.to_list, columns.values()), strict=True)
        path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))

    test_no_entries = None  # type: ignore[assignment]  # no lines, no columns


def _known(array: Any) -> Any:
    """Without NaN payloads, which text has not, and with something in every column."""
    if "float" in str(array.type):
        array = ak.nan_to_num(array, nan=0.5)
    if array.ndim > 1 or "string" in str(array.type):
        return ak.concatenate([array[:0], [array[0] if array.ndim == 1 else _one(array)], array[1:]])
    return array


def _one(array: Any) -> Any:
    return ["x"] if "string" in str(array.type) else [0.5] if "float" in str(array.type) else [7]


class TestTTree(SourceContract):
    format = "ttree"
    names = ("a", "A", "_x", "n" * 200)
    samples = 40

    def columns(self, entries: int) -> dict[str, Any]:
        found = sample_columns(entries)
        numbers = {n: a for n, a in found.items() if n.startswith(("flat", "fixed")) and n != "flat_f2"}
        jets = ak.Array(found["jagged_f4"])
        return numbers | {"njet": ak.values_astype(ak.num(jets), "int32"), "jet": jets}

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        arrays = {n: a if n == "jet" else ak.to_numpy(a) for n, a in columns.items() if n != "njet"}
        kinds = {n: a.type if n == "jet" else np.dtype((a.dtype, a.shape[1:])) for n, a in arrays.items()}
        with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
            tree = file.mktree("Events", kinds)
            for start in range(0, len(next(iter(arrays.values()))), _BLOCK):
                tree.extend({n: ak.to_packed(a[start : start + _BLOCK]) for n, a in arrays.items()})


class TestRNTuple(SourceContract):
    format = "rntuple"
    names = ("a", "A", "_x", "n" * 200)
    samples = 40

    def columns(self, entries: int) -> dict[str, Any]:
        return {name: ak.Array(array) for name, array in toy_columns(entries, nested=True).items()}

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        events = ak.zip(dict(columns), depth_limit=1)
        with uproot.recreate(path, compression=uproot.ZSTD(1)) as file:
            ntuple = file.mkrntuple("Events", events.layout.form)
            for start in range(0, len(events), _BLOCK):
                ntuple.extend(ak.to_packed(events[start : start + _BLOCK]))

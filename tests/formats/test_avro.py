"""Avro files: every type, every codec that is at hand, damage."""

import datetime
import zlib
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import fastavro
import pytest

from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, LimitExceededError, TruncatedError
from storagering.formats.readers import avro, open_source
from storagering.formats.source import UnreadableColumnsError
from storagering.testing.source_contract import read_all

ENTRIES = 500
LISTS = {"type": "array", "items": {"type": "array", "items": "float"}}
P4 = {
    "type": "record",
    "name": "P4",
    "fields": [{"name": "pt", "type": "float"}, {"name": "m", "type": {"type": "map", "values": "int"}}],
}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
TAG = {"type": "enum", "name": "Tag", "symbols": ["B", "C", "LIGHT"]}
TYPES: dict[str, tuple[Any, Any, str, Any]] = {
    "number": ("int", 7, "int32", 7),
    "long": ("long", -(2**63), "int64", -(2**63)),
    "float": ("float", 0.5, "float32", 0.5),
    "double": ("double", -0.0, "float64", -0.0),
    "flag": ("boolean", True, "bool", True),
    "name": ("string", "naïve", "string", "naïve"),
    "raw": ("bytes", b"\0\xff", "bytes", b"\0\xff"),
    "maybe": (["null", "double"], None, "?float64", None),
    "maybe_last": (["int", "null"], 3, "?int32", 3),
    "alone": (["long"], 4, "int64", 4),
    "lists": (LISTS, [[1.5], []], "var * var * float32", [[1.5], []]),
    "tag": (TAG, "LIGHT", "string", "LIGHT"),
    "again": ({"type": "array", "items": "Tag"}, ["B"], "var * string", ["B"]),
    "fixed": ({"type": "fixed", "name": "Four", "size": 4}, b"abcd", "bytes", b"abcd"),
    "map": (
        {"type": "map", "values": ["null", "int"]},
        {"a": 1, "b": None},
        "var * {key: string, value: ?int32}",
        [{"key": "a", "value": 1}, {"key": "b", "value": None}],
    ),
    "record": (
        P4,
        {"pt": 2.5, "m": {"x": 1}},
        "{pt: float32, m: var * {key: string, value: int32}}",
        {"pt": 2.5, "m": [{"key": "x", "value": 1}]},
    ),
    "when": (
        {"type": "long", "logicalType": "timestamp-micros"},
        datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
        "int64",
        1577836800000000,
    ),
    "day": ({"type": "int", "logicalType": "date"}, datetime.date(1970, 1, 3), "int32", 2),
}  # fmt: skip


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def write(path: Path, fields: list[dict[str, Any]], row: dict[str, Any], codec: str = "null") -> None:
    schema = fastavro.parse_schema({"type": "record", "name": "Event", "fields": fields})
    with path.open("wb") as file:
        fastavro.writer(file, schema, [row] * ENTRIES, codec=codec, sync_interval=1000)


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard"])
def test_every_type_and_codec(tmp_path: Path, settings: Settings, codec: str) -> None:
    fields = [{"name": name, "type": kind} for name, (kind, _, _, _) in TYPES.items()]
    try:
        write(tmp_path / "x", fields, {name: value for name, (_, value, _, _) in TYPES.items()}, codec)
    except ValueError as error:
        pytest.skip(str(error))
    found = read_all(tmp_path / "x", settings)
    for name, (_, _, kind, want) in TYPES.items():
        assert str(found[name].type) == f"{ENTRIES} * {kind}"
        assert repr(found[name].to_list()) == repr([want] * ENTRIES), name


def test_what_is_said_of_columns(tmp_path: Path, settings: Settings) -> None:
    day = {"type": "int", "logicalType": "date"}
    fields: list[dict[str, Any]] = [{"name": "pt", "type": "float", "doc": "momentum [GeV]"}, {"name": "day"}]
    fields[1]["type"] = ["null", day]
    write(tmp_path / "x", fields, {"pt": 1.0, "day": None})
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        assert source.doc("pt") == "momentum [GeV]"
        assert source.doc("day") == "days since 1970-01-01"


@pytest.mark.parametrize(
    ("kind", "value", "reason"),
    [
        (["int", "string"], "x", "union of several types"),
        (
            {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
            Decimal("1.25"),
            "no exact binary type",
        ),
        (["null", "Event"], None, "holds itself"),
        ("null", None, "no values"),
        ({"type": "record", "name": "Empty", "fields": []}, {}, "no fields"),
    ],
)
def test_types_without_columns(tmp_path: Path, settings: Settings, kind: Any, value: Any, reason: str) -> None:
    write(tmp_path / "x", [{"name": "v", "type": kind}, {"name": "n", "type": "int"}], {"v": value, "n": 1})
    with closing(open_source(str(tmp_path / "x"), None, settings)) as source:
        with pytest.raises(UnreadableColumnsError, match=reason):
            source.read(["n", "v"], 0, 2)
        assert source.read(["n"], 0, 2)["n"].to_list() == [1, 1]


def test_a_file_of_numbers(tmp_path: Path, settings: Settings) -> None:
    with (tmp_path / "x").open("wb") as file:
        fastavro.writer(file, "long", range(5))
    assert read_all(tmp_path / "x", settings)["data"].to_list() == [0, 1, 2, 3, 4]


def test_damage_between_blocks(tmp_path: Path, settings: Settings) -> None:
    write(tmp_path / "x", [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}], {"n": 1, "s": "x" * 20})
    data = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(data[:-1])
    with pytest.raises(TruncatedError, match="ends within a block"):
        open_source(str(tmp_path / "x"), None, settings)
    (tmp_path / "x").write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    with pytest.raises(CorruptDataError, match="does not end where it says"):
        open_source(str(tmp_path / "x"), None, settings)


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_count_that_is_not_that_of_the_records(tmp_path: Path, settings: Settings, codec: str) -> None:
    with (tmp_path / "x").open("wb") as file:
        fastavro.writer(file, "long", range(60), codec=codec)
    data = (tmp_path / "x").read_bytes()
    place = data.index(data[-16:]) + 16
    assert data[place] == 2 * 60
    for wrong in (0, 2, 40, 80, 118, 122, 124):
        (tmp_path / "bad").write_bytes(data[:place] + bytes([wrong]) + data[place + 1 :])
        with pytest.raises(CorruptDataError, match=r"bad.*is damaged"):
            open_source(str(tmp_path / "bad"), None, settings)


def test_a_block_that_unpacks_to_too_much(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avro, "_MAX_BLOCK_BYTES", 1 << 16)
    with (tmp_path / "x").open("wb") as file:
        fastavro.writer(file, "string", ["x" * (1 << 20)], codec="deflate")
    assert (tmp_path / "x").stat().st_size < zlib.crc32(b"") + (1 << 14)
    with pytest.raises(LimitExceededError, match="unpacks to over 65,536 bytes"):
        open_source(str(tmp_path / "x"), None, settings)

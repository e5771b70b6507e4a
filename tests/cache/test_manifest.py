"""The manifest: every changed bit is found, and no nonsense gets in."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from storagering.cache.manifest import decode_manifest, encode_manifest, read_manifest, seal_manifest, spec_key
from storagering.distributions import Distribution
from storagering.errors import ChecksumError, CorruptDataError, FormatError, LimitExceededError, NotFoundError
from storagering.testing.contracts import make_batch
from storagering.types import (
    FORMAT_VERSION,
    Chunk,
    ColumnStatistics,
    ConversionSpec,
    Manifest,
    SourceFile,
    Span,
    sha256_hex,
)


def make_manifest(**changes: Any) -> Manifest:
    schema = make_batch({"x": np.zeros(1), 'naïve "name"\n': np.zeros(1, "f4")}).schema
    chunks = (
        Chunk(0, 10, "chunk-000000.zarr.zip", 100, 200, "0" * 64, 50, "1" * 16, (Span(0, 0, 12),)),
        Chunk(10, 15, "chunk-000001.zarr.zip", 100, 200, "2" * 64, 50, "3" * 16, (Span(0, 12, 20),)),
    )
    spec = ConversionSpec((("/data/x.root", None),), define=(("y", "x + 1"),), where="x > 0")
    statistics = (ColumnStatistics(15, 1, 2, 3, -1.5, 1e300, 0.1, 5e-324), None)
    source = SourceFile("/data/x.root", None, "Events", 20, 12345, "1700000000.25")
    made = Manifest(
        name="name", software="storagering 0", spec=spec, spec_key=spec_key(spec), schema=schema, sources=(source,),
        chunks=chunks, statistics=statistics, chunk_statistics=("statistics.parquet", "4" * 64),
        distributions=(Distribution((0.5,) * 7, (-1.5, -1.5, 2.0, 1e300), (0, 3, 4, 5)), None),
    )  # fmt: skip
    return seal_manifest(replace(made, **changes))


def test_round_trip() -> None:
    manifest = make_manifest()
    data = encode_manifest(manifest)
    back = decode_manifest(data, "here")
    assert back == manifest
    assert encode_manifest(back) == data
    bare = msgspec.json.encode(replace(manifest, digest=""), order="deterministic")
    assert back.digest == sha256_hex(bare)
    assert back.num_entries == 15


def test_a_plain_json_library_reads_it() -> None:
    import json

    read = json.loads(encode_manifest(make_manifest()))
    assert read["chunks"][1]["start"] == 10
    assert read["statistics"][0]["sum_squares"] == 5e-324


@pytest.mark.scenario(20)
def test_every_flipped_bit_is_found() -> None:
    data = encode_manifest(make_manifest())
    for bit in range(len(data) * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptDataError):
            decode_manifest(bytes(changed), "here")


@pytest.mark.scenario(20)
def test_every_truncation_is_found() -> None:
    data = encode_manifest(make_manifest())
    for length in range(len(data)):
        with pytest.raises(CorruptDataError):
            decode_manifest(data[:length], "here")
    for tail in (b" ", b"\n", b"{}", data):
        with pytest.raises(CorruptDataError):
            decode_manifest(data + tail, "here")


@pytest.mark.scenario(20)
@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"[]", b"\xff\xfe", b"\x00" * 100, b'{"spec": 3}', b'{"spec": {"version": "1"}}',
     f'{{"spec": {{"version": {FORMAT_VERSION}}}}}'.encode()],
)  # fmt: skip
def test_what_is_not_a_manifest(data: bytes) -> None:
    with pytest.raises(FormatError, match="here is not a manifest"):
        decode_manifest(data, "here")


@pytest.mark.scenario(20, 23)
def test_another_version_is_refused_by_name() -> None:
    manifest = make_manifest()
    other = encode_manifest(replace(manifest, spec=replace(manifest.spec, version=7)))
    with pytest.raises(
        FormatError, match=f"here is of format version 7; this release reads {FORMAT_VERSION}: convert again"
    ):
        decode_manifest(other, "here")


@pytest.mark.scenario(20)
@pytest.mark.parametrize(
    "changed",
    [
        lambda t: t.replace(b"1e300", b"NaN"),
        lambda t: t.replace(b"1e300", b"Infinity"),
        lambda t: t.replace(b":15", b":15.5"),
        lambda t: t.replace(b'"start":10', b'"start":1e1'),
        lambda t: t.replace(b'"name":"name"', b'"name":"name","name":"name"'),
        lambda t: t.replace(b'{"', b'{"extra":1,"', 1),
        lambda t: t.replace(b":", b": ", 1),
    ],
)
def test_only_the_canonical_text_is_taken(changed: Callable[[bytes], bytes]) -> None:
    data = encode_manifest(make_manifest())
    assert changed(data) != data
    with pytest.raises(CorruptDataError):
        decode_manifest(changed(data), "here")


@pytest.mark.scenario(20)
def test_any_other_digest_is_refused() -> None:
    data = encode_manifest(make_manifest())
    digest = decode_manifest(data, "here").digest
    with pytest.raises(ChecksumError, match="here is damaged"):
        decode_manifest(data.replace(digest.encode(), b"0" * 64), "here")


def chunks(*bounds: tuple[int, int], files: tuple[str, ...] = ()) -> tuple[Chunk, ...]:
    first = make_manifest().chunks[0]
    names = files or tuple(f"chunk-{n}" for n in range(len(bounds)))
    return tuple(replace(first, start=a, stop=b, file=f) for (a, b), f in zip(bounds, names, strict=True))


@pytest.mark.scenario(20)
@pytest.mark.parametrize(
    "changes",
    [
        {"chunks": chunks((0, 10), (5, 15))},
        {"chunks": chunks((0, 10), (11, 15))},
        {"chunks": chunks((1, 10))},
        {"chunks": chunks((0, 0))},
        {"chunks": chunks((0, -5))},
        {"chunks": chunks((0, 10), (10, 5))},
        {"chunks": chunks((0, 10), (10, 15), files=("same", "same"))},
        {"chunks": chunks((0, 10), files=("../../etc/passwd",))},
        {"chunks": chunks((0, 10), files=("/etc/passwd",))},
        {"chunks": chunks((0, 10), files=(".hidden",))},
        {"chunks": chunks((0, 10), files=("nul\0",))},
        {"chunks": (replace(chunks((0, 10))[0], nbytes=-1),)},
        {"chunks": (replace(chunks((0, 10))[0], trusted_from=101),)},
        {"chunks": (replace(chunks((0, 10))[0], trusted_from=-1),)},
        {"chunk_statistics": ("../../etc/passwd", "4" * 64)},
        {"name": "../name"},
        {"name": ""},
        {"statistics": (None,)},
        {"distributions": ()},
        {"distributions": (None, Distribution((0.5,) * 6, (0.0, 0.0, 1.0, 1.0), (0, 3, 0)))},
        {"distributions": (None, Distribution((0.5,) * 7, (0.0, 0.0, 1.0, 1.0), (0, 3)))},
        {"distributions": (None, Distribution((0.5,) * 7, (0.0, 0.0, 1.0, 1.0), (0, 3, -1)))},
        {"distributions": (None, Distribution((0.5,) * 7, (0.0, 0.0, 1.0, 1.0), (1,) * 67))},
        {"distributions": (None, Distribution((0.5,) * 7, (0.0, 0.0, 1.0, 1.0), (1, 2), (1.0,)))},
        {"schema": replace(make_manifest().schema, columns=make_manifest().schema.columns[:1] * 2)},
    ],
)  # fmt: skip
def test_contradictions_are_refused_though_the_digest_is_right(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="here"):
        decode_manifest(encode_manifest(make_manifest(**changes)), "here")


@pytest.mark.scenario(20)
@pytest.mark.parametrize("data", [b"[" * 5_000_000, b'{"spec":' * 1_000_000, b'{"spec":{"version":' + b"[" * 100_000])
def test_deep_nesting_is_refused_quickly(data: bytes) -> None:
    begin = time.monotonic()
    with pytest.raises(FormatError):
        decode_manifest(data, "here")
    assert time.monotonic() - begin < 1


@pytest.mark.scenario(20)
def test_a_huge_manifest_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(101 << 20)
    begin = time.monotonic()
    with pytest.raises(LimitExceededError, match=r"manifest\.json is larger than the limit"):
        read_manifest(tmp_path, 100 << 20)
    assert time.monotonic() - begin < 1


def test_an_absent_one(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_manifest(tmp_path, 1000)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_bytes(encode_manifest(make_manifest()))
    (tmp_path / "manifest.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(Exception, match=r"cannot read .*manifest\.json"):
        read_manifest(tmp_path, 1 << 20)


def test_specs_have_equal_keys_only_if_equal() -> None:
    spec = make_manifest().spec
    changes: list[dict[str, Any]] = [
        {"where": None}, {"tree": "Events"}, {"columns": ()}, {"exclude": ("a",)}, {"define": ()}, {"profile": "fast"},
        {"chunk_bytes": 1}, {"classes": ("a",)}, {"format": "parquet"}, {"on_bad_column": "fail"}, {"sources": ()},
        {"define": (("y", "x +1"),)},
    ]  # fmt: skip
    others = [replace(spec, **change) for change in changes]
    keys = {spec_key(s) for s in [spec, *others]}
    assert len(keys) == 1 + len(others)
    assert spec_key(replace(spec)) == spec_key(spec)

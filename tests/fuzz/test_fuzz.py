"""Everything that parses what others wrote, fed with mutations of good input and with noise.

Each ends with a value or an error of ours, and soon. An input that broke a promise is kept, as a file in
``corpus/TARGET/``, and tried in each run.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from storagering.cache.manifest import decode_manifest, encode_manifest, seal_manifest, spec_key
from storagering.cache.unfinished import read_outline
from storagering.config import load_settings
from storagering.errors import StorageringError
from storagering.formats.checksums import http_digest, known_checksum
from storagering.formats.expressions import parse_expression
from storagering.formats.readers import open_source
from storagering.formats.source import Location
from storagering.formats.weaver import read_weaver
from storagering.testing.contracts import make_batch
from storagering.testing.toys import write_toy_rntuple, write_toy_tree
from storagering.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from storagering.types import Chunk, ConversionSpec, Manifest, SourceFile, Span
from storagering.urls import redact_text, redact_url, redact_urls_in

CORPUS = Path(__file__).parent / "corpus"
Target = Callable[[bytes], object]


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="storagering-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _written(data: bytes, name: str) -> Path:
    path = _folder() / name
    path.write_bytes(data)
    return path


def read_manifest(data: bytes) -> None:
    """Whatever is taken for a manifest is one, byte for byte."""
    assert encode_manifest(decode_manifest(data, "here")) == data


def read_config(data: bytes) -> None:
    with mock.patch.dict(os.environ, {"STORAGERING_CONFIG": str(_written(data, "config.toml"))}):
        load_settings()


def read_selection(data: bytes) -> None:
    parse_expression(data.decode("utf-8", "surrogateescape"), ["Jet_pt", "MET_pt", "n", "odd name"])


def read_root(data: bytes) -> None:
    location = Location(str(_written(data, "toy.root")))
    with closing(open_source(location, None, load_settings(), str(_folder() / "spool"))) as source:
        for name in source.columns:
            source.read([name], 0, min(source.entries, 50))
            source.doc(name)
        source.storage()


def read_weaver_file(data: bytes) -> None:
    read_weaver(_written(data, "data.yaml"))


def read_checkpoint(data: bytes) -> None:
    load_checkpoint(_written(data, "model.safetensors"))


def read_staging(data: bytes) -> None:
    read_outline(_written(data, "outline.json").parent)


def read_text(data: bytes) -> None:
    """What servers, users and other libraries say."""
    text = data.decode("utf-8", "replace")
    redact_url(redact_url(text))
    redact_urls_in(text)
    redact_text(f"it failed: {text}", text)
    http_digest(text)
    known_checksum(text)


@cache
def good_manifest() -> bytes:
    schema = make_batch({"x": np.zeros(1), 'naïve "name"\n': np.zeros(1, "f4")}).schema
    chunk = Chunk(0, 10, "chunk-000000.zarr.zip", 100, 200, "0" * 64, 50, "1" * 16, (Span(0, 0, 12),))
    spec = ConversionSpec((("/data/x.root", "top"),), define=(("y", "x + 1"),), where="x > 0", classes=("top",))
    made = Manifest(
        "name", "storagering 0", spec, spec_key(spec), schema, (SourceFile("/data/x.root", "top", "t", 12, 1, "1.5"),),
        (chunk,), (None, None), ("statistics.parquet", "4" * 64),
    )  # fmt: skip
    return encode_manifest(seal_manifest(replace(made, version=2, parent="5" * 64, distributions=(None, None))))


@cache
def good_tree() -> bytes:
    write_toy_tree(_folder() / "good.root", entries=20)
    return (_folder() / "good.root").read_bytes()


@cache
def good_rntuple() -> bytes:
    write_toy_rntuple(_folder() / "good.root", entries=20)
    return (_folder() / "good.root").read_bytes()


@cache
def good_checkpoint() -> bytes:
    save_checkpoint(_folder() / "good.safetensors", Checkpoint({"w": torch.arange(4.0)}, {"epoch": 1}))
    return (_folder() / "good.safetensors").read_bytes()


WEAVER = b"""
selection: (Jet_pt > 500) & (n > 2)
new_variables: {mask: ak.ones_like(Jet_pt), lead: "Jet_pt[:, 0]"}
inputs:
  points: {length: 128, vars: [[Jet_eta, null], Jet_phi]}
labels: {type: simple, value: [is_top, is_qcd]}
weights: {use_precomputed_weights: false, reweight_method: flat, reweight_vars: {Jet_pt: [500, 600], MET_pt: [0, 9]},
          reweight_classes: [is_top, is_qcd], class_weights: [1, 1]}
"""
CONFIG = b'cache = "/x"\nworkers = 4\nretry_seconds = 2.5\nshared = true\nquota = "50%"\n'
SELECTIONS = [b"any(Jet_pt > 30) & (MET_pt / 1e3 < 2**4)", b"where(`odd name`[:, 0] == 'x', n, -n)"]
OUTLINE = b'{"name":"x","parent":"","sources":3,"tasks":{"0a":[0,1],"0b":[2]}}'
TEXTS = [b"https://me:word@host:1/a/b?authz=x&y=z#f", b"zip://x::root://h//f?a=b", b"adler32=1,sha-256=:Kg==:"]
TARGETS: dict[str, tuple[Target, Callable[[], list[bytes]]]] = {
    "manifest": (read_manifest, lambda: [good_manifest()]),
    "config": (read_config, lambda: [CONFIG]),
    "selection": (read_selection, lambda: SELECTIONS),
    "root": (read_root, lambda: [good_tree(), good_rntuple()]),
    "weaver": (read_weaver_file, lambda: [WEAVER]),
    "checkpoint": (read_checkpoint, lambda: [good_checkpoint()]),
    "staging": (read_staging, lambda: [OUTLINE]),
    "text": (read_text, lambda: TEXTS),
}
#: ROOT keeps what describes a file at both ends of it.
_ENDS = 600


@st.composite
def mutations(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A good input with some bytes changed, cut out, put in or repeated."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 4))):
        size = len(data)
        ends = st.one_of(st.integers(0, min(size, _ENDS)), st.integers(max(0, size - _ENDS), size))
        at = draw(st.one_of(ends, st.integers(0, size)))
        length = draw(st.sampled_from([0, 1, 2, 4, 8, 64]))
        match draw(st.sampled_from(["replace", "cut", "insert", "repeat", "end"])):
            case "replace":
                data[at : at + length] = draw(st.binary(min_size=length, max_size=length))
            case "cut":
                del data[at : at + length]
            case "insert":
                data[at:at] = draw(st.binary(max_size=8))
            case "repeat":
                data[at:at] = bytes(data[at : at + length]) * draw(st.integers(1, 50))
            case "end":
                del data[at:]
    return bytes(data)


def refusal(target: Target, data: bytes) -> str | None:
    """What the error of ours says that it ends with, None if it takes the input."""
    try:
        target(data)
    except StorageringError as error:
        return str(error)
    return None


def try_many(name: str, examples: int) -> None:
    target, seeds = TARGETS[name]
    for seed in seeds():
        target(seed)

    @settings(
        max_examples=examples,
        deadline=timedelta(seconds=10),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
        database=None,
    )
    @example(b"")
    @given(st.one_of(mutations(seeds()), mutations(seeds()), mutations(seeds()), st.binary(max_size=200)))
    def attempt(data: bytes) -> None:
        told = refusal(target, data)
        assert told is None or 0 < len(told) < 5000

    attempt()


@pytest.mark.parametrize("name", TARGETS)
def test_mutations_and_noise(name: str) -> None:
    try_many(name, 30)


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_many_mutations_and_noise(name: str) -> None:
    try_many(name, 3000 if name == "root" else 20_000)


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_something(path: Path) -> None:
    told = refusal(TARGETS[path.parent.name][0], path.read_bytes())
    assert told is None or 0 < len(told) < 5000

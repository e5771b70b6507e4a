"""Les Houches events, against pylhe itself and as written by hand."""

import gzip
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import storagering as sr
from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError, TruncatedError
from storagering.formats.readers import lhe, open_source
from storagering.testing import xrootd
from storagering.testing.source_contract import SourceContract

INTEGERS = ("id", "status", "mother1", "mother2", "color1", "color2")
NUMBERS = ("px", "py", "pz", "e", "m", "lifetime", "spin")
INIT = """<init>
2212 2212 6.5e+03 6.5e+03 0 0 1 1 -4 1
1.0 0.1 1.0 1
</init>
"""


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def random_columns(entries: int) -> dict[str, Any]:
    """Events of 0 to 4 particles, with two weights and two scales."""
    rng = np.random.default_rng(entries)
    counts = rng.integers(0, 5, entries)
    total = int(counts.sum())
    columns: dict[str, Any] = {"nparticles": counts.astype("i8"), "pid": rng.integers(1, 9, entries).astype("i8")}
    columns |= {name: rng.normal(size=entries) for name in ("weight", "scale", "aqed", "aqcd")}
    columns |= {name: ak.unflatten(rng.normal(size=2 * entries), np.full(entries, 2)) for name in ("weights", "scales")}
    columns["attributes"] = ak.Array([[f"npLO={n}"] for n in range(entries)] or [["x"]])[:entries]
    columns["optional"] = ak.Array([["# a", "#b c"][: 1 + n % 2] for n in range(entries)] or [["x"]])[:entries]
    for name in INTEGERS:
        columns[f"particles_{name}"] = ak.unflatten(rng.integers(-99, 9999, total).astype("i8"), counts)
    for name in NUMBERS:
        columns[f"particles_{name}"] = ak.unflatten(rng.normal(size=total) * 10.0 ** rng.integers(-9, 9, total), counts)
    return columns


def text_of(columns: Mapping[str, Any]) -> str:
    """The events as a file; shortest digits that give back the same numbers."""
    events = ak.to_list(ak.Array(dict(columns)) if len(columns["pid"]) else [])
    text = ['<LesHouchesEvents version="3.0">\n', INIT]
    for event in events:
        name, _, value = event["attributes"][0].partition("=")
        text.append(f'<event {name}="{value}">\n')
        head = ("nparticles", "pid", "weight", "scale", "aqed", "aqcd")
        text.append(" ".join(repr(event[n]) for n in head) + "\n")
        for number in range(event["nparticles"]):
            names = [f"particles_{n}" for n in (*INTEGERS, *NUMBERS)]
            text.append(" ".join(repr(event[n][number]) for n in names) + "\n")
        text += [f"{line}\n" for line in event["optional"]]
        first, second = event["weights"]
        text.append(f"<rwgt><wgt id='nominal'>{first!r}</wgt><wgt id='up &amp; down'>{second!r}</wgt></rwgt>\n")
        text.append(f"<scales muf='{event['scales'][0]!r}' mur='{event['scales'][1]!r}'/>\n</event>\n")
    return "".join(text) + "</LesHouchesEvents>\n"


def write_by_pylhe(path: Path, entries: int) -> Any:
    """A file as pylhe writes it; returns what pylhe reads from it."""
    import pylhe  # and with it SymPy

    rng = np.random.default_rng(1)
    events = [
        pylhe.LHEEvent(
            pylhe.LHEEventInfo(2, 1, 1.5 * n, 91.2, 0.0078, 0.118),
            [pylhe.LHEParticle(-11, 1, 0, 0, 501, 0, *rng.normal(size=7).tolist()) for _ in range(2)],
            weights={"1001": 0.25 * n, "1002": 4.0},
        )
        for n in range(entries)
    ]
    info = pylhe.LHEInitInfo(2212, 2212, 6500.0, 6500.0, 0, 0, 1, 1, -4, 1)
    init = pylhe.LHEInit(initInfo=info, procInfo=[pylhe.LHEProcInfo(1.0, 0.1, 1.0, 1)], generators=[])
    pylhe.LHEFile(init=init, events=events).tofile(path)
    return pylhe.to_awkward(pylhe.LHEFile.fromfile(path))


@pytest.mark.parametrize("name", ["events.lhe", "events.lhe.gz"])
def test_equals_pylhe(tmp_path: Path, settings: Settings, name: str) -> None:
    want = write_by_pylhe(tmp_path / name, 9)
    with closing(open_source(str(tmp_path / name), None, settings)) as source:
        assert (source.format, source.entries) == ("lhe", 9)
        assert source.doc("weights") == "1001, 1002"
        assert source.doc("particles_px") == "px [GeV]"
        arrays = source.read(list(source.columns), 0, 9)
    for field in want.eventinfo.fields:
        assert ak.array_equal(arrays[field], want.eventinfo[field]), field
    for field in INTEGERS + NUMBERS[4:]:
        assert ak.array_equal(arrays[f"particles_{field}"], want.particles[field]), field
    for field in NUMBERS[:4]:
        assert ak.array_equal(arrays[f"particles_{field}"], want.particles.vector[field]), field
    assert arrays["weights"].to_list() == [[w["1001"], w["1002"]] for w in want.weights.to_list()]


@given(weights=st.lists(st.floats(allow_nan=False), min_size=2, max_size=6), momentum=st.floats(allow_nan=False))
@hypothesis_settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_numbers(tmp_path: Path, weights: list[float], momentum: float) -> None:
    columns = random_columns(len(weights))
    columns["weight"] = np.array(weights)
    columns["particles_px"] = ak.full_like(columns["particles_px"], momentum)
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.lhe"
    path.write_text(text_of(columns))
    with closing(open_source(str(path), None, load_settings())) as source:
        found = source.read(["weight", "particles_px"], 0, source.entries)
    assert found["weight"].to_list() == weights
    assert ak.array_equal(found["particles_px"], columns["particles_px"])


def test_more_events_than_one_batch_holds(tmp_path: Path, settings: Settings) -> None:
    columns = random_columns(50)
    body = text_of(columns)
    start, end = body.index("<event"), body.index("</LesHouchesEvents>")
    (tmp_path / "many.lhe").write_text(body[:start] + body[start:end] * 100 + body[end:])
    with closing(open_source(str(tmp_path / "many.lhe"), None, settings)) as source:
        assert source.entries == 5000
        assert source.boundaries([]) == [0, 4096, 5000]
        found = source.read(["particles_px"], 4090, 4110)["particles_px"]
        want = ak.concatenate([columns["particles_px"]] * 100)[4090:4110]
        assert ak.array_equal(found, want)


def test_without_weights_and_scales(tmp_path: Path, settings: Settings) -> None:
    text = f"<LesHouchesEvents version='1.0'><header>x</header>{INIT}<event>\n0 1 1 2 3 4\n</event></LesHouchesEvents>"
    (tmp_path / "old.lhe").write_text(text)
    with closing(open_source(str(tmp_path / "old.lhe"), None, settings)) as source:
        arrays = source.read(list(source.columns), 0, 1)
    assert arrays["weights"].to_list() == arrays["optional"].to_list() == arrays["particles_id"].to_list() == [[]]
    assert str(arrays["particles_id"].type) == "1 * var * int64"


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        ("</LesHouchesEvents>", "", TruncatedError, "does not end with </LesHouchesEvents>"),
        ("npLO=\"1\">\n2 ", "npLO=\"1\">\n9 ", CorruptDataError, "event 1 .*2 particles, it says 9"),
        ("npLO=\"1\">\n2 ", "npLO=\"1\">\nx ", CorruptDataError, "event 1 .*'x'"),
        ("</event>", "</evnt>", CorruptDataError, "mismatched tag"),
        ("muf=", "mux=", CorruptDataError, "event 2 .*weights or scales"),
        ("'nominal'", "'other'", CorruptDataError, "event 2 .*weights or scales"),
        ("<init>", "<initial>", CorruptDataError, "<init> block"),
    ],
)  # fmt: skip
def test_damage(tmp_path: Path, settings: Settings, old: str, new: str, error: type[Exception], words: str) -> None:
    """Never fewer events, and the event at fault is named."""
    columns = random_columns(3)
    for name in columns:
        columns[name] = columns[name][:3]
    columns = dict(columns) | fixed_counts(columns)
    head, _, tail = text_of(columns).rpartition(old)
    (tmp_path / "bad.lhe").write_text(head + new + tail)
    with pytest.raises(error, match=rf"bad\.lhe.*{words}"):
        open_source(str(tmp_path / "bad.lhe"), None, settings)


@pytest.mark.parametrize("step", [1, 20, 1 << 20])
def test_documents_one_after_the_other(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Pylhe reads the first and says nothing of the others."""
    text = text_of(random_columns(2))
    monkeypatch.setattr(lhe, "_BUFFER_BYTES", step)
    for number, both in enumerate((text + text, text + text.rpartition("</event>")[0])):
        path = tmp_path / f"{number}.lhe.gz"
        path.write_bytes(gzip.compress(text.encode()) + gzip.compress(both.removeprefix(text).encode()))
        with pytest.raises(FormatError, match=r"lhe\.gz holds several documents"):
            open_source(str(path), None, settings)


def fixed_counts(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of particles, two an event."""
    events = len(columns["pid"])
    found: dict[str, Any] = {"nparticles": np.full(events, 2, "i8")}
    for name in INTEGERS + NUMBERS:
        kind = "i8" if name in INTEGERS else "f8"
        found[f"particles_{name}"] = ak.unflatten(np.arange(2 * events).astype(kind), np.full(events, 2))
    return found


@pytest.mark.xrootd
def test_from_xrootd(tmp_path: Path, settings: Settings) -> None:
    if not xrootd.available():
        pytest.skip("no xrootd on the PATH: apt-get install xrootd-server")
    columns = random_columns(20)
    with gzip.open(tmp_path / "x.lhe.gz", "wt") as file:
        file.write(text_of(columns))
    with xrootd.xrootd_server(tmp_path) as server:
        dataset = sr.convert(server.url("x.lhe.gz"), name="lhe", columns=["weight", "particles_*"], workers=1)
    assert ak.array_equal(dataset.arrays(["particles_e"])["particles_e"], columns["particles_e"])
    assert dataset.manifest.sources[0].verified  # gzip has a checksum of all


class TestContract(SourceContract):
    format = "lhe"
    names = ()
    samples = 40

    def columns(self, entries: int) -> dict[str, Any]:
        return random_columns(entries)

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        path.write_text(text_of(columns or random_columns(3)))

    def test_odd_names(self, tmp_path: Path, settings: Settings) -> None:
        """All names are fixed, and none is a path."""
        self.write(tmp_path / "data", {})
        with closing(open_source(str(tmp_path / "data"), None, settings)) as source:
            assert all(name.isidentifier() for name in source.columns)

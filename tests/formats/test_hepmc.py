"""HepMC files, as pyhepmc writes them, against pyhepmc itself."""

import bz2
import gzip
import lzma
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyhepmc
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import storagering as sr
from storagering.config import Settings, load_settings
from storagering.errors import CorruptDataError, FormatError, TruncatedError
from storagering.formats.readers import open_source
from storagering.testing import xrootd
from storagering.testing.source_contract import SourceContract, read_all
from storagering.types import Array

ENDS = {"hepmc3": "HepMC::Asciiv3-END_EVENT_LISTING\n\n", "hepmc2": "HepMC::IO_GenEvent-END_EVENT_LISTING\n\n"}
FORMATS = list(ENDS)


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def random_event(rng: np.random.Generator, info: Any, number: int, vertices: int = 4) -> Any:
    """A beam particle that decays, and some of its daughters too."""
    event = pyhepmc.GenEvent(info, pyhepmc.Units.MEV, pyhepmc.Units.CM)
    event.event_number = number
    waiting = [pyhepmc.GenParticle(tuple(rng.normal(size=4)), 2212, 4)]
    for n in range(vertices):
        vertex = pyhepmc.GenVertex(tuple(rng.normal(size=4)) if n else (0, 0, 0, 0))
        vertex.add_particle_in(waiting.pop(0))
        if n == 1 and len(waiting) > 1:
            vertex.add_particle_in(waiting.pop(0))
        for _ in range(int(rng.integers(1, 4))):
            daughter = pyhepmc.GenParticle(tuple(rng.normal(size=4)), int(rng.integers(-30, 30)), 1)
            daughter.generated_mass = float(rng.normal())
            vertex.add_particle_out(daughter)
            waiting.append(daughter)
        event.add_vertex(vertex)
    event.weights = rng.normal(size=2).tolist()
    event.attributes = {"alphaQCD": 0.125, "note": "x y"}
    return event


def random_events(count: int, vertices: int = 4) -> list[Any]:
    info = pyhepmc.GenRunInfo()
    info.weight_names = ["nominal", "up"]
    rng = np.random.default_rng(count)
    return [random_event(rng, info, n, vertices) for n in range(count)]


def write_events(path: Path, events: list[Any], kind: str = "hepmc3") -> None:
    with pyhepmc.open(path, "w", format=kind) as file:
        for event in events:
            file.write(event)


def read_events(path: Path) -> list[Any]:
    """What pyhepmc reads."""
    with pyhepmc.open(path) as file:
        return list(file)


def data_of(event: Any) -> Any:
    data = pyhepmc.GenEventData()
    event.write_data(data)
    return data


def places(particles: Any) -> list[int]:
    return [p.id - 1 for p in particles]


@pytest.mark.parametrize("kind", FORMATS)
def test_equals_pyhepmc(tmp_path: Path, settings: Settings, kind: str) -> None:
    write_events(tmp_path / "x.dat", random_events(7), kind)
    with closing(open_source(str(tmp_path / "x.dat"), None, settings)) as source:
        assert (source.format, source.entries) == ("hepmc", 7)
        assert source.doc("weights") == "nominal, up"
        assert source.doc("particles_px") == "px [MeV]"
        assert source.doc("vertices_t") == "t [cm]"
        arrays = source.read(list(source.columns), 0, 7)
    for number, event in enumerate(read_events(tmp_path / "x.dat")):
        data = data_of(event)
        assert arrays["event_number"][number] == event.event_number
        assert arrays["weights"][number].to_list() == list(event.weights)
        for field in data.particles.dtype.names:
            assert arrays[f"particles_{field}"][number].to_list() == data.particles[field].tolist()
        for field in data.vertices.dtype.names:
            assert arrays[f"vertices_{field}"][number].to_list() == data.vertices[field].tolist()
        for field in ("links1", "links2"):
            assert arrays[field][number].to_list() == getattr(data, field).tolist()
        for field in ("attribute_id", "attribute_name", "attribute_string"):
            assert arrays[field][number].to_list() == list(getattr(data, field))
        parents = [places(p.parents) for p in event.particles]
        assert [sorted(p) for p in arrays["particles_parents"][number].to_list()] == [sorted(p) for p in parents]
        children = [places(p.children) for p in event.particles]
        assert [sorted(p) for p in arrays["particles_children"][number].to_list()] == [sorted(p) for p in children]


@pytest.mark.parametrize(("suffix", "opened"), [("gz", gzip.open), ("bz2", bz2.open), ("xz", lzma.open)])
def test_packed_files(tmp_path: Path, settings: Settings, suffix: str, opened: Callable[..., Any]) -> None:
    write_events(tmp_path / "x.hepmc", random_events(3))
    with opened(tmp_path / f"x.hepmc.{suffix}", "wb") as file:
        file.write((tmp_path / "x.hepmc").read_bytes())
    got, want = (read_all(tmp_path / name, settings) for name in (f"x.hepmc.{suffix}", "x.hepmc"))
    assert all(ak.array_equal(got[name], want[name]) for name in want)


@given(momentum=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 4), weights=st.lists(st.floats(-9, 9)))
@hypothesis_settings(deadline=None, max_examples=15, suppress_health_check=list(HealthCheck), derandomize=True)
def test_any_numbers(tmp_path: Path, momentum: tuple[float, ...], weights: list[float]) -> None:
    event = pyhepmc.GenEvent(pyhepmc.Units.GEV, pyhepmc.Units.MM)
    event.add_particle(pyhepmc.GenParticle(momentum, 11, 1))
    event.weights = weights
    path = tmp_path / str(len(list(tmp_path.iterdir())))
    write_events(path, [event])
    found, (want,) = read_all(path, load_settings()), read_events(path)
    assert found["weights"].to_list() == [list(want.weights)]
    assert [found[f"particles_{n}"][0, 0] for n in ("px", "py", "pz", "e")] == list(want.particles[0].momentum)


def test_more_events_than_one_batch_holds(tmp_path: Path, settings: Settings) -> None:
    events = random_events(4500, vertices=1)
    write_events(tmp_path / "many.hepmc", events)
    with closing(open_source(str(tmp_path / "many.hepmc"), None, settings)) as source:
        assert source.boundaries([]) == [0, 4096, 4500]
        found = source.read(["event_number", "particles_pid"], 4090, 4100)
    assert found["event_number"].to_list() == list(range(4090, 4100))
    want = [[p.pid for p in event.particles] for event in events[4090:4100]]
    assert found["particles_pid"].to_list() == want


def lines_of(path: Path, first: str) -> list[str]:
    return [line for line in path.read_text().splitlines() if line.startswith(first)]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("first", "changed"),
    [("P", "P 1 zz"), ("P", ""), ("P", "Q 1"), ("V", "V x"), ("E", "F 1"), ("E", "E what")],
)
def test_damage(tmp_path: Path, settings: Settings, kind: str, first: str, changed: str) -> None:
    """Never fewer events or particles, though the library takes damage for the end of the file."""
    write_events(tmp_path / "bad.hepmc", random_events(3), kind)
    line = lines_of(tmp_path / "bad.hepmc", f"{first} ")[-1]
    text = (tmp_path / "bad.hepmc").read_text()
    (tmp_path / "bad.hepmc").write_text(text.replace(f"{line}\n", f"{changed}\n"))
    with pytest.raises(CorruptDataError, match=r"bad\.hepmc.*event . is damaged"):
        open_source(str(tmp_path / "bad.hepmc"), None, settings)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_cut_between_two_events(tmp_path: Path, settings: Settings, kind: str) -> None:
    write_events(tmp_path / "x", random_events(3), kind)
    text = (tmp_path / "x").read_text()
    (tmp_path / "cut.hepmc").write_text(text[: text.rindex("\nE ") + 1])
    with pytest.raises(TruncatedError, match=r"cut\.hepmc does not end with .*END_EVENT_LISTING"):
        open_source(str(tmp_path / "cut.hepmc"), None, settings)
    (tmp_path / "twice.hepmc").write_text(text * 2)
    assert read_all(tmp_path / "twice.hepmc", settings)["event_number"].to_list() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("kind", "line", "old", "new", "words"),
    [
        ("hepmc2", "V", "V ", "W ", "3 vertices, it says 4"),
        ("hepmc2", "P", "P ", "Q ", "particles of a vertex, which says"),
        ("hepmc3", "V", "[5]", "[99]", "goes into a vertex that is not there"),
        ("hepmc3", "V", "[5]", "[0]", "goes into a vertex that is not there"),
        ("hepmc3", "V", "V -2 ", "V -9 ", "vertices are not numbered"),
        ("hepmc3", "P", "P 5 -2 ", "P 5 -9 ", "comes from one that is not there"),
        ("hepmc3", "P", "P 5 -2 ", "P 5 5 ", "comes from one that is not there"),
        ("hepmc3", "P", "P 2 ", "P 3 ", "particles are not numbered"),
        ("hepmc3", "E", " 4 ", " 9 ", "vertices, it says 9"),
    ],
)
def test_numbers_that_lead_astray(
    tmp_path: Path, settings: Settings, kind: str, line: str, old: str, new: str, words: str
) -> None:
    """The library would die of some, and lose particles for others."""
    write_events(tmp_path / "bad.hepmc", random_events(3), kind)
    head, _, last = (tmp_path / "bad.hepmc").read_text().rpartition("\nE ")
    lines = [*head.split("\n"), *f"E {last}".split("\n")]
    place = max(n for n, text in enumerate(lines) if text.startswith(f"{line} ") and old in text)
    lines[place] = lines[place].replace(old, new, 1)
    (tmp_path / "bad.hepmc").write_text("\n".join(lines))
    with pytest.raises(CorruptDataError, match=rf"bad\.hepmc: event 2 is damaged.*{words}"):
        open_source(str(tmp_path / "bad.hepmc"), None, settings)


def test_particles_before_the_first_event(tmp_path: Path, settings: Settings) -> None:
    for kind in FORMATS:
        write_events(tmp_path / f"{kind}.hepmc", random_events(2), kind)
        text = (tmp_path / f"{kind}.hepmc").read_text()
        (tmp_path / f"{kind}.hepmc").write_text(text.replace("\nE ", "\nF ", 1))
        with pytest.raises(CorruptDataError, match="event 0 is damaged"):
            open_source(str(tmp_path / f"{kind}.hepmc"), None, settings)


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_that_change_their_names(tmp_path: Path, settings: Settings, kind: str) -> None:
    text = ""
    for names in (["nominal", "up"], ["up", "nominal"]):
        events = random_events(2)
        events[0].run_info.weight_names = names
        write_events(tmp_path / "x.hepmc", events, kind)
        text += (tmp_path / "x.hepmc").read_text()
    (tmp_path / "both.hepmc").write_text(text)
    with pytest.raises(CorruptDataError, match=r"event 2 is damaged.*weights are called otherwise"):
        open_source(str(tmp_path / "both.hepmc"), None, settings)


def test_units_that_change(tmp_path: Path, settings: Settings) -> None:
    events = random_events(2)
    events[1].set_units(pyhepmc.Units.GEV, pyhepmc.Units.CM)
    write_events(tmp_path / "x.hepmc", events)
    with pytest.raises(CorruptDataError, match=r"event 1.*units are GEV/CM, those of the first MEV/CM"):
        open_source(str(tmp_path / "x.hepmc"), None, settings)


def test_other_kinds_of_hepmc_files(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "old.hepmc").write_text("HepMC::Version 1\nHepMC::IO_Ascii-START_EVENT_LISTING\n")
    with pytest.raises(FormatError, match=r"old\.hepmc is no HepMC file of ASCII version 2 or 3"):
        open_source(str(tmp_path / "old.hepmc"), None, settings)


def test_no_remarks_on_the_standard_error(
    tmp_path: Path, settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    write_events(tmp_path / "x.hepmc", random_events(2))
    text = (tmp_path / "x.hepmc").read_text()
    (tmp_path / "x.hepmc").write_text(text.replace("\nP 2", "\nQ 2"))
    with pytest.raises(CorruptDataError):
        open_source(str(tmp_path / "x.hepmc"), None, settings)
    assert capfd.readouterr().err == ""


@pytest.mark.xrootd
def test_from_xrootd(tmp_path: Path, settings: Settings) -> None:
    if not xrootd.available():
        pytest.skip("no xrootd on the PATH: apt-get install xrootd-server")
    write_events(tmp_path / "x.hepmc", random_events(20))
    want = read_all(tmp_path / "x.hepmc", settings)
    with xrootd.xrootd_server(tmp_path) as server:
        dataset = sr.convert(server.url("x.hepmc"), name="hepmc", workers=1)
    arrays = dataset.arrays()
    assert all(ak.array_equal(arrays[name], want[name]) for name in want)


class TestContract(SourceContract):
    """The columns are what is written: nothing that a file of HepMC holds is lost."""

    format = "hepmc"
    names = ()
    samples = 40

    def columns(self, entries: int) -> dict[str, Any]:
        rng = np.random.default_rng(entries)
        counts = rng.integers(1, 4, entries)
        columns: dict[str, Any] = {"event_number": np.arange(entries, dtype="i4")}
        columns["weights"] = lists(rng.normal(size=2 * entries), np.full(entries, 2))
        columns |= {f"event_pos_{n}": np.zeros(entries) for n in "xyzt"}
        total = int(counts.sum())
        for name in ("pid", "status"):
            columns[f"particles_{name}"] = lists(rng.integers(1, 99, total).astype("i4"), counts)
        columns["particles_is_mass_set"] = lists(np.ones(total, bool), counts)
        for name in ("mass", "px", "py", "pz", "e"):
            columns[f"particles_{name}"] = lists(rng.normal(size=total), counts)
        first = ak.local_index(columns["particles_pid"]) == 0  # it decays to all others
        columns["particles_parents"] = lists_of_lists(first, 0, ~first)
        later = ak.local_index(columns["particles_pid"])[~first]
        columns["particles_children"] = ak.values_astype(
            ak.Array([[c.to_list() if f else [] for f in fs] for fs, c in zip(first, later, strict=True)]), "i4"
        )
        columns["vertices_status"] = lists(np.zeros(entries, "i4"), np.ones(entries, int))
        columns |= {f"vertices_{n}": lists(rng.normal(size=entries), np.ones(entries, int)) for n in "xyzt"}
        columns["links1"] = ak.values_astype(ak.where(first, 1, -1), "i4")
        columns["links2"] = ak.values_astype(ak.where(first, -1, ak.local_index(first) + 1), "i4")
        columns["attribute_id"] = lists(np.zeros(entries, "i4"), np.ones(entries, int))
        columns["attribute_name"] = ak.Array([["note"]] * entries)
        columns["attribute_string"] = ak.Array([[f"n {n}"] for n in range(entries)])
        return columns

    def write(self, path: Path, columns: Mapping[str, Any]) -> None:
        """Of version 3, by hand."""
        columns = columns or self.columns(3)
        text = ["HepMC::Version 3.02.05\nHepMC::Asciiv3-START_EVENT_LISTING\nW a\\|b\n"]
        for number in range(len(columns["event_number"])):
            event = {name: ak.to_list(column[number]) for name, column in columns.items()}
            particles = range(len(event["particles_pid"]))
            text.append(f"E {event['event_number']} 1 {len(particles)}\nU GEV MM\n")
            text.append("W " + " ".join(map(repr, event["weights"])) + f"\nA 0 note {event['attribute_string'][0]}\n")
            for n in particles:
                if n == 1:
                    text.append(f"V -1 0 [1] @ {' '.join(repr(event[f'vertices_{c}'][0]) for c in 'xyzt')}\n")
                numbers = " ".join(repr(event[f"particles_{c}"][n]) for c in ("px", "py", "pz", "e", "mass"))
                head = f"P {n + 1} {-1 if n else 0} {event['particles_pid'][n]}"
                text.append(f"{head} {numbers} {event['particles_status'][n]}\n")
            if len(particles) == 1:
                text.append(f"V -1 0 [1] @ {' '.join(repr(event[f'vertices_{c}'][0]) for c in 'xyzt')}\n")
        path.write_text("".join(text) + ENDS["hepmc3"])

    def test_odd_names(self, tmp_path: Path, settings: Settings) -> None:
        """All names are fixed, and none is a path."""
        self.write(tmp_path / "data", {})
        with closing(open_source(str(tmp_path / "data"), None, settings)) as source:
            assert all(name.isidentifier() for name in source.columns)


def lists(values: Array, counts: Array) -> Any:
    return ak.unflatten(values, counts)


def lists_of_lists(like: Any, value: int, chosen: Any) -> Any:
    """For each element a list, of ``value`` where chosen, else empty."""
    inner = ak.flatten(chosen).to_numpy().astype(int)
    return ak.unflatten(ak.unflatten(np.full(inner.sum(), value, "i4"), inner), ak.num(like))

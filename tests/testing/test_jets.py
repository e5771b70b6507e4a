"""Generated jets: schema, physics that anyone would notice to be wrong, determinism, and the ends of the workers."""

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import psutil
import pytest
import uproot

from storagering.errors import InputError, MissingExtraError, NotFoundError, WorkerDiedError
from storagering.testing import jets
from storagering.testing._pythia import Task
from storagering.testing.jets import generate_jets

NEEDS = "needs Pythia 8: pip install 'storagering[generate]'"


def read(path: Path) -> Any:
    with uproot.open(path) as file:
        return file["jets"].arrays()


@pytest.fixture
def pythia() -> None:
    pytest.importorskip("pythia8mc", reason=NEEDS)
    pytest.importorskip("fastjet", reason=NEEDS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pythia8mc", reason=NEEDS)
    pytest.importorskip("fastjet", reason=NEEDS)
    target = tmp_path_factory.mktemp("jets") / "jets.root"
    assert generate_jets(target, num_jets=200, processes=2) == 200
    return target


@pytest.mark.slow
def test_schema(path: Path) -> None:
    with uproot.open(path) as file:
        tree = file["jets"]
        names = {branch.name: branch.typename for branch in tree.branches}
        assert tree["part_pt"].count_branch.name == tree["part_pid"].count_branch.name == "npart"
        assert tree.title.endswith("jet_class: 0 top, 1 qcd")
    assert names == {
        "event": "int64_t",
        **dict.fromkeys(("jet_pt", "jet_eta", "jet_phi", "jet_mass"), "float"),
        "jet_class": "int32_t",
        "npart": "int32_t",
        **{f"part_{name}": "float[]" for name in ("pt", "eta", "phi", "energy", "deta", "dphi")},
        **dict.fromkeys(("part_charge", "part_pid"), "int32_t[]"),
    }
    assert [entry.name for entry in path.parent.iterdir()] == ["jets.root"]


@pytest.mark.slow
def test_jets_are_within_the_selection(path: Path) -> None:
    events = read(path)
    assert events.event.tolist() == list(range(200))
    assert events.jet_class.tolist() == [0] * 100 + [1] * 100
    assert ak.all((events.jet_pt > 500) & (events.jet_pt < 700) & (abs(events.jet_eta) < 2))
    assert ak.all(ak.num(events.part_pt) == events.npart)
    assert ak.max(events.npart) <= 128
    assert ak.all(events.part_pt[:, 1:] <= events.part_pt[:, :-1])
    assert ak.all((events.part_pt > 0.4) & (abs(events.part_eta) < 2.7))
    assert ak.all(abs(events.part_charge) <= 1)
    assert ak.all(events.part_charge[abs(events.part_pid) == 211] != 0)
    assert ak.all(events.part_charge[events.part_pid == 22] == 0)


@pytest.mark.slow
def test_particles_make_up_their_jet(path: Path) -> None:
    events = read(path)
    events = events[events.npart < 128]
    px, py = (ak.sum(events.part_pt * f(events.part_phi), axis=1) for f in (np.cos, np.sin))
    pz = ak.sum(events.part_pt * np.sinh(events.part_eta), axis=1)
    mass = np.sqrt(ak.sum(events.part_energy, axis=1) ** 2 - px**2 - py**2 - pz**2)
    assert np.allclose(np.hypot(px, py), events.jet_pt, rtol=1e-5)
    assert np.allclose(mass, events.jet_mass, rtol=1e-2)
    assert ak.all(abs(events.part_deta - (events.part_eta - events.jet_eta)) < 1e-5)
    assert ak.max(abs(events.part_dphi)) < 2
    assert abs(ak.mean(ak.sum(events.part_pt * events.part_dphi, axis=1) / events.jet_pt)) < 0.01


@pytest.mark.slow
def test_top_jets_are_heavier_and_fuller(path: Path) -> None:
    events = read(path)
    top, qcd = events[events.jet_class == 0], events[events.jet_class == 1]
    assert 140 < np.median(top.jet_mass) < 190
    assert np.median(qcd.jet_mass) < 100
    assert ak.mean(top.npart) > ak.mean(qcd.npart)


@pytest.mark.slow
@pytest.mark.usefixtures("pythia")
def test_processes_change_nothing_and_nothing_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jets, "_BLOCK_JETS", 20)
    monkeypatch.setattr(jets, "_BASKET_JETS", 40)
    done: dict[int, list[int]] = {1: [], 2: []}
    for processes in (1, 2):
        generate_jets(
            tmp_path / f"{processes}.root",
            classes=["w", "qcd"],
            num_jets=51,
            seed=5,
            processes=processes,
            progress=done[processes].append,
        )
    assert done[1] == done[2] == [20, 40, 46, 51]
    one, two = read(tmp_path / "1.root"), read(tmp_path / "2.root")
    assert ak.array_equal(one, two)
    assert np.bincount(one.jet_class).tolist() == [26, 25]
    assert len(np.unique(one.jet_pt)) == 51
    assert 75 < np.median(one.jet_mass[one.jet_class == 0]) < 115
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.usefixtures("pythia")
def test_a_worker_that_dies_ends_it_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def murder(done: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    monkeypatch.setattr(jets, "_BLOCK_JETS", 2)
    (tmp_path / "jets.root").write_text("old")
    with pytest.raises(WorkerDiedError, match="exit code -9"):
        generate_jets(tmp_path / "jets.root", num_jets=1000, progress=murder)
    assert [entry.name for entry in tmp_path.iterdir()] == ["jets.root"]
    assert (tmp_path / "jets.root").read_text() == "old"
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.usefixtures("pythia")
def test_an_error_in_a_worker_is_raised_here() -> None:
    with pytest.raises(KeyError, match="nope"):
        list(jets._in_workers([Task("nope", 0, 1, 1)], 1))
    assert multiprocessing.active_children() == []


SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from storagering.testing import jets
if __name__ == "__main__":
    jets._BLOCK_JETS = 2
    tell = lambda done: print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    jets.generate_jets(Path(sys.argv[1]), num_jets=100_000, progress=tell)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("pythia")
def test_ctrl_c_ends_the_workers(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "script.py"), str(tmp_path / "jets.root")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as script:
        assert script.stdout is not None
        workers = [int(pid) for pid in script.stdout.readline().split()]
        os.killpg(script.pid, signal.SIGINT)
        _, errors = script.communicate(timeout=60)
    assert len(workers) == 2
    assert not any(psutil.pid_exists(pid) for pid in workers)
    assert script.returncode == -signal.SIGINT
    assert errors.count("KeyboardInterrupt") == errors.count("Traceback") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"classes": ["top", "higgs"]}, "'higgs'; there are: top, qcd, w"),
        ({"classes": []}, "list of different names"),
        ({"classes": ["top", "top"]}, "list of different names"),
        ({"classes": "top"}, "list of different names"),
        ({"num_jets": 0}, "num_jets is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"processes": 0}, "processes is 0"),
    ],
)
def test_mistakes(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        generate_jets(tmp_path / "jets.root", **{"num_jets": 10, **wrong})


def test_folder_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="create it first"):
        generate_jets(tmp_path / "nope" / "jets.root", num_jets=10)


@pytest.mark.parametrize("module", ["pythia8mc", "fastjet"])
def test_extra_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=r'pip install "storagering\[generate\]"'):
        generate_jets(tmp_path / "jets.root", num_jets=10)


def test_gpl_libraries_are_not_imported_with_the_module() -> None:
    code = "import sys, storagering.testing.jets; print({'pythia8mc', 'fastjet'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"


def test_block_seeds_differ_and_stay() -> None:
    plan = jets._plan(["top", "qcd"], 10_000, 3)
    assert sum(task.jets for task in plan) == 10_000
    assert len({task.seed for task in plan}) == len(plan)
    assert [task.seed for task in jets._plan(["qcd"], 5_000, 3)] == [t.seed for t in plan if t.name == "qcd"]
    assert {task.seed for task in jets._plan(["top"], 5_000, 4)}.isdisjoint(task.seed for task in plan)

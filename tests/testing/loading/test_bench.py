"""Runs in processes of their own, on data so small that the figures mean nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from storagering.errors import InputError
from storagering.testing.loading.bench import Request, bench_loader
from storagering.testing.loading.case import Case
from storagering.testing.loading.compare import plan_runs
from storagering.testing.loading.environments import Environment, find_environments
from storagering.testing.loading.peers import PEERS, Peer
from storagering.testing.loading.process import LoaderError, LoaderProcess
from storagering.testing.loading.watch import PeakMemory, anonymous_bytes, busy_seconds, cpu_seconds, tree

BURN = """
import os, sys
x = bytearray(50_000_000)
while sum(os.times()[:2]) < 0.3:
    pass
print("done", flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
def test_a_run_beside_the_limit(tmp_path: Path) -> None:
    output, said = tmp_path / "loaders.json", list[str]()
    data = tmp_path / "data"
    request = Request(entries=8_000, workloads=["w1"], peers=["memory map"], cores=[1], epochs=1, data=data)
    assert bench_loader(replace(request, epochs=0), output=output, say=said.append)["runs"] == []
    assert not output.exists()
    results = bench_loader(request, output=output, say=said.append)
    (run,) = results["runs"]
    assert run.items() >= {"peer": "memory map", "workload": "w1", "cores": 1, "missing": 0}.items()
    assert run["rate"] > 0
    assert run["of_limit"] == pytest.approx(run["rate"] / run["limit"], rel=0.01)
    assert run["repeated"] == 0
    assert run["peak_memory_mb"] > 10
    assert run["disk_mb"] > 0
    assert json.loads(output.read_text()) == results
    before = output.stat().st_mtime_ns
    assert bench_loader(request, output=output, say=said.append)["runs"] == results["runs"]
    assert output.stat().st_mtime_ns == before  # nothing was measured again
    assert len(said) == 1
    with pytest.raises(InputError, match="name another"):
        bench_loader(Request(entries=4_000, workloads=["w1"], peers=["memory map"]), output=output, say=said.append)


def test_what_fails_is_told(tmp_path: Path) -> None:
    peer = Peer("none", "no_such_peer", "x", (), {})
    environment = Environment("this", sys.executable, {})
    with (
        LoaderProcess(environment, peer, Case(tmp_path, "w1"), tmp_path) as loader,
        pytest.raises(LoaderError, match=r"exit code 1: ModuleNotFoundError.*no_such_peer"),
    ):
        loader.open()


def test_environments_and_their_modules(tmp_path: Path) -> None:
    other = tmp_path / "other" / "bin" / "python"
    other.parent.mkdir(parents=True)
    other.symlink_to(sys.executable)
    own, found = find_environments(tmp_path, ["numpy", "nowhere.at_all"])
    assert own.name == "this"
    assert found.name == "other"
    assert own.has(["numpy"])
    assert not own.has(["nowhere.at_all"])


def test_plans() -> None:
    both = {"torch": "1", "numpy": "1"}
    own, other = Environment("this", "p", both | {"storagering": ""}), Environment("other", "p", both | {"ROOT": "6"})
    by_name = {peer.name: peer for peer in PEERS}
    ours, root, zarrs = by_name["storagering fast"], by_name["RDataLoader lazy"], by_name["zarrs"]

    def cases(peer: Peer) -> Iterator[Case]:
        yield from (Case(Path("d"), w, cores=c) for w in peer.entries for c in (2, 1))

    runs, missing = plan_runs([ours, root, zarrs], [own, other], cases)
    assert missing == [{"peer": "zarrs", "reason": "no environment has all of: torch, zarr, numcodecs, zarrs"}]
    assert {(r.peer.name, r.environment.name) for r in runs} == {(ours.name, "this"), (root.name, "other")}
    assert [(r.case.workload, r.case.cores) for r in runs[:6]] == [("w1", 1)] * 2 + [("w1", 2)] * 2 + [("w2", 1)] * 2


def test_nothing_to_measure() -> None:
    with pytest.raises(InputError, match="nothing to measure: workloads are w1, w2, w2f, w3, peers storagering fast"):
        bench_loader(Request(peers=["nobody"]), say=print)


def test_what_a_process_uses() -> None:
    busy = busy_seconds()
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        with PeakMemory(process.pid) as peak:
            process.stdout.readline()
        assert process.pid in tree(os.getpid())
        assert cpu_seconds(process.pid) == pytest.approx(0.35, abs=0.1)
        assert 50_000_000 < anonymous_bytes(process.pid) < 100_000_000
        assert 50_000_000 < peak.nbytes < 100_000_000
        assert busy_seconds() - busy > 0.25
        process.stdin.close()
    assert anonymous_bytes(process.pid) == 0
    assert tree(process.pid) == [process.pid]

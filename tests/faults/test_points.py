"""Builds, appends and repairs struck at every point at which they change the disk: nothing is lost or wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults import work

from storagering.testing.crashes import Forks, Scenario, run_at_every_point
from storagering.testing.faults import Fault, Kill, Point, PowerCut

SCENARIOS = {
    "build": Scenario(work.build_other, work.build, work.check_absent_or_whole),
    "mix": Scenario(work.build_other, work.build_mixed, work.check_absent_or_whole),
    "append": Scenario(work.build_both, work.add, work.check_old_or_new),
    "remove": Scenario(work.build_both, work.remove, work.check_whole_or_absent),
    "evict": Scenario(work.build_both, work.evict, work.check_present_or_evicted),
    "fetch": Scenario(work.evict_both, work.fetch, work.check_present_or_evicted),
    "repair": Scenario(work.build_and_damage, work.repair, work.check_readable_as_before),
}
#: Every how manieth point is struck where not all of them are.
SOME = 5


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


def strike(forks: Forks, folder: Path, name: str, fault: Fault, *, first: int = 0, every: int = 1) -> list[Point]:
    work.write_sources(folder)
    return run_at_every_point(forks, folder, SCENARIOS[name], fault, first=first, every=every)


@pytest.mark.scenario(1)
def test_a_build_killed_at_every_second_point(forks: Forks, tmp_path: Path) -> None:
    assert len(strike(forks, tmp_path, "build", Kill(), every=2)) >= 22


@pytest.mark.scenario(1)
@pytest.mark.scenario(5)
@pytest.mark.parametrize("name", ["append", "remove", "evict", "fetch", "repair"])
def test_killed_now_and_then(forks: Forks, tmp_path: Path, name: str) -> None:
    assert strike(forks, tmp_path, name, Kill(), first=1, every=SOME)


@pytest.mark.soak
@pytest.mark.scenario(1)
@pytest.mark.scenario(5)
@pytest.mark.parametrize("name", SCENARIOS)
def test_killed_at_any_point(forks: Forks, tmp_path: Path, name: str) -> None:
    points = strike(forks, tmp_path, name, Kill())
    assert len(points) >= {"build": 45, "append": 35, "remove": 3, "evict": 8, "fetch": 18, "repair": 18}[name]


@pytest.mark.scenario(1)
def test_a_mixed_build_killed_now_and_then(forks: Forks, tmp_path: Path) -> None:
    assert len(strike(forks, tmp_path, "mix", Kill(), first=7, every=30)) >= 2


@pytest.mark.soak
@pytest.mark.scenario(1)
def test_a_mixed_build_killed_at_any_point(forks: Forks, tmp_path: Path) -> None:
    assert len(strike(forks, tmp_path, "mix", Kill())) >= 60


@pytest.mark.scenario(1)
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "mix"])
def test_killed_half_way(forks: Forks, tmp_path: Path, name: str) -> None:
    points = strike(forks, tmp_path, name, Kill(partly=True))
    expected = {"remove": {"remove_tree"}, "evict": {"write"}}.get(name, {"write", "remove_tree"})
    assert {point.operation for point in points} == expected


@pytest.mark.scenario(4)
@pytest.mark.parametrize(("number", "names"), list(enumerate(["lost", "kept", "some"])))
@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "mix"])
def test_a_power_cut_now_and_then(forks: Forks, tmp_path: Path, name: str, number: int, names: str) -> None:
    every = {"remove": 2, "evict": 5}.get(name, 3 * SOME)
    assert strike(forks, tmp_path, name, PowerCut(tmp_path / "vault", names), first=number * SOME % every, every=every)


@pytest.mark.soak
@pytest.mark.scenario(4)
@pytest.mark.parametrize(("names", "seed"), [("lost", 0), ("kept", 0), ("some", 0), ("some", 1), ("some", 2)])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_power_cut_at_any_point(forks: Forks, tmp_path: Path, name: str, names: str, seed: int) -> None:
    strike(forks, tmp_path, name, PowerCut(tmp_path / "vault", names, seed))

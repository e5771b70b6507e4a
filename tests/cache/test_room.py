"""Room: the quota is kept, what is needed stays, and whoever waits is told for whom."""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from storagering.cache.leases import Lease, holder_of, is_alive, sweep_leases
from storagering.cache.ledger import (
    WHOLE,
    Ledger,
    Resident,
    add_chunks,
    drop_lease,
    pin_files,
    set_popularity,
    touch_chunks,
)
from storagering.cache.room import Limits, Room, Tier
from storagering.errors import CacheError, CacheFullError, ConfigError


class Shelf:
    """A tier of files that are only names."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root, self.ledger = root, Ledger(root / "ledger.sqlite")
        self.removed: list[tuple[str, str]] = []
        self.staying: dict[str, str] = {}
        self.kept_back, self.stubborn = 0, False
        tier = Tier(
            root,
            self.ledger,
            lambda: self.kept_back,
            self._give_up,
            lambda name: self.staying.get(name, ""),
            self._remove,
        )
        self.room = Room(tier, limits)
        self.lease = Lease(root, "testing")

    def _give_up(self) -> bool:
        left, self.kept_back = self.kept_back, 5 * self.stubborn
        return left > self.kept_back

    def _remove(self, dataset: str, files: Sequence[str]) -> None:
        self.removed += [(dataset, file) for file in files]

    def put(self, dataset: str, file: str, nbytes: int = 10, cost: float = 1.0) -> None:
        self.room.claim(self.lease.id, file, nbytes)
        self.room.settle(self.lease.id, file, [Resident(dataset, file, nbytes, cost)])

    def use(self, dataset: str, *files: str) -> None:
        with self.ledger.transaction() as database:
            touch_chunks(database, dataset, files)

    def pin(self, lease: str, dataset: str, *files: str) -> None:
        with self.ledger.transaction() as database:
            pin_files(database, lease, dataset, files)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path, Limits(quota_bytes=30, low_water=1.0, wait_seconds=0.2))


def with_limits(tmp_path: Path, policy: str) -> Shelf:
    return Shelf(tmp_path, Limits(quota_bytes=30, low_water=1.0, policy=policy, wait_seconds=0.2))


def test_what_was_not_used_for_longest_goes(shelf: Shelf) -> None:
    for file in "abc":
        shelf.put("jets", file)
    shelf.use("jets", "a")
    shelf.put("jets", "d")
    assert shelf.removed == [("jets", "b")]
    assert shelf.room.used_bytes() == 30


def test_what_was_used_least_goes(tmp_path: Path) -> None:
    shelf = with_limits(tmp_path, "lfu")
    for file in "abc":
        shelf.put("jets", file)
    shelf.use("jets", "a", "b")
    shelf.use("jets", "a", "c")
    shelf.use("jets", "b")  # c is the most recent but one, and the least used
    shelf.put("jets", "d")
    assert shelf.removed == [("jets", "c")]


def test_what_is_cheap_to_have_again_goes(tmp_path: Path) -> None:
    shelf = with_limits(tmp_path, "greedy-dual")
    shelf.put("jets", "a", cost=100.0)
    shelf.put("jets", "b", cost=10.0)
    shelf.put("jets", "c", cost=50.0)
    shelf.use("jets", "b")
    shelf.put("jets", "d", cost=60.0)
    assert shelf.removed == [("jets", "b")]
    shelf.put("jets", "e", cost=45.0)
    assert shelf.removed == [("jets", "b"), ("jets", "c")]
    shelf.put("jets", "f", cost=45.0)  # what was evicted has raised the clock: e comes after d, cheap as it is
    assert shelf.removed[-1] == ("jets", "d")


def test_what_is_expected_to_be_used_least_goes(tmp_path: Path) -> None:
    shelf = with_limits(tmp_path, "popularity")
    shelf.put("hot", "a")
    shelf.put("cold", "b")
    shelf.put("warm", "c")
    with shelf.ledger.transaction() as database:
        set_popularity(database, [("hot", 9.0), ("cold", 1.0), ("warm", 5.0)])
    shelf.put("hot", "d")
    shelf.put("hot", "e")
    assert shelf.removed == [("cold", "b"), ("warm", "c")]


def test_eviction_goes_down_to_the_low_water_mark(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Limits(quota_bytes=100, high_water=0.9, low_water=0.5))
    for number in range(9):
        shelf.put("jets", str(number))
    assert not shelf.removed
    shelf.put("jets", "9")
    assert [file for _, file in shelf.removed] == ["0", "1", "2", "3"]
    assert shelf.room.used_bytes() == 60


@pytest.mark.scenario(28)
def test_what_is_pinned_or_must_stay_is_passed_over(shelf: Shelf) -> None:
    shelf.put("jets", "a")
    shelf.put("tops", "a")
    shelf.put("precious", "a")
    other = Lease(shelf.root, "training on jets")
    shelf.pin(other.id, "jets", WHOLE)
    shelf.staying["precious"] = "its source is gone"
    shelf.put("new", "a")
    assert shelf.removed == [("tops", "a")]


@pytest.mark.scenario(12)
def test_whoever_finds_no_room_is_told_who_holds_it(shelf: Shelf) -> None:
    for file in "abc":
        shelf.put("jets", file)
    other = Lease(shelf.root, "training on jets")
    shelf.pin(other.id, "jets", WHOLE)
    with pytest.raises(CacheFullError) as caught:
        shelf.room.claim(shelf.lease.id, "d", 10)
    told = str(caught.value)
    for part in ("10 bytes are needed", "0 are free", "quota of 30", "training on jets", f"process {os.getpid()}"):
        assert part in told
    other.release()
    shelf.put("jets", "d")
    assert shelf.room.used_bytes() == 30


@pytest.mark.scenario(11)
def test_what_can_never_fit_is_refused_without_waiting(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, Limits(quota_bytes=30, wait_seconds=1e6))
    shelf.put("jets", "a")
    with pytest.raises(CacheFullError, match="31 bytes are needed"):
        shelf.room.claim(shelf.lease.id, "b", 31)
    assert not shelf.removed


def test_who_must_stay_is_named(shelf: Shelf) -> None:
    for file in "abc":
        shelf.put("precious", file)
    shelf.staying["precious"] = "its source /data/x.root is gone"
    shelf.kept_back, shelf.stubborn = 5, True
    with pytest.raises(CacheFullError, match=r"precious must stay: its source /data/x\.root is gone.*hold 5 bytes"):
        shelf.room.claim(shelf.lease.id, "d", 10)


def test_what_interrupted_builds_left_goes_last(shelf: Shelf) -> None:
    shelf.put("jets", "a")
    shelf.kept_back = 15
    shelf.put("jets", "b")
    assert shelf.removed == [("jets", "a")]
    assert shelf.kept_back == 15
    shelf.put("jets", "c", 20)
    assert shelf.kept_back == 0


def test_a_claimant_can_give_up_something_of_its_own(shelf: Shelf) -> None:
    for key in "abc":
        shelf.room.claim(shelf.lease.id, key, 10)
    kept = ["a", "b", "c"]

    def give_up() -> bool:
        if kept:
            shelf.room.settle(shelf.lease.id, kept.pop(0), ())
            return True
        return False

    shelf.room.claim(shelf.lease.id, "d", 15, give_up)
    assert kept == ["c"]
    assert shelf.room.used_bytes() == 25


def _hold(root: Path, ready: "multiprocessing.synchronize.Event") -> None:
    lease = Lease(root, "dying")
    with Ledger(root / "ledger.sqlite").transaction() as database:
        pin_files(database, lease.id, "jets", [WHOLE])
        database.execute("INSERT INTO claims VALUES (?, 'x', 5)", (lease.id,))
    ready.set()
    signal.pause()


@pytest.mark.scenario(32)
def test_pins_and_claims_end_with_their_process(shelf: Shelf) -> None:
    shelf.put("jets", "a", 25)
    context = multiprocessing.get_context("forkserver")
    ready = context.Event()
    process = context.Process(target=_hold, args=(shelf.root, ready))
    process.start()
    assert ready.wait(30)
    with pytest.raises(CacheFullError, match="dying"):
        shelf.room.claim(shelf.lease.id, "b", 10)
    process.kill()
    process.join()
    shelf.room.claim(shelf.lease.id, "b", 10)
    assert shelf.removed == [("jets", "a")]
    assert sweep_leases(shelf.root) == 0  # swept up already


def test_a_lease_tells_who_holds_it(tmp_path: Path) -> None:
    lease = Lease(tmp_path, "reading jets")
    assert is_alive(tmp_path, lease.id)
    holder = holder_of(tmp_path, lease.id)
    assert holder is not None
    assert holder.pid == os.getpid()
    assert str(holder).startswith("reading jets (")
    lease.release()
    assert not is_alive(tmp_path, lease.id)
    assert holder_of(tmp_path, lease.id) is None
    assert not list((tmp_path / "leases").iterdir())


@pytest.mark.scenario(31)
def test_a_forked_child_does_not_give_its_parents_lease_back(tmp_path: Path) -> None:
    lease = Lease(tmp_path, "reading")
    child = os.fork()
    if child == 0:
        lease.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert is_alive(tmp_path, lease.id)
    lease.release()


def test_a_damaged_ledger_is_put_aside(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    with ledger.transaction() as database:
        add_chunks(database, [Resident("jets", "a", 10, 1.0)])
    (tmp_path / "ledger.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(CacheError, match="damaged and is put aside"), ledger.transaction():
        pass
    with ledger.transaction() as database:
        assert database.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
    assert (tmp_path / "ledger.sqlite.corrupt").exists()


def test_a_failed_transaction_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")

    def fail() -> None:
        with ledger.transaction() as database:
            add_chunks(database, [Resident("jets", "a", 10, 1.0)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    with ledger.transaction() as database:
        assert database.execute("SELECT count(*) FROM chunks").fetchone() == (0,)
        drop_lease(database, "nobody")


@pytest.mark.parametrize(
    "wrong", [{"policy": "fifo"}, {"low_water": 0.0}, {"low_water": 0.9, "high_water": 0.5}, {"high_water": 1.5}]
)
def test_limits_are_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Limits(10, **wrong)  # type: ignore[arg-type]

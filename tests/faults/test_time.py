"""The clock jumps: who is alive is told by locks, never by age."""

import os
import signal
import time
from pathlib import Path

import pytest
from tests.faults.processes import Child
from tests.faults.test_turns import Accident, build

from storagering.cache.dataset import open_dataset
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.testing.toys import write_toy_tree

DAY = 86_400.0


@pytest.mark.scenario(32)
@pytest.mark.parametrize("jump", [-DAY, DAY])
def test_the_work_of_the_living_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """What is staged seems to be a day old, or from tomorrow, and now is another day."""
    write_toy_tree(tmp_path / "toy.root", entries=2000, basket_entries=100)
    source = str(tmp_path / "toy.root")
    builder = Child(build, source, Accident(tmp_path / "marker", signal.SIGSTOP, after=10))
    builder.wait_until_stopped()
    cache = open_cache(load_settings())
    dead = cache.root / "staging" / "dead.0123456789abcdef"
    dead.mkdir()
    dead.with_name(f"{dead.name}.lock").touch()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    for path in (cache.root / "staging").rglob("*"):
        os.utime(path, (now() + jump, now() + jump))
    cache.reclaim()
    assert not dead.exists()
    [staging] = [path for path in (cache.root / "staging").iterdir() if path.is_dir()]
    assert list(staging.glob("task-*.json"))
    builder.go_on()
    assert builder.result() == open_dataset("toy").manifest.digest
    assert len(open_dataset("toy").arrays()) == 2000

"""Machines that share a cache over a file system whose locks mean nothing from one to the other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from storagering.cache.dataset import open_dataset
from storagering.cache.layout import open_cache
from storagering.config import load_settings
from storagering.testing.toys import write_toy_tree

#: A builder for whom every lock is free, and who waits for a word before it begins to work and before it publishes.
BUILDER = """
import fcntl, json, sys
import storagering as sr
from storagering.cache import build, layout
from storagering.cache.progress import BuildProgress
from storagering.config import load_settings

source, machine = sys.argv[1:]
fcntl.flock = lambda descriptor, mode: None
layout.platform.node = lambda: machine
publish, won = build.publish_directory, []

def wait(where):
    print(json.dumps(where), flush=True)
    sys.stdin.readline()

def publish_when_told(staging, target):
    wait("publishing")
    won.append(publish(staging, target))
    return won[0]

class Waiting(BuildProgress):
    def start(self, total_entries):
        wait("working")

build.publish_directory = publish_when_told
settings = load_settings(shared=True, workers=1)
found = sr.convert(source, name="x", chunk_bytes=20_000, settings=settings, progress=Waiting())
print(json.dumps([won, found.manifest.digest, len(found.arrays())]), flush=True)
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    write_toy_tree(tmp_path / "toy.root", entries=1000, basket_entries=100)
    return str(tmp_path / "toy.root")


@pytest.mark.scenario(14, 26)
def test_two_machines_that_build_the_same(source: str, cache: Path) -> None:
    """Both work at the same time, in the same cache; one wins, and the other takes what that one has made."""
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", BUILDER, source, machine], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for machine in ("aaaaaaaa", "bbbbbbbb")
    ]

    def hear(builder: "subprocess.Popen[str]") -> object:
        assert builder.stdout is not None
        return json.loads(builder.stdout.readline())

    def tell(builder: "subprocess.Popen[str]") -> None:
        assert builder.stdin is not None
        builder.stdin.write("\n")
        builder.stdin.flush()

    for moment in ("working", "publishing"):
        for builder in builders:
            assert hear(builder) == moment
        assert open_cache(load_settings(shared=True)).names() == []
        for builder in builders:
            tell(builder)
    found = [hear(builder) for builder in builders]
    assert [builder.communicate() and builder.returncode for builder in builders] == [0, 0]
    digest = open_dataset("x").manifest.digest
    assert sorted(found, key=str) == [[[False], digest, 1000], [[True], digest, 1000]]
    assert sorted(path.name for path in (cache / "datasets").iterdir()) == ["x"]
    assert not list((cache / "staging").iterdir())

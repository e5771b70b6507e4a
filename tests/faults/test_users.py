"""Two real users, any umask: a private cache stays private, one of a group works, and a refusal says what to run."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from storagering.testing.toys import write_toy_tree

OWNER, MEMBER, STRANGER, GROUP = 54321, 54322, 54323, 54300
UMASKS = (0o077, 0o022, 0o002)
#: Takes lines of [user, groups, [umask, settings, action, arguments...], ...] and answers with what each came to. Every
#: line is a process of that user; since he may not be able to read the modules of Python, all are imported before.
STAGE = """
import contextlib, importlib, json, os, sys, tempfile, traceback
import storagering as sr
from storagering.cache.layout import open_cache
from storagering.config import load_settings

actions = {
    "convert": lambda s, source, name: len(sr.convert(source, name=name, settings=s).arrays()),
    "append": lambda s, name, source: sr.append(name, source, settings=s).num_entries,
    "read": lambda s, name: len(sr.open_dataset(name, cache=open_cache(s)).arrays()),
    "sql": lambda s, query: sr.sql(query, settings=s).to_pylist(),
    "verify": lambda s, name: len(sr.verify(name, settings=s)),
    "remove": lambda s, name: open_cache(s).remove(name),
}

def in_child(work):
    read, write = os.pipe()
    if os.fork() == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = answer.read()
    os.wait()
    return json.loads(found)

def act(user, groups, *jobs):
    os.setgroups(groups)
    os.setgid(user)
    os.setuid(user)
    answers = []
    for umask, settings, action, *arguments in jobs:
        os.umask(umask)
        try:
            answers.append(actions[action](load_settings(workers=1, **settings), *arguments))
        except sr.StorageringError as error:
            answers.append(f"{type(error).__name__}: {error}")
    return answers

def rehearse():
    with tempfile.TemporaryDirectory() as folder:
        settings, query = {"cache": folder, "shared": True}, "SELECT count(*) AS n FROM x"
        first = [[0o77, settings, "convert", sys.argv[1], "x"], [0o77, settings, "append", "x", sys.argv[2]]]
        rest = [["sql", query], ["verify", "x"], ["read", "y"]]
        act(0, [], *first, *([0o77, settings, *words] for words in rest))
    return list(sys.modules)

for name in in_child(rehearse):
    with contextlib.suppress(Exception):
        importlib.import_module(name)
os.chdir("/")
for line in sys.stdin:
    print(json.dumps(in_child(lambda: act(*json.loads(line)))), flush=True)
"""


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A folder that every user can reach, with two sources."""
    if os.getuid():
        pytest.skip("only root can act as other users")
    folder = Path(tempfile.mkdtemp(prefix="storagering-users-"))
    folder.chmod(0o1777)
    for number in (1, 2):
        write_toy_tree(folder / f"toy{number}.root", entries=100)
        (folder / f"toy{number}.root").chmod(0o644)
    yield folder
    shutil.rmtree(folder)


Act = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def act(base: Path) -> Iterator[Act]:
    """Does things as another user, and answers with what they came to."""
    stage = [sys.executable, "-c", STAGE, str(base / "toy1.root"), str(base / "toy2.root")]
    with subprocess.Popen(stage, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(user: int, *jobs: Any, groups: tuple[int, ...] = (GROUP,)) -> list[Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([user, groups, *jobs]) + "\n")
            process.stdin.flush()
            answers: list[Any] = json.loads(process.stdout.readline())
            return answers

        yield ask
        process.communicate()


@pytest.fixture
def root(base: Path) -> Iterator[Path]:
    """Where a cache of the owner's is to be, or is already, if it is made by hand."""
    folder = base / "cache"
    yield folder
    shutil.rmtree(folder)


def modes(root: Path) -> tuple[set[int], set[int]]:
    """Those of all folders, and of all files."""
    folders = {stat.S_IMODE(path.stat().st_mode) for path in (root, *root.rglob("*")) if path.is_dir()}
    return folders, {stat.S_IMODE(path.stat().st_mode) for path in root.rglob("*") if path.is_file()}


@pytest.mark.scenario(33)
def test_a_private_cache_under_any_umask(act: Act, base: Path) -> None:
    first, second = str(base / "toy1.root"), str(base / "toy2.root")
    caches = {umask: {"cache": str(base / f"private-{umask:o}")} for umask in (*UMASKS, 0)}
    jobs: list[Any] = [(umask, settings, "convert", first, "x") for umask, settings in caches.items()]
    jobs += [(0, caches[0], "append", "x", second), (0, caches[0], "sql", "SELECT count(*) AS n FROM x")]
    assert act(OWNER, *jobs) == [100] * 4 + [200, [{"n": 200}]]
    for umask in (*UMASKS, 0):
        assert modes(base / f"private-{umask:o}") == ({0o700}, {0o600})
    private = {"cache": str(base / "private-0")}
    alone, shared = act(STRANGER, (0o22, private, "read", "x"), (0o22, private | {"shared": True}, "read", "x"))
    assert re.match(rf"CacheError: .*private-0 belongs to user {OWNER}; set STORAGERING_CACHE to", alone)
    assert re.match(rf"CacheError: .*private-0 belongs to user {OWNER}, who does not share it with you", shared)


@pytest.mark.scenario(33)
def test_a_cache_that_a_group_writes(act: Act, base: Path, root: Path) -> None:
    caches = {umask: {"cache": str(root / f"{umask:o}"), "shared": True} for umask in UMASKS}
    root.mkdir()
    for settings in caches.values():
        folder = Path(str(settings["cache"]))
        folder.mkdir()
        os.chown(folder, OWNER, GROUP)
        folder.chmod(0o2770)

    def each(*words: str) -> Iterator[Any]:
        return ((umask, settings, *words) for umask, settings in caches.items())

    first, second = str(base / "toy1.root"), str(base / "toy2.root")
    both = "SELECT (SELECT count(*) FROM x) AS x, (SELECT count(*) FROM y) AS y"
    sql = [(0o22, caches[0o22], "sql", both)]
    assert act(OWNER, *each("convert", first, "x")) == [100] * 3
    theirs = act(MEMBER, *each("append", "x", second), *each("convert", first, "y"), *sql)
    assert theirs == [200] * 3 + [100] * 3 + [[{"x": 200, "y": 100}]]
    assert act(OWNER, *each("append", "y", second), *sql) == [200] * 3 + [[{"x": 200, "y": 200}]]
    for umask in UMASKS:
        assert modes(root / f"{umask:o}") == ({0o2770}, {0o660})
        assert {path.stat().st_gid for path in (root / f"{umask:o}").rglob("*")} == {GROUP}
    assert all(answer.startswith("CacheError:") for answer in act(STRANGER, *each("read", "x"), groups=()))
    assert act(MEMBER, *each("remove", "x")) == [None] * 3
    assert {path.name for path in root.glob("*/datasets/*")} == {"y"}


@pytest.mark.scenario(33)
def test_a_cache_that_a_group_reads(act: Act, base: Path, root: Path) -> None:
    root.mkdir()
    os.chown(root, OWNER, GROUP)
    root.chmod(0o2750)
    settings = {"cache": str(root), "shared": True}
    jobs = [(umask, settings, "convert", str(base / "toy1.root"), f"x{umask:o}") for umask in UMASKS]
    assert act(OWNER, *jobs) == [100] * len(UMASKS)
    assert modes(root) == ({0o2750}, {0o640})
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    *read, same, other, appended, removed = act(
        MEMBER,
        (0o22, settings, "read", "x77"),
        (0o22, settings, "verify", "x2"),
        (0o22, settings, "sql", "SELECT count(*) AS n FROM x22"),
        (0o22, settings, "convert", str(base / "toy1.root"), "x77"),
        (0o22, settings, "convert", str(base / "toy1.root"), "y"),
        (0o22, settings, "append", "x77", str(base / "toy2.root")),
        (0o22, settings, "remove", "x77"),
    )
    assert (read, same) == ([100, 0, [{"n": 100}]], 100)
    for refusal in (other, appended, removed):
        assert re.match(r"ReadOnlyCacheError: cannot write .*set STORAGERING_CACHE to a folder that is yours", refusal)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.scenario(33)
def test_a_dataset_that_is_not_shared_does_not_hide_the_others(act: Act, base: Path, root: Path) -> None:
    root.mkdir()
    os.chown(root, OWNER, GROUP)
    root.chmod(0o2770)
    settings = {"cache": str(root), "shared": True}
    act(OWNER, *((0o22, settings, "convert", str(base / "toy1.root"), name) for name in ("x", "y")))
    (root / "datasets" / "x").chmod(0o700)
    names, x, y = act(
        MEMBER,
        (0o22, settings, "sql", "SELECT name FROM datasets ORDER BY name"),
        (0o22, settings, "read", "x"),
        (0o22, settings, "read", "y"),
    )
    assert [row["name"] for row in names] == ["y"]
    assert re.match(rf"CacheError: .*datasets/x belongs to user {OWNER}, who does not share it with you", x)
    assert y == 100


@pytest.mark.scenario(33)
def test_the_command_that_a_refusal_tells_makes_it_work(act: Act, base: Path, root: Path) -> None:
    """A cache that was private for years is to be shared."""
    owned, shared = {"cache": str(root)}, {"cache": str(root), "shared": True}
    assert act(OWNER, (0o77, owned, "convert", str(base / "toy1.root"), "x")) == [100]
    [refusal] = act(MEMBER, (0o22, shared, "read", "x"))
    command = re.search(r"by '(chgrp .*)'$", refusal)
    assert command, refusal
    told = command[1].replace("GROUP", str(GROUP))
    done = subprocess.run(told, shell=True, check=False, user=OWNER, group=OWNER, extra_groups=[GROUP])
    assert done.returncode == 0
    assert act(MEMBER, (0o22, shared, "read", "x")) == [100]
    assert act(OWNER, (0o77, owned, "convert", str(base / "toy2.root"), "y")) == [100]
    read = act(MEMBER, (0o22, shared, "read", "y"), (0o22, shared, "sql", "SELECT count(*) AS n FROM y"))
    assert read == [100, [{"n": 100}]]

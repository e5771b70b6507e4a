"""The rules of SECURITY.md: each names tests that are there; and those that the code as a whole must keep."""

import ast
import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storagering.api import convert
from storagering.testing.toys import toy_columns, write_toy_tree

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "storagering"
FILES = sorted(SOURCE.rglob("*.py"))
RULES = re.findall(r"^\| (S\d+) \|(.*)\|(.*)\|(.*)\|$", (ROOT / "SECURITY.md").read_text(), re.M)


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_every_rule_is_there() -> None:
    assert [number for number, *_ in RULES] == [f"S{number}" for number in range(1, 16)]


@pytest.mark.parametrize(("number", "shown"), [(number, shown) for number, _, _, shown in RULES])
def test_the_tests_of_every_rule_exist(number: str, shown: str) -> None:
    named = re.findall(r"`tests/([\w/]+\.py)(?:::(\w+))?`", shown)
    assert named, f"{number} names no test"
    for file, name in named:
        assert (ROOT / "tests" / file).is_file(), f"{number}: there is no tests/{file}"
        tree = ast.parse((ROOT / "tests" / file).read_text())
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not name or name in tests, f"{number}: there is no tests/{file}::{name}"


def test_every_place_that_a_rule_names_exists() -> None:
    for number, _, held, _ in RULES:
        for name in re.findall(r"`([\w/]+\.(?:py|txt|toml))`", held):
            assert (SOURCE / name).is_file() or (ROOT / name).is_file(), f"{number}: there is no {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_is_loaded_that_could_run(path: Path) -> None:
    """The imports of pickle and the like are refused in test_architecture."""
    for name, call in calls(path):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        top, _, last = name.rpartition(".")
        assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), f"{path}: {name}"
        assert top != "yaml" or last.startswith("safe_"), f"{path}: {name}"
        assert (top, last) != ("torch", "load"), f"{path}: {name}; checkpoints are safetensors and JSON"
        assert not top.endswith("joblib"), f"{path}: {name}"
        if last in ("load", "read_array") and top in ("np", "numpy", "np.lib.format", "numpy.lib.format"):
            assert keywords.get("allow_pickle") == "False", f"{path}: {name} without allow_pickle=False"
        assert keywords.get("shell", "False") == "False", f"{path}: {name} with a shell"


#: Python itself tells of these, whichever library does them.
WATCH = """
import importlib, os, sys
seen = []
watched = {"pickle.find_class", "os.system", "os.exec", "socket.connect", "socket.getaddrinfo", "socket.sendto"}
def from_compiler():  # numba keeps machine code as Python keeps bytecode: beside the module that it was made of
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") != "numba.core.caching":
        frame = frame.f_back
    return frame is not None
def watch(event, arguments):
    if event in watched and not (event == "pickle.find_class" and from_compiler()):
        seen.append((event, *map(str, arguments)))
sys.addaudithook(watch)
modules, *urls = sys.argv[1:]
for name in modules.split():
    importlib.import_module(name)
import storagering as sr
from storagering.loaders.torch import DataLoader
for url in urls:
    dataset = sr.convert(url, name=os.path.basename(url).replace(".", "_"), workers=1)
    dataset.arrays()
    sr.verify(dataset.name)
    sr.sql(f"SELECT count(*) FROM {dataset.name}")
    with DataLoader(dataset.name, batch_size=10, columns=["MET_pt"]) as loader:
        assert len(list(loader)) == 10
print(seen)
"""


def test_importing_and_reading_unpickle_nothing_and_ask_no_server(tmp_path: Path) -> None:
    write_toy_tree(tmp_path / "toy.root", entries=100)
    column = toy_columns(100)["MET_pt"]
    pq.write_table(pa.table({"MET_pt": column}), tmp_path / "toy.parquet")
    np.savez(tmp_path / "toy.npz", MET_pt=column)
    with h5py.File(tmp_path / "toy.h5", "w") as file:
        file["MET_pt"] = column
    modules = [".".join(("storagering", *path.relative_to(SOURCE).with_suffix("").parts)) for path in FILES]
    modules = [name for name in modules if not name.endswith(("__main__", "_pythia"))]
    modules = [name for name in modules if ".loading.peers." not in name]  # of other loaders' packages
    paths = [str(tmp_path / f"toy.{kind}") for kind in ("root", "parquet", "npz", "h5")]
    command = [sys.executable, "-c", WATCH, " ".join(modules), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


#: Names on the right of a path's ``/`` that come from no data: what they are made of.
MADE = {
    "chunks.py": {"file": "the task's key and a number"},
    "deals.py": {"file": "the task's key and a number", "deal.file": "as it was made"},
    "fetch.py": {"f'{secrets.token_hex(4)}-{chunk.file}'": "checked with the manifest"},
    "journals.py": {"f'.{secrets.token_hex(8)}{self._cache.machine}.new'": "random digits"},
    "leases.py": {"f'{self.id}.lock'": "random digits", "f'{self.id}.json'": "random digits"},
    "layout.py": {"name": "one of two constants"},
    "manifest.py": {"file": "a constant, or earlier_manifest_name"},
    "publish.py": {"file": "a number", "before": "checked with the manifest"},
    "root.py": {"name": "one of FOLDERS"},
    "unfinished.py": {"f'task-{key}.json'": "a hash"},
    "verify.py": {"file": "checked with the manifest"},
}
_PATHS = re.compile(r"(^|\.|_|\()(root|staging|folder|directory|aside|path|p)\)?$|\.path\(\w+\)$|^Path\(.*staging\)$")
_SAFE = re.compile(r"'[^']*'|_?[A-Z][A-Z_]*|chunk\.file|earlier_manifest_name\(.*\)")


@pytest.mark.parametrize("room", ["cache", "catalog"])
def test_names_from_data_are_joined_safely(room: str) -> None:
    """Right of a ``/`` stands a constant, a chunk's file (checked with its manifest), or what is listed in MADE."""
    joins = 0
    for path in sorted((SOURCE / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and _PATHS.search(ast.unparse(node.left)):
                name = ast.unparse(node.right)
                joins += 1
                made = MADE.get(path.name, {})
                assert _SAFE.fullmatch(name) or name in made, f"{path.name}:{node.lineno}: use safe_join for {name}"
    assert joins > 1


def test_removing_follows_no_link() -> None:
    assert shutil.rmtree.avoids_symlink_attacks
    for path in FILES:
        for name, _ in calls(path):
            assert name not in ("os.removedirs", "os.rmdir"), f"{path}: {name}"


IN_WATCHED = 0x002 | 0x004 | 0x008 | 0x040 | 0x080 | 0x100 | 0x200 | 0x400  # modify, attrib, close_write, move, ...


@pytest.fixture
def watched() -> Iterator[Callable[..., Callable[[], list[str]]]]:
    """The kernel tells who has opened files of a folder for writing, changed, made or removed them."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = library.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        pytest.skip("no inotify here")

    def watch(*folders: Path) -> Callable[[], list[str]]:
        for folder in folders:
            assert library.inotify_add_watch(descriptor, os.fsencode(folder), IN_WATCHED) >= 0

        def seen() -> list[str]:
            try:
                data = os.read(descriptor, 1 << 16)
            except BlockingIOError:
                return []
            found, at = [], 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from("iIII", data, at)
                found.append(f"{data[at + 16 : at + 16 + length].rstrip(bytes(1)).decode()} {mask:#x}")
                at += 16 + length
            return found

        return seen

    yield watch
    os.close(descriptor)


def test_sources_are_never_opened_for_writing(tmp_path: Path, watched: Callable[..., Callable[[], list[str]]]) -> None:
    """By no process, and by no library."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_toy_tree(folder / "toy.root", entries=2000, basket_entries=200)
    columns = toy_columns(2000)["MET_pt"]
    pq.write_table(pa.table({"MET_pt": columns}), folder / "toy.parquet")
    np.save(folder / "toy.npy", columns)
    with h5py.File(folder / "toy.h5", "w") as file:
        file["MET_pt"] = columns
    convert(str(folder / "toy.root"), name="first", workers=1).arrays()
    from storagering.exporting import export

    export("first", folder / "toy.zarr", to="zarr")
    sources = [folder / f"toy.{kind}" for kind in ("root", "parquet", "npy", "h5", "zarr")]
    seen = watched(folder, *(path for path in folder.rglob("*") if path.is_dir()))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    for path in sources:
        name = f"x_{path.suffix[1:]}"
        assert len(convert(str(path), name=name, workers=1 + (name == "x_root"), chunk_bytes=8192).arrays()) == 2000
    assert seen() == []
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    with (folder / "toy.npy").open("r+b"):
        pass
    assert seen() == ["toy.npy 0x8"]


def test_dependencies_are_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()[1:]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for extra in ("xrootd", "s3", "hepmc", "dask", "weaver", "peers", "torch", "generate"):
        wanted += project["optional-dependencies"][extra]
    names = {re.split(r"[\[<>=]", requirement)[0].lower().replace("_", "-") for requirement in wanted}
    assert names - {"storagering"} <= pinned
    for recipe in ("Makefile", "noxfile.py"):
        text = (ROOT / recipe).read_text()
        assert "constraints.txt" in text

"""The rules of the house, held by the code itself: one direction of imports, small files, a light import."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "storagering"
GROUND = {"types", "distributions", "compiling", "errors", "config", "urls", "modes", "disk", "files"}
MAY_IMPORT = {
    "formats": GROUND,
    "cache": GROUND | {"formats"},
    "catalog": GROUND | {"formats", "cache"},
    "loaders": GROUND | {"formats", "cache"},
    "simulation": GROUND | {"formats", "cache", "catalog", "loaders"},
    "models": GROUND,
    "training": GROUND | {"formats", "cache", "loaders", "models"},
    "api": GROUND | {"formats", "cache", "catalog"},
    "exporting": GROUND | {"formats", "cache"},
    "housekeeping": GROUND | {"cache"},
    "testing": GROUND
    | {"formats", "cache", "catalog", "loaders", "models", "training", "api", "exporting", "housekeeping"},
    "demo": GROUND | {"formats", "cache", "catalog", "loaders", "models", "training", "api", "testing"},
}
FRAMEWORK_PLACES = {
    "torch": (
        "loaders/torch.py",
        "loaders/torch_dataset.py",
        "loaders/device.py",
        "models/",
        "training/",
        "testing/loading/",
        "demo/",
    ),
    "tensorflow": ("loaders/tensorflow.py",),
    "jax": ("loaders/jax.py",),
}
FORBIDDEN = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}

FILES = sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield f"{node.module}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "storagering")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_point_one_way(path: Path) -> None:
    place = path.relative_to(SOURCE)
    room = place.parts[0].removesuffix(".py")
    found = set(imports(path))
    rooms = {name.split(".")[1] for name in found if name.startswith("storagering.")} - {room, "__version__"}
    if room in GROUND:
        assert rooms <= {"errors", "types", "distributions", "modes", "disk"}
    elif room in MAY_IMPORT:
        assert rooms <= MAY_IMPORT[room], f"{place} must not import {rooms - MAY_IMPORT[room]}"
    tops = {name.split(".")[0] for name in found}
    assert not tops & FORBIDDEN, f"{place}: {tops & FORBIDDEN}"
    for framework in tops & set(FRAMEWORK_PLACES):
        assert str(place).startswith(FRAMEWORK_PLACES[framework]), f"{place} must not import {framework}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            documented = ast.get_docstring(node) or ""
            assert length - documented.count("\n") <= 60, f"{path.name}: {node.name} has {length} lines"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"{path.name}: {node.func.id}"


def test_import_is_light() -> None:
    code = (
        "import sys, time; t = time.perf_counter(); import storagering; s = time.perf_counter() - t;"
        "print(s); print(*{'torch', 'duckdb', 'tensorflow', 'jax', 'uproot', 'numpy'} & set(sys.modules))"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    seconds = min(float(r.stdout.splitlines()[0]) for r in runs)
    assert [r.stdout.splitlines()[1] for r in runs] == [""] * 3
    assert seconds < 0.15


def test_loaders_never_open_the_catalog() -> None:
    code = "import sys, storagering.loaders.torch; sys.exit('duckdb' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names() -> None:
    import storagering

    assert storagering.__all__ == [
        "Catalog",
        "Dataset",
        "StorageringError",
        "append",
        "convert",
        "copy",
        "du",
        "evict",
        "export",
        "fill",
        "gc",
        "inspect",
        "open_dataset",
        "pin",
        "pull",
        "remove",
        "sql",
        "unpin",
        "verify",
    ]
    assert all(getattr(storagering, name) is not None for name in storagering.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = storagering.nope

"""Where the peers are installed: this environment, and others, because not all of them go together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import storagering

_ASK = """
import importlib.metadata, importlib.util, json, sys
names = importlib.metadata.packages_distributions()
found = {}
for module in json.loads(sys.argv[1]):
    if importlib.util.find_spec(module) is not None:
        found[module] = importlib.metadata.version(names[module][0]) if module in names else ""
print(json.dumps(found))
"""
_ALWAYS = ("torch", "numpy")
_OWN = "this"


@dataclass(frozen=True)
class Environment:
    """A Python, and which of the modules asked for it can import: module -> version."""

    name: str
    python: str
    versions: dict[str, str]

    @property
    def own(self) -> bool:
        """Whether it is the one that this runs in."""
        return self.name == _OWN

    def has(self, modules: Iterable[str]) -> bool:
        """Whether all can be imported."""
        return {module.partition(".")[0] for module in (*modules, *_ALWAYS)} <= set(self.versions)


def find_environments(folder: Path | None, modules: Iterable[str]) -> list[Environment]:
    """This environment, and those whose folders are in ``folder``.

    Args:
        modules: all that the peers import.
    """
    wanted = sorted({module.partition(".")[0] for module in (*modules, *_ALWAYS)})
    pythons = [(_OWN, sys.executable)]
    if folder is not None:
        pythons += [(path.parents[1].name, str(path)) for path in sorted(folder.absolute().glob("*/bin/python"))]
    return [Environment(name, python, _versions(python, wanted)) for name, python in pythons]


def _versions(python: str, modules: Sequence[str]) -> dict[str, str]:
    answer = subprocess.run(  # noqa: S603 - environments that the user named
        [python, "-c", _ASK, json.dumps(modules)], capture_output=True, text=True, check=True, cwd=tempfile.gettempdir()
    )
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def variables(environment: Environment, folder: Path) -> dict[str, str]:
    """Its environment variables: elsewhere, this package alone is put on the path, by a link in ``folder``."""
    if environment.own:
        return dict(os.environ)
    link = folder / "path" / "storagering"
    if not link.is_symlink():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(Path(storagering.__file__).parent)
    return {**os.environ, "PYTHONPATH": str(link.parent)}

"""The demo's own data: simulated jets in ROOT files, served by a real XRootD server where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from storagering.config import usable_cpus
from storagering.files import make_directory
from storagering.testing.jets import generate_jets
from storagering.testing.xrootd import available, xrootd_server

CLASSES = ("top", "qcd")
_FILES_PER_CLASS = 2


def make_jet_files(
    folder: Path, num_jets: int, *, say: Callable[[str], None], progress: Callable[[int], None]
) -> dict[str, list[Path]]:
    """{class: ROOT files} with ``num_jets`` jets in all; files that are there already are used.

    Raises:
        MissingExtraError: Pythia 8 or FastJet is not installed.
    """
    make_directory(folder)
    files: dict[str, list[Path]] = {name: [] for name in CLASSES}
    wanted = _share(num_jets)
    done = 0
    for seed, (name, jets) in enumerate(wanted, 1):
        path = folder / f"{name}-{jets}-jets-seed-{seed}.root"
        if path.exists():
            say(f"{path} is there already")
        else:
            before = done
            generate_jets(
                path,
                classes=[name],
                num_jets=jets,
                seed=seed,
                processes=usable_cpus(),
                progress=lambda jets, before=before: progress(before + jets),  # type: ignore[misc]
            )
        files[name].append(path)
        done += jets
        progress(done)
    return files


def _share(num_jets: int) -> list[tuple[str, int]]:
    """(class, jets) of every file."""
    count = len(CLASSES) * _FILES_PER_CLASS
    return [(CLASSES[n % len(CLASSES)], num_jets // count + (n < num_jets % count)) for n in range(count)]


@contextmanager
def served(files: Mapping[str, list[Path]], say: Callable[[str], None]) -> Iterator[dict[str, list[str]]]:
    """{class: URLs} under which the files can be read: root://, or paths where there is no server."""
    missing = None
    if not available():
        missing = "no XRootD server is installed here (apt-get install xrootd-server)"
    elif find_spec("XRootD") is None or find_spec("fsspec_xrootd") is None:
        missing = "the XRootD client is not installed (pip install 'storagering[xrootd]')"
    if missing:
        say(f"{missing}: reading the files from disk instead")
        yield {name: [str(path) for path in paths] for name, paths in files.items()}
        return
    with xrootd_server() as server:
        say(f"an XRootD server serves the files at {server.url('')}")
        yield {name: [server.add(path) for path in paths] for name, paths in files.items()}

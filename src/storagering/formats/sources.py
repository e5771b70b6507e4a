"""What the user names as input, as a plain list of (URL, class name)."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import fsspec

from storagering.config import Settings
from storagering.errors import NotFoundError, SpecError
from storagering.formats.remote.errors import source_errors
from storagering.formats.remote.options import scheme_of, storage_options
from storagering.formats.remote.xrootd import SCHEMES as XROOTD_SCHEMES
from storagering.formats.remote.xrootd import list_matches
from storagering.urls import redact_url

#: One of these lies in the top folder of every Zarr store, of version 3 or 2.
_ZARR_FILES = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")

Sources = str | Path | Sequence[str | Path]
LabelledSources = Sources | Mapping[str, Sources]


def resolve_sources(sources: LabelledSources, settings: Settings) -> list[tuple[str, str | None]]:
    """Every input file in order, with the class it belongs to (None without classes).

    Takes paths, URLs, glob patterns and ``@list.txt`` files (one source a line, ``#`` comments), alone,
    in a list, or as {class: sources}. Local paths come back absolute.

    Raises:
        NotFoundError: a path or pattern matches nothing.
        SpecError: nothing is named, or a file is named twice.
    """
    if isinstance(sources, Mapping):
        found: list[tuple[str, str | None]] = [
            (url, str(label)) for label, some in sources.items() for url in _expand_all(some, settings)
        ]
    else:
        found = [(url, None) for url in _expand_all(sources, settings)]
    if not found:
        raise SpecError("no source is named; options such as --columns take all names that follow: put sources first")
    seen: set[str] = set()
    for url, _ in found:
        if identify(url) in seen:
            raise SpecError(f"{redact_url(url)} is named twice: its entries would count double")
        seen.add(identify(url))
    return found


def identify(url: str) -> str:
    """What all paths of one file share: a path without links; a URL as it is."""
    return os.path.realpath(url.removeprefix("file://")) if scheme_of(url) in ("", "file") else url


def _expand_all(sources: Sources, settings: Settings) -> list[str]:
    items = [sources] if isinstance(sources, str | Path) else list(sources)
    return [url for item in items for url in _expand(str(item), settings)]


def _expand(item: str, settings: Settings) -> list[str]:
    if item.startswith("@"):
        return [url for line in _read_list(Path(item[1:])) for url in _expand(line, settings)]
    scheme = scheme_of(item)
    if scheme in ("", "file"):
        return _expand_local(item.removeprefix("file://"))
    if not any(c in item for c in "*[") or scheme in ("http", "https", "dav", "davs"):
        return [item]
    if scheme in XROOTD_SCHEMES:
        return _some(list_matches(item, settings), item)
    with source_errors(item):
        filesystem, pattern = fsspec.core.url_to_fs(item, **storage_options(item, settings))
        matches = sorted(filesystem.unstrip_protocol(m) for m in filesystem.glob(pattern))
    return _some(matches, item)


def _read_list(path: Path) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundError(f"cannot read the source list {path}: {error}") from error
    found = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if any(line.startswith("@") for line in found):
        raise SpecError(f"the source list {path} names another list; name files and URLs only")
    return found


def _expand_local(item: str) -> list[str]:
    path = Path(item).expanduser()
    if len(item) > 4095 or any(len(os.fsencode(name)) > 255 for name in path.parts):
        raise NotFoundError(f"{item[:80]}...: no such file; the name is too long")
    if path.is_dir() and not is_zarr_folder(path):
        raise NotFoundError(f"{item} is a folder; name its files, e.g. '{item.rstrip('/')}/*.root'")
    if path.exists() or not any(c in item for c in "*?["):
        return _some([str(path.absolute())] if path.exists() else [], item)
    return _some(sorted(str(Path(m).absolute()) for m in glob.iglob(str(path), recursive=True)), item)  # noqa: PTH207  (absolute patterns)


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder is one Zarr group or array, and so a source of its own."""
    return any((path / name).is_file() for name in _ZARR_FILES)


def _some(matches: list[str], item: str) -> list[str]:
    if not matches:
        raise NotFoundError(f"{redact_url(item)}: no such file")
    return matches

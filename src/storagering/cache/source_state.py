"""Whether the sources of a dataset are what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from storagering.config import Settings
from storagering.errors import NotFoundError, SourceChangedError
from storagering.formats.blob import is_local, local_path
from storagering.formats.readers.friends import with_friends
from storagering.formats.readers.zarr_keys import FolderKeys
from storagering.formats.source import Location
from storagering.formats.sources import identify
from storagering.types import Manifest


def check_unchanged(manifest: Manifest, locations: Sequence[Location], settings: Settings) -> None:
    """Raise SourceChangedError if one of the dataset's local sources is not what it was made from.

    What is on a server, or not there any more, is not compared.
    """
    versions = {identify(file.url): file.version for file in manifest.sources}
    for location in locations:
        version = versions.get(identify(location.shown), "")
        urls = _urls_of(location)
        if not version or not all(map(is_local, urls)):
            continue
        try:
            found = _state_of(urls, settings)
        except (OSError, NotFoundError):  # not there, or not to be looked at
            continue
        if found != version:
            raise SourceChangedError(
                f"{location.shown} has changed since dataset {manifest.name!r} was made from it; "
                f"'storagering remove {manifest.name}' and convert again"
            )


def unsafe_source(manifest: Manifest, settings: Settings) -> str:
    """The first source that the dataset may not come from again, with the reason; '' if all are sound.

    Servers are not asked, but a file of theirs that never told its version is not relied on.
    """
    places = [Location(source.url) for source in manifest.sources]
    locations, _ = with_friends(places, manifest.spec.friends, settings)
    for location, source in zip(locations, manifest.sources, strict=True):
        urls = _urls_of(location)
        if not source.version and not source.checksum:
            return f"{source.url} does not tell its version"
        if not all(map(is_local, urls)):
            continue
        try:
            if _state_of(urls, settings) != source.version:
                return f"{source.url} has changed"
        except (FileNotFoundError, NotFoundError):
            return f"{source.url} is gone"
        except OSError as error:
            return f"{source.url} cannot be looked at: {error.strerror or error}"
    return ""


def _urls_of(location: Location) -> list[str]:
    return [location.url, *(url for url, _ in location.friends if url)]


def _state_of(urls: Sequence[str], settings: Settings) -> str:
    """What their readers call the state of local sources."""
    return "+".join(_version_of(local_path(url), settings) for url in urls)


def _version_of(path: Path, settings: Settings) -> str:
    return FolderKeys(Location(str(path)), settings).version if path.is_dir() else str(path.stat().st_mtime)

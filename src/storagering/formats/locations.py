"""Where else the bytes of the sources are, and what their checksums should be, as the user tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from storagering.errors import NotFoundError, SpecError
from storagering.formats.blob import is_local, local_path
from storagering.formats.checksums import parse_checksum
from storagering.formats.remote.xrootd import SCHEMES as XROOTD_SCHEMES
from storagering.formats.source import Location
from storagering.urls import redact_url


def with_replicas(locations: Sequence[Location], rules: Sequence[str]) -> list[Location]:
    """The locations with their replicas, in the order of the rules.

    Args:
        rules: a server (``root://other.site/``) where all sources are under the same paths, ``OLD=NEW`` for sources
            that begin with OLD, or a whole URL if there is one source. Secrets of a source's own URL are not
            taken along.

    Raises:
        SpecError: a rule that fits no source, or a whole URL for several.
    """
    found = list(locations)
    for rule in rules:
        urls = [_replica(location.url, rule, [one.url for one in locations]) for location in locations]
        if not any(urls):
            raise SpecError(f"replica {redact_url(rule)!r}: no source begins like that")
        found = [replace(f, replicas=(*f.replicas, url)) if url else f for f, url in zip(found, urls, strict=True)]
    return found


def _replica(url: str, rule: str, urls: Sequence[str]) -> str:
    """Where the rule says a copy of ``url`` is, '' if it says nothing of it."""
    old, equals, new = rule.partition("=")
    if equals and not _is_address(rule, urls):
        return new + url[len(old) :].partition("?")[0] if url.startswith(old) else ""
    parts = urlsplit(rule)
    if not is_local(rule) and parts.netloc and not parts.path.strip("/") and not parts.query:
        path = str(local_path(url).absolute()) if is_local(url) else urlsplit(url).path
        slashes = "//" if parts.scheme in XROOTD_SCHEMES else "/"
        return f"{parts.scheme}://{parts.netloc}{slashes}{path.lstrip('/')}"
    if len(urls) > 1:
        raise SpecError(
            f"replica {redact_url(rule)!r} is one file for {len(urls)} sources; name a server, "
            "e.g. root://other.site/, or write OLD=NEW for the beginnings of URLs"
        )
    return str(local_path(rule).absolute()) if is_local(rule) else rule


def _is_address(rule: str, urls: Sequence[str]) -> bool:
    """Whether a rule with '=' in it is a URL whose query has one, not OLD=NEW."""
    old = rule.partition("=")[0]
    return "?" in old and not any(url.startswith(old) for url in urls)


def with_checksums(locations: Sequence[Location], texts: Sequence[str]) -> list[Location]:
    """The locations with what their checksums should be.

    Args:
        texts: ``ALGORITHM:HEX`` if there is one source, ``SOURCE=ALGORITHM:HEX``, or ``@FILE`` with lines
            of ``ALGORITHM:HEX SOURCE``. A source is named by its URL, its path or its last name alone.

    Raises:
        SpecError: an algorithm that is not known, or a source that is not there, or not the only one of that name.
        NotFoundError: the file cannot be read.
    """
    found = list(locations)
    for name, checksum in (pair for text in texts for pair in _pairs(text)):
        at = _named(name, [location.url for location in found])
        found[at] = replace(found[at], checksum=parse_checksum(checksum))
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    if not text.startswith("@"):
        name, _, checksum = text.rpartition("=")
        return [(name, checksum)]
    try:
        lines = Path(text[1:]).read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise NotFoundError(f"cannot read the list of checksums {text[1:]}: {error}") from error
    parts = [line.split(maxsplit=1) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    for part in parts:
        if len(part) != 2:
            raise SpecError(f"the list of checksums {text[1:]}: {part[0][:80]!r} stands alone; write CHECKSUM SOURCE")
    return [(name.strip(), checksum) for checksum, name in parts]


def _named(name: str, urls: Sequence[str]) -> int:
    """The number of the source of that name; '' names the only one."""
    if not name and len(urls) == 1:
        return 0
    whole = [i for i, url in enumerate(urls) if name in (url, redact_url(url)) or _same_path(name, url)]
    last = [i for i, url in enumerate(urls) if "/" not in name and name == urlsplit(url).path.rpartition("/")[2]]
    found = whole or last
    if len(found) != 1:
        why = f"{len(found)} sources have that name" if found else "there is no such source"
        raise SpecError(f"checksum of {redact_url(name)!r}: {why}; write SOURCE=ALGORITHM:HEX")
    return found[0]


def _same_path(name: str, url: str) -> bool:
    return bool(name) and is_local(name) and is_local(url) and str(Path(name).absolute()) == str(local_path(url))

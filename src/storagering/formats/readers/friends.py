"""Friends: further tables with the same entries, whose columns are added."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from storagering.config import Settings
from storagering.errors import SchemaError, SpecError
from storagering.formats.source import Location, Source, Storage, UnreadableColumnsError
from storagering.formats.sources import resolve_sources
from storagering.types import Array, Batch, Schema
from storagering.urls import redact_url

#: What follows the last colon of a URL that names no table: ``//host/file``, ``1094//file``, ``word@host/file``.
_REST_OF_URL = re.compile(r"\d*/|[^/]*@")


def with_friends(
    locations: Sequence[Location], friends: Sequence[str], settings: Settings
) -> tuple[list[Location], tuple[str, ...]]:
    """The locations with their friends, and the friends as a spec tells them.

    Args:
        friends: ``TREE`` for another table of the same file, or ``SOURCES:TREE`` for other files (a path,
            URL, pattern or ``@list.txt``), which go with the locations one by one, in order.

    Raises:
        SpecError: another number of files than locations.
        NotFoundError: a path or pattern matches nothing.
    """
    found, told = list(locations), []
    for friend in friends:
        sources, tree = _split(friend)
        urls = [url for url, _ in resolve_sources(sources, settings)] if sources else [""] * len(found)
        if len(urls) != len(found):
            raise SpecError(f"friend {redact_url(friend)!r} is {len(urls)} file(s) for {len(found)} source(s)")
        found = [replace(f, friends=(*f.friends, (url, tree))) for f, url in zip(found, urls, strict=True)]
        told.append(f"{','.join(map(redact_url, urls))}:{tree or ''}" if sources else friend)
    return found, tuple(told)


def _split(friend: str) -> tuple[str, str | None]:
    sources, colon, tree = friend.rpartition(":")
    if not colon:
        return "", friend
    if _REST_OF_URL.match(tree):
        return friend, None
    return sources, tree or None


def open_joined(
    location: Location, tree: str | None, open_one: Callable[[Location, str | None], Source]
) -> JoinedSource:
    """The table of a location with all its friends; raises as `open_source` and `JoinedSource`."""
    alone = replace(location, friends=())
    members: list[Source] = []
    try:
        members.append(open_one(alone, tree))
        members.extend(open_one(Location(url) if url else alone, name) for url, name in location.friends)
        return JoinedSource(members, same_file=[not url for url, _ in location.friends])
    except BaseException:
        for member in members:
            member.close()
        raise


class JoinedSource(Source):
    """A table and its friends as one: entry by entry, the columns of all.

    A column of a friend whose name is taken is called ``TREE.name``.

    Raises:
        SchemaError: other numbers of entries, or two columns of one name even so.
    """

    def __init__(self, members: Sequence[Source], *, same_file: Sequence[bool]) -> None:
        first = members[0]
        self._members = tuple(members)
        self.format, self.url, self.tree, self.title = first.format, first.url, first.tree, first.title
        self.entries = first.entries
        others = [member for member, same in zip(members[1:], same_file, strict=True) if not same]
        self.nbytes = first.nbytes + sum(other.nbytes for other in others)
        versions = [member.version for member in (first, *others)]
        self.version = "+".join(versions) if all(versions) else ""
        self.checksum = first.checksum if all(m.checksum for m in members) else ""
        self.self_checked = all(m.checksum or m.self_checked for m in members)
        self.columns: dict[str, str] = {}
        self.repeated: list[str] = []
        self._places: dict[str, tuple[Source, str]] = {}
        for member in members:
            self._check_entries(member)
            names = {name: self._free_name(name, member) for name in member.columns}
            self.columns |= {names[name]: kind for name, kind in member.columns.items()}
            self._places |= {names[name]: (member, name) for name in names}
            self.repeated += [names[name] for name in member.repeated]

    def _check_entries(self, member: Source) -> None:
        if member.entries != self.entries:
            raise SchemaError(
                f"{redact_url(self.url)} has {self.entries:,} entries in {self.tree!r}, and its friend "
                f"{member.tree!r} of {redact_url(member.url)} has {member.entries:,}: friends have the same entries"
            )

    def _free_name(self, name: str, member: Source) -> str:
        if name not in self._places:
            return name
        prefixed = f"{member.tree.rpartition('/')[2]}.{name}"
        if prefixed in self._places or prefixed in member.columns:
            raise SchemaError(f"{redact_url(member.url)}: {name!r} and {prefixed!r} are both taken already")
        return prefixed

    def _by_member(self, names: Iterable[str]) -> list[tuple[Source, dict[str, str]]]:
        """Who has the columns: {name there: name here}."""
        found: dict[int, tuple[Source, dict[str, str]]] = {}
        for name in names:
            member, own = self._places[name]
            found.setdefault(id(member), (member, {}))[1][own] = name
        return list(found.values())

    def doc(self, name: str) -> str:
        member, own = self._places[name]
        return member.doc(own)

    def storage(self) -> dict[str, Storage]:
        known = {id(member): member.storage() for member in self._members}
        places = ((name, known[id(member)].get(own)) for name, (member, own) in self._places.items())
        return {name: storage for name, storage in places if storage is not None}

    def nbytes_of(self, names: Iterable[str]) -> int:
        return sum(member.nbytes_of(list(own)) for member, own in self._by_member(names))

    def boundaries(self, names: Iterable[str]) -> list[int]:
        cuts = [set(member.boundaries(own)) for member, own in self._by_member(names)]
        return sorted(set.intersection(*cuts)) if cuts else self._members[0].boundaries([])

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, Any]:
        arrays: dict[str, Any] = {}
        reasons: dict[str, str] = {}
        for member, own in self._by_member(names):
            try:
                arrays |= {own[name]: array for name, array in member.read(list(own), start, stop).items()}
            except UnreadableColumnsError as error:
                reasons |= {own[name]: why for name, why in error.reasons.items()}
        if reasons:
            raise UnreadableColumnsError(reasons, self.url)
        return {name: arrays[name] for name in names}

    def read_batch(self, schema: Schema, start: int, stop: int) -> Batch:
        columns = {column.name: column for column in schema.columns}
        arrays: dict[str, tuple[Array, ...]] = {}
        for member, own in self._by_member(columns):
            theirs = Schema(tuple(replace(columns[here], name=there) for there, here in own.items()))
            batch = member.read_batch(theirs, start, stop)
            arrays |= {here: batch.arrays[there] for there, here in own.items()}
        return Batch(schema, stop - start, {name: arrays[name] for name in columns})

    def close(self) -> None:
        for member in self._members:
            with suppress(OSError):
                member.close()

"""What the user asks for, as the job of a build; and which dataset came of it before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from storagering.cache.build import PROCESSES, Job, check_scheduler
from storagering.cache.filling import FillingDataset
from storagering.cache.layout import Cache, check_name
from storagering.cache.manifest import spec_key
from storagering.cache.progress import BuildProgress
from storagering.cache.root import make_folder
from storagering.cache.unfinished import seal, unseal
from storagering.cache.weaver import with_weaver
from storagering.config import Settings
from storagering.errors import CacheError, SpecError, StorageringError
from storagering.files import read_file, replace_file, safe_join
from storagering.formats.blob import is_local
from storagering.formats.locations import with_checksums, with_replicas
from storagering.formats.readers.friends import with_friends
from storagering.formats.source import Location
from storagering.formats.sources import LabelledSources, Sources, resolve_sources
from storagering.formats.weaver import WeaverConfig
from storagering.types import (
    ConversionSpec,
    Layout,
    Manifest,
    OnBadColumn,
    OnBadSource,
    Profile,
    StoreFormat,
    sha256_hex,
)
from storagering.urls import redact_url

_LIMIT_BYTES = 1 << 20
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be converted and how; see `storagering.convert` for all words."""

    sources: LabelledSources
    tree: str | None = None
    columns: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    where: str | None = None
    define: Mapping[str, str] | None = None
    friends: Sequence[str] = ()
    precision: Mapping[str, int] | None = None
    sparse: Sequence[str] = ()
    weaver: str | Path | WeaverConfig | None = None
    mix: int | None = None
    replicas: Sequence[str] = ()
    checksums: Sequence[str] = ()
    format: StoreFormat = "zarr"
    profile: Profile = "small"
    chunk_bytes: int = 16 << 20
    on_bad_column: OnBadColumn = "skip"
    on_bad_source: OnBadSource = "fail"
    layout: Layout = "columns"

    def job(self, name: str | None, settings: Settings, scheduler: str = PROCESSES) -> Job:
        """The job, its sources found; without a name the dataset is called after them.

        Raises:
            SpecError: something cannot be carried out.
            NotFoundError, SourceError: a source is not there.
        """
        if self.chunk_bytes < 1 << 12:
            raise SpecError(f"chunk_bytes={self.chunk_bytes} is too small; use at least 4096, better some MiB")
        if self.mix is not None and not 0 <= self.mix < 1 << 63:
            raise SpecError(f"mix={self.mix}: the seed of the order is a number from 0 to 2^63 - 1")
        if self.layout == "rows" and self.format != "zarr":
            raise SpecError(f"layout='rows' goes with format='zarr' only, not {self.format!r}: leave one of them out")
        resolved = resolve_sources(self.sources, settings)
        places = with_checksums(with_replicas([Location(url) for url, _ in resolved], self.replicas), self.checksums)
        locations, friend_names = with_friends(places, self.friends, settings)
        spec = ConversionSpec(
            sources=tuple((redact_url(url), label) for url, label in resolved),
            tree=self.tree,
            columns=None if self.columns is None else tuple(self.columns),
            exclude=tuple(self.exclude),
            define=tuple((self.define or {}).items()),
            where=self.where,
            classes=tuple(dict.fromkeys(label for _, label in resolved if label is not None)),
            format=self.format,
            profile=self.profile,
            chunk_bytes=self.chunk_bytes,
            on_bad_column=self.on_bad_column,
            on_bad_source=self.on_bad_source,
            friends=friend_names,
            precision=tuple((self.precision or {}).items()),
            sparse=tuple(self.sparse),
            fill_absent_chunks=settings.fill_absent_chunks,
            mix=self.mix,
            layout=self.layout,
        )
        if self.weaver is not None:
            spec = with_weaver(spec, self.weaver, locations, settings)
        name = check_name(name) if name is not None else f"{_stem(self._texts())}-{spec_key(spec)[:8]}"
        return Job(name, spec, locations, check_scheduler(scheduler))

    def _texts(self) -> list[str]:
        """The sources as they were named."""
        groups = self.sources.values() if isinstance(self.sources, Mapping) else [self.sources]
        return [text for some in groups for text in _texts(some)]

    def key(self, name: str | None, settings: Settings) -> str:
        """Hash of the request as it was put, without secrets; '' if it must be looked up what it means.

        What lies on this machine is looked up always, as that costs nothing.
        """
        texts = self._texts()
        if self.friends or self.weaver is not None or any(text.startswith("@") or is_local(text) for text in texts):
            return ""
        groups = self.sources if isinstance(self.sources, Mapping) else {"": self.sources}
        ordered = [
            [(label, [redact_url(text) for text in _texts(some)]) for label, some in groups.items()],
            list((self.define or {}).items()),
            list((self.precision or {}).items()),
        ]
        plain = replace(self, sources=(), define=None, precision=None, replicas=(), checksums=())
        return sha256_hex(msgspec.json.encode((name, settings.fill_absent_chunks, ordered, plain)))


def open_filling(
    cache: Cache, request: Request, name: str | None = None, progress: BuildProgress | None = None
) -> FillingDataset:
    """The dataset that was asked for, to be read while it is made.

    If the same request was put before and its dataset is complete, no server is asked what is there now.

    Raises:
        SpecError, NotFoundError, SourceError: as `Request.job`.
    """
    path = safe_join(cache.root, "fills", f"{key}.json") if (key := request.key(name, cache.settings)) else None
    if path is not None and (known := _find_known(cache, path)) is not None:
        return FillingDataset(cache, known.name, None, progress)
    job = request.job(name, cache.settings)
    if path is not None:
        with suppress(CacheError):  # it only saves asking
            make_folder(path.parent, shared=cache.settings.shared)
            replace_file(path, seal(msgspec.json.encode(_Known(job.name, spec_key(job.spec)))))
    return FillingDataset(cache, job.name, job, progress)


@dataclass(frozen=True)
class _Known:
    """What came of a request."""

    name: str
    spec_key: str


def _find_known(cache: Cache, path: Path) -> Manifest | None:
    try:
        known = msgspec.json.decode(unseal(read_file(path, _LIMIT_BYTES)), type=_Known)
        manifest = cache.manifest(known.name)
    except (StorageringError, msgspec.MsgspecError, ValueError):
        return None  # then it is found out anew
    return manifest if manifest.spec_key == known.spec_key else None


def _texts(sources: Sources) -> list[str]:
    return [str(one) for one in ([sources] if isinstance(sources, str | Path) else sources)]


def _stem(texts: Sequence[str]) -> str:
    """A readable name for sources: that of the first one, or of its folder if that is a pattern."""
    text = texts[0].partition("?")[0] if "://" in texts[0] else texts[0].removeprefix("@")
    parts = [part for part in text.split("/") if part not in ("", ".", "..", "~") and not part.endswith(":")]
    plain = [part for part in parts if not any(c in part for c in "*?[")]
    if not plain:
        return "dataset"
    stem = plain[-1].partition(".")[0] if plain[-1] == parts[-1] else plain[-1]
    return _NOT_IN_NAMES.sub("-", stem).strip("-")[:60] or "dataset"

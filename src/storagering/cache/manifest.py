"""The manifest as bytes: canonical JSON that vouches for itself, validated on the way in."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec

from storagering.errors import ChecksumError, FormatError, VersionError
from storagering.files import read_file
from storagering.types import FORMAT_VERSION, ConversionSpec, Manifest, sha256_hex

MANIFEST_NAME = "manifest.json"
_DATASET_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_CHUNK_NAME = re.compile(r"chunk-\d{6,12}(\.[a-z]{1,10}){1,2}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STATISTICS_NAME = re.compile(r"statistics(-\d{6,12})?\.parquet")


def software() -> str:
    """The release that makes datasets here."""
    return f"storagering {version('storagering')}"


def spec_key(spec: ConversionSpec) -> str:
    """sha256 of the spec's canonical JSON: equal specs, and only they, have equal keys."""
    return sha256_hex(msgspec.json.encode(spec, order="deterministic"))


def seal_manifest(manifest: Manifest) -> Manifest:
    """The manifest with the digest of everything else in it filled in."""
    return replace(manifest, digest=sha256_hex(encode_manifest(replace(manifest, digest=""))))


def encode_manifest(manifest: Manifest) -> bytes:
    """Canonical JSON: equal manifests, and only they, have equal bytes."""
    return msgspec.json.encode(manifest, order="deterministic")


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in those bytes.

    Raises:
        FormatError: not a manifest, or (VersionError) of another format version.
        ChecksumError: any bit of it changed.
    """
    try:
        found = msgspec.json.decode(data, type=_VersionProbe).spec.version
        if found != FORMAT_VERSION:
            raise VersionError(
                f"{where} is of format version {found}; this release reads {FORMAT_VERSION}: convert again"
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"{where} is not a manifest: {error}") from error
    if encode_manifest(seal_manifest(manifest)) != data:
        raise ChecksumError(
            f"{where} is damaged: its contents do not match its digest; remove the dataset, convert again"
        )
    _check_consistency(manifest, where)
    return manifest


def earlier_manifest_name(version: int) -> str:
    """The file that keeps the manifest of a version after something was appended to it."""
    return f"manifest-{version:06d}.json"


def read_manifest(directory: Path, limit_bytes: int, file: str = MANIFEST_NAME) -> Manifest:
    """The manifest of a published dataset's folder.

    Raises:
        NotFoundError: there is none.
        FormatError, ChecksumError: see `decode_manifest`.
    """
    path = directory / file
    return decode_manifest(read_file(path, limit_bytes), str(path))


class _VersionOfSpec(msgspec.Struct):
    version: int


class _VersionProbe(msgspec.Struct):
    spec: _VersionOfSpec


def _check_consistency(manifest: Manifest, where: str) -> None:
    """Chunks follow each other without gap or overlap, and names are plain and not used twice."""
    names = (_DATASET_NAME, manifest.name), (_STATISTICS_NAME, manifest.chunk_statistics[0])
    for pattern, name in names:
        if not pattern.fullmatch(name):
            raise FormatError(f"{where}: {name!r} is not the name of a dataset or of its statistics")
    at = 0
    for chunk in manifest.chunks:
        if chunk.start != at or chunk.stop <= chunk.start:
            raise FormatError(
                f"{where}: chunk {chunk.file} holds entries {chunk.start}-{chunk.stop}, expected from {at}"
            )
        at = chunk.stop
        if not _CHUNK_NAME.fullmatch(chunk.file):
            raise FormatError(f"{where}: {chunk.file!r} is not the name of a chunk")
        if not _DIGEST.fullmatch(chunk.digest):
            raise FormatError(f"{where}: chunk {chunk.file} has no digest")
        if not 0 <= chunk.trusted_from < chunk.nbytes or chunk.raw_bytes < 0:
            raise FormatError(f"{where}: chunk {chunk.file} has impossible sizes")
    for used in ([c.name for c in manifest.schema.columns], [c.file for c in manifest.chunks]):
        if len(set(used)) != len(used):
            raise FormatError(f"{where}: a name is used twice")
    if len(manifest.statistics) != len(manifest.schema.columns):
        raise FormatError(f"{where}: {len(manifest.statistics)} statistics for {len(manifest.schema.columns)} columns")
    sound = all(one is None or one.is_sound for one in manifest.distributions)
    if len(manifest.distributions) != len(manifest.schema.columns) or not sound:
        raise FormatError(f"{where}: its distributions are not those of {len(manifest.schema.columns)} columns")

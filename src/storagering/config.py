"""All settings in one frozen object: argument, then environment, then file, then default."""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from storagering.errors import ConfigError, nearest_names

_PREFIX = "STORAGERING_"
_FILE_VARIABLE = "STORAGERING_CONFIG"
#: Holds a secret, which is no setting: settings are shown, and sent to workers.
PEER_TOKEN_VARIABLE = "STORAGERING_PEER_TOKEN"  # noqa: S105  (its name)
_QUOTA = re.compile(r"(\d+(?:\.\d+)?) ?(%|[kmgt]?i?b|)", re.I)
_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{unit}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for unit, base in (("B", 1000), ("IB", 1024))
}


def usable_cpus() -> int:
    """Number of cores this process may run on."""
    return len(os.sched_getaffinity(0))


def _default_cache() -> Path:
    for variable in ("SLURM_TMPDIR", "_CONDOR_SCRATCH_DIR"):
        if os.environ.get(variable):
            return Path(os.environ[variable]) / "storagering"
    return Path(platformdirs.user_cache_dir("storagering"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Every knob that is not part of a dataset; sizes in bytes, times in seconds.

    Each can be set by an environment variable ``STORAGERING_<NAME>`` or a line of the TOML file that
    ``STORAGERING_CONFIG`` names.

    Attributes:
        cache: folder of the node-local cache.
        workers: processes of a conversion.
        threads: decoding threads of a loader.
        connect_timeout_seconds: time to reach a server.
        request_timeout_seconds: time for it to answer one request.
        checksum_timeout_seconds: time for it to tell the checksum of a file, which it may have to compute.
        retries: how often a request that failed is repeated before the next replica is tried.
        retry_seconds: time within which all repetitions of a request must end.
        whole_file_bytes: larger files on servers are not fetched whole, unless to compare a given checksum.
        lock_timeout_seconds: time to wait for another process that builds the same dataset.
        sql_timeout_seconds: time after which a query is stopped.
        sql_memory_bytes: memory of a query.
        sql_max_rows: rows of a result.
        max_manifest_bytes: manifests above this are refused unread.
        max_block_bytes, max_unpack_ratio: a compressed block of a source (basket, page, chunk) that claims to
            unpack to more than both of these, bytes and times its size, is refused before it is unpacked.
        exact_shuffle_bytes: decoded size up to which ``shuffle="exact"`` may hold a dataset in memory.
        fill_absent_chunks: take chunks that a Zarr or HDF5 source has not for its fill value; without it
            they are an error, as nobody can tell them from lost ones.
        quota: what the cache may hold: ``200GB``, ``50%`` of its disk, '' without limit.
        high_water, low_water: shares of the quota at which evicting begins and ends.
        eviction: what goes first: ``lru``, ``lfu``, ``greedy-dual`` or ``popularity``.
        room_timeout_seconds: time to wait for pins of others to go when there is no room.
        ram_tier: folder in memory (tmpfs) in which chunks are kept beside the disk, '' for none.
        ram_quota: what it may hold, as ``quota``.
        peers: URLs of other nodes' caches, by commas.
        peer_token_file: file with the token that peers want.
        peer_timeout_seconds: time for a peer to answer, and between two parts of an answer.
        shared: the cache is for a group of users, or on a file system of several machines. Any of these may build and
            read; appending to one dataset is for one machine at a time.
        journal: note in the cache who reads which dataset, for the catalog's tables ``accesses`` and ``trainings``.
    """

    cache: Path
    workers: int
    threads: int
    connect_timeout_seconds: int = 3
    request_timeout_seconds: int = 6
    checksum_timeout_seconds: int = 30
    retries: int = 5
    retry_seconds: float = 5.0
    whole_file_bytes: int = 16 << 30
    lock_timeout_seconds: float = 3600.0
    sql_timeout_seconds: float = 600.0
    sql_memory_bytes: int = 4 << 30
    sql_max_rows: int = 10_000_000
    max_manifest_bytes: int = 100 << 20
    max_block_bytes: int = 256 << 20
    max_unpack_ratio: int = 1100
    exact_shuffle_bytes: int = 8 << 30
    fill_absent_chunks: bool = False
    quota: str = ""
    high_water: float = 1.0
    low_water: float = 0.9
    eviction: str = "lru"
    room_timeout_seconds: float = 30.0
    ram_tier: str = ""
    ram_quota: str = "50%"
    peers: str = ""
    peer_token_file: str = ""
    peer_timeout_seconds: float = 10.0
    shared: bool = False
    journal: bool = True


def load_settings(**overrides: Any) -> Settings:
    """The settings in force; ``overrides`` that are not None win over everything else.

    Raises:
        ConfigError: an unknown key, or a value that does not parse.
    """
    values: dict[str, Any] = {"cache": _default_cache(), "workers": usable_cpus(), "threads": usable_cpus()}
    values |= _from_file() | _from_environment()
    values |= {key: value for key, value in overrides.items() if value is not None}
    known = {f.name: str(f.type) for f in fields(Settings)}
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r}{nearest_names(key, known)}")
    return Settings(**{key: _parse(key, known[key], value) for key, value in values.items()})


def parse_quota(text: str, folder: Path) -> int | None:
    """Bytes of a quota: ``200GB``, ``150GiB``, or ``50%`` of the disk that ``folder`` is on; None for ''.

    Raises:
        ConfigError: it is none of these.
    """
    if not text:
        return None
    found = _QUOTA.fullmatch(text.strip())
    if not found or float(found[1]) <= 0 or (found[2] == "%" and float(found[1]) > 100):
        raise ConfigError(f"quota {text!r}: write a size such as 200GB, or a share of the disk such as 50%")
    if found[2] != "%":
        return int(float(found[1]) * _UNITS[found[2].upper()])
    while not folder.exists():
        folder = folder.parent
    return int(float(found[1]) / 100 * shutil.disk_usage(folder).total)


def _from_file() -> dict[str, Any]:
    path = os.environ.get(_FILE_VARIABLE)
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{_FILE_VARIABLE}={path}: {error}") from error


def _from_environment() -> dict[str, Any]:
    others = (_FILE_VARIABLE, PEER_TOKEN_VARIABLE)
    names = [name for name in os.environ if name.startswith(_PREFIX) and name not in others]
    return {name.removeprefix(_PREFIX).lower(): os.environ[name] for name in names}


def _parse_path(value: Any) -> Path:
    return Path(value).expanduser().absolute()


def _parse_bool(value: Any) -> bool:
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[str(value).lower()]


def _parse(key: str, kind: str, value: Any) -> Any:
    parsers: dict[str, Callable[[Any], Any]] = {
        "Path": _parse_path,
        "int": int,
        "float": float,
        "bool": _parse_bool,
        "str": str,
    }
    try:
        parsed = parsers[kind](value)
    except (TypeError, ValueError, KeyError, OverflowError, RuntimeError) as error:
        raise ConfigError(f"setting {key}={value!r} is not of type {kind}") from error
    if kind in ("int", "float") and not parsed > 0:  # as NaN is not
        raise ConfigError(f"setting {key}={value!r} must be positive")
    return parsed

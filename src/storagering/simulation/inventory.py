"""What placement is decided on: nodes from a TOML file; datasets, replicas and expected uses from it or the cache."""

from __future__ import annotations

import csv
import platform
import tomllib
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from storagering.cache.layout import open_cache
from storagering.cache.residency import missing_chunks
from storagering.cache.space import disk_ledger
from storagering.config import Settings, load_settings, parse_quota
from storagering.errors import ConfigError, NotFoundError, SpecError, nearest_names
from storagering.simulation.placement import Data, Node

#: A file as `read_inventory` takes it.
EXAMPLE = """\
# Nodes or sites, and how they see the period for which moves are proposed.
period_days = 7      # the expected uses are those of this period
copy_cost = 1.0      # what a byte copied now counts, in bytes read in the period

[[nodes]]
name = "t1-kit"
capacity = "40TB"
bandwidth = "500MB"  # a second, that moves may take
demand = 3           # uses here, relative to other nodes (default: 1)

[[nodes]]
name = "t2-desy"
capacity = "10TB"
bandwidth = "250MB"
high_water = 0.9     # share of the capacity above which it is relieved (default: 0.95)

[[nodes]]
name = "t2-aachen"
capacity = "6TB"
bandwidth = "100MB"

# Datasets may be left out: then they are those of this node's cache, with the uses that its ledger expects.
[[datasets]]
name = "NANOAOD-2025"
size = "2TB"
uses = 120           # in the period, on all nodes together
replicas = ["t1-kit"]

[[datasets]]
name = "MINIAOD-2025"
size = "8TB"
uses = 14
replicas = ["t1-kit"]

[[datasets]]
name = "NANOAOD-2018"
size = "1500GB"
uses_at = { t2-desy = 9, t2-aachen = 0.5 }  # where they are known
replicas = ["t1-kit", "t2-aachen"]

[[datasets]]
name = "AOD-2016"
size = "9200GB"
uses = 0.1
replicas = ["t1-kit", "t2-desy"]
"""
_TOP = {"period_days", "copy_cost", "nodes", "datasets"}
_NODE = {"name", "capacity", "bandwidth", "demand", "high_water"}
_DATASET = {"name", "size", "uses", "uses_at", "replicas"}
_DAY_SECONDS = 86_400.0


class Known(NamedTuple):
    """A dataset as the cache knows it.

    Attributes:
        uses: that the ledger expects, 0 if it has no score.
        nodes: this one, if it holds all of it.
    """

    nbytes: int
    uses: float
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The arguments of `propose_moves`."""

    nodes: tuple[Node, ...]
    datasets: tuple[Data, ...]
    replicas: Mapping[str, Sequence[str]]
    period_seconds: float
    copy_cost: float


def read_inventory(path: Path, *, popularity: Path | None = None, settings: Settings | None = None) -> Inventory:
    """Nodes, datasets and replicas from a TOML file such as `EXAMPLE`.

    Without ``[[datasets]]`` they are those of this node's cache: their sizes, a replica here (if the file has a node of
    this machine's name) where all chunks are on the disk, and as uses the scores of its ledger, those that the
    eviction policy ``popularity`` goes by.

    Args:
        popularity: CSV file with the columns ``dataset`` and ``score``, and maybe ``node``: expected uses, instead of
            those of the file or the ledger.

    Raises:
        NotFoundError: there is no such file.
        ConfigError: it is not TOML, a key is unknown or absent, or a value has another type.
        SpecError: the CSV file has other columns, or no numbers.
    """
    values = _read_toml(path)
    _check_keys(path, "the file", values, _TOP)
    nodes = tuple(_node(path, entry) for entry in _entries(path, values, "nodes"))
    if "datasets" in values:
        entries = _entries(path, values, "datasets")
        datasets = tuple(_dataset(path, entry) for entry in entries)
        replicas = {data.name: _names(path, entry) for data, entry in zip(datasets, entries, strict=True)}
    else:
        known = read_known(settings=settings)
        names = {node.name for node in nodes}
        datasets = tuple(Data(name, one.nbytes, one.uses) for name, one in known.items() if one.nbytes)
        replicas = {name: [n for n in one.nodes if n in names] for name, one in known.items() if one.nbytes}
    if popularity is not None:
        scores = read_popularity(popularity)
        datasets = tuple(_with_uses(data, scores.get(data.name, {})) for data in datasets)
    period = _number(path, "period_days", values.get("period_days", 7)) * _DAY_SECONDS
    return Inventory(nodes, datasets, replicas, period, _number(path, "copy_cost", values.get("copy_cost", 1)))


def read_popularity(path: Path) -> dict[str, dict[str, float]]:
    """{dataset: {node: expected uses}} from a CSV file; the node is '' where the file names none.

    Raises:
        NotFoundError: there is no such file.
        SpecError: it has other columns, or no numbers.
    """
    found: dict[str, dict[str, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if not {"dataset", "score"} <= set(rows.fieldnames or ()):
                raise SpecError(f"{path}: give a first line with the columns dataset and score, and maybe node")
            for row in rows:
                own = found.setdefault(row["dataset"], {})
                own[row.get("node") or ""] = _number(path, f"line {rows.line_num}", row["score"])
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path} is not a CSV file: {error}") from error
    return found


def read_known(*, settings: Settings | None = None) -> dict[str, Known]:
    """What this node's cache knows of its datasets; all chunks of those that it holds are on its disk."""
    cache = open_cache(settings or load_settings())
    with disk_ledger(cache).transaction() as database:
        scores: dict[str, float] = dict(database.execute("SELECT dataset, score FROM popularity").fetchall())
    found = {}
    for name in cache.names():
        manifest = cache.manifest(name)
        held = not missing_chunks(cache.path(name), manifest)
        nbytes = sum(chunk.nbytes for chunk in manifest.chunks)
        found[name] = Known(nbytes, max(0.0, scores.get(name, 0.0)), (platform.node(),) if held else ())
    return found


def _with_uses(data: Data, scores: Mapping[str, float]) -> Data:
    if set(scores) <= {""}:
        return Data(data.name, data.nbytes, scores.get("", 0.0))
    return Data(data.name, data.nbytes, uses_at={node: score for node, score in scores.items() if node})


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFoundError(f"{path} cannot be read: {error.strerror}; --example shows what to write") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def _entries(path: Path, values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    entries = values.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{path}: give at least one [[{key}]]")
    return entries


def _node(path: Path, entry: Mapping[str, Any]) -> Node:
    _check_keys(path, "[[nodes]]", entry, _NODE, needed={"name", "capacity", "bandwidth"})
    return Node(
        str(entry["name"]),
        _size(path, entry["capacity"]),
        _size(path, entry["bandwidth"]),
        _number(path, "demand", entry.get("demand", 1)),
        _number(path, "high_water", entry.get("high_water", 0.95)),
    )


def _dataset(path: Path, entry: Mapping[str, Any]) -> Data:
    _check_keys(path, "[[datasets]]", entry, _DATASET, needed={"name", "size"})
    uses_at = entry.get("uses_at", {})
    if not isinstance(uses_at, dict):
        raise ConfigError(f"{path}: uses_at={uses_at!r} is not a table of nodes and numbers")
    known = {str(node): _number(path, f"uses_at.{node}", uses) for node, uses in uses_at.items()}
    return Data(str(entry["name"]), _size(path, entry["size"]), _number(path, "uses", entry.get("uses", 0)), known)


def _names(path: Path, entry: Mapping[str, Any]) -> list[str]:
    names = entry.get("replicas", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{path}: replicas={names!r} is not a list of nodes")
    return names


def _check_keys(
    path: Path, what: str, entry: Mapping[str, Any], known: Set[str], needed: Set[str] = frozenset()
) -> None:
    for key in entry:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r} in {what}{nearest_names(key, known)}")
    if missing := sorted(needed - set(entry)):
        raise ConfigError(f"{path}: one of {what} has no {missing[0]}")


def _size(path: Path, value: Any) -> int:
    try:
        found = parse_quota(str(value), path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {value!r} is not a size; write e.g. 40TB or 500MB") from error
    if not found or "%" in str(value):
        raise ConfigError(f"{path}: {value!r} is not a size; write e.g. 40TB or 500MB")
    return found


def _number(path: Path, key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {key}: {value!r} is not a number") from error

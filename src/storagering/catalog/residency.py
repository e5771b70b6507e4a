"""The catalog's domain of where chunks lie: on this cache's disk, and in the memory of nodes.

What lies there is told by the folders themselves, how often it was used by the ledgers. A folder is listed
only when it, or what its ledger says of it, has changed.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from storagering.cache.layout import Cache
from storagering.cache.ledger import Ledger
from storagering.cache.space import disk_ledger
from storagering.catalog.rows import delete_datasets, insert_rows, insert_table
from storagering.errors import CacheError

#: One row for each copy of a chunk; ``uses`` is NULL where the ledger does not know.
TABLES = {
    "residents": """dataset VARCHAR, chunk BIGINT, file VARCHAR, node VARCHAR, tier VARCHAR, nbytes BIGINT,
        uses BIGINT""",
    "_disk": "dataset VARCHAR, folder VARCHAR, uses VARCHAR",
    "_memory": "node VARCHAR, stamp VARCHAR",
}
#: In a RAM tier all chunks are of one dataset, and named by their digests.
_RAM_DATASET = "chunks"
_LEDGER = "ledger.sqlite"
#: What changed so recently may change again within the clock's grain, and look the same.
_GRAIN_SECONDS = 2.0
#: Datasets of which the ledger is asked in one transaction: others wait for its end.
_BATCH = 1024


def enter(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    """Bring the table in line with the disk of the cache and the memory tier of this node, if it has one.

    In a cache of several nodes each tells of its own memory; of the disk, who looked last.

    Returns:
        Number of datasets on the disk, and of memory tiers, that were looked at anew.
    """
    return _enter_disk(connection, cache) + _enter_memory(connection, cache)


@dataclass(frozen=True)
class _Look:
    """How a folder, and what its ledger says, looked; '' if that may change without being seen."""

    folder: str
    uses: str


def _enter_disk(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    rows = connection.execute("SELECT dataset, folder, uses FROM _disk").fetchall()
    known = {name: _Look(folder, uses) for name, folder, uses in rows}
    digests = dict(connection.execute("SELECT name, digest FROM datasets").fetchall())
    ledger = _look_at_ledger(cache.root / _LEDGER)
    before = known.pop("", _Look("", ""))
    if ledger and ledger == before.uses:
        uses: Mapping[str, str] = {name: look.uses for name, look in known.items()}
    else:
        uses = _summary(disk_ledger(cache), cache.root)
    looks = {
        name: _Look(_look_at_folder(f"{cache.root}/datasets/{name}", digest[:16]), uses.get(name, "-"))
        for name, digest in digests.items()
    }
    changed = sorted(name for name, look in looks.items() if not look.folder or look != known.get(name))
    gone = [name for name in known if name not in digests]
    delete_datasets(connection, ("residents", "_disk"), [name for name in (*gone, *changed) if name in known])
    for begin in range(0, len(changed), _BATCH):
        _list_folders(connection, cache, changed[begin : begin + _BATCH])
    insert_rows(connection, "_disk", [(name, looks[name].folder, looks[name].uses) for name in changed])
    if ledger != before.uses:
        connection.execute("DELETE FROM _disk WHERE dataset = ''")
        insert_rows(connection, "_disk", [("", "", ledger)])
    return len(changed) + len(gone)


def _list_folders(connection: duckdb.DuckDBPyConnection, cache: Cache, names: Sequence[str]) -> None:
    """Enter the chunks that lie in the folders of those datasets, which the table does not know yet."""
    used = _uses(disk_ledger(cache), cache.root, names)
    datasets: list[str] = []
    files: list[str] = []
    for name in names:
        with suppress(OSError):  # removed meanwhile: the next look sees it
            there = os.listdir(f"{cache.root}/datasets/{name}")  # noqa: PTH208  (10,000 of them)
            files += there
            datasets += [name] * len(there)
    counts = [used.get(key) for key in zip(datasets, files, strict=True)]
    columns = [pa.array(datasets, pa.string()), pa.array(files, pa.string()), pa.array(counts, pa.int64())]
    insert_table(
        connection,
        """INSERT INTO residents SELECT c.dataset, c.chunk, c.file, ?, 'disk', c.nbytes, i.uses
        FROM incoming i JOIN chunks c ON c.dataset = i.dataset AND c.file = i.file""",
        pa.table(columns, ["dataset", "file", "uses"]),
        [platform.node()],
    )


def _enter_memory(connection: duckdb.DuckDBPyConnection, cache: Cache) -> int:
    node = platform.node()
    known = dict(connection.execute("SELECT node, stamp FROM _memory").fetchall())
    if not cache.settings.shared and set(known) - {node}:  # the machine had another name
        connection.execute("DELETE FROM residents WHERE tier = 'ram' AND node <> ?", [node])
        connection.execute("DELETE FROM _memory WHERE node <> ?", [node])
    if not cache.settings.ram_tier and node not in known:
        return 0
    root = Path(cache.settings.ram_tier).expanduser().absolute() if cache.settings.ram_tier else None
    stamp = _look_at_memory(connection, root) if root else ""
    if stamp and known.get(node) == stamp:
        return 0
    connection.execute("DELETE FROM residents WHERE tier = 'ram' AND node = ?", [node])
    connection.execute("DELETE FROM _memory WHERE node = ?", [node])
    if root:
        _list_memory(connection, root, node)
        insert_rows(connection, "_memory", [(node, stamp)])
    return 1


def _look_at_memory(connection: duckdb.DuckDBPyConnection, root: Path) -> str:
    """Which datasets there are matters, too: a copy is told by its digest to be a chunk of them."""
    found = connection.execute("SELECT bit_xor(hash(name, digest)) FROM datasets").fetchall()
    parts = (_look_at_folder(f"{root}/chunks", str(found[0][0])), _look_at_ledger(root / _LEDGER))
    return "/".join(parts) if all(parts) else ""


def _list_memory(connection: duckdb.DuckDBPyConnection, root: Path, node: str) -> None:
    files: list[str] = []
    with suppress(OSError):  # there is none, as nothing was read yet
        files = os.listdir(f"{root}/chunks")  # noqa: PTH208
    used = _uses(Ledger(root / _LEDGER), root, [_RAM_DATASET])
    counts = [used.get((_RAM_DATASET, file)) for file in files]
    digests = [file.partition(".")[0] for file in files]
    insert_table(
        connection,
        """INSERT INTO residents SELECT c.dataset, c.chunk, c.file, ?, 'ram', c.nbytes, i.uses
        FROM incoming i JOIN chunks c ON c.digest = i.digest""",
        pa.table([pa.array(digests, pa.string()), pa.array(counts, pa.int64())], ["digest", "uses"]),
        [node],
    )


def _summary(ledger: Ledger, root: Path) -> dict[str, str]:
    """Dataset -> what changes whenever the ledger's rows of it do; nothing where it cannot be read."""
    with suppress(CacheError):
        if (root / _LEDGER).exists():
            with ledger.transaction() as database:
                rows = database.execute("SELECT dataset, count(*), max(used), sum(uses) FROM chunks GROUP BY dataset")
                return {name: f"{count}-{used}-{uses}" for name, count, used, uses in rows}
    return {}


def _uses(ledger: Ledger, root: Path, names: Sequence[str]) -> dict[tuple[str, str], int]:
    """(Dataset, file) -> how often it was used, as far as the ledger knows."""
    found: dict[tuple[str, str], int] = {}
    with suppress(CacheError):
        if (root / _LEDGER).exists():
            with ledger.transaction() as database:
                for name in names:
                    rows = database.execute("SELECT file, uses FROM chunks WHERE dataset = ?", (name,))
                    found.update(((name, file), uses) for file, uses in rows)
    return found


def _look_at_folder(path: str, also: str) -> str:
    try:
        found = os.stat(path)  # noqa: PTH116  (10,000 of them)
    except OSError:
        return f"{also}-absent"
    return f"{also}-{found.st_ino}-{found.st_mtime_ns}" if _is_settled(found) else ""


def _look_at_ledger(path: Path) -> str:
    looks = []
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            found = file.stat()
        except OSError:
            looks.append("absent")
            continue
        if not _is_settled(found):
            return ""
        looks.append(f"{found.st_ino}-{found.st_mtime_ns}-{found.st_size}")
    return ",".join(looks)


def _is_settled(found: os.stat_result) -> bool:
    return time.time() - found.st_mtime > _GRAIN_SECONDS

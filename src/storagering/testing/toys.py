"""Small ROOT files of made-up events with every kind of column: flat, fixed-shape, jagged, nested.

Nothing here is physics; for that see `storagering.testing.jets`. The contents follow from the seed alone: how the
entries are cut into baskets or clusters changes no value. (The files' bytes differ all the same: ROOT files hold
the time at which they were written.)
"""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from storagering.errors import InputError

_MAX_BASKET_ENTRIES = 100_000
_COMPRESSIONS = {"zstd": uproot.ZSTD(5), "zlib": uproot.ZLIB(1), "lz4": uproot.LZ4(4), "lzma": uproot.LZMA(1)}
_JET_FIELDS = ("pt", "eta", "id")


def toy_columns(entries: int, seed: int = 0, *, nested: bool = False) -> dict[str, Any]:
    """The columns that `write_toy_tree` and `write_toy_rntuple` write, to compare with what was read back.

    Args:
        entries: Number of events.
        seed: Seed of every value.
        nested: Add the columns that only an RNTuple can hold: ``hits`` (lists of lists), ``Muon`` (lists of
            records) and ``trigger`` (strings).

    Returns:
        Column name to NumPy array, or to Awkward array for the columns that are not rectangular. Momenta are in
        GeV. ``event`` exceeds 2**53, so that a detour through float64 shows; ``weight`` is negative now and then.

    Raises:
        InputError: ``entries`` is negative.
    """
    if entries < 0:
        raise InputError(f"entries is {entries}; it must be 0 or more")
    rng = np.random.default_rng(seed)
    number = np.arange(entries)
    columns: dict[str, Any] = {
        "MET_pt": rng.exponential(40.0, entries).astype(np.float32),
        "run": (362_000 + number // 1000).astype(np.uint32),
        "event": number.astype(np.uint64) + np.uint64(2**60 + 1),
        "nVtx": rng.poisson(30, entries).astype(np.int32),
        "passed": rng.random(entries) < 0.3,
        "weight": rng.normal(1.0, 0.5, entries),
        "image": (rng.gamma(0.5, 2.0, (entries, 4, 4)) * (rng.random((entries, 4, 4)) < 0.5)).astype(np.float32),
    }
    columns |= _jets(rng, entries)
    return columns | _nested(rng, entries) if nested else columns


def write_toy_tree(
    path: Path, *, entries: int, seed: int = 0, compression: str | None = "zstd", basket_entries: int | None = None
) -> None:
    """Write a NanoAOD-like TTree "Events" with the columns of `toy_columns`, replacing the file.

    The jagged columns ``Jet_pt``, ``Jet_eta`` and ``Jet_id`` share the counter branch ``nJet``.

    Args:
        path: ROOT file to write.
        entries: Number of events.
        seed: Seed of every value.
        compression: ``"zstd"``, ``"zlib"``, ``"lz4"``, ``"lzma"`` or None.
        basket_entries: Entries per basket; by default a quarter of ``entries``, at most 100,000.

    Raises:
        InputError: A number is out of range, or there is no such compression.
    """
    columns = toy_columns(entries, seed)
    jets = ak.zip({field: columns.pop(f"Jet_{field}") for field in _JET_FIELDS})
    types = {name: np.dtype((array.dtype, array.shape[1:])) for name, array in columns.items()}
    del columns["nJet"], types["nJet"]
    step = _step(entries, basket_entries)
    with uproot.recreate(path, compression=_compression(compression)) as file:
        tree = file.mktree("Events", types | {"Jet": jets.type}, title="Toy events of Storagering")
        for start in range(0, entries, step):
            chunk = {name: array[start : start + step] for name, array in columns.items()}
            tree.extend(chunk | {"Jet": ak.to_packed(jets[start : start + step])})


def write_toy_rntuple(
    path: Path, *, entries: int, seed: int = 0, compression: str | None = "zstd", cluster_entries: int | None = None
) -> None:
    """Write an RNTuple "Events" with the columns of `toy_columns`, nested ones included, replacing the file.

    Args:
        path: ROOT file to write.
        entries: Number of events.
        seed: Seed of every value.
        compression: ``"zstd"``, ``"zlib"``, ``"lz4"``, ``"lzma"`` or None.
        cluster_entries: Entries per cluster; by default a quarter of ``entries``, at most 100,000.

    Raises:
        InputError: A number is out of range, or there is no such compression.
    """
    columns = toy_columns(entries, seed, nested=True)
    events = ak.zip(columns, depth_limit=1)
    step = _step(entries, cluster_entries)
    with uproot.recreate(path, compression=_compression(compression)) as file:
        ntuple = file.mkrntuple("Events", events.layout.form, description="Toy events of Storagering")
        for start in range(0, entries, step):
            ntuple.extend(ak.to_packed(events[start : start + step]))


def _jets(rng: np.random.Generator, entries: int) -> dict[str, Any]:
    counts = rng.poisson(3.0, entries)
    total = int(counts.sum())
    owner = np.repeat(np.arange(entries), counts)
    pt = (20.0 + rng.exponential(40.0, total)).astype(np.float32)
    flat = {
        "pt": pt[np.lexsort((-pt, owner))],
        "eta": rng.uniform(-2.5, 2.5, total).astype(np.float32),
        "id": rng.integers(0, 7, total, dtype=np.int32),
    }
    columns = {f"Jet_{field}": ak.unflatten(flat[field], counts) for field in _JET_FIELDS}
    return {"nJet": counts.astype(np.int32)} | columns


def _nested(rng: np.random.Generator, entries: int) -> dict[str, Any]:
    tracks = rng.poisson(2.0, entries)
    hits = rng.poisson(4.0, int(tracks.sum()))
    muons = rng.poisson(0.7, entries)
    total = int(muons.sum())
    names = np.array(["", "HLT_Mu24", "HLT_Ele32", "HLT_MET120_π"])
    return {
        "hits": ak.unflatten(ak.unflatten(rng.random(int(hits.sum()), dtype=np.float32), hits), tracks),
        "Muon": ak.zip(
            {
                "pt": ak.unflatten(rng.exponential(30.0, total).astype(np.float32), muons),
                "charge": ak.unflatten(rng.choice(np.array([-1, 1], np.int32), total), muons),
            }
        ),
        # One string more than wanted: without any the type of the column would not be known.
        "trigger": ak.to_packed(ak.Array(["", *names[rng.integers(0, len(names), entries)].tolist()])[1:]),
    }


def _step(entries: int, wanted: int | None) -> int:
    if wanted is None:
        return max(1, min(_MAX_BASKET_ENTRIES, -(-entries // 4)))
    if wanted < 1:
        raise InputError(f"{wanted} entries per basket or cluster is too few; give 1 or more")
    return wanted


def _compression(name: str | None) -> Any:
    if name is None:
        return None
    try:
        return _COMPRESSIONS[name]
    except KeyError:
        raise InputError(f"there is no compression {name!r}; there are: {', '.join(_COMPRESSIONS)}") from None

"""Caches of very many datasets, to see how the catalog bears them: true manifests, and no data."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from storagering.cache.layout import PARTIAL_NAME
from storagering.cache.manifest import MANIFEST_NAME, encode_manifest, seal_manifest, software, spec_key
from storagering.distributions import MOST_BINS, PROBABILITIES, Distribution
from storagering.errors import InputError
from storagering.types import Chunk, Column, ColumnStatistics, ConversionSpec, Manifest, Part, Schema, SourceFile, Span

_ENTRIES = 10_000
#: Of every column.
_DISTRIBUTION = Distribution(
    tuple(10.0 * number for number in range(1, len(PROBABILITIES) + 1)), (0.0, 1.0, 60.0, 100.0), (1,) * MOST_BINS
)
_CHUNK_BYTES = 2_000_000
_FORM = '{"class": "NumpyArray", "primitive": "float32", "inner_shape": [], "parameters": {}, "form_key": "node0"}'
#: Names that a file may have on ext4: those of the chunks are names of a few files.
_MOST_LINKS = 60_000


def make_many_datasets(
    root: Path, datasets: int, chunks: int, *, columns: int = 10, resident: bool = False, seed: int = 0
) -> None:
    """Publish datasets in a cache that was opened before (`open_cache`): sealed manifests of chunks that are absent.

    They are named ``set-00000`` and so on, each made of two files by a selection; digests follow from the seed. What
    they say of columns is the same in all.

    Args:
        datasets: Number of datasets.
        chunks: Of each.
        columns: Of each, float32.
        resident: Put empty files where the chunks would be. The catalog asks no more of a chunk than that it is there.

    Raises:
        InputError: A number is negative.
    """
    if min(datasets, chunks, columns) < 0:
        raise InputError(f"datasets={datasets}, chunks={chunks}, columns={columns}: none may be negative")
    rng = random.Random(seed)  # noqa: S311  (no secrets)
    schema = Schema(tuple(_column(f"x{number:02d}") for number in range(columns)))
    statistics = tuple(_statistics(chunks * _ENTRIES, number) for number in range(columns))
    files = _links(root / "datasets")
    for number in range(datasets):
        name = f"set-{number:05d}"
        folder = root / "datasets" / name
        folder.mkdir()
        (folder / PARTIAL_NAME).touch()
        manifest = _manifest(name, schema, statistics, chunks, rng)
        for chunk in manifest.chunks if resident else ():
            (folder / chunk.file).hardlink_to(next(files))
        (folder / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    for path in (root / "datasets").glob(".empty-*"):
        path.unlink()


def _manifest(
    name: str, schema: Schema, statistics: tuple[ColumnStatistics, ...], chunks: int, rng: random.Random
) -> Manifest:
    urls = [f"root://store.example.org//data/{name}-{number}.root" for number in range(2)]
    spec = ConversionSpec(tuple((url, None) for url in urls), where="x00 > 20")
    entries = chunks * _ENTRIES
    sources = [
        SourceFile(url, None, "Events", entries, 4 * entries, "", "ttree", f"adler32:{rng.getrandbits(32):08x}", True)
        for url in urls
    ]
    return seal_manifest(
        Manifest(
            name=name,
            software=software(),
            spec=spec,
            spec_key=spec_key(spec),
            schema=schema,
            sources=tuple(sources),
            chunks=tuple(_chunk(number, rng) for number in range(chunks)),
            statistics=statistics,
            chunk_statistics=("statistics.parquet", "0" * 64),
            distributions=(_DISTRIBUTION,) * len(statistics),
        )
    )


def _chunk(number: int, rng: random.Random) -> Chunk:
    start, stop = number * _ENTRIES, (number + 1) * _ENTRIES
    nbytes = _CHUNK_BYTES + rng.randrange(_CHUNK_BYTES // 10)
    return Chunk(
        start=start,
        stop=stop,
        file=f"chunk-{number:06d}.zarr.zip",
        nbytes=nbytes,
        raw_bytes=2 * nbytes,
        digest=rng.randbytes(32).hex(),
        trusted_from=nbytes - 1000,
        checksum=rng.randbytes(8).hex(),
        spans=(Span(0, start, stop), Span(1, start, stop)),
    )


def _column(name: str) -> Column:
    return Column(
        name, "float32", "flat", "GeV", f"feature {name}", _FORM, name, (Part("", "data", "<f4", (), "node0-data"),)
    )


def _statistics(count: int, number: int) -> ColumnStatistics:
    return ColumnStatistics(count, min=-1.0 - number, max=100.0, mean=10.0, sum_squares=4.0 * count)


def _links(folder: Path) -> Iterator[Path]:
    """Empty files, each for as many names as it may have."""
    for number in itertools.count():
        path = folder / f".empty-{number}"
        path.touch()
        yield from itertools.repeat(path, _MOST_LINKS)

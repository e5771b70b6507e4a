"""The catalog asked from Python: the same facts as the manifests', quickly, while others write."""

import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from storagering import Catalog
from storagering.api import append, convert
from storagering.cache.layout import Cache, open_cache
from storagering.catalog.index import catalog_path, index_dataset
from storagering.config import load_settings
from storagering.errors import InputError, NotFoundError, SpecError
from storagering.testing.catalogs import make_many_datasets
from storagering.testing.toys import write_toy_tree

DATASETS, CHUNKS = 5, 6


@pytest.fixture
def many(cache: Path) -> Cache:
    opened = open_cache(load_settings())
    make_many_datasets(opened.root, DATASETS, CHUNKS, resident=True)
    return opened


@pytest.mark.parametrize("held", [False, True])
def test_what_the_manifests_say(many: Cache, held: bool) -> None:
    catalog = Catalog()
    if held:
        catalog.__enter__()
    table = catalog.datasets()
    assert table.column("name").to_pylist() == many.names()
    for name in many.names():
        manifest = many.manifest(name)
        chunks = catalog.chunks(name).drop_columns(["dataset"]).to_pylist()
        fields = ("start", "stop", "file", "nbytes", "raw_bytes", "digest")
        assert chunks == [{"chunk": n} | {f: getattr(c, f) for f in fields} for n, c in enumerate(manifest.chunks)]
        found = catalog.chunk(name, 3)
        assert (found.chunk, found.file, found.digest) == (3, manifest.chunks[3].file, manifest.chunks[3].digest)
        assert catalog.find(found.digest) == (found,)
        assert catalog.columns(name).column("name").to_pylist() == list(manifest.schema.names)
        assert catalog.columns(name).column("mean").to_pylist() == [s.mean for s in manifest.statistics if s]
        assert catalog.sources(name).column("url").to_pylist() == [s.url for s in manifest.sources]
        (version,) = catalog.versions(name).to_pylist()
        assert (version["digest"], version["num_chunks"], version["current"]) == (manifest.digest, CHUNKS, True)
        (origin,) = catalog.lineage(name).to_pylist()
        assert origin["sources"] == [s.url for s in manifest.sources]
        assert (origin["selection"], origin["spec_key"]) == (manifest.spec.where, manifest.spec_key)
        assert catalog.residents(name).column("chunk").to_pylist() == list(range(CHUNKS))
    assert catalog.residents().num_rows == DATASETS * CHUNKS
    assert catalog.sql("SELECT count(*) AS n FROM chunks").to_pylist() == [{"n": DATASETS * CHUNKS}]
    assert catalog.sync()["manifests"] == 0
    assert catalog.rebuild().items() >= {"manifests": DATASETS, "residency": DATASETS}.items()
    assert catalog.datasets().equals(table)
    catalog.close()


def test_what_is_not_there(many: Cache) -> None:
    with pytest.raises(NotFoundError, match="no dataset 'nope'"):
        Catalog().lineage("nope")
    catalog = Catalog().__enter__()
    asks: list[Any] = [catalog.columns, catalog.chunks, catalog.lineage, catalog.residents, catalog.versions]
    for ask in asks:
        with pytest.raises(NotFoundError, match=r"no dataset 'set-0000' in .*; nearest names: 'set-0000\d'"):
            ask("set-0000")
    with pytest.raises(NotFoundError, match="no dataset 'nope'"):
        catalog.chunk("nope", 0)
    with pytest.raises(NotFoundError, match="dataset 'set-00003' has no chunk 6; it has 6"):
        catalog.chunk("set-00003", 6)
    assert catalog.find("0" * 64) == ()
    for digest in ("", "0" * 63, "X" * 64, "' OR 1=1 --"):
        with pytest.raises(InputError, match="is not a digest"):
            catalog.find(digest)
    for name in ("'; DROP TABLE chunks; --", "set-00003' OR '1'='1"):
        with pytest.raises(NotFoundError):
            catalog.chunks(name)
    with pytest.raises(SpecError):
        catalog.sql("SELECT * FROM read_text('/etc/passwd')")
    catalog.close()


def test_versions_and_their_lineage(tmp_path: Path) -> None:
    for number in range(3):
        write_toy_tree(tmp_path / f"{number}.root", entries=50 + number, seed=number)
    made = [convert(str(tmp_path / "0.root"), name="toy", workers=1, where="nVtx > 1").manifest]
    made += [append("toy", str(tmp_path / f"{number}.root"), workers=1).manifest for number in (1, 2)]
    with Catalog() as catalog:
        versions, lineage = catalog.versions("toy").to_pylist(), catalog.lineage("toy").to_pylist()
    assert [row["digest"] for row in versions] == [manifest.digest for manifest in made]
    assert [row["parent"] for row in lineage] == ["", made[0].digest, made[1].digest]
    assert [row["current"] for row in versions] == [False, False, True]
    assert [row["num_entries"] for row in versions] == [manifest.num_entries for manifest in made]
    assert [row["spec_key"] for row in lineage] == [manifest.spec_key for manifest in made]
    assert [row["sources"] for row in lineage] == [[s.url for s in manifest.sources] for manifest in made]
    times = [row["created"] for row in versions]
    assert times == sorted(times)
    assert times[0] < times[2]
    folder = open_cache(load_settings()).path("toy")
    (folder / "manifest-000001.json").write_text("{}")
    (folder / "manifest-000002.json").unlink()
    with pytest.warns(UserWarning, match="version 1 of dataset 'toy' is left out of the catalog"):
        Catalog().rebuild()
    assert [row["version"] for row in Catalog().versions("toy").to_pylist()] == [3]


def test_replicas_are_files_of_the_same_checksum(tmp_path: Path) -> None:
    import zlib

    write_toy_tree(tmp_path / "here.root", entries=50)
    (tmp_path / "there.root").write_bytes((tmp_path / "here.root").read_bytes())
    write_toy_tree(tmp_path / "other.root", entries=50, seed=1)
    checksum = f"adler32:{zlib.adler32((tmp_path / 'here.root').read_bytes()):08x}"
    for name in ("here", "there"):
        convert(str(tmp_path / f"{name}.root"), name=name, workers=1, checksums=[checksum])
    convert(str(tmp_path / "other.root"), name="other", workers=1)
    rows = Catalog().sql("SELECT dataset, url FROM replicas ORDER BY dataset, url").to_pylist()
    urls = {name: str(tmp_path / f"{name}.root") for name in ("here", "there", "other")}
    assert [(row["dataset"], row["url"]) for row in rows] == [
        ("here", urls["here"]),
        ("here", urls["there"]),
        ("other", urls["other"]),
        ("there", urls["here"]),
        ("there", urls["there"]),
    ]


def test_nobody_waits_for_who_holds_it(many: Cache, tmp_path: Path) -> None:
    """A copy is asked: it stays as it was, and another process writes meanwhile."""
    code = (
        "import sys; from storagering.cache.layout import open_cache; from storagering.config import load_settings\n"
        "from storagering.catalog.index import sync_catalog\n"
        "print(sync_catalog(open_cache(load_settings(cache=sys.argv[1])))['manifests'])"
    )
    with Catalog() as catalog:
        assert [path.name for path in many.root.glob("catalog*.duckdb")] == ["catalog.duckdb"], "it has no name"
        many.remove("set-00004")
        done = subprocess.run(
            [sys.executable, "-c", code, str(many.root)], capture_output=True, text=True, check=True, timeout=30
        )
        assert done.stdout.strip() == "1"
        assert catalog.datasets().num_rows == DATASETS
        index_dataset(many, "set-00003")
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda n: catalog.chunk("set-00004", n % CHUNKS).chunk, range(40)))
        assert found == [n % CHUNKS for n in range(40)]
        catalog.sync()
        assert catalog.datasets().num_rows == DATASETS - 1
    assert catalog.datasets().num_rows == DATASETS - 1


def test_what_a_process_left_that_died_while_copying_goes(many: Cache) -> None:
    (many.root / "catalog-0011223344556677.duckdb").write_bytes(b"x")
    with Catalog() as catalog:
        assert catalog.datasets().num_rows == DATASETS
    assert [path.name for path in many.root.glob("catalog*.duckdb")] == ["catalog.duckdb"]


@pytest.mark.scenario(31)
def test_a_forked_process_takes_a_copy_of_its_own(many: Cache) -> None:
    code = (
        "import os, sys; from storagering import Catalog\n"
        "with Catalog() as catalog:\n"
        "    before = catalog.chunks('set-00001')\n"
        "    child = os.fork()\n"
        "    same = catalog.chunks('set-00001').equals(before) and catalog.sql('FROM datasets').num_rows == 5\n"
        "    if not child:\n"
        "        os._exit(7 if same else 1)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "    assert same and catalog.chunks('set-00001').equals(before)\n"
        "child = os.fork()\n"
        "assert catalog.datasets().num_rows == 5\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.scenario(7)
def test_damage_found_by_a_query_is_mended(many: Cache) -> None:
    """Not where syncing looks, but in the chunks' own pages."""
    with Catalog() as catalog:
        before = {name: catalog.chunks(name) for name in many.names()}
        sources = catalog.sql("FROM source_files")
    data = bytearray(catalog_path(many).read_bytes())
    put_aside = 0
    for block in range(3 * 4096, len(data), 3 << 18):
        catalog_path(many).write_bytes(data[: block + 999] + bytes([data[block + 999] ^ 4]) + data[block + 1000 :])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with Catalog() as catalog:
                assert {name: catalog.chunks(name) for name in many.names()} == before
                assert catalog.sql("FROM source_files") == sources
        put_aside += len(caught)
    assert put_aside


def test_a_cache_that_cannot_be_written_is_asked_in_memory(many: Cache) -> None:
    (many.root / "catalog.lock").mkdir()
    with Catalog() as catalog:
        assert catalog.datasets().num_rows == DATASETS
        assert catalog.chunk("set-00001", 1).chunk == 1
    assert Catalog().sql("SELECT count(*) AS n FROM lineage").to_pylist() == [{"n": DATASETS}]
    assert not catalog_path(many).exists()


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_million_chunks(cache: Path) -> None:
    opened = open_cache(load_settings())
    make_many_datasets(opened.root, 10_000, 100)
    begin = time.perf_counter()
    assert Catalog().rebuild()["manifests"] == 10_000
    assert time.perf_counter() - begin < 60
    begin = time.perf_counter()
    assert Catalog().sync()["manifests"] == 0
    assert time.perf_counter() - begin < 1
    with Catalog() as catalog:
        digest = catalog.chunk("set-05000", 50).digest
        for limit, ask in (
            (0.1, lambda: catalog.datasets().num_rows == 10_000),
            (0.1, lambda: catalog.chunks("set-05000").num_rows == 100),
            (0.1, lambda: catalog.lineage("set-05000").num_rows == 1),
            (0.005, lambda: catalog.chunk("set-05000", 50).digest == digest),
            (0.005, lambda: catalog.find(digest)[0].chunk == 50),
        ):
            seconds = []
            for _ in range(9):
                begin = time.perf_counter()
                assert ask()
                seconds.append(time.perf_counter() - begin)
            assert sorted(seconds)[4] < limit

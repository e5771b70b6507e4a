"""Files that are made once for all processes of a build."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storagering.config import Settings, load_settings
from storagering.errors import CacheError, SourceError
from storagering.formats.spool import spool_file


@pytest.fixture
def settings() -> Settings:
    return load_settings()


def test_it_is_filled_once(tmp_path: Path, settings: Settings) -> None:
    filled: list[Path] = []

    def fill(path: Path) -> None:
        filled.append(path)
        path.write_bytes(b"contents")

    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: spool_file(str(tmp_path / "spool"), "key", fill, settings), range(16)))
    assert len(filled) == 1
    assert [path.read_bytes() for path in paths] == [b"contents"]


def test_keys_have_files_of_their_own(tmp_path: Path, settings: Settings) -> None:
    paths = {spool_file(str(tmp_path), key, lambda path: path.touch(), settings) for key in ("a", "b", "a/../b")}
    assert len(paths) == 3
    assert {path.parent for path in paths} == {tmp_path}


@pytest.mark.parametrize(("error", "seen"), [(SourceError("no server"), SourceError), (OSError(5, "disk"), CacheError)])
def test_what_fails_leaves_nothing(tmp_path: Path, settings: Settings, error: Exception, seen: type[Exception]) -> None:
    def fill(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    with pytest.raises(seen) as caught:
        spool_file(str(tmp_path), "key", fill, settings)
    assert isinstance(caught.value, CacheError) == (seen is CacheError)
    assert [path for path in tmp_path.iterdir() if path.is_file() and path.suffix != ".lock"] == []
    path = spool_file(str(tmp_path), "key", lambda path: path.touch(), settings)
    assert path.exists()


def test_without_a_folder_it_is_this_process_own(settings: Settings) -> None:
    path = spool_file("", "key of a test", lambda path: path.touch(), settings)
    assert path.parent.stat().st_mode & 0o077 == 0

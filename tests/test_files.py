import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from storagering.errors import (
    CacheError,
    CacheFullError,
    InputError,
    LimitExceededError,
    LockTimeoutError,
    NotFoundError,
    ReadOnlyCacheError,
    TruncatedError,
)
from storagering.files import (
    FileLock,
    disk_errors,
    map_file,
    publish_directory,
    read_file,
    remove_directory,
    replace_file,
    safe_join,
    write_new,
)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, CacheFullError),
        (errno.EDQUOT, CacheFullError),
        (errno.EROFS, ReadOnlyCacheError),
        (errno.EACCES, ReadOnlyCacheError),
        (errno.EIO, CacheError),
    ],
)
def test_the_system_s_refusals_are_typed(code: int, kind: type[CacheError], tmp_path: Path) -> None:
    with pytest.raises(kind, match=str(tmp_path)), disk_errors(tmp_path, 10):
        raise OSError(code, os.strerror(code))


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/abs", "nul\0", "x" * 256])
def test_unsafe_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        safe_join(tmp_path, name)


def test_write_new_never_overwrites_or_follows_links(tmp_path: Path) -> None:
    target = tmp_path / "file"
    write_new(target, b"one")
    assert target.stat().st_mode & 0o777 == 0o600
    with pytest.raises(CacheError):
        write_new(target, b"two")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheError):
        write_new(tmp_path / "link", b"three")
    assert target.read_bytes() == b"one"
    assert not (tmp_path / "elsewhere").exists()


def test_replace_file_leaves_nothing_beside(tmp_path: Path) -> None:
    replace_file(tmp_path / "file", b"one")
    replace_file(tmp_path / "file", b"two")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("file", b"two")]


def test_the_first_to_publish_wins(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_new(tmp_path / name / "who", name.encode())
    assert publish_directory(tmp_path / "a", tmp_path / "target")
    assert not publish_directory(tmp_path / "b", tmp_path / "target")
    assert (tmp_path / "target" / "who").read_bytes() == b"a"
    remove_directory(tmp_path / "target")
    remove_directory(tmp_path / "target")
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_reading_refuses(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(NotFoundError):
        read_file(path, 10)
    with pytest.raises(TruncatedError, match="missing"):
        map_file(path, 3)
    path.write_bytes(b"abcd")
    with pytest.raises(LimitExceededError, match="limit"):
        read_file(path, 3)
    with pytest.raises(TruncatedError, match="4 bytes"):
        map_file(path, 3)
    assert bytes(map_file(path, 4)) == b"abcd"


def test_a_lock_is_freed_by_death(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from storagering.files import FileLock;"
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(5); print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "lock"
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        lock = FileLock(path)
        told: list[str] = []
        with pytest.raises(LockTimeoutError, match=f"process {holder.pid}"):
            lock.acquire(0.05, told.append)
        assert len(told) == 1
        holder.kill()
        lock.acquire(10)
        lock.release()


def test_a_folder_that_somebody_still_writes_to_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the worker of a builder that was killed may do, which is in the middle of opening a file."""
    folder, original = tmp_path / "folder", os.rmdir
    folder.mkdir()

    def write_then_remove(path: str, **options: Any) -> None:
        monkeypatch.setattr(os, "rmdir", original)
        [hidden] = tmp_path.glob(".removed-*")
        (hidden / "late").touch()
        original(path, **options)

    monkeypatch.setattr(os, "rmdir", write_then_remove)
    remove_directory(folder)
    assert os.rmdir is original
    assert not list(tmp_path.glob("[.f]*"))

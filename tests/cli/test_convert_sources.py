"""``--replica`` and ``--checksum``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from zlib import adler32

import pytest

from storagering import open_dataset
from storagering.testing.http import http_server

if TYPE_CHECKING:
    from tests.cli.conftest import Command


@pytest.fixture
def checksum(toy: Path) -> str:
    return f"adler32:{adler32(toy.read_bytes()):08x}"


def test_a_checksum_is_compared_and_recorded(run: Command, toy: Path, checksum: str) -> None:
    assert run("convert", toy, "--name", "toys", "--checksum", checksum).code == 0
    [source] = open_dataset("toys").manifest.sources
    assert (source.checksum, source.verified) == (checksum, True)
    assert "adler32" in run("info", "toys").out


def test_a_wrong_checksum_is_3(run: Command, toy: Path, checksum: str) -> None:
    outcome = run("convert", toy, "--name", "toys", "--checksum", f"{toy.name}=adler32:1")
    assert outcome.code == 3
    assert f"its bytes give {checksum}, they should give adler32:00000001" in outcome.err
    assert run("convert", toy, "--name", "toys", "--checksum", "sha1:1").code == 2


def test_checksums_of_a_list(run: Command, toy: Path, checksum: str, tmp_path: Path) -> None:
    (tmp_path / "sums").write_text(f"{checksum}  {toy}\n")
    assert run("convert", toy, "--name", "toys", "--checksum", f"@{tmp_path / 'sums'}").code == 0


def test_replicas_are_tried_in_order(
    run: Command, toy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGERING_RETRIES", "1")
    with http_server(toy.parent) as far:
        words = ["--replica", "http://127.0.0.1:9", "--replica", f"http://127.0.0.1:10={far.url('')[:-1]}"]
        assert run("convert", f"http://127.0.0.1:10/{toy.name}", "--name", "toys", *words).code == 0
        assert far.requests
    [source] = open_dataset("toys").manifest.sources
    assert source.url == f"http://127.0.0.1:10/{toy.name}"
    assert f"going on with http://127.0.0.1:9/{toy.name}" in caplog.text


def test_a_replica_of_nothing_is_2(run: Command, toy: Path) -> None:
    outcome = run("convert", toy, "--name", "toys", "--replica", "root://a//=root://b//")
    assert outcome.code == 2
    assert "no source begins like that" in outcome.err

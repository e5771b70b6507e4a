"""The private S3 server: what it stores, and the environment that leads to it."""

import os
from pathlib import Path

import pytest

from storagering.testing.s3 import s3_server

fsspec = pytest.importorskip("fsspec")


def test_objects_are_read_through_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "mine")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    (tmp_path / "a.bin").write_bytes(b"a" * (6 << 20))
    with s3_server() as server:
        assert os.environ["AWS_ENDPOINT_URL"] == server.endpoint
        assert server.add(tmp_path / "a.bin") == "s3://bucket/a.bin"
        url = server.add_in_parts(tmp_path / "a.bin", "sub/parts.bin")
        files = fsspec.filesystem("s3")
        assert files.cat_file("s3://bucket/a.bin") == files.cat_file(url) == b"a" * (6 << 20)
        assert files.info(url)["ETag"].endswith('-2"')
    assert os.environ["AWS_ACCESS_KEY_ID"] == "mine"
    assert "AWS_ENDPOINT_URL" not in os.environ

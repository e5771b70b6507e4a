"""Connections without TLS are named once, and get no token that was not meant for them."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from storagering.api import convert
from storagering.config import Settings, load_settings
from storagering.formats.remote import http as remote_http
from storagering.formats.remote import plain
from storagering.formats.source import Location
from storagering.formats.whole import open_reliably
from storagering.testing.http import HTTPServer, http_server, make_certificate
from storagering.testing.toys import write_toy_tree

CANARY = "CANARYs3cr3t"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setattr(plain, "_told", set())
    (tmp_path / "in").mkdir()
    write_toy_tree(tmp_path / "in" / "toy.root", entries=2000, basket_entries=200)
    with http_server(tmp_path / "in") as server:
        yield server


@pytest.fixture
def settings() -> Settings:
    return load_settings(connect_timeout_seconds=1, request_timeout_seconds=2, retries=1, workers=2)


def far(url: str) -> str:
    """The same server under a name that does not say that it is on this machine."""
    return url.replace("127.0.0.1", "0.0.0.0")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "without encryption" in record.getMessage()]


def test_a_plain_server_is_named_once(
    server: HTTPServer,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By none of the workers again, without the secrets of its URL, and it gets no token of the environment."""
    monkeypatch.setenv("BEARER_TOKEN", "of the environment")
    url = far(server.url("toy.root")).replace("//", f"//me:{CANARY}@") + f"?authz={CANARY}"
    dataset = convert(url, name="x", columns=["MET_pt"], chunk_bytes=4096, settings=settings)
    assert len(dataset) == 2000
    [message] = told(caplog)
    assert message.startswith(f"http://0.0.0.0:{server.port} is read without encryption")
    assert "Use https:// if the server has it" in message
    assert CANARY not in message
    assert "without encryption" not in capfd.readouterr().err
    assert not [request for request in server.requests if "environment" in (request.authorization or "")]


def test_this_machine_and_tls_are_not_named(
    server: HTTPServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    open_reliably(Location(server.url("toy.root")), settings).close()
    for url in (
        "https://far.site/x",
        "roots://far.site//x",
        "s3://bucket/x",
        "/local/x",
        "root://localhost//x",
        "x://[",
    ):
        plain.warn_if_plain(url)
    assert not told(caplog)


@pytest.mark.parametrize("scheme", ["root", "xroot", "dav", "http"])
def test_every_scheme_without_tls(
    scheme: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_told", set())
    for name in ("one", "two", "one"):
        plain.warn_if_plain(f"{scheme}://me:{CANARY}@far.site:1094//{name}?authz={CANARY}")
    [message] = told(caplog)
    assert f"{scheme}://far.site:1094 is" in message
    assert f"Use {scheme}s://" in message
    assert CANARY not in message


def test_a_redirection_away_from_tls_is_named(
    server: HTTPServer,
    settings: Settings,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The token of the environment does not go along."""
    certificate = make_certificate(tmp_path)
    remote_http._session.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setenv("BEARER_TOKEN", CANARY)
    with http_server(server.root, certificate) as secure:
        secure.redirect_to = far(server.url(""))[:-1]
        with closing(open_reliably(Location(secure.url("toy.root")), settings)) as blob:
            assert bytes(blob.read(0, 4)) == b"root"
        assert {request.authorization for request in secure.requests} == {f"Bearer {CANARY}"}
    remote_http._session.cache_clear()
    assert {request.authorization for request in server.requests} == {None}
    assert [f"http://0.0.0.0:{server.port} is" in message for message in told(caplog)] == [True]

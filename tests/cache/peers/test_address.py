"""Addresses of nodes and the token: what is refused, and that no secret is shown."""

from pathlib import Path

import pytest

from storagering.cache.peers.address import PeerAddress, is_loopback, parse_peers, read_token
from storagering.config import load_settings
from storagering.errors import ConfigError

TOKEN = "canary-0123456789abcdef"


def test_lists_of_urls() -> None:
    found = parse_peers("https://a.site:9000/cache/, http://127.0.0.1, http://[::1]:5,https://a.site:9000/cache")
    assert found == (
        PeerAddress("https://a.site:9000/cache", "a.site", 9000, True, "/cache"),
        PeerAddress("http://127.0.0.1", "127.0.0.1", 8760, False),
        PeerAddress("http://[::1]:5", "::1", 5, False),
    )
    assert [peer.local for peer in found] == [False, True, True]
    assert parse_peers("") == ()


@pytest.mark.parametrize(
    "url",
    [
        "a.site:8760",
        "ftp://a.site",
        "https://",
        "https://a.site:99999",
        "https://a.site/a b",
        "https://a.site/\r\nX: y",
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ConfigError, match="https://HOST:PORT"):
        parse_peers(url)


@pytest.mark.parametrize("url", [f"https://me:{TOKEN}@a.site", f"https://a.site/?token={TOKEN}"])
def test_secrets_do_not_belong_into_addresses(url: str) -> None:
    with pytest.raises(ConfigError, match="not in a URL") as caught:
        parse_peers(url)
    assert TOKEN not in str(caught.value)


def test_loopback_is_told_by_the_number() -> None:
    assert all(map(is_loopback, ["127.0.0.1", "127.9.9.9", "::1", "localhost"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "10.0.0.1", "localhost.evil.site", "127.0.0.1.evil.site", ""]))


def test_where_the_token_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_token(load_settings()) is None
    monkeypatch.setenv("STORAGERING_PEER_TOKEN", TOKEN)
    assert read_token(load_settings()) == TOKEN
    assert TOKEN not in str(load_settings())
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}-of-the-file\n")
    file.chmod(0o600)
    assert read_token(load_settings(peer_token_file=str(file))) == f"{TOKEN}-of-the-file"
    assert read_token(load_settings(), file) == f"{TOKEN}-of-the-file"


@pytest.mark.parametrize("text", ["too-short", "two words of a token", "", "é" * 20, "x" * 5000])
def test_what_is_no_token(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError, match="holds no token") as caught:
        read_token(load_settings(), file)
    assert not text or text not in str(caught.value)


def test_a_token_that_others_can_read(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_token(load_settings(), file)
    with pytest.raises(ConfigError, match="cannot read"):
        read_token(load_settings(), tmp_path / "absent")

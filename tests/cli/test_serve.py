"""``storagering serve`` and ``pull``, as the shell sees them."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from storagering.testing.http import make_certificate
from storagering.testing.nodes import serving_node

if TYPE_CHECKING:
    from tests.cli.conftest import Command

TOKEN = "canary-0123456789abcdef"


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def test_a_pull(run: Command, toys: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving_node(cache) as node:
        monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / "other"))
        lazily = run("pull", "toys", "--from", node.url, "--lazy")
        assert lazily.code == 0
        assert not list((tmp_path / "other" / "datasets" / "toys").glob("chunk-*"))
        outcome = run("pull", "toys", "--from", node.url)
        assert outcome.code == 0
        assert "entries  400" in outcome.out
        again = run("pull", "toys", "--from", node.url, "--json")
        assert (again.code, again.json["pulled"]) == (0, False)
        assert "nothing to do" in run("pull", "toys", "--from", node.url).err
        assert run("verify", "toys").code == 0
        assert run("sql", "SELECT count(*) FROM toys").out.split()[-1] == "400"
    there, here = (
        {path.name: path.read_bytes() for path in (root / "datasets" / "toys").iterdir()}
        for root in (cache, tmp_path / "other")
    )
    del there["first-epoch.json"]  # of no use to who has not read it
    assert here == there | {"partial": b""}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_clean_end(run: Command, cache: Path, number: signal.Signals) -> None:
    with serving_node(cache) as node:
        assert "no node gives dataset 'other'" in run("pull", "other", "--from", node.url).err  # it runs
        node.process.send_signal(number)
        _, err = node.process.communicate(timeout=20)
    assert (node.process.returncode, err) == (0, "stopped\n")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--host", "0.0.0.0"], 2, "needs a token (--token-file) and TLS (--tls-cert, --tls-key)"),
        (["--host", "0.0.0.0", "--token-file", "TOKEN"], 2, "needs TLS (--tls-cert, --tls-key)"),
        (["--host", "::", "--tls-cert", "CERT", "--tls-key", "KEY"], 2, "needs a token (--token-file)"),
        (["--tls-cert", "CERT"], 2, "TLS needs both"),
        (["--tls-cert", "KEY", "--tls-key", "CERT"], 2, "cannot use the certificate"),
        (["--token-file", "CERT"], 2, "open to all users"),
        (["--token-file", "/nowhere/token"], 2, "cannot read the token file"),
        (["--port", "99999"], 2, "0 to 65535"),
    ],
)  # fmt: skip
def test_refusals(run: Command, tmp_path: Path, token_file: Path, words: list[str], code: int, told: str) -> None:
    certificate, key = make_certificate(tmp_path)
    certificate.chmod(0o644)
    files = {"TOKEN": token_file, "CERT": certificate, "KEY": key}
    outcome = run("serve", *(files.get(word, word) for word in words))
    assert outcome.code == code
    assert told in outcome.err
    assert TOKEN not in outcome.err


def test_a_port_that_is_taken(run: Command, cache: Path, toys: Path) -> None:
    with serving_node(cache) as node:
        outcome = run("serve", "--port", node.url.rpartition(":")[2])
    assert outcome.code == 4
    assert "Address already in use" in outcome.err


def test_pulls_that_cannot_be(
    run: Command, cache: Path, toys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving_node(cache) as node:
        monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / "other"))
        assert "--from URL" in run("pull", "toys").err
        assert "no node gives dataset 'other'" in run("pull", "other", "--from", node.url).err
        assert run("pull", "../toys", "--from", node.url).code == 2
        assert run("pull", "toys", "--from", node.url, "--digest", "0" * 64).code == 2
    gone = run("pull", "toys", "--from", node.url)
    assert "Connection refused" in gone.err
    assert not (tmp_path / "other" / "datasets" / "toys").exists()
    assert not list((tmp_path / "other" / "staging").iterdir())


def test_tls_and_a_token(
    run: Command, toys: Path, cache: Path, tmp_path: Path, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    words = ("--host", "0.0.0.0", "--token-file", token_file, "--tls-cert", certificate, "--tls-key", key)
    with serving_node(cache, *words) as node:
        monkeypatch.setenv("STORAGERING_CACHE", str(tmp_path / "other"))
        url = node.url.replace("0.0.0.0", "127.0.0.1")
        assert url.startswith("https://")
        assert "not trusted" in run("pull", "toys", "--from", url).err
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert "refuses the token" in run("pull", "toys", "--from", url).err
        monkeypatch.setenv("STORAGERING_PEER_TOKEN", f"{TOKEN}x")
        assert "refuses the token" in run("pull", "toys", "--from", url).err
        monkeypatch.setenv("STORAGERING_PEER_TOKEN", TOKEN)
        outcome = run("pull", "toys", "--from", url)
        assert outcome.code == 0
        assert run("verify", "toys").code == 0
        assert run("pull", "others", "--from", url.replace("https", "http")).code == 2
        assert TOKEN not in " ".join(Path(f"/proc/{node.process.pid}/cmdline").read_text().split("\0"))
        assert node.stop() == 0
        assert TOKEN not in node.told + outcome.out + outcome.err
    for path in tmp_path.rglob("*"):
        assert path == token_file or not path.is_file() or TOKEN.encode() not in path.read_bytes()


def test_without_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from storagering.cli import main; sys.exit(main(['serve']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 4
    assert "pip install 'storagering[peers]'" in done.stderr


def test_asking_needs_no_extra(run: Command, toys: Path, cache: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfor name in ('uvicorn', 'starlette', 'h11', 'httpx', 'httpcore'): sys.modules[name] = None\n"
        "from storagering.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    with serving_node(cache) as node:
        done = subprocess.run(
            [sys.executable, "-c", code, "pull", "toys", "--from", node.url],
            env={"STORAGERING_CACHE": str(tmp_path / "other"), "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr

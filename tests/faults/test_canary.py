"""A secret in every place where one can be given, through the whole chain: it is used, and never written or shown."""

import base64
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from storagering.api import convert
from storagering.cache.progress import BuildProgress
from storagering.cli import main
from storagering.config import load_settings
from storagering.formats.remote import http as remote_http
from storagering.testing.http import HTTPServer, http_server, make_certificate
from storagering.testing.toys import write_toy_tree

CANARY = "CANARY+s3cr3t"
#: As it is, as URLs and headers carry it, and what all of these have in common.
FORMS = (CANARY, quote(CANARY, safe=""), "s3cr3t", base64.b64encode(f"me:{CANARY}".encode()).decode())
_SECRET = quote(CANARY, safe="")
QUERY = "&".join(
    f"{key}={_SECRET}"
    for key in ("authz", "access_token", "X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Credential", "xrdcl.secret")
)


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[HTTPServer]:
    """A server with TLS that takes passwords and tokens."""
    (tmp_path / "in").mkdir()
    for number in (1, 2, 3):
        write_toy_tree(tmp_path / "in" / f"toy{number}.root", entries=2000, basket_entries=500)
    certificate = make_certificate(tmp_path)
    (tmp_path / "token").write_text(CANARY)
    for name in ("BEARER_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, CANARY)
    monkeypatch.setenv("BEARER_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("STORAGERING_PEER_TOKEN_FILE", str(tmp_path / "token"))
    for name, value in {"RETRIES": "1", "RETRY_SECONDS": "1", "REQUEST_TIMEOUT_SECONDS": "1"}.items():
        monkeypatch.setenv(f"STORAGERING_{name}", value)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    caplog.set_level(logging.DEBUG, "storagering")
    remote_http._session.cache_clear()
    with http_server(tmp_path / "in", certificate) as server:
        yield server
    remote_http._session.cache_clear()


def with_secrets(url: str, *, user: bool = False) -> str:
    """In the query; and in the user info, which then takes the place of the token of the environment."""
    return (url.replace("//", f"//me:{_SECRET}@") if user else url) + f"?{QUERY}"


def shown_in(text: str) -> list[str]:
    return [form for form in FORMS if form in text]


def check_artefacts(cache: Path) -> int:
    """Every file and name below the cache, whatever it is for."""
    written = [path for path in cache.rglob("*") if path.is_file()]
    for path in written:
        assert not shown_in(str(path)), path
        with suppress(FileNotFoundError):  # renamed since
            assert not [form for form in FORMS if form.encode() in path.read_bytes()], path
    return len(written)


def test_the_whole_chain(
    secure: HTTPServer,
    cache: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By the command line; sources stand in lists, as what is typed can be seen by all users of a machine anyway."""
    urls = {number: with_secrets(secure.url(f"toy{number}.root")) for number in (1, 2)}
    for number, url in urls.items():
        (tmp_path / f"{number}.txt").write_text(f"{url}\n")
    (tmp_path / "bad.txt").write_text(f"{with_secrets(secure.url('absent.root'))}\n{urls[1]}\n")
    usual = ["--columns", "event", "MET_pt", "Jet_pt", "--workers", "2", "--chunk-bytes", "16000", "--debug"]
    told = []

    def run(*words: str, code: int = 0) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert main(list(words)) == code
        told.append("".join(capfd.readouterr()))
        check_artefacts(cache)
        return told[-1]

    friend = f"{with_secrets(secure.url('toy3.root'), user=True)}:Events"
    run("convert", f"@{tmp_path}/1.txt", "--name", "x", "--replica", urls[2], "--define", "twice=2*MET_pt", *usual)
    run("convert", f"@{tmp_path}/1.txt", "--name", "friends", "--friend", friend, *usual)
    run("convert", f"@{tmp_path}/bad.txt", "--name", "skipping", "--on-bad-source", "skip", *usual)
    run("append", "x", f"@{tmp_path}/2.txt", "--workers", "2", "--debug")
    run("copy", urls[1], "--to", "parquet", str(tmp_path / "copy.parquet"), "--columns", "event", "--debug")
    run("inspect", urls[1], "--json", "--debug")
    run("export", "x", "--to", "hdf5", str(tmp_path / "out.h5"), "--debug")
    for verb in (["ls"], ["info", "x"], ["info", "skipping", "--json"], ["sql", "SELECT * FROM source_files"]):
        run(*verb)
    assert "absent.root: no such file" in run("sql", "SELECT * FROM skipped_sources")
    chunk = next((cache / "datasets" / "x").glob("chunk-*"))
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"x")
    assert "its bytes changed" in run("verify", "x", "--debug", code=1)
    for fault, code in (
        ("403", 4),
        ("404", 2),
        ("500", 4),
        ("redirect-loop", 4),
        ("reset", 4),
        ("wrong-range", 4),
        ("short", 4),
    ):
        secure.fault = fault  # type: ignore[assignment]
        answer = run("convert", f"@{tmp_path}/2.txt", "--name", "failing", *usual, code=code)
        assert "Traceback" in answer
        assert "toy2.root" in answer
        run("verify", "x", "--repair", "--debug", code=code)
    secure.fault = None
    run("verify", "x", "--repair", "--replica", f"{secure.url('')}={secure.url('')}", "--debug")
    assert "every byte" in run("verify", "x")
    assert not shown_in("".join(told) + caplog.text)
    assert check_artefacts(cache) > 20
    for path in (tmp_path / "out.h5", tmp_path / "copy.parquet"):
        assert not [form for form in FORMS if form.encode() in path.read_bytes()]
    assert [request for request in secure.requests if _SECRET in request.path]
    assert f"Bearer {CANARY}" in {request.authorization for request in secure.requests}


def test_processes_show_none(secure: HTTPServer, cache: Path) -> None:
    """While workers read: what they were started with, their titles, and half-done work on the disk."""
    seen: list[str] = []

    class Look(BuildProgress):
        def advance(self, _entries: int, _decoded_bytes: int) -> None:
            for process in psutil.Process().children(recursive=True):
                seen.extend([*process.cmdline(), process.name(), Path(f"/proc/{process.pid}/comm").read_text()])
            assert check_artefacts(cache)

    url = with_secrets(secure.url("toy1.root"), user=True)
    settings = load_settings(workers=2)
    dataset = convert(url, name="x", chunk_bytes=16_000, settings=settings, progress=Look())
    assert [word for word in seen if re.fullmatch(r"storagering\.cache\.worker", word)]
    assert not shown_in("\n".join(seen))
    assert not shown_in(repr(dataset) + repr(dataset.manifest) + repr(settings))
    assert os.environ["BEARER_TOKEN"] == CANARY

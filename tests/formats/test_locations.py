"""What ``--replica`` and ``--checksum`` say about which source."""

from pathlib import Path

import pytest

from storagering.errors import NotFoundError, SpecError
from storagering.formats.locations import with_checksums, with_replicas
from storagering.formats.source import Location

A, B = "root://near.site:1094//store/a.root", "root://near.site:1094//store/b.root"


def replicas(urls: list[str], *rules: str) -> list[tuple[str, ...]]:
    return [found.replicas for found in with_replicas([Location(url) for url in urls], rules)]


def checksums(urls: list[str], *texts: str) -> list[str]:
    return [found.checksum for found in with_checksums([Location(url) for url in urls], texts)]


def test_a_server_has_the_same_paths() -> None:
    assert replicas([A, B], "root://far.site/", "https://web.site:8443") == [
        ("root://far.site//store/a.root", "https://web.site:8443/store/a.root"),
        ("root://far.site//store/b.root", "https://web.site:8443/store/b.root"),
    ]
    assert replicas(["/data/a.root"], "root://far.site") == [("root://far.site//data/a.root",)]


def test_beginnings_are_exchanged() -> None:
    rule = "root://near.site:1094//store/=/mnt/copies/"
    assert replicas([A, "https://x.site/c.root"], rule) == [("/mnt/copies/a.root",), ()]


def test_one_source_may_have_a_whole_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert replicas([A], "https://x.site/copy.root?authz=1=2") == [("https://x.site/copy.root?authz=1=2",)]
    monkeypatch.chdir(tmp_path)
    assert replicas([A], "copy.root") == [(str(tmp_path / "copy.root"),)]
    with pytest.raises(SpecError, match="one file for 2 sources; name a server"):
        replicas([A, B], "https://x.site/copy.root")


def test_secrets_stay_with_their_server() -> None:
    url = "https://user:word@near.site/store/a.root?authz=TOKEN"
    for rule in ("https://far.site", "https://user:word@near.site/=https://far.site/"):
        [(replica,)] = replicas([url], rule)
        assert replica.startswith("https://far.site/store/a.root")
        assert "word" not in replica
        assert "TOKEN" not in replica


def test_a_rule_that_fits_nothing_is_a_mistake() -> None:
    with pytest.raises(SpecError, match="no source begins like that"):
        replicas([A], "root://other.site//=root://far.site//")


def test_checksums_by_name() -> None:
    assert checksums([A], "adler32:1") == ["adler32:00000001"]
    assert checksums([A, B], f"{B}=adler32:2", "a.root=md5:0") == ["md5:" + "0" * 32, "adler32:00000002"]
    assert checksums([A + "?authz=x=y"], f"{A}?authz=x=y=adler32:1") == ["adler32:00000001"]


def test_checksums_of_a_list(tmp_path: Path) -> None:
    listed = tmp_path / "sums.txt"
    listed.write_text(f"# a comment\n\nadler32:2  {B}\nadler32:1 a.root\n")
    assert checksums([A, B], f"@{listed}") == ["adler32:00000001", "adler32:00000002"]
    listed.write_text("adler32:1\n")
    with pytest.raises(SpecError, match="stands alone; write CHECKSUM SOURCE"):
        checksums([A], f"@{listed}")
    with pytest.raises(NotFoundError, match=r"cannot read the list of checksums .*absent"):
        checksums([A], "@absent")


@pytest.mark.parametrize(
    ("urls", "text", "why"),
    [
        ([A, B], "adler32:1", "there is no such source"),
        ([A], "c.root=adler32:1", "there is no such source"),
        ([A, "root://far.site//a.root"], "a.root=adler32:1", "2 sources have that name"),
        ([A], "a.root=sha1:1", "write ALGORITHM:HEX"),
    ],
)
def test_checksums_of_no_source(urls: list[str], text: str, why: str) -> None:
    with pytest.raises(SpecError, match=why):
        checksums(urls, text)

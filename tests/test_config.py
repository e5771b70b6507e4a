from pathlib import Path

import pytest

from storagering.config import load_settings
from storagering.errors import ConfigError


def test_argument_beats_environment_beats_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("threads = 3\nworkers = 3\nsql_max_rows = 3\n")
    monkeypatch.setenv("STORAGERING_CONFIG", str(file))
    monkeypatch.setenv("STORAGERING_WORKERS", "4")
    monkeypatch.setenv("STORAGERING_THREADS", "4")
    settings = load_settings(threads=5)
    assert (settings.threads, settings.workers, settings.sql_max_rows) == (5, 4, 3)


def test_cache_lies_on_the_job_s_scratch_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGERING_CACHE")
    monkeypatch.setenv("SLURM_TMPDIR", str(tmp_path))
    assert load_settings().cache == tmp_path / "storagering"
    monkeypatch.delenv("SLURM_TMPDIR")
    monkeypatch.setenv("_CONDOR_SCRATCH_DIR", str(tmp_path / "condor"))
    assert load_settings().cache == tmp_path / "condor" / "storagering"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("STORAGERING_WORKER", "1", "nearest names: 'workers'"),
        ("STORAGERING_WORKERS", "many", "not of type int"),
        ("STORAGERING_WORKERS", "0", "must be positive"),
        ("STORAGERING_CONFIG", "/nowhere/settings.toml", "/nowhere/settings.toml"),
    ],
)
def test_refusals(name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words):
        load_settings()

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uproot

from storagering import open_dataset
from storagering.testing.toys import write_toy_rntuple, write_toy_tree

if TYPE_CHECKING:
    from tests.cli.conftest import Command


def test_the_summary(run: Command, toy: Path, cache: Path) -> None:
    outcome = run("convert", toy, "--name", "toys")
    facts = {line[:8].strip(): line[9:].strip() for line in outcome.out.splitlines()}
    assert outcome.code == 0
    assert facts["dataset"] == f"toys in {cache / 'datasets' / 'toys'}"
    assert (facts["entries"], facts["columns"]) == ("400", "11")
    assert facts["chunks"] == "1 (zarr, small)"
    assert "ratio" in facts["on disk"]
    assert "entries/s" in facts["time"]
    assert outcome.err == ""  # no bar where nobody looks


def test_json(run: Command, toy: Path) -> None:
    summary = run("convert", toy, "--name", "toys", "--json").json
    assert summary["built"] is True
    assert summary["entries"] == 400
    assert summary["ratio"] == pytest.approx(summary["raw_bytes"] / summary["nbytes"], abs=1e-3)
    assert summary["skipped"] == []


def test_mixing_is_shown(run: Command, toy: Path) -> None:
    outcome = run("convert", toy, "--name", "toys", "--mix", 3, "--columns", "MET_pt")
    assert "order    mixed over all sources, seed 3" in outcome.out
    assert "mixing 400 entries in 1 part" in outcome.err
    assert run("info", "toys", "--json").json["mix"] == 3
    assert "'entry_id' keeps the way back" in " ".join(run("convert", "--help").out.split())


def test_the_same_again_is_told_and_fine(run: Command, toys: Path) -> None:
    outcome = run("convert", toys, "--name", "toys", "--json")
    assert outcome.code == 0
    assert outcome.json["built"] is False
    assert "is there already, made in the same way" in outcome.err
    assert "entries/s" not in run("convert", toys, "--name", "toys").out


def test_a_name_taken_by_another_dataset_is_2(run: Command, toys: Path) -> None:
    outcome = run("convert", toys, "--name", "toys", "--where", "nJet > 2")
    assert outcome.code == 2
    assert "nJet > 2" in outcome.err
    assert "storagering remove toys" in outcome.err


def test_every_option_reaches_the_dataset(run: Command, toy: Path) -> None:
    words = ["--tree", "Events", "--columns", "Jet_*", "nJet", "--columns", "MET_pt", "--exclude", "Jet_id"]
    words += ["--where", "nJet > 2", "--define", "ht=sum(Jet_pt)", "--define", "two=nJet == 2"]
    words += ["--format", "parquet", "--profile", "fast", "--chunk-bytes", "4KiB", "--on-bad-column", "fail"]
    assert run("convert", toy, "--name", "toys", *words, "--workers", 1).code == 0
    dataset = open_dataset("toys")
    spec = dataset.manifest.spec
    assert set(dataset.schema.names) == {"MET_pt", "nJet", "Jet_pt", "Jet_eta", "ht", "two"}
    assert (spec.format, spec.profile, spec.chunk_bytes, spec.on_bad_column) == ("parquet", "fast", 4096, "fail")
    assert spec.define == (("ht", "sum(Jet_pt)"), ("two", "nJet == 2"))
    assert 0 < len(dataset) < 400
    assert len(dataset.manifest.chunks) > 1


def test_classes_of_several_sources(run: Command, toy: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_toy_tree(tmp_path / f"more-{number}.root", entries=10, seed=number)
    more = [tmp_path / f"more-{number}.root" for number in range(3)]
    words = ["--label", f"a={toy}", "--label", f"b={more[0]}", more[1], "--label", f"a={more[2]}"]
    outcome = run("convert", "--name", "ab", *words)
    assert outcome.code == 0
    assert "label    0 is a, 1 is b" in outcome.out
    assert open_dataset("ab").arrays(["label"])["label"].tolist() == [0] * 410 + [1] * 20


def test_a_source_without_class_beside_classes_is_2(run: Command, toy: Path) -> None:
    outcome = run("convert", toy, "--name", "x", "--label", "a=b.root")
    assert outcome.code == 2
    assert "CLASS=SOURCE" in outcome.err


def test_a_source_that_columns_swallow_is_2(run: Command, toy: Path) -> None:
    outcome = run("convert", "--columns", "event", toy, "--name", "x")
    assert outcome.code == 2
    assert "put sources first" in outcome.err


def test_no_worker_is_2(run: Command, toy: Path) -> None:
    outcome = run("convert", toy, "--name", "x", "--workers", "0")
    assert outcome.code == 2
    assert "at least 1" in outcome.err


def test_a_misspelt_column_lists_the_nearest(run: Command, toy: Path) -> None:
    outcome = run("convert", toy, "--name", "x", "--columns", "Jet_pT")
    assert outcome.code == 2
    assert "'Jet_pt'" in outcome.err


def test_skipped_columns_are_listed(run: Command, shared_data: Path) -> None:
    path = shared_data / "rootfiles" / "uproot-issue-214.root"
    outcome = run("convert", path, "--name", "x", "--json", "--workers", 1)
    skipped = outcome.json["skipped"]
    assert outcome.code == 0
    assert f"{len(skipped)} column(s) could not be read and were skipped:" in outcome.err
    assert all(column["name"] in outcome.err and column["reason"] in outcome.err for column in skipped)
    assert all(column["reason"] in run("info", "x").out for column in skipped)
    assert run("convert", path, "--name", "y", "--on-bad-column", "fail").code in (2, 3)


def test_many_skipped_columns_are_not_all_listed(run: Command, toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from storagering.cli import convert
    from storagering.types import SkippedColumn

    run("convert", toy, "--name", "toys")
    dataset = open_dataset("toys")
    skipped = tuple(SkippedColumn(f"bad{n}", "TBad", "no reader", "toy.root") for n in range(25))
    dataset.manifest = replace(dataset.manifest, skipped=skipped)
    monkeypatch.setattr("storagering.api.convert", lambda *_, progress, **__: progress.start(1) or dataset)
    outcome = run("convert", toy, "--name", "toys")
    assert convert._SHOWN == 20
    assert "25 column(s)" in outcome.err
    assert "bad19" in outcome.err
    assert "bad20" not in outcome.err
    assert "... and 5 more: storagering info toys" in outcome.err


def test_an_rntuple_by_two_workers(run: Command, tmp_path: Path) -> None:
    write_toy_rntuple(tmp_path / "n.root", entries=300, cluster_entries=50)
    outcome = run("convert", tmp_path / "n.root", "--name", "n", "--workers", 2, "--chunk-bytes", 4096, "--json")
    assert outcome.json["entries"] == 300


def test_the_bar_on_a_terminal(toy: Path, cache: Path) -> None:
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    words = [sys.executable, "-m", "storagering", "convert", str(toy), "--name", "toys"]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=True, timeout=60
    )
    assert "converting" in done.stdout
    assert "400/400" in done.stdout
    assert "MB/s" in done.stdout


def test_one_tree_of_two(run: Command, tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "two.root") as file:
        file.mktree("A", {"x": "f8"}).extend({"x": [1.0, 2.0]})
        file.mktree("B", {"y": "f8"}).extend({"y": [1.0]})
    outcome = run("convert", tmp_path / "two.root", "--name", "two")
    assert outcome.code == 2
    assert "2 trees: A, B" in outcome.err
    assert run("convert", tmp_path / "two.root", "--name", "two", "--tree", "B", "--json").json["entries"] == 1


def test_images_become_sparse_on_request_and_by_a_hint_only(run: Command, tmp_path: Path, cache: Path) -> None:
    images = np.zeros((50, 8, 8), "f4")
    images[:, 3, 4] = 1.5
    np.savez(tmp_path / "images.npz", images=images, energy=np.arange(50.0))
    done = run("convert", tmp_path / "images.npz", "--name", "dense", "--workers", 1)
    assert done.code == 0
    assert "mostly zeros: images; --sparse" in done.err
    assert [c.kind for c in open_dataset("dense").schema.columns] == ["fixed-shape", "flat"]
    done = run("convert", tmp_path / "images.npz", "--name", "x", "--workers", 1, "--sparse", "im*", "--sparse", "i*")
    assert done.code == 0
    assert "mostly zeros" not in done.err
    assert "sparse" in run("info", "x").out
    done = run("convert", tmp_path / "images.npz", "--name", "y", "--workers", 1, "--sparse", "energy")
    assert done.code == 2
    assert "no column of fixed shape" in done.err

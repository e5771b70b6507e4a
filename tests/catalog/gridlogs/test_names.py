from __future__ import annotations

import pytest

from storagering.catalog.gridlogs.names import (
    dataset_of_block,
    dataset_of_lfn,
    short_lfn,
    site_of_storage,
    tier_of_dataset,
)

JETHT = "/JetHT/Run2016F-23Sep2016-v1/AOD"


@pytest.mark.parametrize(
    ("name", "dataset"),
    [
        ("/store/data/Run2016F/JetHT/AOD/23Sep2016-v1/70000/D2B97318.root", JETHT),
        ("root://server:1094//store/data/Run2016F/JetHT/AOD/23Sep2016-v1/70000/D2B97318.root?authz=x", JETHT),
        ("/eos/cms/store/data/Run2016F/JetHT/AOD/23Sep2016-v1/7/D.root", JETHT),
        ("/store/mc/Era/QCD/GEN-SIM-RAW/Tag-v2/1/a.root", "/QCD/Era-Tag-v2/GEN-SIM-RAW"),
        ("/store/backfill/1/Era/QCD/GEN-SIM/Tag-v2/1/a.root", "/QCD/Era-Tag-v2/GEN-SIM"),
        ("/store/user/ann/TTJets/skim_v1/180101_120000/0000/out_1.root", "/TTJets/ann-skim_v1/USER"),
        ("/store/unmerged/logs/prod/2016/3/18/job.tar.gz", None),
        ("/data/file.root", None),
        ("", None),
    ],
)
def test_datasets_of_files(name: str, dataset: str | None) -> None:
    assert dataset_of_lfn(name) == dataset


def test_blocks_tiers_and_sites() -> None:
    assert dataset_of_block(f"{JETHT}#1862501a-36f5") == JETHT
    assert dataset_of_block("Dummy") is None
    assert (tier_of_dataset(JETHT), tier_of_dataset("jets")) == ("AOD", "")
    assert (site_of_storage("T1_US_FNAL_Disk"), site_of_storage("T2_US_UCSD")) == ("T1_US_FNAL", "T2_US_UCSD")
    assert short_lfn("gsiftp://se:2811//store/a.root?token=secret") == "/store/a.root"

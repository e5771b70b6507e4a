"""A made-up grid: sites, datasets with replicas, and jobs that read them; with facts that its logs must give away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Where the sites' servers and worker nodes are.
DOMAINS = {
    "T1_US_FNAL": "fnal.gov",
    "T2_BE_IIHE": "iihe.ac.be",
    "T2_CH_CERN": "cern.ch",
    "T2_DE_DESY": "desy.de",
    "T2_ES_CIEMAT": "ciemat.es",
    "T2_FR_IPHC": "in2p3.fr",
    "T2_IT_Pisa": "pi.infn.it",
    "T2_US_UCSD": "ucsd.edu",
}
SITES = tuple(DOMAINS)
#: Seconds since 1970 of the first day: 2018-01-01.
START = 1_514_764_800
DAY = 86_400
#: What is planted.
FAILING_SITE, SLOW_SITE, HOT_SITE = "T2_IT_Pisa", "T2_ES_CIEMAT", "T2_US_UCSD"
_TIERS = ("AOD", "AODSIM", "MINIAOD", "MINIAODSIM", "USER")
_PRIMARIES = ("JetHT", "SingleMuon", "DYJetsToLL", "TTJets", "QCD_Pt-15to7000", "WJetsToLNu")
_COLD_DAYS = 20
_HOT_DAYS = 28


@dataclass(frozen=True)
class Dataset:
    """A dataset.

    Attributes:
        folder: of its files, a logical file name.
        replicas: sites that have it whole.
    """

    name: str
    tier: str
    folder: str
    files: int
    file_bytes: int
    replicas: tuple[str, ...]

    def lfn(self, number: int) -> str:
        """The logical name of a file."""
        return f"{self.folder}/0000/{number:08X}-AAAA-E811-9C03-0CC47A4D75EC.root"


@dataclass(frozen=True)
class Job:
    """A job that reads one file of a dataset, at its site or from one that has it.

    Attributes:
        start: seconds since 1970.
        wall, cpu, reading: seconds.
    """

    number: int
    site: str
    server: str
    dataset: Dataset
    lfn: str
    user: str
    start: int
    wall: int
    cpu: float
    reading: float
    read_bytes: int
    exit_code: int

    @property
    def stop(self) -> int:
        """When it ended."""
        return self.start + self.wall


@dataclass(frozen=True)
class World:
    """All that happened.

    Attributes:
        cold: nobody reads it after the first days, though sites keep it.
        hot: in the last weeks it is read at `HOT_SITE`, which has no replica.
        end: seconds since 1970 of the end of the last day.
    """

    datasets: tuple[Dataset, ...]
    cold: Dataset
    hot: Dataset
    jobs: tuple[Job, ...]
    end: int


def make_world(seed: int, days: int, jobs: int) -> World:
    """A grid that follows from the seed alone."""
    rng = np.random.default_rng(seed)
    datasets = tuple(_dataset(rng, number) for number in range(30))
    cold, hot = datasets[7], _away_from(datasets[2], HOT_SITE)
    datasets = tuple(hot if one.name == hot.name else one for one in datasets)
    weights = 1 / np.arange(1, len(datasets) + 1)
    weights[7] = 0
    chosen = rng.choice(len(datasets), jobs, p=weights / weights.sum())
    starts = np.sort(rng.uniform(START, START + days * DAY - 43_200, jobs)).astype(int)
    found = [
        _job(rng, number, datasets[at], int(start))
        for number, (at, start) in enumerate(zip(chosen, starts, strict=True))
    ]
    extra = max(20, jobs // 20)
    for number in range(extra):
        start = START + int(rng.uniform(0, _COLD_DAYS * DAY))
        found.append(_job(rng, jobs + number, cold, start))
        start = START + int((days - _HOT_DAYS) * DAY + rng.uniform(0, (_HOT_DAYS - 1) * DAY))
        found.append(_job(rng, jobs + extra + number, hot, start, HOT_SITE))
    return World(datasets, cold, hot, tuple(found), START + days * DAY)


def _dataset(rng: np.random.Generator, number: int) -> Dataset:
    tier = _TIERS[number % len(_TIERS)]
    primary = f"{_PRIMARIES[number % len(_PRIMARIES)]}_{number}"
    if tier == "USER":
        name, folder = f"/{primary}/user{number % 4}-skim_v{number}/USER", f"/store/user/user{number % 4}/{primary}"
        folder += f"/skim_v{number}/180101_120000"
    else:
        era = "RunIIFall17" if tier.endswith("SIM") else "Run2017F"
        area = "mc" if tier.endswith("SIM") else "data"
        name = f"/{primary}/{era}-31Mar2018-v1/{tier}"
        folder = f"/store/{area}/{era}/{primary}/{tier}/31Mar2018-v1"
    replicas = tuple(str(site) for site in rng.choice(SITES, rng.integers(1, 4), replace=False))
    return Dataset(name, tier, folder, int(rng.integers(5, 50)), int(rng.uniform(1e9, 4e9)), replicas)


def _away_from(dataset: Dataset, site: str) -> Dataset:
    replicas = tuple(one for one in dataset.replicas if one != site) or ("T1_US_FNAL",)
    return Dataset(dataset.name, dataset.tier, dataset.folder, dataset.files, dataset.file_bytes, replicas)


def _job(rng: np.random.Generator, number: int, dataset: Dataset, start: int, site: str = "") -> Job:
    site = site or str(rng.choice(dataset.replicas if rng.random() < 0.8 else SITES))
    server = site if site in dataset.replicas else dataset.replicas[0]
    read_bytes = int(dataset.file_bytes * rng.uniform(0.1, 0.9))
    speed = rng.uniform(0.5e6, 1.5e6) if site == SLOW_SITE else rng.uniform(2e7, 8e7)
    cpu, reading = rng.uniform(1000, 6000), read_bytes / speed
    failed = rng.random() < (0.4 if site == FAILING_SITE else 0.03)
    return Job(
        number,
        site,
        server,
        dataset,
        dataset.lfn(int(rng.integers(dataset.files))),
        f"user{rng.integers(12)}",
        start,
        max(1, int(1.05 * cpu + reading)),
        float(cpu),
        float(reading),
        read_bytes,
        int(rng.choice([8021, 8001, 50660])) if failed else 0,
    )

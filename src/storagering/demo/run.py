"""The demo, step by step."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from storagering.api import convert
from storagering.cache.dataset import Dataset, open_dataset
from storagering.cache.layout import open_cache
from storagering.cache.progress import BuildProgress
from storagering.catalog.query import sql
from storagering.config import Settings, load_settings
from storagering.demo.jets import make_jet_files, served
from storagering.errors import ResumeMismatchError, SchemaError
from storagering.formats.sources import LabelledSources, resolve_sources
from storagering.types import sha256_hex
from storagering.urls import redact_url

if TYPE_CHECKING:
    import pyarrow as pa

    from storagering.demo.timing import Epoch
    from storagering.training import Report

DEFAULT_JETS = 6000
RECIPE = "jet-deepset"
CHECKPOINT = "checkpoint.safetensors"
_JETS_QUERY = """\
SELECT {classes}[label + 1] AS class, count(*) AS jets, round(avg(jet_mass), 2) AS mass_gev,
       round(avg(jet_pt), 2) AS pt_gev, round(avg(len(part_pt)), 2) AS particles
FROM {name} GROUP BY label ORDER BY label"""
_STATISTICS_QUERY = """\
SELECT name, kind, dtype, unit, count, min, max, mean, std
FROM columns WHERE dataset = '{name}' ORDER BY position"""
_CLASSES_QUERY = "SELECT {classes}[label + 1] AS class, count(*) AS entries FROM {name} GROUP BY label ORDER BY label"


class DemoTalk:
    """What the demo tells while it works; subclass it to show something. The default is silent."""

    def step(self, title: str) -> None:
        """The next step begins."""

    def say(self, message: str) -> None:
        """A sentence."""

    def table(self, query: str, table: pa.Table) -> None:
        """A query and its result."""

    def generated(self, jets: int, total: int) -> None:
        """So many jets of all are there."""

    def converting(self) -> BuildProgress:
        """Who follows the conversion."""
        return BuildProgress()


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What the demo runs on.

    Attributes:
        sources: the user's own files; without them and without ``labels``, jets are generated.
        labels: {class: the user's own files}.
        tree: name of their tree; found by itself where there is only one.
        output: folder of everything that the demo makes.
        jets: number of jets to generate.
        training_progress: show a bar on stderr while training.
    """

    sources: Sequence[str] = ()
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    tree: str | None = None
    output: Path = Path("demo-output")
    jets: int = DEFAULT_JETS
    training_progress: bool = False


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found.

    Attributes:
        report: of the training, None if the data do not allow one.
        epochs: the pass straight from ROOT, then those from the cache.
    """

    dataset: Dataset
    report: Report | None
    epochs: list[Epoch]


def run_demo(options: DemoOptions, talk: DemoTalk) -> DemoResult:
    """Run the demo; everything it makes stays below ``options.output``.

    A second run uses the files, the dataset and the checkpoint of the first.

    Raises:
        StorageringError: a step fails; what the steps before it made stays.
    """
    settings = _settings(options.output)
    if options.sources or options.labels:
        return _run_on(options, settings, talk, options.labels or list(options.sources))
    talk.step(f"Simulating {options.jets:,} jets")
    files = make_jet_files(
        options.output / "root",
        options.jets,
        say=talk.say,
        progress=lambda done: talk.generated(done, options.jets),
    )
    with served(files, talk.say) as labels:
        return _run_on(options, settings, talk, labels)


def _settings(output: Path) -> Settings:
    """The settings in force, with a cache of the demo's own unless the user has chosen one."""
    return load_settings(cache=None if os.environ.get("STORAGERING_CACHE") else output / "cache")


def _run_on(
    options: DemoOptions, settings: Settings, talk: DemoTalk, sources: Mapping[str, Sequence[str]] | Sequence[str]
) -> DemoResult:
    talk.step("Converting ROOT into a cached dataset")
    resolved = resolve_sources(_plain(sources), settings)
    dataset = _convert(options, settings, talk, resolved)
    talk.step("Asking with SQL")
    for query in _queries(dataset):
        talk.table(query, sql(query, settings=settings))
    report = _train(options, talk, dataset)
    talk.step("Timing epochs: the same columns, padded, in batches of torch tensors")
    return DemoResult(dataset, report, _time(settings, talk, dataset, [url for url, _ in resolved]))


def _plain(sources: Mapping[str, Sequence[str]] | Sequence[str]) -> LabelledSources:
    return dict(sources) if isinstance(sources, Mapping) else list(sources)


def _convert(
    options: DemoOptions, settings: Settings, talk: DemoTalk, resolved: Sequence[tuple[str, str | None]]
) -> Dataset:
    own = not (options.sources or options.labels)
    name = f"jets_{options.jets}" if own else _name_of(resolved, options.tree)
    if own and (known := _known_jets(settings, name, resolved)) is not None:
        talk.say(f"dataset {name!r} is there already: converted once, read as often as you like")
        return known
    labels: dict[str, list[str | Path]] = {}
    for url, label in resolved:
        labels.setdefault(label or "", []).append(url)
    dataset = convert(
        labels.pop("", None),
        labels=labels or None,
        name=name,
        tree=options.tree,
        settings=settings,
        progress=talk.converting(),
    )
    talk.say(f"{dataset!r} from {len(resolved)} file(s)")
    for skipped in dataset.manifest.skipped[:5]:
        talk.say(f"skipped column {skipped.name!r} ({skipped.typename}): {skipped.reason}")
    return dataset


def _name_of(resolved: Sequence[tuple[str, str | None]], tree: str | None) -> str:
    """Other files or another tree, another dataset."""
    text = "\n".join([f"{redact_url(url)} {label}" for url, label in resolved] + ([tree] if tree else []))
    return f"source_{sha256_hex(text.encode())[:8]}"


def _known_jets(settings: Settings, name: str, resolved: Sequence[tuple[str, str | None]]) -> Dataset | None:
    """The dataset of an earlier demo: its server had another port, so its sources are known by their names."""
    cache = open_cache(settings)
    if not cache.contains(name):
        return None
    dataset = open_dataset(name, cache=cache)
    before = [PurePosixPath(file.url).name for file in dataset.manifest.sources]
    return dataset if before == [PurePosixPath(url).name for url, _ in resolved] else None


def _queries(dataset: Dataset) -> list[str]:
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in dataset.manifest.spec.classes)
    known = {"name": dataset.name, "classes": f"[{quoted}]"}
    if dataset.name.startswith("jets_"):
        return [_JETS_QUERY.format(**known)]
    queries = [_STATISTICS_QUERY.format(**known)]
    return [*queries, _CLASSES_QUERY.format(**known)] if quoted else queries


def _train(options: DemoOptions, talk: DemoTalk, dataset: Dataset) -> Report | None:
    """Train if the data allow it; say why not otherwise."""
    from storagering.training import TrainingOptions, train

    output = training_folder(options.output, dataset)
    choices = TrainingOptions(progress=options.training_progress)
    talk.step(f"Training {RECIPE}")
    try:
        return train(RECIPE, dataset, output=output, options=choices)
    except ResumeMismatchError:
        talk.say(f"the checkpoint in {output} belongs to an earlier dataset: training from the start")
        (output / CHECKPOINT).unlink()
        return train(RECIPE, dataset, output=output, options=choices)
    except SchemaError as error:
        talk.say(f"no training: {error}")
        return None


def training_folder(output: Path, dataset: Dataset) -> Path:
    """Where the demo's training of a dataset writes."""
    return output / f"training-{dataset.name}"


def _time(settings: Settings, talk: DemoTalk, dataset: Dataset, urls: Sequence[str]) -> list[Epoch]:
    import storagering.loaders.torch  # noqa: F401  (tells first what is missing without PyTorch)
    from storagering.demo.timing import comparable_columns, time_cache_epochs, time_root_epoch

    columns = comparable_columns(dataset)
    if not columns:
        talk.say("no timing: no column is of numbers that the files hold as well")
        return []
    talk.say(f"columns: {', '.join(columns)}")
    return [time_root_epoch(dataset, urls, columns, settings), *time_cache_epochs(dataset, columns, settings)]

"""A dataset of a node, and the folder by which a plain HTTP server answers as that node would."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from storagering.api import convert
from storagering.cache.layout import Cache, open_cache
from storagering.cache.manifest import MANIFEST_NAME
from storagering.config import load_settings
from storagering.testing.nodes import lay_out_answers
from storagering.testing.toys import write_toy_tree
from storagering.types import Manifest


@dataclass(frozen=True)
class Original:
    """The dataset ``toys`` of another node.

    Attributes:
        answers: what an HTTP server needs to answer as that node.
    """

    cache: Cache
    manifest: Manifest
    answers: Path

    @property
    def folder(self) -> Path:
        return self.cache.path("toys")

    def data(self, number: int) -> bytes:
        return (self.folder / self.manifest.chunks[number].file).read_bytes()


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    place = tmp_path_factory.mktemp("original")
    write_toy_tree(place / "toy.root", entries=3000, basket_entries=500)
    settings = load_settings(cache=place / "cache", workers=1)
    dataset = convert(str(place / "toy.root"), name="toys", chunk_bytes=50_000, settings=settings)
    data = (dataset.path / MANIFEST_NAME).read_bytes()
    lay_out_answers(place / "answers", dataset.path, dataset.manifest, data)
    return Original(open_cache(settings), dataset.manifest, place / "answers")

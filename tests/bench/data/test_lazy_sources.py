"""Datasets whose loader leaves the images in their files: kept in memory when they fit, streamed otherwise."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from bench.data.dataset import ImageDataset, in_memory
from bench.data.reading import Streamed
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.registry import Registry, discover
from bench.spec import DataSpec

from .lazy import FileImages, noise, write_images

COUNT = 120
LOADER = """
from pathlib import Path

import numpy as np

from bench.card import DatasetCard
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on
from bench.data.splits import stratified_splits
from bench.registry import register_dataset
from {module} import FileImages


@register_dataset("scans", card=DatasetCard(title="Scans", summary="s", license="l", source="s"))
@depends_on(files=lambda root, params: [root / "images.npy"])
def scans(root: Path, *, broken: int = -1) -> ImageDataset:
    labels = np.arange({count}) % 3
    names = Path(__file__).with_suffix(".names")
    return ImageDataset(
        key="scans", title="Scans", images=FileImages(root / "images.npy", broken=broken), labels=labels,
        class_names=tuple(names.read_text().split()) if names.exists() else ("a", "b", "c"),
        splits=stratified_splits(labels, validation=12, test=12),
        metadata={{"patient": np.array([f"p{{i // 2}}" for i in range({count})])}},
    )
"""
SCANS = DataSpec(key="scans")


class Place:
    """A folder with a data set, a plug-in that loads it, and a cache."""

    def __init__(self, folder: Path, dtype: type = np.uint8) -> None:
        self.plugin = folder / "scans_plugin.py"
        self.plugin.write_text(LOADER.format(module=FileImages.__module__, count=COUNT))
        self.images = write_images(folder / "data", noise(COUNT, dtype=dtype))
        self.registry: Registry = discover([self.plugin]).datasets
        self.cache = folder / "cache"

    def source(self, **settings: int) -> DataSource:
        return DataSource(self.registry, root=self.images.file.parent, cache=self.cache, **settings)

    def reads_of(self, load: object) -> list[int]:
        """How often each image is read by ``load``."""
        self.images.log.unlink(missing_ok=True)
        assert callable(load)
        load()
        return [self.images.reads()[row] for row in range(COUNT)]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOINTBENCH_MEMORY", "1e-6")


def as_array(place: Place) -> ImageDataset:
    """The same set, its pixels in memory from the start."""
    data = place.registry["scans"].load()(place.images.file.parent)
    return ImageDataset(**{**vars(data), "images": np.load(place.images.file)})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("memory", ["1", "1e-6"])
def test_fingerprint_and_statistics_are_those_of_an_array_after_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type, memory: str
) -> None:
    place = Place(tmp_path, dtype)
    monkeypatch.setenv("JOINTBENCH_MEMORY", memory)
    expected = as_array(place)
    found = []
    reads = place.reads_of(lambda: found.append(place.source(loaders=2).load(SCANS)))
    assert reads == [1] * COUNT and not multiprocessing.active_children()
    assert in_memory(found[0].images) == (memory == "1")
    assert found[0].fingerprint == expected.fingerprint
    assert found[0].channel_statistics == expected.channel_statistics
    assert np.array_equal(np.asarray(found[0].images), np.asarray(expected.images))


def test_images_that_fit_are_cached_and_never_decoded_again(place: Place) -> None:
    first = place.source().load(SCANS)
    again = []
    assert not any(place.reads_of(lambda: again.append(place.source().load(SCANS))))
    assert in_memory(again[0].images) and again[0].fingerprint == first.fingerprint


@pytest.mark.usefixtures("little_memory")
def test_a_later_start_knows_fingerprint_and_statistics_of_streamed_images_and_decodes_none(place: Place) -> None:
    first = place.source(loaders=2).load(SCANS)
    found = []

    def start() -> None:
        data = place.source(loaders=3).load(SCANS)
        found.append((data, data.fingerprint, data.channel_statistics, place.source().fingerprint(SCANS)))

    assert not any(place.reads_of(start))
    data, fingerprint, statistics, planned = found[0]
    assert fingerprint == planned == first.fingerprint and statistics == first.channel_statistics
    assert isinstance(data.images, Streamed) and data.images.loaders == 3
    assert not list(place.cache.glob("*.npz"))
    assert data.metadata["patient"].tolist() == first.metadata["patient"].tolist()


def test_another_budget_gives_the_same_set_in_its_other_form(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = place.source().load(SCANS)
    monkeypatch.setenv("JOINTBENCH_MEMORY", "1e-6")
    found = []
    assert not any(place.reads_of(lambda: found.append(place.source().load(SCANS))))
    assert not in_memory(found[0].images) and found[0].fingerprint == kept.fingerprint
    monkeypatch.setenv("JOINTBENCH_MEMORY", "1")
    (place.cache / next(place.cache.glob("*.npz")).name).unlink()
    assert place.reads_of(lambda: found.append(place.source().load(SCANS))) == [1] * COUNT
    assert in_memory(found[1].images) and found[1].fingerprint == kept.fingerprint


@pytest.mark.usefixtures("little_memory")
def test_a_record_that_is_damaged_or_of_other_labels_is_made_anew(place: Place) -> None:
    first = place.source().load(SCANS)
    (record,) = place.cache.glob("*.json")
    record.write_text(record.read_text().replace(first.fingerprint[:8], "00000000"))
    assert place.reads_of(lambda: place.source().load(SCANS)) == [1] * COUNT
    assert place.source().fingerprint(SCANS) == first.fingerprint
    place.plugin.with_suffix(".names").write_text("x y z")  # a loader that does not declare what it depends on
    assert place.reads_of(lambda: place.source().load(SCANS)) == [1] * COUNT
    assert place.source().fingerprint(SCANS) != first.fingerprint


@pytest.mark.parametrize("memory", ["1", "1e-6"])
def test_an_image_that_cannot_be_read_is_named(place: Place, monkeypatch: pytest.MonkeyPatch, memory: str) -> None:
    monkeypatch.setenv("JOINTBENCH_MEMORY", memory)
    with pytest.raises(DataError, match=r"^scan 77\.png is truncated"):
        place.source(loaders=2).load(DataSpec(key="scans", params={"broken": 77}))
    assert not multiprocessing.active_children() and not list(place.cache.glob("*.json"))


def test_processes_that_work_at_the_same_time_share_the_memory(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    size = np.load(place.images.file).nbytes
    monkeypatch.setenv("JOINTBENCH_MEMORY", str(1.5 * size / 2**30))
    assert in_memory(place.source().load(SCANS).images)
    assert not in_memory(place.source(sharers=2).load(SCANS).images)

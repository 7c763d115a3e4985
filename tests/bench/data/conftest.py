from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.data.dataset import ImageDataset
from bench.data.sources import DataSource
from bench.registry import Registry, discover
from bench.spec import DataSpec


@pytest.fixture(scope="session")
def datasets() -> Registry:
    return discover().datasets


@pytest.fixture(scope="session")
def embedded(datasets: Registry, tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    """A source without a folder of data, whose cache the tests share."""
    return DataSource(datasets, root=None, cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def digits(embedded: DataSource) -> ImageDataset:
    return embedded.load(DataSpec(key="digits"))


@pytest.fixture(scope="session")
def mnist5k(embedded: DataSource) -> ImageDataset:
    return embedded.load(DataSpec(key="mnist5k"))


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The user's folder of data, for tests with real images."""
    folder = os.environ.get("JOINTBENCH_DATA")
    if not folder:
        pytest.skip("JOINTBENCH_DATA is not set: no real images to read")
    return Path(folder)


@pytest.fixture
def real_source(real_data: Path, datasets: Registry, tmp_path: Path) -> DataSource:
    return DataSource(datasets, root=real_data, cache=tmp_path / "cache")

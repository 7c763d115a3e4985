"""Settings of the whole suite: they hold in a checkout and beside an installed wheel alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error")
    config.addinivalue_line("markers", "perf: a benchmark that prints ratios; runs only with -m perf")
    if not config.option.markexpr:
        config.option.markexpr = "not perf"


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tests run beside each other: one thread each, and the same sums on every machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real images that ``JOINTBENCH_DATA`` names."""
    folder = os.environ.get("JOINTBENCH_DATA")
    if not folder:
        pytest.skip("JOINTBENCH_DATA names no folder of real images")
    return Path(folder)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of parsed datasets for the whole session, so that no test touches the user's."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOINTBENCH_CACHE", str(folder))
        yield folder

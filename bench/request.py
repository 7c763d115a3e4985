"""A request: a suite with its options, made into a plan against a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench import DEFAULT_STORE
from bench.cost import Calibrated
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.plan import Plan, make_plan
from bench.registry import Catalog, discover
from bench.runner import Settings, default_threads, default_workers, resolve_device
from bench.spec import DataSpec
from bench.store import Store
from bench.suite import expand, find_suite


def default_cache() -> Path:
    """Folder for parsed datasets: ``JOINTBENCH_CACHE``, else the user's cache folder."""
    if given := os.environ.get("JOINTBENCH_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "jointbench"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a user asked for, as typed.

    Attributes:
        data: folder of the user's images; without ``dataset`` it is read as a folder of class folders.
        dataset: key of a dataset that replaces the suite's.
    """

    suite: str = "quick"
    methods: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    seeds: int | None = None
    data: Path | None = None
    dataset: str = ""
    store: str = DEFAULT_STORE
    plugins: tuple[Path, ...] = ()
    device: str = "auto"
    devices: int = 1
    workers: int = 0
    threads: int = 0
    force: bool = False

    @cached_property
    def catalog(self) -> Catalog:
        return discover(self.plugins)

    @cached_property
    def results(self) -> Store:
        return Store(self.store)

    @property
    def root(self) -> Path | None:
        """The folder of the user's data: ``--data``, else ``JOINTBENCH_DATA``."""
        given = self.data or (Path(os.environ["JOINTBENCH_DATA"]) if os.environ.get("JOINTBENCH_DATA") else None)
        if given is not None and not given.is_dir():
            raise DataError(f"{given}: there is no such folder. Check --data or JOINTBENCH_DATA.")
        return given

    @property
    def data_spec(self) -> DataSpec | None:
        if self.dataset and self.dataset != "folder":
            return DataSpec(key=self.dataset)
        if self.data or self.dataset:
            return DataSpec(key="folder", params={"name": self.root.resolve().name} if self.root else {})
        return None

    @property
    def settings(self) -> Settings:
        return Settings(
            store=self.store,
            cache=default_cache(),
            root=self.root,
            plugins=self.catalog.plugins,
            device=self.device,
            devices=self.devices,
            workers=self.workers,
            threads=self.threads,
            force=self.force,
        )

    @property
    def planned_workers(self) -> int:
        """Worker processes that a run would use."""
        return self.workers or default_workers(resolve_device(self.device), self.devices)

    def calibration(self) -> Calibrated:
        """Estimates of what this machine would take."""
        from bench.calibration import Calibration  # lazily: with torch

        device = resolve_device(self.device)
        source = DataSource(self.catalog.datasets, root=self.root, cache=default_cache())
        threads = self.threads or default_threads(device)
        return Calibration(self.catalog, source, cache=default_cache(), device=device, threads=threads)

    def plan(self, rows: pd.DataFrame) -> Plan:
        """Every cell of the request with its state against ``rows``."""
        key, suite = find_suite(self.suite, self.catalog)
        source = DataSource(self.catalog.datasets, root=self.root, cache=default_cache())
        specs = expand(
            suite,
            self.catalog,
            methods=self.methods,
            protocols=self.protocols,
            seeds=self.seeds,
            data=self.data_spec,
            offers=source.offers,
        )
        return make_plan(key, suite, specs, self.catalog, source, rows, words=self._words())

    def _words(self) -> Sequence[str]:
        """What a recomputing command must repeat."""
        options = [self.suite]
        for plugin in self.plugins:
            options += ["--plugin", str(plugin)]
        if self.data:
            options += ["--data", str(self.data)]
        if self.dataset:
            options += ["--dataset", self.dataset]
        if self.store != DEFAULT_STORE:
            options += ["--store", self.store]
        return options

"""A request: a suite with its options, made into a plan against a store."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from bench import DEFAULT_STORE
from bench.choice import Choice, choose
from bench.cost import Calibrated
from bench.data.sources import DataSource
from bench.plan import Plan, make_plan
from bench.registry import Catalog, discover
from bench.runner import Settings, default_threads, default_workers, resolve_device
from bench.spec import DataSpec
from bench.store import Store
from bench.suite import Candidate, expand, find_suite, suite_data


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
        data: folder or file of the user's images; without ``dataset`` its layout is recognized.
        dataset: key of a dataset that replaces the suite's, or a name under which the user keeps one.
        labels: CSV with the labels of the images in ``data``.
        data_params: ``KEY=VALUE``, parameters of the dataset.
    """

    suite: str = "quick"
    methods: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    seeds: int | None = None
    data: Path | None = None
    dataset: str = ""
    labels: Path | None = None
    data_params: tuple[str, ...] = ()
    store: str = DEFAULT_STORE
    plugins: tuple[Path, ...] = ()
    device: str = "auto"
    devices: int = 1
    workers: int = 0
    threads: int = 0
    loaders: int = 0
    force: bool = False

    @cached_property
    def catalog(self) -> Catalog:
        return discover(self.plugins)

    @cached_property
    def results(self) -> Store:
        return Store(self.store)

    @cached_property
    def chosen(self) -> Choice:
        return choose(
            self.catalog.datasets,
            data=self.data,
            dataset=self.dataset,
            labels=self.labels,
            params=self.data_params,
            suite=self._suite_data if self.data is not None else (),
        )

    @property
    def _suite_data(self) -> tuple[DataSpec, ...]:
        """Every dataset that the suite names."""
        _, suite = find_suite(self.suite, self.catalog)
        return (suite.data, *(item.data for item in suite.protocols if item.data))

    @property
    def root(self) -> Path | None:
        """The folder of the user's data: that of ``--data`` or of the named set, else ``JOINTBENCH_DATA``."""
        return self.chosen.root

    @property
    def data_spec(self) -> DataSpec | None:
        return self.chosen.spec

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
            loaders=self.loaders,
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

    @property
    def place(self) -> tuple[str, str]:
        """Suite and data of the request, as the store remembers imported encoders for them."""
        key, suite = find_suite(self.suite, self.catalog)
        data = suite_data(suite, self.catalog, self.data_spec)
        return key, data.key if data.label == data.key else f"{data.key} {data.label}"

    @property
    def imports(self) -> tuple[Candidate, ...]:
        """The encoders from files that the store holds for this suite and these data."""
        records = [record for record in self.results.imports() if (record["suite"], record["data"]) == self.place]
        return tuple(Candidate.model_validate(record["candidate"]) for record in records)

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
            imports=self.imports,
        )
        return make_plan(key, suite, specs, self.catalog, source, rows, words=self._words())

    def _words(self) -> Sequence[str]:
        """What a recomputing command must repeat."""
        options = [self.suite]
        for plugin in self.plugins:
            options += ["--plugin", str(plugin)]
        if self.data:
            options += ["--data", str(self.data)]
        if self.labels:
            options += ["--labels", str(self.labels)]
        if self.dataset:
            options += ["--dataset", self.dataset]
        for param in self.data_params:
            options += ["--data-param", param]
        if self.store != DEFAULT_STORE:
            options += ["--store", self.store]
        return options

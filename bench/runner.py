"""The runner: executes a plan; what fails becomes a row and the other cells go on."""

from __future__ import annotations

import importlib
import os
import queue
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from bench.card import ProtocolCard
from bench.data.sources import DataSource
from bench.errors import JobError, RequestError
from bench.executors import InlineExecutor, event_queue, local_processes
from bench.job import Bundle, Event, Result, Workshop, execute, write_failure
from bench.plan import PlannedCell
from bench.registry import Catalog, discover
from bench.store import Store


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a plan is executed; nothing here changes a result's identity.

    Attributes:
        store: URL of the store.
        root: folder of the user's data, if any.
        cache: folder for parsed datasets.
        plugins: plug-in files.
        device: ``auto``, ``cpu`` or ``cuda``.
        devices: processes that share each pre-training and each evaluation, one CUDA device or one share of the cores
            each. The result is that of one process up to rounding, as with another number of threads.
        workers: worker processes; 0 chooses by device and cores.
        threads: threads of each worker; 0 is one on a CPU. Another number sums in another order: training amplifies
            the difference, as another seed would.
        loaders: processes that decode images for each of these processes, where images do not fit into memory; 0
            chooses by the cores. Another number gives the same bits.
        force: recompute even what is fresh.
        save_seconds: least time between two saves of an unfinished training.
    """

    store: str
    cache: Path
    root: Path | None = None
    plugins: tuple[Path, ...] = ()
    device: str = "auto"
    devices: int = 1
    workers: int = 0
    threads: int = 0
    loaders: int = 0
    force: bool = False
    save_seconds: float = 10.0


def bundles_of(suite: str, cells: Iterable[PlannedCell]) -> list[Bundle]:
    """Cells grouped by the encoder that they evaluate; encoders that need training come first."""
    groups: dict[str, list[PlannedCell]] = {}
    for cell in cells:
        groups.setdefault(cell.pretraining.digest, []).append(cell)
    bundles = [
        Bundle(suite=suite, spec=group[0].spec.pretrain, identity=group[0].pretraining, cells=tuple(group))
        for group in groups.values()
    ]
    return sorted(bundles, key=lambda bundle: bundle.spec.training is None)


def run(
    suite: str,
    cells: Iterable[PlannedCell],
    settings: Settings,
    notify: Callable[[Event], None],
    *,
    catalog: Catalog,
) -> None:
    """Compute the cells and write every outcome to the store.

    Args:
        notify: receives the events of all jobs, in this process.

    Raises:
        RequestError: the device, or as many of it as are asked for, is not there; a batch cannot be divided over them;
            an evaluation needs a package that is not installed.
    """
    bundles = bundles_of(suite, cells)
    device = resolve_device(settings.device)
    check_devices(device, settings.devices)
    check_packages(bundles, catalog)
    for bundle in bundles:
        if bundle.spec.training is not None:
            bundle.spec.training.own_batch_size(settings.devices)
    threads = settings.threads or default_threads(device)
    workers = min(settings.workers or default_workers(device, settings.devices), len(bundles))
    if not Store(settings.store).storage.is_shared:
        workers = 1
    if workers <= 1:
        _open_workshop(settings, device, threads, workers, notify, catalog)
        _drive(bundles, InlineExecutor, lambda: None)
        return
    with event_queue() as manager:
        events: queue.Queue[Event] = manager.Queue()
        arguments = (settings, device, threads, workers, events)
        rejected = _drive(
            bundles,
            lambda: local_processes(workers, _initialize_worker, arguments),
            lambda: _drain(events, notify),
        )
    if rejected:
        shop = _open_workshop(settings, device, threads, workers, notify, catalog)
        for bundle in rejected:
            _write_off(bundle, shop)


def _drive(bundles: list[Bundle], make_executor: Callable[[], Executor], drain: Callable[[], None]) -> list[Bundle]:
    """Compute all bundles; returns those that took their worker process with them.

    A dying worker breaks the pool for everybody, so what it left undone is tried again, each bundle alone. Bundles
    that another run was computing come last: then there is nothing better to do than to wait for it.
    """
    elsewhere, broken = _round(bundles, make_executor, drain, wait_for_others=False)
    rejected = []
    for bundle in broken:
        rejected += _round([bundle], make_executor, drain, wait_for_others=True)[1]
    if elsewhere:
        rejected += _round(elsewhere, make_executor, drain, wait_for_others=True)[1]
    return rejected


def _round(
    bundles: list[Bundle], make_executor: Callable[[], Executor], drain: Callable[[], None], *, wait_for_others: bool
) -> tuple[list[Bundle], list[Bundle]]:
    elsewhere, broken = [], []
    with make_executor() as executor:
        futures: dict[Future[Result], Bundle] = {}
        try:
            for bundle in bundles:
                try:
                    futures[executor.submit(_work, bundle, wait_for_others)] = bundle
                except BrokenProcessPool:  # a worker died while others were being submitted
                    broken.append(bundle)
            waiting = set(futures)
            while waiting:
                _, waiting = wait(waiting, timeout=0.2)
                drain()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        for future, bundle in futures.items():
            try:
                if future.result() == "elsewhere":
                    elsewhere.append(bundle)
            except BrokenProcessPool:
                broken.append(bundle)
    drain()
    return elsewhere, broken


def _drain(events: queue.Queue[Event], notify: Callable[[Event], None]) -> None:
    while True:
        try:
            notify(events.get_nowait())
        except queue.Empty:
            return


def _write_off(bundle: Bundle, shop: Workshop) -> None:
    error = JobError(
        "its worker process died twice (out of memory, or a crash in native code). "
        "Run again with --workers 1 to see more, or with a smaller batch size."
    )
    rows = shop.store.frame()
    answered = set(rows.loc[rows["status"] == "ok", "identity"])
    for cell in bundle.cells:
        if cell.identity.digest not in answered:
            write_failure(shop, bundle, cell, error)


# --- in the worker ----------------------------------------------------------------------------------------------

_shop: Workshop | None = None


def _initialize_worker(settings: Settings, device: str, threads: int, workers: int, events: queue.Queue[Event]) -> None:
    _open_workshop(settings, device, threads, workers, events.put, discover(settings.plugins))


def _open_workshop(
    settings: Settings, device: str, threads: int, workers: int, notify: Callable[[Event], None], catalog: Catalog
) -> Workshop:
    import torch

    importlib.import_module("bench.training.pretraining")  # here, so that no job's time counts the import
    global _shop
    torch.set_num_threads(threads)
    _shop = Workshop(
        catalog=catalog,
        source=DataSource(
            catalog.datasets,
            root=settings.root,
            cache=settings.cache,
            loaders=settings.loaders,
            sharers=max(1, workers) * settings.devices,
        ),
        store=Store(settings.store),
        scratch=settings.cache,
        device=device,
        devices=settings.devices,
        threads=threads,
        force=settings.force,
        save_seconds=settings.save_seconds,
        notify=notify,
    )
    return _shop


def _work(bundle: Bundle, wait_for_others: bool) -> Result:  # noqa: FBT001 (called by the executor, by position)
    assert _shop is not None
    return execute(bundle, _shop, wait=wait_for_others)


# --- device -----------------------------------------------------------------------------------------------------


def resolve_device(wanted: str) -> str:
    """``auto`` becomes ``cuda`` where there is one, else ``cpu``.

    Raises:
        RequestError: ``cuda`` was asked for and there is none.
    """
    if wanted == "cpu" or (wanted == "auto" and not _has_driver()):
        return "cpu"
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise RequestError("--device cuda: torch sees no CUDA device here. Use --device cpu, or check the driver.")
    return wanted


def _has_driver() -> bool:
    """Whether an accelerator is possible at all: on Linux without its driver's device file, torch need not be asked."""
    return sys.platform != "linux" or any(Path(file).exists() for file in ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"))


def check_devices(device: str, devices: int) -> None:
    """Every process of a training needs a CUDA device of its own; on a CPU they share the cores.

    Raises:
        RequestError: there are not as many.
    """
    if device == "cpu" or devices == 1:
        return
    import torch

    if devices > (found := torch.cuda.device_count()):
        raise RequestError(f"--devices {devices}: torch sees {found} CUDA devices here. Use --devices {found}.")


def check_packages(bundles: Iterable[Bundle], catalog: Catalog) -> None:
    """Refuse evaluations that need a package which is not installed, before the pre-trainings that lead to them.

    Raises:
        RequestError: with the first such cell and how to get the package.
    """
    for cell in (cell for bundle in bundles for cell in bundle.cells):
        card = catalog.protocols[cell.spec.protocol].card
        assert isinstance(card, ProtocolCard)
        if lacking := card.lacking(cell.spec.protocol_params):
            raise RequestError(f"{cell.address} cannot run here: {lacking} --protocols leaves evaluations out.")


def default_workers(device: str, devices: int = 1) -> int:
    """One worker on an accelerator; on a CPU up to four, since small models gain little from threads.

    Args:
        devices: processes of each training.
    """
    return 1 if device != "cpu" else max(1, min(4, _cores() // devices))


def default_threads(device: str) -> int:
    """Threads of each worker: one on a CPU, all cores beside an accelerator."""
    # Not by the cores or the workers at hand: on another machine, or after a kill, the same bits must come out.
    return 1 if device == "cpu" else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

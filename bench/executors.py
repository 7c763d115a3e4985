"""Executors: where jobs run, behind the face of :class:`concurrent.futures.Executor`."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.managers import SyncManager
from typing import Any


class InlineExecutor(Executor):
    """Runs each task at once in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def local_processes(workers: int, initializer: Callable[..., None], arguments: tuple[Any, ...]) -> Executor:
    """A pool of fresh Python processes that end when this one ends, however it ends."""
    return ProcessPoolExecutor(
        max_workers=workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(initializer, arguments),
    )


def event_queue() -> SyncManager:
    """A started manager whose queues outlive a worker that is killed while it writes; it ends with this process."""
    manager = SyncManager(ctx=multiprocessing.get_context("spawn"))
    manager.start(leave_with_parent)
    return manager


def _start_worker(initializer: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    leave_with_parent()
    initializer(*arguments)


def leave_with_parent() -> None:
    """End this process when its parent ends: a killed run must not go on computing in orphans, or hold its claims."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

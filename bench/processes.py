"""Several processes of this machine that train or evaluate together: gloo on a CPU, one CUDA device each with NCCL.

The process that asks is the first, rank 0. It starts the others, waits until each is ready, forms the group with them,
and ends them whatever happens: with the body, with an error, with an interrupt, or with its own death. When another one
fails, rank 0 gets an error that says which and why.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, NoReturn

from bench.errors import JobError
from bench.executors import leave_with_parent

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives up; saving a checkpoint is the longest they do apart."""

LAST_WORDS_SECONDS = 3.0
"""After a broken exchange: how long rank 0 waits to hear who broke it."""

END_SECONDS = 10.0
READY = "ready"

Prepare = Callable[..., Callable[[], object]]


@dataclass(frozen=True)
class _Failure:
    """What a failed process says last; ``at`` tells the cause from what followed from it."""

    at: float
    kind: str
    text: str


@dataclass(frozen=True)
class _Member:
    """A process that was started, and what it tells."""

    rank: int
    process: SpawnProcess
    words: Connection

    def failure(self) -> _Failure | None:
        """Why it failed, if it has."""
        try:
            while self.words.poll():
                if isinstance(word := self.words.recv(), _Failure):
                    return word
        except (EOFError, OSError):
            pass  # it has gone, and has said all that it will
        if self.process.exitcode:
            return _Failure(0.0, "ended", f"exit code {self.process.exitcode}: out of memory, or a crash")
        return None

    def end(self, *, patience: float) -> None:
        self.process.join(patience)
        self.process.kill()
        self.process.join()
        self.words.close()


@contextmanager
def process_group(count: int, device: str, prepare: Prepare, arguments: Sequence[Any]) -> Iterator[None]:
    """Inside, this process is rank 0 of ``count``; with one process nothing happens.

    Args:
        count: processes.
        device: ``cpu`` or ``cuda``; rank r takes the CUDA device r.
        prepare: what the others run, an importable function: ``prepare(*arguments)`` before the group is formed, and
            what it returns within it. That has to make the same exchanges as the body.
        arguments: of ``prepare``; they are pickled.

    Raises:
        JobError: another process failed; the message says which and with what.
    """
    if count == 1:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="jointbench-") as folder:
        meeting = Path(folder) / "meeting"
        members: list[_Member] = []
        patience = 0.0
        try:
            for rank in range(1, count):
                members.append(_start(rank, count, device, meeting, prepare, arguments))
            _wait_until_ready(members)
            _take_device(0, device)
            with _joined(0, count, device, meeting), _watched(members, device):
                try:
                    yield
                except RuntimeError as error:  # what torch raises when an exchange breaks
                    if (cause := _cause(error, members)) is not None:
                        raise cause from error
                    raise
            patience = END_SECONDS
        finally:
            for member in members:
                member.end(patience=patience)


def _start(rank: int, count: int, device: str, meeting: Path, prepare: Prepare, arguments: Sequence[Any]) -> _Member:
    context = multiprocessing.get_context("spawn")
    words, said = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_member,
        args=(rank, count, device, meeting, said, prepare, tuple(arguments)),
        name=f"jointbench rank {rank}",
        daemon=False,  # a daemon may not start the processes that read images; it leaves with its parent anyhow
    )
    process.start()
    said.close()
    return _Member(rank, process, words)


def _wait_until_ready(members: Sequence[_Member]) -> None:
    """Return when all are ready; nobody is in an exchange yet that a failure could leave hanging.

    Raises:
        JobError: one failed.
    """
    waiting = list(members)
    while waiting:
        wait([member.words for member in waiting])
        for member in tuple(waiting):
            if not member.words.poll():
                continue
            try:
                word = member.words.recv()
            except EOFError:
                member.process.join(END_SECONDS)
                word = member.failure() or _Failure(0.0, "ended", "before it was ready")
            if isinstance(word, _Failure):
                raise _error(member, word, len(members) + 1)
            waiting.remove(member)


def _cause(error: RuntimeError, members: Sequence[_Member]) -> JobError | None:
    """The failure of another process that led to ``error``; None when it is rank 0's own, or that of all."""
    limit = time.monotonic() + LAST_WORDS_SECONDS
    failures: dict[int, _Failure] = {}
    while len(failures) < len(members) and time.monotonic() < limit:
        failures |= {m.rank: failure for m in members if m.rank not in failures and (failure := m.failure())}
        limit = min(limit, time.monotonic() + 0.5) if failures else limit
        time.sleep(0.02)
    if not failures:
        return None
    rank = min(failures, key=lambda rank: failures[rank].at)
    if (failures[rank].kind, failures[rank].text) == (type(error).__name__, str(error)):
        return None
    return _error(members[rank - 1], failures[rank], len(members) + 1)


def _error(member: _Member, failure: _Failure, count: int) -> JobError:
    return JobError(
        f"Process {member.rank} of the {count} that work together (counted from 0) failed: {failure.kind}: "
        f"{failure.text.rstrip('.')}. Run again, or with --devices 1."
    )


@contextmanager
def _watched(members: Sequence[_Member], device: str) -> Iterator[None]:
    """End the exchanges of a body whose partner has died: NCCL would wait for it; gloo notices by itself."""
    import torch.distributed as dist

    group, over = dist.group.WORLD, threading.Event()

    def watch() -> None:
        while not over.wait(0.5):
            if any(member.process.exitcode for member in members):
                assert group is not None
                group.abort()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    if device == "cuda":
        watcher.start()
    try:
        yield
    finally:
        over.set()
        if device == "cuda":
            watcher.join()


def _take_device(rank: int, device: str) -> None:
    """Make the CUDA device of the rank the current one: random states and NCCL go by it."""
    import torch

    if device == "cuda":
        torch.cuda.set_device(rank)


@contextmanager
def _joined(rank: int, count: int, device: str, meeting: Path) -> Iterator[None]:
    """Join the group of all processes, which meet through a file; nothing listens beyond this machine."""
    import torch
    import torch.distributed as dist

    hook = sys.excepthook  # torch puts one in its place that writes the rank before every line
    with _loopback():
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            store=dist.FileStore(str(meeting), count),  # type: ignore[attr-defined]
            rank=rank,
            world_size=count,
            timeout=PATIENCE,
            device_id=torch.device("cuda", rank) if device == "cuda" else None,
        )
    sys.excepthook = hook
    try:
        yield
    except BaseException:
        if device == "cuda":  # an orderly end would wait for exchanges that never come
            dist.distributed_c10d._abort_process_group()
        else:
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


@contextmanager
def _loopback() -> Iterator[None]:
    """Let gloo listen on the loopback interface, unless the user has chosen one; it asks once, at the start."""
    names = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}
    variable = "GLOO_SOCKET_IFNAME"
    chosen = variable in os.environ or not names
    if not chosen:
        os.environ[variable] = min(names)
    try:
        yield
    finally:
        if not chosen:
            del os.environ[variable]


def _run_member(
    rank: int, count: int, device: str, meeting: Path, said: Connection, prepare: Prepare, arguments: tuple[Any, ...]
) -> None:
    """What each of the other processes does."""
    leave_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt reaches the first process, which ends this one
    try:
        _take_device(rank, device)
        work = prepare(*arguments)
        said.send(READY)
        with _joined(rank, count, device, meeting):
            try:
                work()
            except BaseException as error:
                _give_up(error, said)  # before the group is left, which the others notice
    except BaseException as error:
        _give_up(error, said)


def _give_up(error: BaseException, said: Connection) -> NoReturn:
    """Say why, and end without waiting for exchanges that never come."""
    said.send(_Failure(time.time(), type(error).__name__, str(error)))
    said.close()
    os._exit(1)

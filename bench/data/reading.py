"""Images read ahead of their use: decoded by worker processes while the network computes.

Workers come from a fork server that has imported torch once: forking a process that has threads may deadlock, and
spawned ones would import torch each (four take 10 s on two cores; from the server 2 s the first time, then 0.1 s).
They end with the reader, and with the process that started them, however it ends. They draw no random numbers and
hand pieces over in order, so that what is read does not depend on their number.

A decoded copy on disk is deliberately not kept: it would take five to ten times the space of the JPEG files (190 GB
for ImageNet at 224 pixels) and would be read more slowly than a few cores decode, unless the disk is a fast one.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import pickle
import shutil
import sys
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Images, Pixels, Rows, Selection, in_memory
from bench.errors import DataError, JointbenchError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Prepare = Callable[[Pixels, NDArray[np.int64]], T]

PIECE_IMAGES = 32
"""Images that a worker reads at a time: some make a batch, so that all workers read for the next one."""
PIECE_BYTES = 2**23
MOST_AHEAD = 2**30
"""Bytes of decoded images that wait for their use at most."""
MOST_LOADERS = 16
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Streamed:
    """Images that ``loaders`` processes read ahead."""

    images: Images
    loaders: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.images.dtype

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Rows) -> Pixels:
        chosen: Pixels = self.images[rows]
        return chosen

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.images, dtype=dtype)


def default_loaders(*, sharers: int = 1) -> int:
    """All cores but one, shared among the processes that read at the same time; at least one, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_LOADERS, (cores - 1) // sharers))


class Reader(Generic[T]):
    """Blocks of images, in order, each in pieces that are prepared ahead of their use.

    Images in memory, and sets of one piece only, are prepared by a thread; others by worker processes. Close it, or use
    it as a context: that ends them.

    Args:
        images: those that the blocks' rows index.
        blocks: rows (n,) of each block; taken ahead of their use too.
        prepare: importable; from stored images (n, H, W, C) and their rows to what :meth:`take` gives, best a tensor.
        ahead: images that should be ready before they are asked for.
        pin: put tensors into pinned memory, from which copies to a CUDA device do not wait.

    Raises:
        DataError: the images cannot be handed to other processes.
    """

    def __init__(
        self,
        images: Images,
        blocks: Iterable[NDArray[np.int64]],
        prepare: Prepare[T],
        *,
        ahead: int,
        pin: bool = False,
    ) -> None:
        base, loaders, map_rows = _base(images)
        size = max(1, math.prod(images.shape[1:]) * images.dtype.itemsize)
        self._rows = max(1, min(PIECE_IMAGES, PIECE_BYTES // size))
        waiting = max(1, min(MOST_AHEAD, _shared_memory()) // (self._rows * size))  # pieces
        wanted = min(waiting, math.ceil(ahead / self._rows))
        pieces = ((rows, map_rows(rows)) for block in blocks for rows in self._pieces(block))
        if in_memory(images) or len(images) <= self._rows:
            self._source: _Threaded[T] | _Processes[T] = _Threaded(base, prepare, pieces, max(2, wanted), pin=pin)
        else:
            loaders = min(loaders, waiting)
            each = max(1 if waiting < 2 * loaders else 2, math.ceil(wanted / loaders))
            self._source = _Processes(base, prepare, pieces, loaders=loaders, each=each, pin=pin)

    def _pieces(self, block: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        for start in range(0, len(block), self._rows):
            yield block[start : start + self._rows]

    def take(self, count: int) -> Iterator[T]:
        """The pieces of the next block, which has ``count`` images.

        Raises:
            DataError: an image cannot be read; the message names the file.
        """
        for _ in range(math.ceil(count / self._rows)):
            yield self._source.take()

    def close(self) -> None:
        """End the workers; nothing can be taken any more."""
        self._source.close()

    def __enter__(self) -> Reader[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def read_planes(images: Images, block_size: int, blocks: Iterable[int] | None = None) -> Generator[Tensor, None, None]:
    """Blocks of images as tensors (B, C, H, W), see :func:`bench.data.pixels.planes`; lazy ones are read ahead.

    Args:
        images: (n, H, W, C).
        block_size: images of each block, the last one excepted.
        blocks: numbers of the blocks that are wanted; None takes all.
    """
    import torch

    from bench.data.pixels import planes

    numbers = range(math.ceil(len(images) / block_size)) if blocks is None else blocks
    wanted = [np.arange(n * block_size, min(len(images), (n + 1) * block_size)) for n in numbers]
    if in_memory(images):
        yield from (planes(images[rows]) for rows in wanted)
        return
    with Reader(images, wanted, as_planes, ahead=2 * block_size) as reader:
        for rows in wanted:
            yield torch.cat(list(reader.take(len(rows))))


def as_planes(stored: Pixels, rows: NDArray[np.int64]) -> Tensor:
    """For a :class:`Reader`: stored images as a tensor (n, C, H, W)."""
    from bench.data.pixels import planes

    return planes(stored)


def _base(images: Images) -> tuple[Images, int, Callable[[NDArray[np.int64]], NDArray[np.int64]]]:
    """The images below choices and wrappers, who may read them, and from rows of the former to rows of the latter."""
    loaders, chosen = default_loaders(), None
    while isinstance(images, Selection | Streamed):
        if isinstance(images, Streamed):
            loaders, images = images.loaders, images.images
        else:
            chosen = images.rows if chosen is None else images.rows[chosen]
            images = images.images
    return images, loaders, (lambda rows: rows) if chosen is None else (lambda rows: chosen[rows])


def _shared_memory() -> int:
    """Bytes that pieces on their way between processes may take: half of what is free; containers often have 64 MB."""
    return shutil.disk_usage(SHARED_MEMORY).free // 2 if SHARED_MEMORY.is_dir() else MOST_AHEAD


Piece = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows as they were asked for, and rows of the images below."""


class _Threaded(Generic[T]):
    """Pieces made by one thread of this process."""

    def __init__(
        self, images: Images, prepare: Prepare[T], pieces: Iterator[Piece], waiting: int, *, pin: bool
    ) -> None:
        self._read = _Reading(packed=b"", home=None, content=(images, prepare))
        self._pieces, self._pin = pieces, pin
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jointbench images")
        self._futures: deque[Future[Any]] = deque()
        for _ in range(waiting):
            self._submit()

    def _submit(self) -> None:
        if (piece := next(self._pieces, None)) is not None:
            self._futures.append(self._pool.submit(self._make, piece))

    def _make(self, piece: Piece) -> Any:
        made: Any = self._read[piece]
        return made.pin_memory() if self._pin and not isinstance(made, _Unreadable) else made

    def take(self) -> T:
        future = self._futures.popleft()
        self._submit()
        made: T = _readable(future.result())
        return made

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Processes(Generic[T]):
    """Pieces made by worker processes of torch's loader."""

    def __init__(
        self, images: Images, prepare: Prepare[T], pieces: Iterator[Piece], *, loaders: int, each: int, pin: bool
    ) -> None:
        import torch
        from torch.utils.data import DataLoader

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create")  # more of them than cores
            loader: DataLoader[Any] = DataLoader(
                cast("Any", _Reading.of(images, prepare)),  # torch asks for nothing but its items
                batch_size=None,
                sampler=pieces,
                collate_fn=_as_it_is,
                num_workers=loaders,
                prefetch_factor=each,
                pin_memory=pin,
                worker_init_fn=_start,
                multiprocessing_context=_context(),
                generator=torch.Generator(),  # the global one belongs to the training
            )
            self._pieces: Any = iter(loader)

    def take(self) -> T:
        try:
            made: T = _readable(next(self._pieces))
        except (RuntimeError, OSError) as error:
            raise DataError(
                f"A process that reads images ahead has ended ({error}). If the machine's memory or {SHARED_MEMORY} is "
                "full, run again with fewer of them (--loaders 1)."
            ) from error
        return made

    def close(self) -> None:
        self._pieces._shutdown_workers()  # torch would wait for the garbage collector, which an error delays


def _as_it_is(piece: T) -> T:
    return piece


def _context() -> Any:
    """A fork server where there is one, which imports once what every worker needs."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.utils.data", "PIL.Image", "bench.data.reading", "bench.data.pixels"])
    return context


def _start(_: int) -> None:
    """In a new worker: an interrupt is the parent's to handle, and its death is the worker's."""
    import signal

    from bench.executors import leave_with_parent

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_with_parent()


@dataclass(frozen=True)
class _Unreadable:
    """Instead of a piece: why there is none."""

    reason: str


def _readable(piece: T | _Unreadable) -> T:
    if isinstance(piece, _Unreadable):
        raise DataError(piece.reason)
    return piece


@dataclass(frozen=True)
class _Reading(Generic[T]):
    """What a worker reads from: images and what is made of them, unpacked when the first piece is read.

    Attributes:
        packed: both, as bytes, so that what they are made of may be imported in the worker first.
        home: module and file of a plug-in's own kind of images.
        content: both, as they are; only in the process that made them.
    """

    packed: bytes
    home: tuple[str, str] | None
    content: tuple[Images, Prepare[T]] | None = field(default=None)

    @classmethod
    def of(cls, images: Images, prepare: Prepare[T]) -> _Reading[T]:
        name = type(images).__module__
        file = getattr(sys.modules.get(name), "__file__", None)
        top = name.partition(".")[0]  # asked of the finders: Python itself looks at what is loaded here first
        importable = top == "__main__" or any(finder.find_spec(top, None) for finder in sys.meta_path)
        try:
            return cls(packed=pickle.dumps((images, prepare)), home=None if importable or not file else (name, file))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise DataError(
                f"Images of the kind {type(images).__qualname__} cannot be handed to the processes that read ahead "
                f"({error}). Define their class at the top level of its module and keep open files out of it."
            ) from error

    @cached_property
    def parts(self) -> tuple[Images, Prepare[T]]:
        if self.content is not None:
            return self.content
        if self.home is not None:
            from bench.registry import import_plugin

            import_plugin(self.home[0], Path(self.home[1]))
        unpacked: tuple[Images, Prepare[T]] = pickle.loads(self.packed)  # of our own making
        return unpacked

    def __getitem__(self, piece: Piece) -> T | _Unreadable:
        asked, rows = piece
        try:
            images, prepare = self.parts
            return prepare(images[rows], asked)
        except JointbenchError as error:
            return _Unreadable(str(error))
        except Exception as error:
            kind = type(self.parts[0]).__qualname__ if "parts" in self.__dict__ else "the set"
            reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            return _Unreadable(f"Reading images of {kind} failed with {reason}. Correct the dataset's loader.")

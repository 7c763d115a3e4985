"""Images that stay in their files until they are read."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Pixels, Rows
from bench.data.imaging import EIGHT_BIT_SUFFIXES, SUFFIXES, Form, Kind, kind_of, read_image
from bench.errors import DataError

HIDDEN = (".", "__")
"""Files and folders whose names start so are not the user's images: ``.git``, ``._1.png``, ``__MACOSX``."""
THREADS = 8
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, kw_only=True)
class ImageFiles:
    """Images (N, size, size, channels), each decoded when it is read; nothing is kept.

    Attributes:
        root: the folder below which the files are.
        names: their paths below ``root``; strings, of which a million fits into memory and travels to other processes.
        form: what they are decoded to.
    """

    root: Path
    names: tuple[str, ...]
    form: Form

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.names), self.form.size, self.form.size, self.form.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.form.dtype

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, rows: Rows) -> Pixels:
        """Decode these images.

        Raises:
            DataError: one of them is damaged; the message names it.
        """
        chosen = np.arange(len(self.names))[rows]
        return gathered(lambda row: read_image(self.root / self.names[row], self.form), chosen.tolist(), self.form)

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def gathered(read: Callable[[In], Pixels], items: Sequence[In], form: Form) -> Pixels:
    """``read`` of every item, in one array (n, size, size, channels)."""
    images = np.empty((len(items), form.size, form.size, form.channels), dtype=form.dtype)
    for position, image in enumerate(in_threads(read, items)):
        images[position] = image
    return images


def in_threads(work: Callable[[In], Out], items: Sequence[In]) -> Iterable[Out]:
    """``work`` of every item, in order; in threads, because Pillow decodes outside the interpreter's lock.

    A process that somebody's loader started works alone: its siblings have the other cores.
    """
    threads = min(THREADS, os.cpu_count() or 1, len(items))
    if threads < 2 or multiprocessing.parent_process() is not None:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(max_workers=threads) as pool:
        yield from pool.map(work, items)


def common_form(
    root: Path, names: Sequence[str], *, size: int, channels: int = 0, window: Sequence[float] = ()
) -> Form:
    """The form that all these files can be decoded to, from their headers.

    Args:
        root: the folder below which the files are.
        names: their paths below it.
        size: height and width in pixels.
        channels: the number of channels; 0 finds it: color when any file is in color.
        window: (low, high) in raw units, or empty.

    Raises:
        DataError: a file is no image, or files differ in their channels otherwise than gray from color.
    """
    Form(size=size, channels=channels or 1, window=tuple(map(float, window)))  # refused before any file is opened
    unknown = [name for name in names if not (channels in (1, 3) and name.lower().endswith(EIGHT_BIT_SUFFIXES))]
    kinds = dict(zip(unknown, in_threads(lambda name: kind_of(root / name), unknown), strict=True))
    return form_of(kinds, size=size, channels=channels, window=window)


def form_of(kinds: Mapping[str, Kind], *, size: int, channels: int, window: Sequence[float]) -> Form:
    """The same from what the headers say, by the names of the images."""
    depth = max((kind.depth for kind in kinds.values()), default=8)
    return Form(size=size, channels=channels or _channels(kinds), depth=depth, window=tuple(map(float, window)))


def _channels(kinds: Mapping[str, Kind]) -> int:
    first = {kind.channels: name for name, kind in reversed(list(kinds.items()))}
    if set(first) <= {1, 3}:
        return max(first, default=1)
    if len(first) > 1:
        listing = ", ".join(f"{name} has {count}" for count, name in sorted(first.items())[:3])
        raise DataError(f"The images differ in their channels: {listing}. Make them alike, or set channels to 1 or 3.")
    return next(iter(first))


def images_below(folder: Path) -> list[str]:
    """All images below ``folder``: their portable relative paths, sorted by them.

    Raises:
        DataError: a folder cannot be read.
    """
    found: list[str] = []
    for parent, folders, names in os.walk(folder, onerror=_fail):
        folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
        images = (name for name in names if name.lower().endswith(SUFFIXES) and not name.startswith(HIDDEN))
        within = os.path.relpath(parent, folder)
        prefix = "" if within == os.curdir else f"{within.replace(os.sep, '/')}/"
        found += [f"{prefix}{name}" for name in images]
    return sorted(found)


def has_image(folder: Path) -> bool:
    """Whether any image is below ``folder``."""
    return any(name.lower().endswith(SUFFIXES) for _, _, names in os.walk(folder) for name in names)


def places_of_a_set(folder: Path) -> list[Path]:
    """Where a set that is said to be in ``folder`` may be: there, or one level below where no other folder has images:
    what is not beside other sets."""
    below = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(HIDDEN))
    with_images = [child for child in below if has_image(child)]
    return [folder, *(with_images if len(with_images) == 1 else ())]


def _fail(error: OSError) -> None:
    raise DataError(f"The folder {error.filename} cannot be read ({error.strerror}). Check its permissions.") from error

"""Where a dataset's content comes from: the packages and files that decide it, found and read with clear errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.card import Capability
from bench.errors import DataError

T = TypeVar("T", bound=Callable[..., Any])
Lister = Callable[[Path, Mapping[str, Any]], Iterable[Path]]
Offers = Callable[[Path, Mapping[str, Any]], Collection[Capability]]
Own = Callable[[Path, Mapping[str, Any]], bool]


def every_file(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """All files below ``root``: what a loader that declares nothing is taken to read."""
    return sorted(path for path in existing_folder(root).rglob("*") if path.is_file())


@dataclass(frozen=True, kw_only=True)
class Dependencies:
    """What decides a dataset's content besides its loader.

    Attributes:
        packages: distributions; their versions count.
        files: from the root folder and the loader's parameters to the files that it reads.
        offers: from the same to what the images offer to protocols, for a loader of which that depends on the files;
            otherwise the card says it.
        own: from the same to whether the images are a set of the user's own, which is refused where its splits share
            images or patients, and not a published one; for a loader that reads both. Otherwise the card says it.
    """

    packages: tuple[str, ...] = ()
    files: Lister = every_file
    offers: Offers | None = None
    own: Own | None = None


def depends_on(
    *,
    packages: tuple[str, ...] = (),
    files: Lister = every_file,
    offers: Offers | None = None,
    own: Own | None = None,
) -> Callable[[T], T]:
    """Declare what a loader's result depends on, below ``@register_dataset``."""

    def mark(loader: T) -> T:
        declared = Dependencies(packages=packages, files=files, offers=offers, own=own)
        loader.dependencies = declared  # type: ignore[attr-defined]
        return loader

    return mark


def existing_folder(folder: Path) -> Path:
    """``folder``, when it is one that can be listed.

    Raises:
        DataError: it does not exist, is a file, or may not be read.
    """
    try:
        if not folder.exists():
            raise DataError(f"The data folder {folder} does not exist. Give an existing folder with --data.")
        if not folder.is_dir():
            raise DataError(f"{folder} is a file, a folder is needed. Give the folder that holds it with --data.")
        next(folder.iterdir(), None)
    except OSError as error:
        reason = f"The data folder {folder} cannot be read ({error.strerror})"
        raise DataError(f"{reason}. Check its permissions.") from error
    return folder


def unreadable(file: Path, reason: str) -> DataError:
    """The error for a file that is damaged or not what its name says."""
    return DataError(f"{file}: {reason}. Replace it with an intact copy, then run the same command again.")


def read_bytes(file: Path) -> bytes:
    """The content of ``file``.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}). Check the file and its permissions.") from error

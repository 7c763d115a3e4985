"""Named blobs under one fsspec URL, written atomically."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import fsspec
from filelock import FileLock, Timeout
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from bench.errors import StoreError


class Storage:
    """Blobs under ``url``: a folder, or any file system or object storage that fsspec knows."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self.fs, self.root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError) as error:
            raise StoreError(f"{url}: cannot be opened as a store: {error}. Give a folder or an fsspec URL.") from error
        self.is_local = isinstance(self.fs, LocalFileSystem)

    @property
    def local_folder(self) -> Path | None:
        """The store's folder, or None when it is not on a local file system."""
        return Path(self.root) if self.is_local else None

    @property
    def is_shared(self) -> bool:
        """Whether other processes see what is written here; memory is this process's own."""
        return not isinstance(self.fs, MemoryFileSystem)

    def _path(self, name: str) -> str:
        return str(PurePosixPath(self.root) / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a blob so that a reader sees the old one, the new one, or none, whatever happens in between."""
        try:
            if self.is_local:
                replace_file(Path(self._path(name)), content)
            else:
                self.fs.makedirs(self.fs._parent(self._path(name)), exist_ok=True)
                self.fs.pipe_file(self._path(name), content)
        except OSError as error:
            raise self._unwritable(name, error) from error

    def _unwritable(self, name: str, error: OSError) -> StoreError:
        return StoreError(f"{self.url}: cannot write {name}: {error}. Check the disk space and the permissions.")

    def read(self, name: str) -> bytes | None:
        """The blob's content, or None when there is none of this name."""
        try:
            content: bytes = self.fs.cat_file(self._path(name))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{self.url}: cannot read {name}: {error}. Check the permissions.") from error
        return content

    def delete(self, name: str) -> None:
        """Delete a blob; one that is already gone is no error."""
        try:
            self.fs.rm_file(self._path(name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unwritable(name, error) from error

    def move(self, name: str, target: str) -> None:
        """Rename a blob; one that another process has moved is no error."""
        try:
            self.fs.makedirs(self.fs._parent(self._path(target)), exist_ok=True)
            self.fs.mv(self._path(name), self._path(target))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unwritable(name, error) from error

    def names(self, folder: str, suffix: str) -> list[str]:
        """Sorted names of the blobs in a folder; unfinished writes are not among them."""
        self.fs.invalidate_cache()
        try:
            paths = self.fs.ls(self._path(folder), detail=False)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.url}: cannot list {folder}: {error}. Is the store a folder?") from error
        leaves = (PurePosixPath(path).name for path in paths)
        return sorted(f"{folder}/{leaf}" for leaf in leaves if leaf.endswith(suffix) and not leaf.startswith("."))

    def sweep(self, *, older_than: float = 3600.0) -> int:
        """Delete what killed writers left behind, by age in seconds; returns how many files."""
        if self.local_folder is None:
            return 0
        limit = time.time() - older_than
        leftovers = [path for path in self.local_folder.rglob(".*.tmp") if path.stat().st_mtime < limit]
        for path in leftovers:
            path.unlink(missing_ok=True)
        return len(leftovers)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Hold the exclusive right to compute ``name``; yields False when another process holds it.

        The kernel releases the lock when its holder dies, so a killed run leaves nothing behind. Storage that is not
        local has no locks: every claim succeeds, two runs may compute the same job, and the fold keeps one of them.
        """
        if not self.is_local:
            yield True
            return
        path = Path(self._path(f"locks/{name}.lock"))
        lock = FileLock(path, timeout=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise self._unwritable(path.name, error) from error
        try:
            yield True
        finally:
            lock.release()


def replace_file(path: Path, content: bytes) -> None:
    """Write a local file through a temporary name, fsync and rename: a crash leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

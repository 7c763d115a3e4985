"""Datasets by spec, with a cache: what is slow to read or to parse is read once per machine.

A cache entry is named after everything that decides the content: the loader's code, its parameters, and either the
version of the package that ships the images or the path, size and time of every source file. It consists of the
arrays (``.npz``) and a small record with the fingerprint (``.json``), so that a plan needs no pixels. An entry that
does not match its fingerprint is built anew.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.card import Capability, DatasetCard
from bench.data.dataset import ImageDataset
from bench.data.files import Dependencies, existing_folder
from bench.errors import DataError, JointbenchError
from bench.registry import Entry, Registry
from bench.spec import DataSpec

ABANDONED_SECONDS = 3600
MEMO_SIZE = 4
"""Datasets kept in memory by one source."""


class DataSource:
    """Loads registered datasets.

    Args:
        datasets: registry of datasets.
        root: the user's folder of data, or None; datasets that arrive with a package do not need it.
        cache: folder for the cache; created when it does not exist, and safe to delete.
    """

    def __init__(self, datasets: Registry, *, root: Path | None, cache: Path) -> None:
        self.datasets = datasets
        self.root = root
        self.cache = cache
        self._memo: dict[str, ImageDataset] = {}

    def load(self, spec: DataSpec) -> ImageDataset:
        """The dataset with its fixed splits.

        Raises:
            DataError: it is missing, unreadable or unfit; the message names the file.
        """
        return self._load(spec, self._address(spec))

    def fingerprint(self, spec: DataSpec) -> str:
        """SHA-256 of the dataset's content and splits; with a warm cache no image is read."""
        address = self._address(spec)
        if address in self._memo:
            return self._memo[address].fingerprint
        return self._recorded(address) or self._load(spec, address).fingerprint

    def offers(self, spec: DataSpec) -> tuple[Capability, ...]:
        """What the images offer to protocols; no pixels are read."""
        entry = self.datasets[spec.key]
        assert isinstance(entry.card, DatasetCard)
        if entry.needs_root and (asked := _dependencies(entry).offers) is not None:
            root = self._root_for(entry).resolve()
            return tuple(_guarded(entry, lambda: asked(root, entry.complete(spec.params))))
        return entry.card.capabilities

    def _load(self, spec: DataSpec, address: str) -> ImageDataset:
        if address not in self._memo:
            dataset: ImageDataset | None = self._read(address)
            if dataset is None:
                entry = self.datasets[spec.key]
                arguments = [self._root_for(entry)] if entry.needs_root else []
                params = entry.complete(spec.params)
                dataset = _guarded(entry, lambda: entry.load()(*arguments, **params))
                self._write(address, dataset)
            while len(self._memo) >= MEMO_SIZE:
                self._memo.pop(next(iter(self._memo)))
            self._memo[address] = dataset
        return self._memo[address]

    def _root_for(self, entry: Entry) -> Path:
        if self.root is None:
            raise DataError(
                f"Dataset {entry.key!r} needs your folder of data. Give it with --data FOLDER or set JOINTBENCH_DATA."
            )
        return existing_folder(self.root)

    def _address(self, spec: DataSpec) -> str:
        """Name of the cache entry: the key, and a digest of everything that decides the content."""
        entry = self.datasets[spec.key]
        params = entry.complete(spec.params)
        needs = _dependencies(entry)
        decides: dict[str, Any] = {
            "params": params,
            "code": _code_digest(entry.file),
            "packages": {name: _version(name) for name in needs.packages},
        }
        if entry.needs_root:
            root = self._root_for(entry).resolve()
            decides["files"] = [_stamp(file) for file in _guarded(entry, lambda: needs.files(root, params))]
        return f"{spec.key}-{hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]}"

    def _recorded(self, address: str) -> str | None:
        """The fingerprint on record, or None when there is no intact record."""
        try:
            record = json.loads((self.cache / f"{address}.json").read_text(encoding="utf-8"))
            fingerprint = str(record["fingerprint"])
            return fingerprint if record["check"] == _check(address, fingerprint) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _read(self, address: str) -> ImageDataset | None:
        """The cached dataset, or None when it is absent, damaged or another than the record says."""
        expected = self._recorded(address)
        if expected is None:
            return None
        try:
            with (self.cache / f"{address}.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
                head = json.loads(str(archive["head"]))
                dataset = ImageDataset(
                    key=head["key"],
                    title=head["title"],
                    images=archive["images"],
                    labels=archive["labels"],
                    class_names=tuple(head["class_names"]),
                    splits={name: archive[f"split {name}"] for name in head["splits"]},
                    metadata={name: archive[f"column {name}"] for name in head["metadata"]},
                )
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        return dataset if dataset.fingerprint == expected else None

    def _write(self, address: str, dataset: ImageDataset) -> None:
        """Write the entry, the record last: two processes may do so at once, and each leaves a complete entry."""
        head = {
            "key": dataset.key,
            "title": dataset.title,
            "class_names": dataset.class_names,
            "splits": list(dataset.splits),
            "metadata": list(dataset.metadata),
        }
        arrays: dict[str, Any] = {"images": dataset.images, "labels": dataset.labels}
        arrays |= {f"split {name}": rows for name, rows in dataset.splits.items()}
        arrays |= {f"column {name}": values for name, values in dataset.metadata.items()}
        record = {"fingerprint": dataset.fingerprint, "check": _check(address, dataset.fingerprint)}
        self._replace(
            f"{address}.npz",
            lambda file: np.savez(file, head=np.array(json.dumps(head)), **arrays),
        )
        self._replace(f"{address}.json", lambda file: file.write(json.dumps(record).encode()))

    def _replace(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        temporary: Path | None = None
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            for abandoned in self.cache.glob(f".{name}.*"):  # left by a process that was killed while it wrote
                if time.time() - abandoned.stat().st_mtime > ABANDONED_SECONDS:
                    abandoned.unlink(missing_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.cache, prefix=f".{name}.", delete=False) as file:
                temporary = Path(file.name)
                write(file)
            temporary.replace(self.cache / name)
        except OSError as error:
            raise DataError(
                f"The data cache {self.cache} cannot be written ({error.strerror}). Free space, or allow writing."
            ) from error
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def _dependencies(entry: Entry) -> Dependencies:
    declared: Dependencies = getattr(_guarded(entry, entry.load), "dependencies", Dependencies())
    return declared


def _guarded(entry: Entry, work: Callable[[], Any]) -> Any:
    """Run a loader's own code; what it raises by mistake becomes an error that names the loader.

    Raises:
        DataError: with the file and line of the loader.
    """
    try:
        return work()
    except JointbenchError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise DataError(f"{entry.where}: dataset {entry.key!r} failed with {reason}. Correct its loader.") from error


def _stamp(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}). Check the file and its permissions.") from error
    return str(file), status.st_size, status.st_mtime_ns


def _check(address: str, fingerprint: str) -> str:
    return hashlib.sha256(f"{address} {fingerprint}".encode()).hexdigest()


@cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            f"The package {package}, which a dataset needs, is not installed. Install it with pip."
        ) from None


@cache
def _code_digest(file: Path) -> str:
    """Digest of the loader's file and of the modules of this package: any of them may shape the content."""
    digest = hashlib.sha256()
    for source in (file, *sorted(Path(__file__).parent.glob("*.py"))):
        digest.update(source.read_bytes())
    return digest.hexdigest()

"""Datasets by spec, with a cache: what is slow to read or to parse is read once per machine.

A cache entry is named after everything that decides the content: the loader's code, its parameters, and either the
version of the package that ships the images or the path, size and time of every source file. It consists of the
arrays (``.npz``) and a small record with the fingerprint (``.json``), so that a plan needs no pixels. An entry that
does not match its fingerprint is built anew.

A loader may leave its images in their files. When they fit into the memory budget (:mod:`bench.data.memory`) they are
decoded once, in parallel, and kept like all others. Otherwise they stay where they are: one pass over them finds
fingerprint and channel statistics, which the record keeps with an outline of the rest (labels, splits, metadata,
sizes), so that a later start opens the files again and decodes none. Their decoded pixels are never put on the disk:
see :mod:`bench.data.reading`. Either way they are the same pixels, so the budget changes no result and no identity.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from bench.card import Capability, DatasetCard, PublishedSizes
from bench.data.dataset import ImageDataset
from bench.data.files import Dependencies, every_file, existing_folder
from bench.data.leakage import file_names, refuse_leakage
from bench.data.memory import memory_budget
from bench.data.packing import pack, unpack
from bench.data.reading import Streamed, default_loaders
from bench.errors import DataError, JointbenchError, SpecError
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
        loaders: processes that decode images which do not fit into memory; 0 chooses by the cores.
        sharers: processes like this one that work at the same time: they share memory and cores.
    """

    def __init__(
        self, datasets: Registry, *, root: Path | None, cache: Path, loaders: int = 0, sharers: int = 1
    ) -> None:
        self.datasets = datasets
        self.root = root
        self.cache = cache
        self.loaders = loaders or default_loaders(sharers=sharers)
        self.sharers = sharers
        self._memo: dict[str, ImageDataset] = {}
        self._offers: dict[str, tuple[Capability, ...]] = {}

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
        record = self._recorded(address)
        return str(record["fingerprint"]) if record else self._load(spec, address).fingerprint

    def offers(self, spec: DataSpec) -> tuple[Capability, ...]:
        """What the images offer to protocols; no pixels are read. Of a published set the card says it where the files
        are not there."""
        entry = self.datasets[spec.key]
        assert isinstance(entry.card, DatasetCard)
        if entry.needs_root and (asked := _dependencies(entry).offers) is not None:
            try:
                root, words = self._root_for(entry).resolve(), spec.canonical_json()
                if words not in self._offers:  # a plan asks for each of its cells
                    self._offers[words] = tuple(_guarded(entry, lambda: asked(root, _params(entry, spec))))
                return self._offers[words]
            except DataError:
                if self.published(spec) is None:
                    raise
        return entry.card.capabilities

    def published(self, spec: DataSpec) -> PublishedSizes | None:
        """Sizes of a published set, whether its files are there or not; None for images of the user's own."""
        entry = self.datasets[spec.key]
        assert isinstance(entry.card, DatasetCard)
        asked = _dependencies(entry).own if entry.card.published else None
        if asked is not None and self.root is not None:
            try:
                if _guarded(entry, lambda: asked(self._root_for(entry), _params(entry, spec))):
                    return None
            except DataError:
                return entry.card.published  # nothing is there that could be the user's own
        return entry.card.published

    def _load(self, spec: DataSpec, address: str) -> ImageDataset:
        if address not in self._memo:
            dataset: ImageDataset | None = self._read(address)
            if dataset is None:
                loaded = self.unchecked(spec)
                dataset = self._settled(address, loaded, self._admission(spec, loaded))
            while len(self._memo) >= MEMO_SIZE:
                self._memo.pop(next(iter(self._memo)))
            self._memo[address] = dataset
        return self._memo[address]

    def _settled(self, address: str, loaded: ImageDataset, admit: Callable[[ImageDataset], None]) -> ImageDataset:
        """What the loader returned, on record: in memory when it is there or fits, otherwise read when asked for."""
        if isinstance(loaded.images, np.ndarray):
            admit(loaded)
            self._write(address, loaded)
            self._write_record(address, {**_digests(loaded), "lazy": False})
            return loaded
        from bench.data.passes import outline, read_through  # lazily: with torch

        images = Streamed(loaded.images, self.loaders)
        size = math.prod(images.shape) * images.dtype.itemsize
        keep, record = self._fits(size), self._recorded(address)
        if not keep and record and record.get("outline") == outline(loaded):
            mean, std = record["statistics"]
            return loaded.known(images, fingerprint=record["fingerprint"], statistics=(tuple(mean), tuple(std)))
        dataset = read_through(replace(loaded, images=images), keep=keep)
        admit(dataset)  # before it is on record: what is there has been admitted
        if keep:
            self._write(address, dataset)
        found = {"outline": outline(loaded), "statistics": dataset.channel_statistics, "bytes": size}
        self._write_record(address, {**_digests(dataset, kept=keep), "lazy": True, **found})
        return dataset

    def unchecked(self, spec: DataSpec) -> ImageDataset:
        """What the loader returns, from its source: neither kept, nor refused for what its splits share."""
        entry = self.datasets[spec.key]
        arguments = [self._root_for(entry)] if entry.needs_root else []
        params = _params(entry, spec)
        loaded: ImageDataset = _guarded(entry, lambda: entry.load()(*arguments, **params))
        return loaded

    def _admission(self, spec: DataSpec, loaded: ImageDataset) -> Callable[[ImageDataset], None]:
        """What refuses a set of the user's own whose splits share images or patients."""
        entry = self.datasets[spec.key]
        params = _params(entry, spec)

        asked = _dependencies(entry).own
        own = entry.card.checked  # type: ignore[union-attr]
        if asked is not None:
            own = _guarded(entry, lambda: asked(self._root_for(entry), params))

        def admit(dataset: ImageDataset) -> None:
            if own and not params.get("allow_leakage"):
                refuse_leakage(dataset, repair=_repair(self.root, params), files=file_names(loaded.images))

        return admit

    def _fits(self, size: int) -> bool:
        return size <= memory_budget(sharers=self.sharers)

    def _root_for(self, entry: Entry) -> Path:
        if self.root is None:
            raise DataError(
                f"Dataset {entry.key!r} needs your folder of data. Give it with --data FOLDER or set JOINTBENCH_DATA."
            )
        return existing_folder(self.root)

    def _address(self, spec: DataSpec) -> str:
        """Name of the cache entry: the key, and a digest of everything that decides the content."""
        entry = self.datasets[spec.key]
        params = _params(entry, spec)
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

    def _recorded(self, address: str) -> dict[str, Any] | None:
        """The record, or None when there is no intact one."""
        try:
            record: dict[str, Any] = json.loads((self.cache / f"{address}.json").read_text(encoding="utf-8"))
            return record if record.pop("check") == _check(address, record) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def _read(self, address: str) -> ImageDataset | None:
        """The cached dataset, or None when it is absent, damaged or another than the record says."""
        record = self._recorded(address)
        if record is None or (record["lazy"] and not self._fits(record["bytes"])):
            return None
        try:
            with (self.cache / f"{address}.npz").open("rb") as file, np.load(file, allow_pickle=False) as archive:
                dataset = unpack(archive)
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
            return None
        if dataset.kept_digest != record.get("kept"):
            return None
        dataset.__dict__["fingerprint"] = record["fingerprint"]  # files of scenes are not read again for it
        return dataset

    def _write(self, address: str, dataset: ImageDataset) -> None:
        """Write the arrays; the record comes last: two processes at once leave a complete entry each."""
        self._replace(f"{address}.npz", lambda file: np.savez(file, **pack(dataset)))

    def _write_record(self, address: str, record: dict[str, Any]) -> None:
        content = json.dumps({**record, "check": _check(address, record)})
        self._replace(f"{address}.json", lambda file: file.write(content.encode()))

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


def _digests(dataset: ImageDataset, *, kept: bool = True) -> dict[str, str]:
    """The fingerprint, and what an entry of arrays is compared with."""
    return {"fingerprint": dataset.fingerprint, **({"kept": dataset.kept_digest} if kept else {})}


def holds(root: Path, entry: Entry, spec: DataSpec) -> bool:
    """Whether the files of a published set are in the folder; never of one that the card does not call published."""
    needs, params = _dependencies(entry), _params(entry, spec)
    if not entry.card.published or needs.files is every_file:  # type: ignore[union-attr]
        return False

    def look() -> bool:
        found = any(True for _ in needs.files(root, params))
        return found and not (needs.own and needs.own(root, params))

    try:
        return bool(_guarded(entry, look))
    except DataError:
        return False


def _params(entry: Entry, spec: DataSpec) -> dict[str, Any]:
    """All parameters of the loader.

    Raises:
        SpecError: one is an absolute path, which another machine does not have and results must not show.
    """
    params = entry.complete(spec.params)
    for name, value in params.items():
        texts = value if isinstance(value, tuple) else (value,)
        if found := next((t for t in texts if isinstance(t, str) and Path(t).is_absolute() and Path(t).exists()), None):
            raise SpecError(
                f"Dataset {entry.key!r}, parameter {name!r}: {found} is an absolute path; one relative to the folder "
                "of data is needed. Give that folder with --data, and a CSV of labels with --labels."
            )
    return params


def _repair(root: Path | None, params: Mapping[str, Any]) -> str:
    anew = ", or let the splits be made anew with --data-param use_splits=false" if params.get("use_splits") else ""
    return (
        f"Keep each image and each patient in one split{anew}; `jointbench data doctor {root}` lists them all. "
        "--data-param allow_leakage=true measures on these splits nevertheless."
    )


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


def _check(address: str, record: Mapping[str, Any]) -> str:
    return hashlib.sha256(f"{address} {json.dumps(record, sort_keys=True)}".encode()).hexdigest()


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

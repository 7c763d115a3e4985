from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.data import sources
from bench.data.leakage import find_leakage
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.registry import discover
from bench.spec import DataSpec

from .test_near import pictures

COPY = ("train/cat/2.png", "test/dog/1.png")


def write_folder(root: Path, *, leak: bool = True) -> Path:
    """Class folders with splits, where an image of the training split is in the test split, too."""
    images = iter(pictures(30))
    for split in ("train", "validation", "test"):
        for label in ("cat", "dog"):
            folder = root / split / label
            folder.mkdir(parents=True)
            for number in range(3):
                Image.fromarray(next(images)).save(folder / f"{number}.png")
    if leak:
        (root / COPY[1]).write_bytes((root / COPY[0]).read_bytes())
    return root


def source(root: Path, cache: Path) -> DataSource:
    return DataSource(discover().datasets, root=root, cache=cache)


def load(root: Path, cache: Path, key: str = "folder", **params: Any) -> Any:
    return source(root, cache).load(DataSpec(key=key, params=params))


def test_identical_images_across_splits_are_refused_each_time_until_they_are_allowed(tmp_path: Path) -> None:
    root, cache = write_folder(tmp_path / "pets"), tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(DataError) as error:
            load(root, cache)
        message = str(error.value)
        assert f"pets: in more than one split: 1 image ({COPY[0]} (train) = {COPY[1]} (test))" in message
        assert f"jointbench data doctor {root}" in message and "--data-param allow_leakage=true" in message
        assert "use_splits" not in message  # class folders have no such parameter
        with pytest.raises(DataError, match="in more than one split"):
            source(root, cache).fingerprint(DataSpec(key="folder"))
    assert len(load(root, cache, allow_leakage=True).labels) == 18


def test_an_admitted_set_is_not_examined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, calls = write_folder(tmp_path / "pets", leak=False), []
    real = sources.refuse_leakage
    monkeypatch.setattr(sources, "refuse_leakage", lambda *a, **k: calls.append(1) or real(*a, **k))
    first = load(root, tmp_path / "cache")
    assert load(root, tmp_path / "cache").fingerprint == first.fingerprint
    assert calls == [1]


def test_sets_that_stay_in_their_files_are_refused_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "memory_budget", lambda **_: 0)
    with pytest.raises(DataError, match=r"train/cat/2.png \(train\) = test/dog/1.png \(test\)"):
        load(write_folder(tmp_path / "pets"), tmp_path / "cache")


def test_published_sets_are_taken_as_they_are(tmp_path: Path) -> None:
    arrays = {}
    for part, start in (("train", 0), ("val", 10), ("test", 20)):
        arrays[f"{part}_images"] = pictures(30)[start : start + 10]
        arrays[f"{part}_labels"] = np.arange(10)[:, None] % 2
    arrays["test_images"][0] = arrays["train_images"][0]
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays)
    assert find_leakage(load(tmp_path, tmp_path / "cache", "medmnist")).duplicates
    (tmp_path / "pneumoniamnist.npz").rename(tmp_path / "mine.npz")
    with pytest.raises(DataError, match="in more than one split"):
        load(tmp_path, tmp_path / "cache", "medmnist")
    assert find_leakage(load(tmp_path, tmp_path / "cache", "medmnist", allow_leakage=True)).duplicates


def write_csv(file: Path, rows: list[Mapping[str, str]]) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_the_radiographs_own_split_leaks_patients_that_are_named(data_root: Path, tmp_path: Path) -> None:
    with (data_root / "nih-cxr-1000/metadata.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    table = [
        {"file": row["filename"], "patient": row["patient_id"], "label": row["repo_class"], "split": row["repo_split"]}
        for row in rows
    ]
    root = tmp_path / "cxr"
    root.mkdir()
    for row in rows:
        (root / row["filename"]).symlink_to(data_root / "nih-cxr-1000/images" / row["filename"])
    write_csv(root / "labels.csv", table)
    sides: dict[str, set[str]] = {}
    for row in rows:
        sides.setdefault(row["patient_id"], set()).add(row["repo_split"])
    shared = {patient for patient, splits in sides.items() if {"train", "test"} <= splits}
    assert len(shared) == 8

    with pytest.raises(DataError, match=r"30 patients .* use_splits=false"):
        load(root, tmp_path / "cache", "table")
    leaky = load(root, tmp_path / "cache", "table", allow_leakage=True)
    found = find_leakage(leaky)
    assert {item.name for item in found.crossings if {"train", "test"} <= set(item.counts)} == shared
    assert len(found.crossings) == 30 and not found.duplicates and not found.near
    mended = load(root, tmp_path / "cache", "table", use_splits=False)
    assert not find_leakage(mended, near=False)

"""Tiny copies of the datasets, in every layout, written to a folder."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.data.fashion_mnist import STEMS

RNG = np.random.default_rng(0)


def labels_of(classes: int, per_class: int) -> NDArray[np.uint8]:
    """``per_class`` labels of each class, interleaved."""
    return np.tile(np.arange(classes, dtype=np.uint8), per_class)


def pixels_of(labels: NDArray[Any], *shape: int) -> NDArray[np.uint8]:
    """Noise whose first value is the label, so that a test can tell whether image and label stayed together."""
    pixels = RNG.integers(0, 256, size=(len(labels), *shape), dtype=np.uint8)
    pixels.reshape(len(labels), -1)[:, 0] = labels
    return pixels


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def write_fashion_mnist(folder: Path, *, suffix: str = ".gz", train: int = 4, test: int = 2) -> None:
    """Four IDX files with ``train`` and ``test`` images of each of 10 classes."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem_pair, count in ((STEMS[:2], train), (STEMS[2:], test)):
        labels = labels_of(10, count)
        for stem, array in zip(stem_pair, (pixels_of(labels, 28, 28), labels), strict=True):
            content = idx_bytes(array)
            (folder / f"{stem}{suffix}").write_bytes(gzip.compress(content) if suffix == ".gz" else content)


def write_cifar10_binary(folder: Path, *, per_batch: int = 2) -> dict[str, NDArray[np.uint8]]:
    folder.mkdir(parents=True, exist_ok=True)
    written = {}
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        labels = labels_of(10, per_batch)
        planes = pixels_of(labels, 3, 32, 32)
        written[name] = planes
        records = np.concatenate([labels[:, None], planes.reshape(len(labels), -1)], axis=1)
        (folder / name).write_bytes(records.tobytes())
    return written


def write_cifar100_binary(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train.bin", 3), ("test.bin", 1)):
        labels = labels_of(100, count)
        coarse = np.full_like(labels, 7)
        pixels = pixels_of(labels, 3, 32, 32).reshape(len(labels), -1)
        (folder / name).write_bytes(np.concatenate([coarse[:, None], labels[:, None], pixels], axis=1).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(f"thing {i}" for i in range(100)) + "\n")


def write_cifar10_python(folder: Path, *, per_batch: int = 2) -> None:
    """Pickles with text keys from Python 3, protocol 2."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        labels = labels_of(10, per_batch)
        batch = {"data": pixels_of(labels, 3072), "labels": labels.tolist(), "filenames": ["a.png"]}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    names = [f"thing {i}" for i in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}, protocol=2))


def write_cifar100_python(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", 3), ("test", 1)):
        labels = labels_of(100, count)
        batch = {
            "data": pixels_of(labels, 3072),
            "fine_labels": labels.tolist(),
            "coarse_labels": [0] * len(labels),
        }
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"thing {i}" for i in range(100)]}))


def python2_pickle(data: NDArray[np.uint8], labels: list[int]) -> bytes:
    """The opcodes with which Python 2 pickled ``{"data": array, "labels": list}`` (protocol 2, byte strings)."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    content = b"T" + struct.pack("<i", data.nbytes) + data.tobytes()
    state = (
        b"(" + number(1) + number(data.shape[0]) + number(data.shape[1]) + b"\x86" + dtype + b"\x89" + content + b"tb"
    )
    listing = b"](" + b"".join(number(label) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + listing + b"u."


def write_image(
    file: Path, *, size: tuple[int, int] = (12, 10), mode: str = "RGB", value: int | None = None
) -> NDArray[np.uint8]:
    """Noise, or one gray value, of ``size`` (width, height) in the format of the file's name."""
    file.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], len(mode))
    pixels = RNG.integers(0, 256, size=shape, dtype=np.uint8)
    if value is not None:
        pixels[...] = value
    Image.fromarray(pixels).save(file)
    return pixels


def write_class_folders(folder: Path, *, classes: tuple[str, ...] = ("cat", "dog"), per_class: int = 10) -> None:
    for label, name in enumerate(classes):
        for number in range(per_class):
            write_image(folder / name / f"{number}.png", value=20 * number + label)

"""Trainings on images that are read while they train: the same bits as with images in memory."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.dataset import Images, select
from bench.data.reading import Streamed
from bench.errors import DataError
from bench.spec import PretrainSpec
from bench.training import batches
from bench.training.batches import Batches
from bench.training.checkpoint import CheckpointFile
from bench.training.distributed import process_rank
from bench.training.history import TrainingResult
from bench.training.loop import pretrain

from ..data.lazy import write_images
from .ranks import in_group
from .toys import Classifier, Contrast, make, toy_images, toy_labels, toy_spec

State = dict[str, torch.Tensor]
SEEN = 4 * 3 * 16
"""Images of a training: epochs, steps, batch."""


class KilledError(Exception):
    pass


@pytest.fixture(autouse=True)
def no_reader_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("jointbench images")]


def trained(images: Images, spec: PretrainSpec | None = None, **options: Any) -> tuple[State, TrainingResult]:
    method = make(Contrast)
    result = pretrain(method, spec or toy_spec(), images, None, mean=(0.5,), std=(0.25,), **options)
    return method.state_dict(), result


def assert_same_bits(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("loaders", [1, 2])
def test_streamed_training_gives_the_bits_of_training_in_memory(tmp_path: Path, loaders: int) -> None:
    images = write_images(tmp_path, toy_images())
    found, streamed = trained(Streamed(images, loaders))
    expected, kept = trained(toy_images())
    assert_same_bits(found, expected)
    assert streamed.history == kept.history
    assert os.getpid() not in images.readers() and images.reads().total() == SEEN


def test_the_unlabelled_part_of_a_stream_is_trained_on_by_its_own_rows(tmp_path: Path) -> None:
    rows = np.arange(49, 0, -1)
    images = write_images(tmp_path, toy_images())
    found, _ = trained(select(Streamed(images, 2), rows))
    assert_same_bits(found, trained(toy_images()[rows])[0])


def test_labels_stay_with_their_streamed_images(tmp_path: Path) -> None:
    seen = []
    for images in (Streamed(write_images(tmp_path, toy_images()), 1), toy_images()):
        method = make(Classifier)
        pretrain(method, toy_spec(), images, toy_labels(), mean=(0.5,), std=(0.25,))
        seen.append((method.seen, method.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(seen[0][0], seen[1][0], strict=True))
    assert_same_bits(seen[0][1], seen[1][1])


def test_a_streamed_training_that_was_killed_goes_on_in_the_same_bits(tmp_path: Path) -> None:
    images = Streamed(write_images(tmp_path, toy_images()), 2)
    checkpoint = CheckpointFile(path=tmp_path / "training.ckpt", identity="this", every_seconds=0.0)

    def kill(record: Any) -> None:
        if record.epoch == 2:
            raise KilledError

    with pytest.raises(KilledError):
        trained(images, checkpoint=checkpoint, progress=kill)
    assert not multiprocessing.active_children()
    resumed, _ = trained(images, checkpoint=checkpoint)
    assert_same_bits(resumed, trained(toy_images())[0])


def test_an_image_that_cannot_be_read_ends_the_training_with_its_name(tmp_path: Path) -> None:
    images = Streamed(write_images(tmp_path, toy_images(), broken=21), 2)
    with pytest.raises(DataError, match=r"^scan 21\.png is truncated\. Replace it\.$"):
        trained(images)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_array_that_has_no_room_on_the_device_is_read_batch_by_batch_with_the_same_bits(
    monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    images = toy_images().astype(dtype)
    expected, _ = trained(images)
    copies: list[int] = []
    real = batches.planes
    monkeypatch.setattr(batches, "planes", lambda stored: (copies.append(len(stored)), real(stored))[1])
    monkeypatch.setattr(batches, "COPIED_BYTES", images.nbytes - 1)
    assert_same_bits(trained(images)[0], expected)
    assert not copies


def test_any_step_can_be_asked_for(tmp_path: Path) -> None:
    def make_batches(images: Images) -> Batches:
        device = torch.device("cpu")
        return Batches(toy_spec(), images, None, views=2, mean=(0.5,), std=(0.25,), device=device)

    images = Streamed(write_images(tmp_path, toy_images()), 1)
    with make_batches(images) as streamed, make_batches(toy_images()) as kept:
        for epoch, step in ((1, 2), (2, 0), (0, 1), (0, 1), (9, 2)):
            for each in (streamed, kept):
                each.start_epoch(epoch)
            (found, _), (expected, _) = streamed.load(epoch, step)[0], kept.load(epoch, step)[0]
            assert torch.equal(found, expected)


# --- several processes ---


def two_trainings(folder: Path) -> tuple[State, State]:
    """In each process: a training on streamed images, and one on images in memory."""
    images = write_images(folder / str(process_rank()), toy_images())
    spec = toy_spec(epochs=2)
    return trained(Streamed(images, 1), spec)[0], trained(toy_images(), spec)[0]


def test_two_processes_read_their_own_rows_only_and_train_the_same_bits(tmp_path: Path) -> None:
    streamed, kept = in_group(2, two_trainings, tmp_path)
    assert_same_bits(streamed, kept)
    spec = toy_spec()
    with Batches(spec, toy_images(), None, views=2, mean=(0,), std=(1,), device=torch.device("cpu")) as whole:
        orders = [whole._order(epoch)[:48].view(3, 2, 8) for epoch in range(2)]  # step, process, image
    for rank in range(2):
        images = write_images(tmp_path / str(rank), toy_images())
        own = torch.cat([order[:, rank].flatten() for order in orders])
        assert images.reads() == {row: int((own == row).sum()) for row in own.unique().tolist()}

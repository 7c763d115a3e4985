"""What it costs to decode images while training instead of keeping them in memory."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data.dataset import Images
from bench.data.image_files import ImageFiles
from bench.data.imaging import Form
from bench.data.reading import Reader, Streamed, as_planes, default_loaders
from bench.encoders.convnet import ConvNet
from bench.spec import DataSpec, PretrainSpec, TrainingSpec, ViewSpec
from bench.training.loop import pretrain
from bench.training.randomness import isolated_rng
from methods.simclr import SimCLR

COUNT, SIZE, BATCH, EPOCHS = 256, 224, 32, 2
SPEC = PretrainSpec(
    method="simclr",
    backbone="convnet",
    data=DataSpec(key="files"),
    views=(ViewSpec(),),
    training=TrainingSpec(epochs=EPOCHS, batch_size=BATCH, lr=1e-3),
)


def write_photographs(folder: Path) -> ImageFiles:
    """JPEGs of 500 x 375 pixels, smooth with some noise, as photographs are: about 60 kB each."""
    rng = np.random.default_rng(0)
    names = tuple(f"{number}.jpg" for number in range(COUNT))
    for name in names:
        coarse = Image.fromarray(rng.integers(0, 256, size=(12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=np.int16)
        noisy = (smooth + rng.integers(-12, 13, size=smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / name, quality=90)
    return ImageFiles(root=folder, names=names, form=Form(size=SIZE, channels=3))


def training(images: Images) -> tuple[float, float, dict[str, torch.Tensor]]:
    """Images per second, seconds that the loop waited for images, and the weights."""
    with isolated_rng(0, "backbone"):
        method = SimCLR(ConvNet(3, 16), projector=(64, 32))
    result = pretrain(method, SPEC, images, None, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return result.images_per_second, result.seconds["data_wait"], method.state_dict()


@pytest.mark.perf
def test_streamed_training_gives_the_bits_of_training_in_memory_and_costs_little(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = write_photographs(tmp_path)
    loaders = default_loaders()
    kept = files[:]
    started = time.perf_counter()
    blocks = [np.arange(COUNT)]
    with Reader(Streamed(files, loaders), blocks, as_planes, ahead=COUNT) as reader:
        first = torch.cat(list(reader.take(COUNT)))
    decoding = COUNT / (time.perf_counter() - started)
    training(kept)  # warms up
    streamed, waited, found = training(Streamed(files, loaders))
    in_memory, made, expected = training(kept)
    with capsys.disabled():
        print(
            f"\nstreamed against in-memory training, {SIZE} px JPEG, {loaders} loaders: {streamed:.1f} and "
            f"{in_memory:.1f} images/s, ratio {streamed / in_memory:.3f}; images and views took {waited:.2f} and "
            f"{made:.2f} s; decoding alone {decoding:.0f} images/s with start-up"
        )
    assert torch.equal(first[7], torch.from_numpy(kept[7].transpose(2, 0, 1).copy()))
    assert all(torch.equal(found[name], value) for name, value in expected.items())

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from bench.data import reading
from bench.data.dataset import Images, Selection, select
from bench.data.pixels import planes
from bench.data.reading import Reader, Streamed, as_planes, default_loaders, read_planes
from bench.errors import DataError
from bench.registry import import_plugin

from .lazy import FileImages, noise, write_images


@pytest.fixture(autouse=True)
def no_reader_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()


def taken(images: Images, blocks: list[Any], **settings: Any) -> list[Tensor]:
    with Reader(images, blocks, as_planes, ahead=64, **settings) as reader:
        return [torch.cat(list(reader.take(len(rows)))) for rows in blocks]


@pytest.mark.parametrize("loaders", [1, 3])
def test_blocks_come_in_order_whatever_the_number_of_processes(tmp_path: Path, loaders: int) -> None:
    pixels = noise(200)
    images = write_images(tmp_path, pixels)
    order = np.random.default_rng(1).permutation(200)
    blocks = [order[:70], order[70:71], order[71:200], order[:5]]
    for rows, block in zip(blocks, taken(Streamed(images, loaders), blocks), strict=True):
        assert torch.equal(block, planes(pixels[rows]))
    readers = images.readers()
    assert os.getpid() not in readers and len(readers) == loaders


def test_sixteen_bits_and_choices_of_choices_are_read_by_processes_too(tmp_path: Path) -> None:
    pixels = noise(120, channels=1, dtype=np.uint16)
    images = write_images(tmp_path, pixels)
    odd, backwards = np.arange(1, 120, 2), np.arange(59, -1, -1)
    chosen = select(select(Streamed(images, 2), odd), backwards)
    (block,) = taken(chosen, [np.arange(40)])
    assert block.dtype == torch.int32 and torch.equal(block, planes(pixels[odd[backwards[:40]]]))
    assert os.getpid() not in images.readers() and set(images.reads().values()) == {1}


@pytest.mark.parametrize("kind", ["array", "choice of an array", "few images"])
def test_memory_and_a_handful_of_images_need_no_processes(tmp_path: Path, kind: str) -> None:
    pixels = noise(20)
    few = write_images(tmp_path, pixels)
    images: Images = {"array": pixels, "choice of an array": Selection(pixels, np.arange(20)), "few images": few}[kind]
    with Reader(images, [np.arange(15), np.arange(15, 20)], as_planes, ahead=20) as reader:
        assert not multiprocessing.active_children()
        assert torch.equal(torch.cat([*reader.take(15), *reader.take(5)]), planes(pixels))


@pytest.mark.parametrize("count", [20, 90])
@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("DataError", r"^scan 11\.png is truncated\. Replace it\.$"),
        ("ZeroDivisionError", r"^Reading images of FileImages failed with ZeroDivisionError: no rows\. Correct"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_it(tmp_path: Path, count: int, how: str, message: str) -> None:
    images = write_images(tmp_path, noise(count), broken=11, how=how)
    with pytest.raises(DataError, match=message) as caught:
        taken(Streamed(images, 2), [np.arange(count)])
    assert "Traceback" not in str(caught.value)


def test_a_reading_process_that_dies_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    images = write_images(tmp_path, noise(90), broken=40, how="dies")
    with pytest.raises(DataError, match=r"A process that reads images ahead has ended .+ \(--loaders 1\)"):
        taken(Streamed(images, 1), [np.arange(90)])


def test_images_that_cannot_travel_are_refused(tmp_path: Path) -> None:
    class Local(FileImages):
        pass

    images = Local(write_images(tmp_path, noise(90)).file)
    with pytest.raises(DataError, match=r"Images of the kind .+Local cannot be handed to the processes"):
        taken(images, [np.arange(90)])


def test_reading_ahead_draws_no_random_number(tmp_path: Path) -> None:
    images = Streamed(write_images(tmp_path, noise(90)), 2)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    taken(images, [np.arange(90)])
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()  # noqa: NPY002


def test_a_plug_ins_own_kind_of_images_is_read_by_processes(tmp_path: Path) -> None:
    plugin = tmp_path / "shades.py"
    plugin.write_text(
        "import numpy as np\n"
        "class Shades:\n"
        "    shape, dtype = (90, 2, 2, 1), np.dtype(np.uint8)\n"
        "    def __len__(self):\n        return 90\n"
        "    def __getitem__(self, rows):\n"
        "        rows = np.arange(90)[rows]\n"
        "        return np.broadcast_to(rows[:, None, None, None], (len(rows), 2, 2, 1)).astype(np.uint8)\n"
    )
    images = import_plugin("jointbench_plugin_shades", plugin).Shades()
    (block,) = taken(Streamed(images, 1), [np.arange(90)])
    assert block[:, 0, 1, 1].tolist() == list(range(90))


def test_a_small_shared_memory_gets_smaller_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = noise(90)
    monkeypatch.setattr(reading, "_shared_memory", lambda: 3 * reading.PIECE_IMAGES * pixels[0].nbytes)
    with Reader(Streamed(write_images(tmp_path, pixels), 16), [np.arange(90)], as_planes, ahead=90) as reader:
        assert len(multiprocessing.active_children()) <= 3
        assert torch.equal(torch.cat(list(reader.take(90))), planes(pixels))


def test_chosen_blocks_are_read_and_no_others(tmp_path: Path) -> None:
    pixels = noise(100)
    images = write_images(tmp_path, pixels)
    blocks = list(read_planes(images, 40, range(0, 3, 2)))
    assert [len(block) for block in blocks] == [40, 20]
    assert torch.equal(torch.cat(blocks), planes(pixels[[*range(40), *range(80, 100)]]))
    assert set(images.reads()) == {*range(40), *range(80, 100)}


def test_loaders_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(33))
    assert [default_loaders(sharers=n) for n in (1, 2, 4, 64)] == [16, 16, 8, 1]


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from bench.data.reading import Reader, Streamed, as_planes
from {module} import noise, write_images
if __name__ == "__main__":
    images = Streamed(write_images(Path(sys.argv[1]), noise(90)), 2)
    with Reader(images, [np.arange(90)] * 1000, as_planes, ahead=90) as reader:
        list(reader.take(90))
        print("reading", flush=True)
        sys.stdin.read()
"""


def test_reading_processes_do_not_outlive_a_killed_run(tmp_path: Path) -> None:
    script = tmp_path / "reads.py"
    script.write_text(SCRIPT.format(module=FileImages.__module__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, script, tmp_path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as run:
        assert run.stdout is not None and run.stdout.readline() == "reading\n"
        others = psutil.Process(run.pid).children(recursive=True)
        assert len(others) >= 3
        started = time.monotonic()
        run.kill()
        assert not psutil.wait_procs(others, timeout=30)[1]
        assert time.monotonic() - started < 30

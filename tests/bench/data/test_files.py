from __future__ import annotations

from pathlib import Path

import pytest

from bench.data.files import Dependencies, depends_on, every_file, existing_folder, read_bytes, unreadable
from bench.errors import DataError


def test_a_loader_carries_what_it_depends_on() -> None:
    def files(root: Path, params: object) -> list[Path]:
        return [root / "a"]

    @depends_on(packages=("numpy",), files=files)
    def loader(root: Path) -> str:
        return f"loaded {root.name}"

    assert loader(Path("here")) == "loaded here"
    assert vars(loader)["dependencies"] == Dependencies(packages=("numpy",), files=files)


def test_a_loader_that_declares_nothing_is_taken_to_read_every_file(tmp_path: Path) -> None:
    for name in ("b", "a/c", "a/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.relative_to(tmp_path).as_posix() for file in every_file(tmp_path, {})] == ["a/b", "a/c", "b"]
    assert Dependencies().files is every_file


def test_a_folder_that_does_not_exist_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The data folder .*nowhere does not exist\. Give an existing folder"):
        existing_folder(tmp_path / "nowhere")
    assert existing_folder(tmp_path) == tmp_path


def test_a_folder_behind_a_closed_door_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\)\. Check its permissions"):
        existing_folder(tmp_path / "closed" / "inner")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing cannot be read \(No such file or directory\)\. Check the file"):
        read_bytes(tmp_path / "missing")


def test_the_error_for_a_damaged_file_says_what_where_and_what_next() -> None:
    message = str(unreadable(Path("folder/file"), "it is broken"))
    assert message == "folder/file: it is broken. Replace it with an intact copy, then run the same command again."

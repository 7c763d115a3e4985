from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from bench.training.checkpoint import CheckpointFile


def checkpoint(folder: Path, identity: str = "abc") -> CheckpointFile:
    return CheckpointFile(path=folder / "deep" / "training.ckpt", identity=identity)


def test_a_state_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    checkpoint(tmp_path).save({"weights": torch.arange(3), "epoch": 4})
    state = checkpoint(tmp_path).load()
    assert state is not None and state["epoch"] == 4 and torch.equal(state["weights"], torch.arange(3))


def test_nothing_saved_is_nothing_to_resume(tmp_path: Path) -> None:
    assert checkpoint(tmp_path).read() is None and checkpoint(tmp_path).load() is None


@pytest.mark.parametrize("where", [0, 30, 60, 400, -1])
def test_a_flipped_bit_anywhere_is_noticed_and_said(
    tmp_path: Path, where: int, caplog: pytest.LogCaptureFixture
) -> None:
    file = checkpoint(tmp_path)
    file.save({"weights": torch.arange(30)})
    data = bytearray(file.path.read_bytes())
    data[where] ^= 1
    file.write(bytes(data))
    with caplog.at_level(logging.WARNING):
        assert file.load() is None
    assert f"The checkpoint {file.path} is damaged; it is ignored and training starts again." in caplog.text


@pytest.mark.parametrize("length", [0, 10, 40, 200])
def test_a_truncated_file_is_noticed_and_said(tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture) -> None:
    file = checkpoint(tmp_path)
    file.save({"weights": torch.arange(30)})
    file.write(file.path.read_bytes()[:length])
    assert file.load() is None and "is damaged" in caplog.text


def test_a_foreign_checkpoint_is_left_alone_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint(tmp_path, "theirs").save({"epoch": 4})
    assert checkpoint(tmp_path, "ours").load() is None
    assert "belongs to another pre-training (identity theirs, expected ours)" in caplog.text
    assert checkpoint(tmp_path, "theirs").load() == {"epoch": 4}


def test_a_save_that_fails_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = checkpoint(tmp_path)
    file.save({"epoch": 1})

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        file.save({"epoch": 2})
    assert file.load() == {"epoch": 1}
    assert [path.name for path in file.path.parent.iterdir()] == ["training.ckpt"]


def test_deleting_also_removes_what_a_killed_save_left(tmp_path: Path) -> None:
    file = checkpoint(tmp_path)
    file.save({"epoch": 1})
    file.path.with_name(".training.ckpt.4711.tmp").write_bytes(b"half")
    file.delete()
    file.delete()  # nothing there is fine
    assert list(file.path.parent.iterdir()) == []


def test_no_pickled_code_is_run(tmp_path: Path) -> None:
    file = checkpoint(tmp_path)
    file.save({"path": Path("/")})
    with pytest.raises(Exception, match="Weights only load failed"):
        file.load()

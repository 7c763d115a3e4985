from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.pickles import read_pickle
from bench.errors import DataError

from .tiny import python2_pickle


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def write(tmp_path: Path, content: bytes) -> Path:
    file = tmp_path / "batch"
    file.write_bytes(content)
    return file


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_basic_values_are_read_from_every_protocol(tmp_path: Path, protocol: int) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    values = {"data": array, "labels": [1, 2], b"raw": b"\xff\0", "text": "ä", "nested": {"a": (1.5, None, True)}}
    loaded = read_pickle(write(tmp_path, pickle.dumps(values, protocol=protocol)))
    assert loaded["data"].tolist() == array.tolist()
    assert loaded["data"].dtype == np.uint8
    assert {key: value for key, value in loaded.items() if key != "data"} == {
        "labels": [1, 2],
        "raw": b"\xff\0",
        "text": "ä",
        "nested": {"a": (1.5, None, True)},
    }


def test_a_pickle_from_python_2_is_read(tmp_path: Path) -> None:
    array = np.arange(250, 262, dtype=np.int64).astype(np.uint8).reshape(2, 6)
    loaded = read_pickle(write(tmp_path, python2_pickle(array, [3, 700])))
    assert loaded["data"].tolist() == array.tolist()
    assert loaded["labels"] == [3, 700]


def test_a_pickle_that_runs_a_command_is_refused_and_the_command_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    file = write(tmp_path, pickle.dumps({"data": Malicious(os.system, f"touch '{trace}'")}))
    with pytest.raises(DataError, match=r"batch: not read, because .* unsafe: it asks for (posix|nt)\.system, which"):
        read_pickle(file)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (eval, ("1 + 1",), r"builtins\.eval"),
        (getattr, ("a", "upper"), r"builtins\.getattr"),
        (np.load, ("x",), r"numpy\.load"),
        (np.lib.npyio.NpzFile, ("x",), r"numpy.*NpzFile"),
    ],
)
def test_other_functions_are_refused_also_numpys(
    tmp_path: Path, function: Any, arguments: tuple[Any, ...], name: str
) -> None:
    with pytest.raises(DataError, match=rf"it asks for {name}"):
        read_pickle(write(tmp_path, pickle.dumps({"data": Malicious(function, *arguments)})))


def test_the_text_codec_cannot_be_used_for_another_codec(tmp_path: Path) -> None:
    content = b"\x80\x02}(X\x01\0\0\0ac_codecs\nencode\n(X\x01\0\0\0bX\x03\0\0\0zipt" + b"Ru."
    with pytest.raises(DataError, match=r"codec 'zip' is not allowed"):
        read_pickle(write(tmp_path, content))


@pytest.mark.parametrize("keep", [0, 1, 20, 60, -1])
def test_a_truncated_pickle_is_an_error_that_names_the_file(tmp_path: Path, keep: int) -> None:
    content = pickle.dumps({"data": np.arange(50, dtype=np.uint8)})
    with pytest.raises(DataError, match=r"batch: .*(damaged|intact)"):
        read_pickle(write(tmp_path, content[:keep]))


def test_anything_but_a_dictionary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"batch: it holds a list instead of a dictionary"):
        read_pickle(write(tmp_path, pickle.dumps([1, 2])))

"""Reading a pickle that someone else wrote, without letting it run anything.

A pickle is a program. Only what a NumPy array needs is allowed: the array's own constructor, its type, and the text
codec with which Python 2's bytes are rebuilt. Numbers, text, bytes, lists and dictionaries need no permission.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.files import read_bytes, unreadable
from bench.errors import DataError


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding!r} is not allowed")
    return text.encode("latin1")


def _frombuffer(buffer: bytes, dtype: np.dtype[Any], shape: tuple[int, ...], order: Literal["C", "F"]) -> NDArray[Any]:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


_reconstruct = np.empty(0).__reduce__()[0]  # its module was renamed in NumPy 2; the function was not
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _frombuffer,
    ("numpy._core.numeric", "_frombuffer"): _frombuffer,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image batch needs") from None


def read_pickle(file: Path) -> dict[str, Any]:
    """Read a pickled dictionary of arrays and basic values, also one from Python 2; keys become text.

    Raises:
        DataError: damaged, not a dictionary, or it asks for anything else than arrays and basic values.
    """
    content = read_bytes(file)
    try:
        loaded = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{file}: not read, because this pickle is damaged or unsafe: {error}. Use the original file."
        ) from error
    except Exception as error:  # a damaged pickle may raise anything: it is an arbitrary stack program
        raise unreadable(file, f"it is no intact pickle ({type(error).__name__}: {error})") from error
    if not isinstance(loaded, dict):
        raise unreadable(file, f"it holds a {type(loaded).__name__} instead of a dictionary")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in loaded.items()}

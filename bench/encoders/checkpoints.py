"""Reading other people's files of weights without running anything that is in them.

A pickle is a program. PyTorch's files are read by its restricted reader, which knows tensors and plain values; here it
may also rebuild numbers and arrays of NumPy and ``argparse.Namespace``, which hold values and call nothing. Plain
pickles, as Detectron2 writes them, may hold NumPy arrays only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import pickletools
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from bench.data.pickles import read_pickle
from bench.errors import CheckpointError, DataError

METADATA = "jointbench"
"""Entry of a file's metadata under which :mod:`bench.encoders.exports` describes the encoder, as JSON."""

_LEGACY_TORCH = 0x1950A86A20F9469CFC6C
"""The first object of a file that PyTorch wrote before version 1.6."""
_BLOCK = 1 << 20
_SCALAR = np.float64(0).__reduce__()[0]
_RECONSTRUCT = np.empty(0).__reduce__()[0]
_HARMLESS: tuple[Any, ...] = (
    argparse.Namespace,
    np.ndarray,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("bool", "int32", "int64", "uint8", "float16", "float32", "float64")),
    # the module of these two was renamed in NumPy 2
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    *((_RECONSTRUCT, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The tensors of a file.

    Attributes:
        file: SHA-256 of the file.
        tensors: by key; the keys of nested dictionaries are joined by dots.
        metadata: what jointbench wrote about the encoder; empty in a file of somebody else.
    """

    file: str
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, Any]


def read_checkpoint(path: Path) -> Checkpoint:
    """Read every tensor of a file: safetensors, PyTorch's format old or new, or a pickle of NumPy arrays.

    Raises:
        CheckpointError: there is no such file, it is damaged or of another format, it needs code to be run, or it has
            no tensors.
    """
    try:
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Check the path and permissions.") from error
    metadata: dict[str, Any] = {}
    if head[8:9] == b"{":
        tensors, metadata = _read_safetensors(path)
    elif zipfile.is_zipfile(path) or _is_legacy_torch(path):
        tensors = _flat(_read_torch(path))
    elif head[:1] == b"\x80":
        content = _read_arrays(path)
        metadata = _described(content.pop(METADATA, ""))
        tensors = _flat(content)
    elif head[:4] == b"PK\x03\x04":
        raise CheckpointError(f"{path}: is truncated: the end of its archive is missing. Get the file again.")
    else:
        raise CheckpointError(f"{path}: is neither safetensors nor a file of PyTorch. Give the original file.")
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors. Give the file with the network's state_dict.")
    return Checkpoint(file=digest, tensors=tensors, metadata=metadata)


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dictionary)
            return tensors, _described((file.metadata() or {}).get(METADATA, ""))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not readable as safetensors ({error}). Get the file again.") from error


def _described(text: Any) -> dict[str, Any]:
    """The metadata that jointbench wrote; what cannot be read as such is somebody else's."""
    try:
        content = json.loads(text) if isinstance(text, str) and text else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(_HARMLESS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if (asked := re.search(r"GLOBAL ([\w.]+)", str(error))) is None:
            raise _damaged(path, error) from error
        raise _unsafe(path, asked[1]) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, AssertionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip().splitlines() or ["no reason"])[0]
    return CheckpointError(
        f"{path}: damaged, or not a file of PyTorch's ({type(error).__name__}: {reason}). Get the file again."
    )


def _unsafe(path: Path, asked: str) -> CheckpointError:
    if asked.startswith(("jax", "haiku", "optax", "flax")):
        return CheckpointError(
            f"{path}: a pickle of JAX ({asked}), which is not read. Convert its arrays to PyTorch with torchvision's "
            "names for the layers, and save them with safetensors."
        )
    return CheckpointError(
        f"{path}: not read, because its pickle asks for {asked}, and rebuilding that runs code of the file's choice. "
        "If you trust whoever made it, save the tensors alone where it can be loaded, and give that file: "
        "python -c \"import torch; c = torch.load('IN', weights_only=False); "
        "torch.save(c.get('state_dict', c), 'OUT')\""
    )


def _is_legacy_torch(path: Path) -> bool:
    """Whether the first value of a pickle is PyTorch's old magic number; nothing is rebuilt."""
    with path.open("rb") as file:
        if file.read(1) != b"\x80":
            return False
        file.seek(0)
        try:
            for operation, argument, _ in pickletools.genops(file):
                if operation.name.startswith("LONG"):
                    return bool(argument == _LEGACY_TORCH)
                if operation.name not in ("PROTO", "FRAME"):
                    return False
        except Exception:  # a damaged pickle may raise anything
            return False
    return False


def _read_arrays(path: Path) -> dict[str, Any]:
    try:
        return read_pickle(path)
    except DataError as error:
        asked = re.search(r"it asks for ([\w.]+)", str(error))
        raise (_unsafe(path, asked[1]) if asked else _damaged(path, error)) from error


def _flat(content: Any, prefix: str = "") -> dict[str, Tensor]:
    """Tensors and arrays of nested dictionaries by joined keys; everything else, such as an optimizer's state by
    number, is passed over."""
    if not isinstance(content, Mapping):
        return {}
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            found[f"{prefix}{key}"] = torch.from_numpy(np.array(value))
        else:
            found |= _flat(value, f"{prefix}{key}.")
    return found

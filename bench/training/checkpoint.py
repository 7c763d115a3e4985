"""Checkpoints of an unfinished training: one file, replaced atomically, verified before it is believed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.storage import replace_file

logger = logging.getLogger(__name__)

MAGIC = b"jointbench training 1\n"
DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """Where a training saves itself.

    Attributes:
        path: the file; its folder is made when needed.
        identity: digest of what is trained (spec, code, data). A checkpoint of another identity is never resumed.
        every_seconds: least time between two saves; they happen at ends of epochs only.
    """

    path: Path
    identity: str
    every_seconds: float = 10.0

    def write(self, data: bytes) -> None:
        """Replace the file by ``data``; a crash leaves the old file or the new one, never a mixture."""
        replace_file(self.path, data)

    def read(self) -> bytes | None:
        """The file's content, or None when there is none."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def delete(self) -> None:
        """Remove the file, and what a killed save left beside it."""
        for leftover in (self.path, *self.path.parent.glob(f".{self.path.name}.*.tmp")):
            with contextlib.suppress(FileNotFoundError):
                leftover.unlink()

    def save(self, state: dict[str, Any]) -> None:
        """Write ``state`` (tensors and plain values) with its checksum and this identity."""
        buffer = io.BytesIO()
        torch.save({"identity": self.identity, "state": state}, buffer)
        payload = buffer.getvalue()
        self.write(MAGIC + hashlib.sha256(payload).digest() + payload)

    def load(self) -> dict[str, Any] | None:
        """The saved state, on the CPU; None when there is none to resume.

        A damaged checkpoint, or one of another identity, is left aside with a warning: training can start again.
        """
        data = self.read()
        if data is None:
            return None
        head = len(MAGIC) + DIGEST_BYTES
        if not data.startswith(MAGIC) or hashlib.sha256(data[head:]).digest() != data[len(MAGIC) : head]:
            logger.warning("The checkpoint %s is damaged; it is ignored and training starts again.", self.path)
            return None
        content = torch.load(io.BytesIO(data[head:]), map_location="cpu", weights_only=True)
        if content["identity"] != self.identity:
            logger.warning(
                "The checkpoint %s belongs to another pre-training (identity %s, expected %s); "
                "it is ignored and training starts again.",
                self.path,
                content["identity"],
                self.identity,
            )
            return None
        state: dict[str, Any] = content["state"]
        return state

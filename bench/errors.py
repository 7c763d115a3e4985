"""Every error that jointbench raises on purpose.

    JointbenchError
    ├── RequestError                the request was wrong: exit code 2, nothing ran
    │   ├── UnknownNameError        no method, protocol, dataset, backbone or suite has this key
    │   ├── RegistrationError       a file registers something that breaks its contract
    │   ├── SpecError               a suite or a parameter is malformed
    │   ├── CheckpointError         a file of weights is unreadable, unsafe, or not the whole of a known backbone
    │   └── DataError               a dataset is missing, unreadable or unfit
    ├── StoreError                  the result store cannot be read or written
    │   └── CorruptPartError        one part fails its checksum or its schema (quarantined)
    └── JobError                    one job failed: it becomes a row, the other cells go on
        ├── TrainingError           a training was ended; it carries its history
        │   ├── DivergenceError     a loss or a parameter became NaN or infinite
        │   └── CollapseError       all embeddings became the same vector
        └── DependencyError         the job it depends on has failed

A message says what happened, where, and what to do next.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class JointbenchError(Exception):
    """Root of every error raised on purpose."""


class RequestError(JointbenchError):
    """The request was wrong; nothing ran."""


class UnknownNameError(RequestError):
    """No entry has this key."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, hint: str = "") -> None:
        names = sorted(known)
        close = difflib.get_close_matches(name, names, n=1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        listing = ", ".join(names) or "none"
        super().__init__(f"Unknown {kind} {name!r}.{guess} Known: {listing}.{' ' + hint if hint else ''}")


class RegistrationError(RequestError):
    """A file registers something that breaks its contract."""


class SpecError(RequestError):
    """A suite or a parameter is malformed."""


class CheckpointError(RequestError):
    """A file of weights is unreadable, unsafe, or not the whole of a known backbone."""


class DataError(RequestError):
    """A dataset is missing, unreadable or unfit for what was asked of it."""


class StoreError(JointbenchError):
    """The result store cannot be read or written."""


class CorruptPartError(StoreError):
    """One part of the store fails its checksum or its schema."""


class JobError(JointbenchError):
    """One job failed; it becomes a row and the other cells go on."""


class TrainingError(JobError):
    """A training was ended; ``history`` holds its rows up to there (:class:`bench.training.history.HistoryRow`)."""

    history: Sequence[Any] = ()


class DivergenceError(TrainingError):
    """A loss or a parameter became NaN or infinite."""


class CollapseError(TrainingError):
    """All embeddings became the same vector."""


class DependencyError(JobError):
    """The job that this one depends on has failed."""


def describe(error: ValidationError) -> str:
    """What a validation found, as one sentence for each field."""
    parts = []
    for item in error.errors(include_url=False):
        where = ".".join(str(step) for step in item["loc"]) or "the whole"
        message = item["msg"].removeprefix("Value error, ")  # pydantic's words for a check of ours
        parts.append(f"{where}: {message} (got {item['input']!r})"[:300])
    return "; ".join(parts) + "."

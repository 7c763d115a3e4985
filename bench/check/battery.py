"""Running checks: each is a function whose docstring is the sentence that it proves."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from bench.declaration import REQUIRED
from bench.errors import JointbenchError
from bench.registry import Entry

Trial = TypeVar("Trial")


class ContractBrokenError(JointbenchError):
    """A check found a breach; the message says what, where and what to do next."""


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """Outcome of one check.

    Attributes:
        name: the sentence that holds if ``ok``.
        ok: whether it does.
        message: what went wrong, where, and what to do next; empty if ``ok``.
    """

    name: str
    ok: bool
    message: str = ""


def run_checks(checks: Iterable[Callable[[Trial], None]], trial: Trial, entry: Entry) -> list[CheckResult]:
    """One result per check; a check that raises something else than a breach has found the entry's own error."""
    return [_run(check, trial, entry) for check in checks]


def _run(check: Callable[[Trial], None], trial: Trial, entry: Entry) -> CheckResult:
    name = inspect.getdoc(check) or check.__name__
    try:
        check(trial)
    except ContractBrokenError as breach:
        return CheckResult(name=name, ok=False, message=f"{entry.where}: {breach}")
    except (Exception, SystemExit) as error:  # the code under test is a user's: whatever it raises is the finding
        place = _last_line_in(entry, error)
        said = f"{type(error).__name__}: {error}"
        return CheckResult(
            name=name, ok=False, message=f"{place}: raised {said}. Fix it there, then run the check again."
        )
    return CheckResult(name=name, ok=True)


def _last_line_in(entry: Entry, error: BaseException) -> str:
    """The deepest line of the entry's own file in the traceback; its declaration when there is none."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(entry.file)]
    return f"{entry.file}:{lines[-1]}" if lines else entry.where


def literal_defaults(entry: Entry) -> None:
    """Fail unless every parameter has a default that JSON can hold."""
    for name, value in entry.parameters.items():
        if value is not REQUIRED and not _is_literal(value):
            raise ContractBrokenError(
                f"the default of {name!r} is {value!r}. Use a number, a string, a bool or a tuple of them, so that a "
                "spec can record it."
            )


def _is_literal(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(_is_literal(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)

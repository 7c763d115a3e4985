"""The user's own data sets by name: which folder and which parameters a name stands for.

One JSON file in the user's configuration folder, written atomically; the images stay where they are.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from filelock import FileLock
from pydantic import Field, ValidationError

from bench.errors import DataError, RequestError, describe
from bench.registry import Registry
from bench.spec import DataSpec, Frozen
from bench.storage import replace_file

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Named(Frozen):
    """A data set that the user named: the folder it is in, absolute, and what reads it."""

    root: str
    data: DataSpec


class _Content(Frozen):
    version: int = 1
    datasets: dict[str, Named] = Field(default_factory=dict)


def default_file() -> Path:
    """Where the names are kept: below ``JOINTBENCH_CONFIG``, else in the user's configuration folder."""
    if given := os.environ.get("JOINTBENCH_CONFIG"):
        return Path(given) / "datasets.json"
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "jointbench" / "datasets.json"


class Collection:
    """The named data sets of this user."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or default_file()

    def sets(self) -> dict[str, Named]:
        """All of them, sorted by name.

        Raises:
            DataError: the file is damaged.
        """
        try:
            text = self.file.read_text(encoding="utf-8")
            return dict(sorted(_Content.from_json(text).datasets.items()))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise DataError(f"{self.file} cannot be read ({error.strerror}). Check its permissions.") from error
        except ValidationError as error:
            raise DataError(
                f"{self.file}: {describe(error)} Correct the file, or delete it and add the data sets again."
            ) from error

    def add(self, name: str, named: Named, *, registered: Registry) -> None:
        """Keep a data set under ``name``; another one of that name is replaced.

        Raises:
            RequestError: as in :meth:`check`.
        """
        self.check(name, registered=registered)
        self._change({name: named})

    def check(self, name: str, *, registered: Registry) -> None:
        """Whether a data set can have this name.

        Raises:
            RequestError: it cannot be part of an address, or is a registered dataset's.
        """
        if not NAME.fullmatch(name):
            raise RequestError(f"{name!r} is no name. Use letters, digits, dots, hyphens and underscores.")
        if name in registered:
            raise RequestError(f"{name!r} is a dataset already ({registered[name].where}). Choose another name.")

    def remove(self, name: str) -> None:
        """Forget a name; the images stay.

        Raises:
            RequestError: there is no such name.
        """
        if name not in (held := self.sets()):
            raise RequestError(
                f"No data set is kept under the name {name!r}. Known: {', '.join(held) or 'none'}. "
                "`jointbench data list` shows them."
            )
        self._change({}, without=name)

    def _change(self, added: dict[str, Named], *, without: str = "") -> None:
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.file}.lock"):  # two commands at once must not forget each other's names
                kept = {name: held for name, held in self.sets().items() if name != without}
                content = _Content(datasets={**kept, **added})
                replace_file(self.file, f"{content.model_dump_json(indent=2)}\n".encode())
        except OSError as error:
            raise DataError(
                f"{self.file} cannot be written ({error.strerror}). Allow it, or set JOINTBENCH_CONFIG to a folder "
                "that can be written."
            ) from error

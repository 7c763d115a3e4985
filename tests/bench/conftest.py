"""Fixtures of the core's tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main

from .tiny import Run


@pytest.fixture
def cli(tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Run:
    """The command in this process, in an empty folder with settings of its own: exit code, output, errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOINTBENCH_DATA", raising=False)
    monkeypatch.setenv("JOINTBENCH_CONFIG", str(tmp_path / "config"))

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["jointbench", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return int(end.value.code or 0), printed.out, printed.err

    return run

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from bench.data import memory
from bench.data.memory import memory_budget
from bench.errors import RequestError


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """80 GiB available, and a file that may hold the limit of a container."""
    monkeypatch.delenv(memory.VARIABLE, raising=False)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=80 * 2**30))
    monkeypatch.setattr(memory, "GROUP_LIMIT", tmp_path / "memory.max")
    return tmp_path / "memory.max"


def test_half_of_what_is_available_is_shared_by_the_processes() -> None:
    assert memory_budget() == 40 * 2**30
    assert memory_budget(sharers=4) == 10 * 2**30


@pytest.mark.parametrize(("limit", "budget"), [("max\n", 40), (f"{8 * 2**30}\n", 4), (f"{900 * 2**30}\n", 40)])
def test_the_limit_of_a_container_counts(machine: Path, limit: str, budget: int) -> None:
    machine.write_text(limit)
    assert memory_budget() == budget * 2**30


def test_the_variable_says_it_in_gibibytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(memory.VARIABLE, "0.5")
    assert memory_budget() == 2**29
    assert memory_budget(sharers=2) == 2**28


@pytest.mark.parametrize("text", ["much", "0", "-1", "nan", "inf"])
def test_a_variable_without_meaning_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(memory.VARIABLE, text)
    with pytest.raises(RequestError, match=f"JOINTBENCH_MEMORY={text}: .+ in GiB, such as 16"):
        memory_budget()

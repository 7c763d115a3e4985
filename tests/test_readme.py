"""The README says what is true. It is not part of an installed package, so beside a wheel these tests skip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bench
from bench.registry import discover
from bench.scaffold import check_file

README = Path(bench.__file__).resolve().parent.parent / "README.md"


@pytest.fixture(scope="module")
def readme() -> str:
    if not README.is_file():
        pytest.skip("no README beside an installed package")
    return README.read_text(encoding="utf-8")


def test_the_method_of_the_readme_is_twenty_lines_and_passes_the_battery(readme: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 20
    file = tmp_path / "mine.py"
    file.write_text(code)
    ((_, results),) = check_file(file)
    assert [result.message for result in results if not result.ok] == []


def test_the_two_commands_stand_there_as_ci_runs_them(readme: str) -> None:
    install = re.findall(r"^python3 -m venv .*$", readme, flags=re.MULTILINE)
    assert install[0].endswith("jointbench run") and "pytest" in install[1] and "[tests]" in install[1]


def test_what_the_readme_links_exists(readme: str) -> None:
    for target in re.findall(r"(?:\]\(|src=\"|srcset=\")([^)\"#]+)", readme):
        assert (README.parent / target).exists(), target


def test_what_the_readme_and_the_changelog_name_is_registered(readme: str) -> None:
    catalog = discover()
    changelog = (README.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z0-9_]+)`", changelog))
    for kind in ("method", "protocol", "dataset", "backbone"):
        for entry in catalog.registry(kind):
            assert entry.key in named, f"CHANGELOG.md does not name the {kind} {entry.key}"

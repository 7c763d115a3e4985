"""The house: a folder knows only what stands below it."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

BELOW = {
    "reports": {"bench"},
    "protocols": {"bench"},
    "methods": {"bench"},
    "bench": set(),
}
HEAVY = {"torch", "torchvision", "lightning_fabric"}


def modules(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return sorted(Path(spec.origin).parent.rglob("*.py"))


def imported(file: Path, *, at_import_time: bool = False) -> set[str]:
    """Top-level packages that a file imports; with ``at_import_time`` only those outside functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped: set[ast.AST] = set()
    if at_import_time:
        lazy = (ast.FunctionDef, ast.AsyncFunctionDef)
        skipped = {child for node in ast.walk(tree) if isinstance(node, lazy) for child in ast.walk(node)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", BELOW)
def test_no_import_points_upward(package: str) -> None:
    house = set(BELOW)
    for file in modules(package):
        upward = (imported(file) & house) - BELOW[package] - {package}
        assert not upward, f"{file} imports {upward}, which does not stand below {package}"


def test_methods_know_nothing_about_data_files_or_evaluation() -> None:
    for file in modules("methods"):
        source = file.read_text(encoding="utf-8")
        assert "bench.data" not in source and "bench.protocol" not in source, file


def test_the_reports_never_import_torch() -> None:
    for file in modules("reports"):
        assert not imported(file) & HEAVY, file


@pytest.mark.parametrize(
    "statement",
    [
        "import bench, reports",
        "import bench.cli, bench.plan, bench.store, bench.registry; bench.registry.discover()",
        "import reports.site, bench.table, bench.reporting",
    ],
)
def test_planning_and_reporting_import_no_torch(statement: str) -> None:
    code = f"import sys; {statement}; sys.exit(int('torch' in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_help_needs_neither_pandas_nor_pydantic() -> None:
    code = (
        "import sys\nfrom bench.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'pandas', 'pydantic', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


def test_a_file_that_points_upward_would_be_found(tmp_path: Path) -> None:
    file = tmp_path / "wrong.py"
    file.write_text("def f():\n    from methods.vicreg import VICReg\n")
    assert imported(file) == {"methods"}
    assert imported(file, at_import_time=True) == set()

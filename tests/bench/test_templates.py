"""What `jointbench new` writes: it runs, keeps the contract, fits its size, and does not collapse."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import jinja2
import pytest
import torch

import bench
from bench.check.methods import TinyBackbone
from bench.registry import discover
from bench.training.method import Method

KINDS = ("method", "protocol", "dataset")


def rendered(template: str) -> str:
    text = (files("bench") / "templates" / f"{template}.py.j2").read_text(encoding="utf-8")
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(text).render(name="mine", class_name="Mine")


def write(folder: Path, kind: str) -> Path:
    (folder / "mine.py").write_text(rendered(kind), encoding="utf-8")
    (folder / "test_mine.py").write_text(rendered(f"{kind}_test"), encoding="utf-8")
    return folder / "mine.py"


@pytest.mark.parametrize("kind", KINDS)
def test_the_written_test_passes_beside_the_written_file(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "test_mine.py"]
    environment = {"PYTHONPATH": str(Path(bench.__file__).parent.parent), "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_a_written_file_has_at_most_sixty_lines_and_imports_only_the_core(kind: str) -> None:
    text = rendered(kind)
    assert len(text.splitlines()) <= 60
    imported = {
        (node.module or "").split(".")[0] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)
    } | {
        alias.name.split(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert imported <= {"__future__", "bench", "collections", "numpy", "pathlib", "time", "torch"}


@pytest.mark.parametrize("kind", [*KINDS, *(f"{kind}_test" for kind in KINDS)])
def test_written_lines_fit_and_the_docstring_comes_first(kind: str) -> None:
    text = rendered(kind)
    assert max(map(len, text.splitlines())) <= 120
    assert ast.get_docstring(ast.parse(text))
    assert "{{" not in text


def test_the_method_learns_without_collapsing(tmp_path: Path) -> None:
    """Against a knock-out: with alignment alone the embeddings of all images become one vector."""
    cls = discover([write(tmp_path, "method")]).methods["mine"].load()
    assert train(cls, keep=("alignment", "uniformity")) > 0.5
    assert train(cls, keep=("alignment",)) < 0.1


def train(cls: type[Method], *, keep: tuple[str, ...]) -> float:
    """Spread of the embeddings after a short training on noisy views of random images."""
    torch.manual_seed(0)
    method = cls(TinyBackbone(1, 16), projector=(32, 16))  # type: ignore[call-arg]
    optimizer = torch.optim.Adam(method.parameters(), lr=1e-2)
    images = torch.randn(32, 1, 8, 8)
    for _ in range(60):
        views = [images + 0.1 * torch.randn_like(images) for _ in range(2)]
        terms = method(views)
        loss = torch.stack([terms[name] for name in keep]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        z = torch.nn.functional.normalize(method.projector(method.backbone(images)), dim=1)  # type: ignore[operator]
    return float(z.std(dim=0).mean() * z.shape[1] ** 0.5)  # 1 when evenly spread over the sphere

"""Starting something new: files to fill in, and the contract battery for them."""

from __future__ import annotations

import keyword
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import bench
from bench.errors import RegistrationError, RequestError
from bench.registry import Catalog, Entry, Registry, discover

if TYPE_CHECKING:
    from bench.check import CheckResult

HOMES = {"method": "methods", "protocol": "protocols", "dataset": "bench.data"}


@dataclass(frozen=True)
class Scaffold:
    """What was written, and what to do next."""

    files: tuple[Path, ...]
    next_step: str


def scaffold(kind: str, name: str, folder: Path) -> Scaffold:
    """Write a runnable file and its test.

    Inside the checkout that the running package comes from, they go where such files live; elsewhere the file is a
    plug-in in ``folder``.

    Raises:
        RequestError: the name is no key, is taken, or a file is already there.
    """
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name) or name.startswith("_"):
        raise RequestError(f"{name!r} is no key. Use lower-case letters, digits and underscores, like my_{kind}.")
    if name in (known := discover().registry(kind)):
        raise RequestError(f"The {kind} {name!r} exists already: {known[name].where}. Choose another name.")
    root = _checkout(folder)
    package = Path(*HOMES[kind].split("."))
    file = root / package / f"{name}.py" if root else folder / f"{name}.py"
    test = (root / "tests" / package if root else folder) / f"test_{name}.py"
    for path in (file, test):
        if path.exists():
            raise RequestError(f"{path} exists already. Choose another name, or move it away.")
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    words = {"name": name, "class_name": "".join(part.capitalize() for part in name.split("_"))}
    for path, template in ((file, f"{kind}.py.j2"), (test, f"{kind}_test.py.j2")):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(templates.get_template(template).render(words), encoding="utf-8")
        except OSError as error:
            raise RequestError(f"{path}: cannot be written: {error}. Go to a folder that can.") from error
    return Scaffold((file, test), _next_step(kind, name, os.path.relpath(file, folder), is_plugin=root is None))


def _next_step(kind: str, name: str, file: str, *, is_plugin: bool) -> str:
    quoted = shlex.quote(file)
    plugin = f" --plugin {quoted}" if is_plugin else ""
    step = {
        "method": f"jointbench check {quoted} && jointbench run{plugin}",
        "protocol": f"jointbench check {quoted}, then name {name!r} in a suite file and "
        f"jointbench run SUITE.yaml{plugin}",
        "dataset": f"jointbench run --dataset {name} --data FOLDER{plugin}",
    }
    return f"Edit {file}, then: {step[kind]}"


def _checkout(folder: Path) -> Path | None:
    """The root of the checkout that the running package comes from, when ``folder`` lies in it."""
    root = Path(bench.__file__).resolve().parent.parent
    is_checkout = (root / "pyproject.toml").is_file() and (root / "tests").is_dir()
    return root if is_checkout and folder.resolve().is_relative_to(root) else None


def check_file(file: Path) -> list[tuple[Entry, list[CheckResult]]]:
    """Run the contract battery on every method and protocol that ``file`` registers.

    Raises:
        RegistrationError: the file breaks the contract of registration, or registers nothing that has a battery.
    """
    path = file.resolve()
    if not path.is_file():
        raise RequestError(f"{file}: there is no such file. Give the path of a Python file that registers something.")
    catalog = discover()
    if not any(entry.file.resolve() == path for registry in _batteries(catalog) for entry in registry):
        catalog = discover([path])
    entries = [entry for registry in _batteries(catalog) for entry in registry if entry.file.resolve() == path]
    if not entries:
        raise RegistrationError(f"{file}: registers no method and no protocol, so there is nothing to check.")
    from bench.check import check_method, check_protocol

    return [(entry, check_method(entry) if entry.kind == "method" else check_protocol(entry)) for entry in entries]


def _batteries(catalog: Catalog) -> tuple[Registry, Registry]:
    return catalog.methods, catalog.protocols

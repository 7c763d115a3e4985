"""Starting something new: files to fill in, and the contract battery for them."""

from __future__ import annotations

import importlib.util
import keyword
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

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

    In a checkout that the running package comes from, they go where such files live; elsewhere the file is a plug-in
    in ``folder``.

    Raises:
        RequestError: the name is no key, is taken, or a file is already there.
    """
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name) or name.startswith("_"):
        raise RequestError(f"{name!r} is no key. Use lower-case letters, digits and underscores, like my_{kind}.")
    if name in (known := discover().registry(kind)):
        raise RequestError(f"The {kind} {name!r} exists already: {known[name].where}. Choose another name.")
    home = _home_in_checkout(HOMES[kind], folder)
    file = (home or folder) / f"{name}.py"
    test = _test_folder(HOMES[kind], home, folder) / f"test_{name}.py"
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
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(templates.get_template(template).render(words), encoding="utf-8")
    plugin = "" if home else f" --plugin {file.name}"
    step = f"Edit {file.name}, then: jointbench check {file} && jointbench run{plugin}"
    return Scaffold((file, test), step)


def _home_in_checkout(package: str, folder: Path) -> Path | None:
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    home = Path(spec.origin).parent.resolve()
    return home if home.is_relative_to(folder.resolve()) and "site-packages" not in home.parts else None


def _test_folder(package: str, home: Path | None, folder: Path) -> Path:
    return folder if home is None else folder.resolve() / "tests" / Path(*package.split("."))


def check_file(file: Path) -> list[tuple[Entry, list[CheckResult]]]:
    """Run the contract battery on every method and protocol that ``file`` registers.

    Raises:
        RegistrationError: the file breaks the contract of registration, or registers nothing that has a battery.
    """
    path = file.resolve()
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

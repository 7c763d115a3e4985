"""The registry: every method, protocol, dataset, backbone and suite that can be named.

Entries come from the built-in folders, from installed packages (entry points ``jointbench.methods``,
``jointbench.protocols``, ``jointbench.datasets``, ``jointbench.backbones``, ``jointbench.suites``) and from plug-in
files. Listing reads source files only; :meth:`Entry.load` imports the one that is needed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from bench.card import Card
from bench.declaration import (
    REQUIRED,
    Declaration,
    read_declarations,
    register_backbone,
    register_dataset,
    register_method,
    register_protocol,
)
from bench.errors import RegistrationError, SpecError, UnknownNameError

__all__ = [
    "REQUIRED",
    "Catalog",
    "Entry",
    "Registry",
    "discover",
    "register_backbone",
    "register_dataset",
    "register_method",
    "register_protocol",
]

BUILT_IN_PACKAGES = ("methods", "protocols", "bench.data", "bench.encoders")
KINDS = ("method", "protocol", "dataset", "backbone")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One registered thing: its card, its parameters with defaults, and where it is defined.

    Attributes:
        module: dotted module name; for a plug-in file a name made from its stem.
        plugin: True when the module is a file outside any installed package.
    """

    kind: str
    key: str
    card: Card
    name: str
    parameters: Mapping[str, Any]
    needs_root: bool
    file: Path
    line: int
    module: str
    plugin: bool

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    def load(self) -> Any:
        """Import the file and return the registered class or function.

        Raises:
            RegistrationError: the file ends the program while it is imported.
        """
        try:
            module = import_plugin(self.module, self.file) if self.plugin else importlib.import_module(self.module)
        except SystemExit as error:
            raise RegistrationError(f"{self.file}: ends the program when it is imported (exit {error}).") from error
        return getattr(module, self.name)

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters: the defaults, overridden by ``given``, each in the type of its default.

        Raises:
            UnknownNameError: ``given`` names a parameter that does not exist.
            SpecError: a value does not fit the type of the default.
        """
        known = {name: value for name, value in self.parameters.items() if value is not REQUIRED}
        for name in given:
            if name not in known:
                raise UnknownNameError(f"parameter of {self.kind} {self.key!r}", name, known)
        return {
            name: _as_type(given[name], default, f"{self.kind} {self.key!r}, parameter {name!r}")
            if name in given
            else default
            for name, default in known.items()
        }


def _as_type(value: Any, default: Any, what: str) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        raise SpecError(f"{what} must be finite, got {value!r}.")
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(default, tuple) and isinstance(value, list | tuple):
        sample = default[0] if default else None
        return tuple(_as_type(item, sample, what) for item in value)
    if default is None or (isinstance(value, type(default)) and isinstance(value, bool) == isinstance(default, bool)):
        return value
    raise SpecError(f"{what} must be like {default!r} ({type(default).__name__}), got {value!r}.")


@dataclass
class Registry:
    """Entries of one kind by key."""

    kind: str
    entries: dict[str, Entry] = field(default_factory=dict)

    def add(self, entry: Entry) -> None:
        """Add an entry.

        Raises:
            RegistrationError: another file has taken the key.
        """
        held = self.entries.get(entry.key)
        if held is not None and (held.file.resolve(), held.name) == (entry.file.resolve(), entry.name):
            return  # a built-in file given as a plug-in, too
        if held is not None:
            raise RegistrationError(
                f"{entry.where}: the {self.kind} key {entry.key!r} is taken by {held.where}. Choose another key."
            )
        self.entries[entry.key] = entry

    def __getitem__(self, key: str) -> Entry:
        try:
            return self.entries[key]
        except KeyError:
            hint = f"Is its file given with --plugin? `jointbench list {self.kind}s` shows all."
            raise UnknownNameError(self.kind, key, self.entries, hint=hint) from None

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self.entries.values(), key=lambda entry: entry.key))

    def __len__(self) -> int:
        return len(self.entries)


@dataclass(frozen=True)
class Catalog:
    """All registries, and the plug-in files that they were made with."""

    methods: Registry
    protocols: Registry
    datasets: Registry
    backbones: Registry
    suites: Mapping[str, Path]
    plugins: tuple[Path, ...] = ()

    def registry(self, kind: str) -> Registry:
        found: Registry = getattr(self, f"{kind}s")
        return found


def discover(plugins: Iterable[Path] = ()) -> Catalog:
    """Read all registrations: built-in folders, entry points, then the plug-in files.

    Raises:
        RegistrationError: a file breaks its contract or a key is taken; the message names file and line.
    """
    registries = {kind: Registry(kind) for kind in KINDS}
    for package in BUILT_IN_PACKAGES:
        for file in _package_files(package):
            _add_file(registries, file, module=f"{package}.{file.stem}", plugin=False)
    for kind in KINDS:
        for point in importlib.metadata.entry_points(group=f"jointbench.{kind}s"):
            _add_file(registries, _module_file(point), module=point.module, plugin=False)
    paths = tuple(dict.fromkeys(Path(plugin).resolve() for plugin in plugins))
    if len({path.stem for path in paths}) < len(paths):
        raise RegistrationError("Two plug-in files have the same name; hashes know a plug-in by it. Rename one.")
    for path in paths:
        if not path.is_file():
            raise RegistrationError(f"{path}: there is no such plug-in file. Give --plugin the path of a Python file.")
        if not _add_file(registries, path, module=f"jointbench_plugin_{path.stem}", plugin=True):
            raise RegistrationError(f"{path}: registers nothing. Decorate a class with @register_method(…).")
    return Catalog(**{f"{kind}s": registry for kind, registry in registries.items()}, suites=_suites(), plugins=paths)


def _add_file(registries: Mapping[str, Registry], file: Path, *, module: str, plugin: bool) -> int:
    declarations = read_declarations(file)
    for declaration in declarations:
        registries[declaration.kind].add(_entry(declaration, module=module, plugin=plugin))
    return len(declarations)


def _entry(declaration: Declaration, *, module: str, plugin: bool) -> Entry:
    return Entry(**vars(declaration), module=module, plugin=plugin)


def _package_files(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return sorted(file for folder in folders for file in Path(folder).glob("*.py") if file.name != "__init__.py")


def _module_file(point: importlib.metadata.EntryPoint) -> Path:
    try:
        spec = importlib.util.find_spec(point.module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin:
        raise RegistrationError(
            f"Entry point {point.name} = {point.value} (group {point.group}) names a module that cannot be found. "
            "Reinstall or remove the package that declares it."
        )
    return Path(spec.origin)


def _suites() -> dict[str, Path]:
    """Suite files by key: the built-in folder, then the folders of packages with the entry point."""
    folders = [Path(__file__).parent / "suites"]
    folders += [_module_file(point).parent for point in importlib.metadata.entry_points(group="jointbench.suites")]
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            if file.stem in found:
                raise RegistrationError(f"{file}: the suite key {file.stem!r} is taken by {found[file.stem]}.")
            found[file.stem] = file
    return found


def import_plugin(name: str, file: Path) -> ModuleType:
    """The module of a plug-in file, which need not be where Python looks."""
    if (loaded := sys.modules.get(name)) is not None and loaded.__file__ == str(file):
        return loaded
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # a plug-in may import the files beside it
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module

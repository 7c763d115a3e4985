"""Identity of a result: three hashes, kept apart, all portable.

*spec* (the canonical JSON of the question), *code* (the syntax trees of what computes the answer), *data* (the content
and the splits of the dataset). Comments, formatting, docstrings and cards do not count, and neither does any module
that only plans, stores or shows results.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.registry import Catalog, Entry
from bench.spec import PretrainSpec, RunSpec

Manifest = Mapping[str, Mapping[str, str]]
"""Hash of every top-level definition, by module and name: what ``why`` compares."""

COMPUTING_PACKAGES = ("methods", "protocols", "bench.training", "bench.encoders", "bench.statistics", "bench.detection")
COMPUTING_MODULES = (
    *("bench.data.dataset", "bench.data.pixels", "bench.data.views", "bench.data.splits"),
    *("bench.data.label_lists", "bench.data.detection", "bench.metric", "bench.protocol"),
    "bench.data.imaging",  # decodes scenes when they are read: their fingerprint is that of the files, not the pixels
)
"""The modules whose code decides a result. An import of any other module is plumbing and is not followed."""

ENCODER_ROOTS = ("bench.encoders.build", "bench.data.dataset")
TRAINING_ROOTS = ("bench.training.pretraining", "bench.data.views")
PLUMBING = ("bench.training.checkpoint", "bench.training.history")
"""Modules of the computing packages that keep results and do not make them."""


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of ``value``."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The three hashes of one job and the code manifest behind the second.

    ``digest`` names the job's outcome in the store: equal digests mean that the same code answered the same question
    on the same data.
    """

    spec: str
    code: str
    data: str
    manifest: Manifest

    @property
    def digest(self) -> str:
        return digest([self.spec, self.code, self.data])


def pretraining_identity(spec: PretrainSpec, catalog: Catalog, *, fingerprint: str) -> Identity:
    """Identity of a pre-training: method, backbones, loop, optimizer and views are its code."""
    roots: list[tuple[str, Path | None]] = [
        _root(catalog.methods[spec.method]),
        _root(catalog.backbones[spec.backbone]),
        *(_root(catalog.backbones[key]) for key in _further_backbones(spec, catalog)),
    ]
    roots += [(module, None) for module in (*ENCODER_ROOTS, *(TRAINING_ROOTS if spec.training else ()))]
    manifest = code_manifest(roots)
    return Identity(spec=spec.digest(), code=digest(manifest), data=fingerprint, manifest=manifest)


def _further_backbones(spec: PretrainSpec, catalog: Catalog) -> list[str]:
    """Registered backbones that the method's parameters name, such as ``second_backbone: resnet18``."""
    return sorted({key for key in spec.method_params.values() if isinstance(key, str) and key in catalog.backbones})


def evaluation_identity(spec: RunSpec, catalog: Catalog, encoder: Identity, *, fingerprint: str) -> Identity:
    """Identity of an evaluation: protocol and metric are its code, and it inherits the encoder's identity."""
    manifest = code_manifest([_root(catalog.protocols[spec.protocol])])
    return Identity(
        spec=spec.digest(),
        code=digest([encoder.code, manifest]),
        data=digest([encoder.data, fingerprint]),
        manifest={**encoder.manifest, **manifest},
    )


def _root(entry: Entry) -> tuple[str, Path | None]:
    return (entry.module, entry.file)


def code_manifest(roots: Iterable[tuple[str, Path | None]]) -> dict[str, dict[str, str]]:
    """Hashes of the definitions of the root modules and of all computing modules that they import."""
    pending = list(roots)
    own = {module.split(".")[0] for module, _ in pending} - {"bench", "reports"}
    manifest: dict[str, dict[str, str]] = {}
    while pending:
        module, file = pending.pop()
        path = file or _source(module)
        if module in manifest or path is None:
            continue
        hashes, imported = _read_module(path, module)
        manifest[module] = dict(hashes)
        pending += [followed for name in imported if (followed := _follow(name, path, own))]
    return {module: manifest[module] for module in sorted(manifest) if manifest[module]}


def manifest_changes(old: Manifest, new: Manifest) -> list[str]:
    """One line for each definition that differs, for example ``methods.vicreg: VICReg.loss changed``."""
    lines = []
    for module in sorted({*old, *new}):
        before, after = old.get(module), new.get(module)
        if before is None or after is None:
            lines.append(f"{module}: {'now used' if before is None else 'no longer used'}")
            continue
        for name in sorted({*before, *after}):
            if before.get(name) != after.get(name):
                verb = "added" if name not in before else "removed" if name not in after else "changed"
                lines.append(f"{module}: {name} {verb}")
    return lines


def _follow(name: str, importer: Path, own: set[str]) -> tuple[str, Path] | None:
    """A computing module, one of the entry's own package, or a file beside a plug-in.

    The code of any other import decides no result.
    """
    if name in PLUMBING:
        return None
    computes = name in COMPUTING_MODULES or any(name == p or name.startswith(f"{p}.") for p in COMPUTING_PACKAGES)
    if computes or ("." in name and name.split(".")[0] in own):
        source = _source(name)
        return (name, source) if source else None
    sibling = importer.parent / f"{name}.py"
    return (name, sibling) if "." not in name and sibling.is_file() else None


@cache
def _source(module: str) -> Path | None:
    """The file of a module of ours, found without importing its parents; None when the name is no module."""
    package, *rest = module.split(".")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*rest)
    candidates = (path.with_suffix(".py"), path / "__init__.py") if rest else (path / "__init__.py",)
    return next((file for file in candidates if file.is_file()), None)


def _read_module(path: Path, module: str) -> tuple[Mapping[str, str], tuple[str, ...]]:
    stat = path.stat()
    return _read_source(path, module, stat.st_mtime_ns, stat.st_size)


@cache
def _read_source(path: Path, module: str, mtime_ns: int, size: int) -> tuple[Mapping[str, str], tuple[str, ...]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hashes: dict[str, str] = {}
    for node in tree.body:
        for name, part in _definitions(node):
            text = canonical_dump(part)
            held = hashes.get(name, "")
            hashes[name] = hashlib.sha256((held + text).encode()).hexdigest()[:16]
    return hashes, tuple(_imports(tree, module))


def _definitions(node: ast.stmt) -> list[tuple[str, ast.AST]]:
    """A top-level statement as named parts: classes by method, the rest by name; imports and docstrings are none."""
    if isinstance(node, ast.Import | ast.ImportFrom) or _is_docstring(node) or _is_card(node):
        return []
    if isinstance(node, ast.ClassDef):
        methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
        shell = ast.ClassDef(
            name=node.name,
            bases=node.bases,
            keywords=node.keywords,
            body=[item for item in node.body if not isinstance(item, ast.FunctionDef)],
            decorator_list=node.decorator_list,
        )
        return [(node.name, shell), *((f"{node.name}.{method.name}", method) for method in methods)]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return [(node.name, node)]
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return [(", ".join(ast.unparse(target) for target in targets), node)]
    return [("module body", node)]


def _imports(tree: ast.Module, module: str) -> list[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = module.rsplit(".", node.level)[0] if node.level else ""
            base = ".".join(filter(None, (package, node.module)))
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return names


_UNSTABLE_FIELDS = ("type_comment", "kind", "type_params", "ctx")
"""Fields that one Python version has and another lacks, or that follow from the rest."""


def canonical_dump(node: Any) -> str:
    """The syntax tree as text, equal across Python versions: empty fields, positions, docstrings and registration
    cards are left out."""
    if isinstance(node, ast.AST):
        fields = []
        for name in sorted(node._fields):
            value = getattr(node, name, None)
            if isinstance(value, list):
                value = [item for item in value if not (_is_docstring(item) or _is_registration(name, item))]
            if name in _UNSTABLE_FIELDS or value is None or value == []:
                continue
            fields.append(f"{name}={canonical_dump(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(canonical_dump(item) for item in node)}]"
    return repr(node)


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _is_card(node: ast.AST) -> bool:
    is_call = isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
    return is_call and ast.unparse(node.value.func).endswith("Card")  # type: ignore[attr-defined]


def _is_registration(field: str, node: ast.AST) -> bool:
    if field != "decorator_list" or not isinstance(node, ast.Call):
        return False
    return ast.unparse(node.func).split(".")[-1].startswith("register_")

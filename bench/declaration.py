"""Declarations: what a source file registers, read from its syntax tree without importing it.

    @register_method("vicreg", card=MethodCard(title="VICReg", ...))
    class VICReg(Method):
        def __init__(self, backbone, *, sim_coeff: float = 25.0): ...

Reading instead of importing keeps ``jointbench list`` and an idle ``jointbench run`` free of torch, and lets a broken
file be reported with its line before anything runs.
"""

from __future__ import annotations

import ast
import importlib.util
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bench import card as cards
from bench import metric as metrics
from bench.card import BackboneCard, Card, DatasetCard, MethodCard, ProtocolCard
from bench.errors import RegistrationError, describe

T = TypeVar("T", bound=Callable[..., Any])

REQUIRED = object()
"""Stands for the default of a parameter that has none (the number of classes of a supervised baseline)."""

CARD_TYPES: dict[str, type[Card]] = {
    "method": MethodCard,
    "protocol": ProtocolCard,
    "dataset": DatasetCard,
    "backbone": BackboneCard,
}
_LITERAL_SOURCES = {"bench.card": cards, "bench.metric": metrics}
_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """One ``@register_…`` of a file: kind, key, card, the decorated name and its parameters with defaults."""

    kind: str
    key: str
    card: Card
    name: str
    parameters: Mapping[str, Any]
    needs_root: bool
    file: Path
    line: int


def register_method(key: str, *, card: MethodCard) -> Callable[[T], T]:
    """Register a :class:`bench.training.method.Method` subclass under ``key``."""
    return _attach("method", key, card)


def register_protocol(key: str, *, card: ProtocolCard) -> Callable[[T], T]:
    """Register a :class:`bench.protocol.Protocol` subclass under ``key``."""
    return _attach("protocol", key, card)


def register_dataset(key: str, *, card: DatasetCard) -> Callable[[T], T]:
    """Register a function that returns a :class:`bench.data.dataset.ImageDataset` under ``key``."""
    return _attach("dataset", key, card)


def register_backbone(key: str, *, card: BackboneCard) -> Callable[[T], T]:
    """Register a function from a channel count to a module with ``feature_dim`` under ``key``."""
    return _attach("backbone", key, card)


def _attach(kind: str, key: str, card: Card) -> Callable[[T], T]:
    expected = CARD_TYPES[kind]
    if not isinstance(card, expected):
        raise RegistrationError(f"register_{kind}({key!r}) needs card={expected.__name__}(...), got {card!r}.")

    def mark(target: T) -> T:
        target.key = key  # type: ignore[attr-defined]
        target.card = card  # type: ignore[attr-defined]
        return target

    return mark


def read_declarations(file: Path) -> list[Declaration]:
    """Read every registration of ``file``.

    Raises:
        RegistrationError: with file and line, when the file does not parse, or a registration breaks its contract.
    """
    return [] if (module := _parse(file)) is None else _Reader(file, module).declarations()


def _parse(file: Path) -> ast.Module | None:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RegistrationError(f"{file}: cannot be read ({error}). Check the path and its permissions.") from error
    if "register_" not in text:
        return None
    try:
        return ast.parse(text, filename=str(file))
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or error
        raise RegistrationError(f"{file}:{line}: does not parse: {reason}. Fix the syntax.") from error


class _Reader:
    """Reads one file; remembers it for error messages."""

    def __init__(self, file: Path, module: ast.Module) -> None:
        self.file = file
        self.module = module
        self.names = self._literal_names()

    def declarations(self) -> list[Declaration]:
        found = []
        for node in self.module.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                for decorator in node.decorator_list:
                    if kind := _registered_kind(decorator):
                        assert isinstance(decorator, ast.Call)
                        found.append(self._declaration(kind, decorator, node))
        return found

    def fail(self, node: ast.AST, message: str) -> RegistrationError:
        return RegistrationError(f"{self.file}:{getattr(node, 'lineno', 1)}: {message}")

    def _declaration(self, kind: str, call: ast.Call, node: ast.ClassDef | ast.FunctionDef) -> Declaration:
        key = self._key(kind, call)
        expected = CARD_TYPES[kind]
        card_nodes = [word.value for word in call.keywords if word.arg == "card"]
        if not card_nodes:
            raise self.fail(call, f"register_{kind}({key!r}) has no card. Add card={expected.__name__}(...).")
        card = self.evaluate(card_nodes[0])
        if not isinstance(card, expected):
            raise self.fail(card_nodes[0], f"the card of {kind} {key!r} must be a {expected.__name__}(...).")
        signature = self._check_signature(kind, key, card, node)
        parameters = self._parameters(signature, key, card) if signature else {}
        needs_root = kind == "dataset" and signature is not None and bool(signature.args)
        return Declaration(
            kind=kind,
            key=key,
            card=card,
            name=node.name,
            parameters=parameters,
            needs_root=needs_root,
            file=self.file,
            line=node.lineno,
        )

    def _key(self, kind: str, call: ast.Call) -> str:
        key = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None
        if not isinstance(key, str) or not key.replace("_", "a").isalnum() or key != key.lower():
            raise self.fail(call, f'register_{kind} needs a key first, in lower case: register_{kind}("my_{kind}", …).')
        return key

    def _check_signature(
        self, kind: str, key: str, card: Card, node: ast.ClassDef | ast.FunctionDef
    ) -> ast.arguments | None:
        if kind in ("dataset", "backbone") or isinstance(node, ast.FunctionDef):
            return self._check_function(kind, key, card, node)
        if kind == "method":
            assert isinstance(card, MethodCard)
            further = ["labels"] if card.uses_labels else ["laterality"] if card.uses_laterality else []
            inputs = ["self", "views", *further]
            if card.trains:
                self._expect(node, "forward", inputs, [], key)
            return self._expect(node, "__init__", ["self", "backbone"], None, key)
        self._expect(node, "evaluate", ["self", "encoder", "data"], ["seed", "device"], key)
        return self._expect(node, "__init__", ["self"], None, key, optional=True)

    def _check_function(self, kind: str, key: str, card: Card, node: ast.stmt) -> ast.arguments:
        if kind not in ("dataset", "backbone"):
            raise self.fail(node, f"{kind} {key!r} must be a class, not a function.")
        if not isinstance(node, ast.FunctionDef):
            raise self.fail(node, f"{kind} {key!r} must be a function, not a class.")
        if kind == "backbone":
            wanted = ["channels"]
        else:
            assert isinstance(card, DatasetCard)
            wanted = [] if card.embedded else ["root"]
        self._compare(node, node.args, wanted, None, f"{kind} {key!r}")
        return node.args

    def _expect(
        self,
        node: ast.ClassDef,
        name: str,
        positional: list[str],
        keywords: list[str] | None,
        key: str,
        *,
        optional: bool = False,
    ) -> ast.arguments | None:
        found = _find_method(self.module, node, name)
        if found is None:
            if optional or (name == "__init__" and node.bases):
                return None
            raise self.fail(node, f"{node.name} ({key!r}) has no {name}. Add def {name}({', '.join(positional)}, …).")
        self._compare(found, found.args, positional, keywords, f"{node.name}.{name}")
        return found.args

    def _compare(
        self, node: ast.AST, arguments: ast.arguments, positional: list[str], keywords: list[str] | None, what: str
    ) -> None:
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        if names != positional:
            raise self.fail(node, f"{what} must take ({', '.join(positional)}), it takes ({', '.join(names)}).")
        if arguments.vararg or arguments.kwarg:
            raise self.fail(node, f"{what} must name its parameters; *args and **kwargs hide them from the spec.")
        if keywords is not None and [argument.arg for argument in arguments.kwonlyargs] != keywords:
            wanted = ", ".join(keywords) or "none"
            raise self.fail(node, f"{what} must take the keyword-only arguments: {wanted}.")

    def _parameters(self, arguments: ast.arguments, key: str, card: Card) -> dict[str, Any]:
        supplied = {"num_classes"} if isinstance(card, MethodCard) and card.uses_labels else set()
        parameters: dict[str, Any] = {}
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if default is not None:
                parameters[argument.arg] = self.evaluate(default)
            elif argument.arg in supplied:
                parameters[argument.arg] = REQUIRED
            else:
                raise self.fail(argument, f"parameter {argument.arg!r} of {key!r} needs a literal default.")
        return parameters

    def _literal_names(self) -> dict[str, Any]:
        """Names that a card may use: cards, metrics and the file's own literal constants."""
        names: dict[str, Any] = {"True": True, "False": False, "None": None}
        for node in self.module.body:
            if isinstance(node, ast.ImportFrom) and node.module in _LITERAL_SOURCES:
                source = _LITERAL_SOURCES[node.module]
                for alias in node.names:
                    names[alias.asname or alias.name] = getattr(source, alias.name, None)
            elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                self.names = names
                try:
                    names[node.targets[0].id] = self.evaluate(node.value)
                except RegistrationError:
                    continue  # not a literal: an error only where a card or a default uses it
        return names

    def evaluate(self, node: ast.expr) -> Any:
        """The value of a literal expression; calls only build cards, deviations and metrics."""
        try:
            return self._evaluate(node)
        except (ArithmeticError, TypeError, ValueError, RecursionError) as error:
            raise self.fail(node, f"{ast.unparse(node)[:80]!r} has no value: {error}.") from error

    def _evaluate(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.Tuple(elts=items):
                return tuple(self.evaluate(item) for item in items)
            case ast.List(elts=items):
                return [self.evaluate(item) for item in items]
            case ast.Dict(keys=keys, values=values) if all(keys):
                return {self.evaluate(k): self.evaluate(v) for k, v in zip(keys, values, strict=True) if k}
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self.evaluate(operand)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self.evaluate(left), self.evaluate(right))
            case ast.Name(id=name) if name in self.names:
                return self.names[name]
            case ast.Call(func=ast.Name(id=name)) if isinstance(self.names.get(name), type):
                return self._build(node, self.names[name])
        raise self.fail(
            node, f"{ast.unparse(node)!r} is not a literal. Cards and defaults are read without running the file."
        )

    def _build(self, node: ast.Call, cls: type) -> Any:
        if node.args or any(word.arg is None for word in node.keywords):
            raise self.fail(node, f"{cls.__name__} takes keyword arguments only.")
        values = {str(word.arg): self.evaluate(word.value) for word in node.keywords}
        try:
            cls(**values)
            return TypeAdapter(cls).validate_python(values)
        except TypeError as error:
            raise self.fail(node, f"{cls.__name__}: {str(error).rpartition('__init__() ')[2]}.") from error
        except ValidationError as error:
            raise self.fail(node, f"{cls.__name__}: {describe(error)}") from error


def _registered_kind(decorator: ast.expr) -> str:
    if isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name | ast.Attribute):
        name = decorator.func.id if isinstance(decorator.func, ast.Name) else decorator.func.attr
        kind = name.removeprefix("register_")
        return kind if name.startswith("register_") and kind in CARD_TYPES else ""
    return ""


def _find_method(module: ast.Module, node: ast.ClassDef, name: str) -> ast.FunctionDef | None:
    """The definition of ``name`` in the class or in the bases that can be found in source."""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == name:
            return item
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id not in ("Method", "Protocol"):
            home, parent = _find_class(module, base.id)
            if home and parent and (found := _find_method(home, parent, name)):
                return found
    return None


def _find_class(module: ast.Module, name: str) -> tuple[ast.Module | None, ast.ClassDef | None]:
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    spec = importlib.util.find_spec(node.module)
                    if spec and spec.origin and spec.origin.endswith(".py"):
                        return _find_class(ast.parse(Path(spec.origin).read_text(encoding="utf-8")), alias.name)
    return None, None

"""Which images a request is about: ``--data``, ``--labels``, ``--data-param``, ``--dataset``, ``JOINTBENCH_DATA``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.collection import Collection, Named
from bench.data.recognize import labels_below, recognize
from bench.data.sources import holds
from bench.errors import DataError, RequestError, SpecError, UnknownNameError
from bench.registry import Entry, Registry
from bench.spec import DataSpec

QUICK, OWN = "quick", "own"
"""The suites that are meant when none is named: without and with images of the user's own."""


@dataclass(frozen=True)
class Choice:
    """The user's folder of data, if any, and the dataset that replaces the suite's, if any."""

    root: Path | None
    spec: DataSpec | None


def default_suite(data: Path | None, dataset: str) -> str:
    """The suite that is meant when none is named."""
    own = dataset in Collection().sets() if dataset else data is not None
    return OWN if own else QUICK


def choose(
    datasets: Registry,
    *,
    data: Path | None,
    dataset: str,
    labels: Path | None,
    params: Sequence[str],
    suite: Sequence[DataSpec] = (),
) -> Choice:
    """Make the options into a folder and a dataset.

    Args:
        data: a folder, or a file that holds a whole set. A folder with published sets that the suite names is where
            they lie, and replaces none of them; the layout of any other is recognized.
        dataset: key of a dataset, or the name of one that the user keeps.
        labels: a CSV of labels.
        params: ``KEY=VALUE``, the values in YAML.
        suite: the datasets of the suite that is meant.

    Raises:
        DataError, RequestError, SpecError, UnknownNameError: an option is wrong, or options do not fit together.
    """
    published = tuple({spec.key: spec for spec in suite if datasets[spec.key].card.published}.values())  # type: ignore[union-attr]
    if dataset and dataset not in datasets:
        named = _kept(datasets, dataset)
        if data is not None or labels is not None:
            raise RequestError(
                f"{dataset!r} is kept with its folder {named.root}. Leave out --data and --labels, or `jointbench data "
                f"add {dataset} PATH` to keep another one under this name."
            )
        root: Path | None = _existing(Path(named.root), dataset)
        spec = named.data
    elif dataset:
        root, spec = _by_key(datasets[dataset], data, labels)
    elif data is not None and labels is None and any(holds(data, datasets[spec.key], spec) for spec in published):
        if not params:
            return Choice(data, None)
        root, spec = data, DataSpec(key=_only(suite).key)
    elif data is not None:
        root, spec = _recognized(data, labels, published)
    else:
        if labels is not None or params:
            raise RequestError("--labels and --data-param belong to images of your own: give --data or --dataset, too.")
        return Choice(_root(None), None)
    entry = datasets[spec.key]
    known = {name: value for name, value in spec.params.items() if name != "name" or name in entry.parameters}
    spec = DataSpec(key=spec.key, params={**known, **parse_params(params, entry)})
    entry.complete(spec.params)  # a wrong parameter is told before anything is read
    return Choice(root, spec)


def _only(suite: Sequence[DataSpec]) -> DataSpec:
    keys = sorted({spec.key for spec in suite})
    if len(keys) > 1:
        raise RequestError(
            f"--data-param belongs to one dataset, and the suite has {len(keys)}: {', '.join(keys)}. Copy its file and "
            "write the parameters there; `jointbench run COPY.yaml` takes it."
        )
    return suite[0]


def _recognized(data: Path, labels: Path | None, published: Sequence[DataSpec]) -> tuple[Path, DataSpec]:
    try:
        return recognize(data, labels=labels)
    except DataError as error:
        if not published or not data.is_dir():
            raise
        names = ", ".join(spec.key for spec in published)
        raise DataError(f"{error} Nor does it hold what the suite runs on: {names}.") from error


def _kept(datasets: Registry, name: str) -> Named:
    held = Collection().sets()
    if name not in held:
        known = [*(entry.key for entry in datasets), *held]
        hint = "Is its file given with --plugin? `jointbench list datasets` shows all."
        raise UnknownNameError("dataset", name, known, hint=hint)
    return held[name]


def _existing(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise DataError(
            f"{root}, the folder of the data set {name!r}, is not there. Bring it back, or `jointbench data remove "
            f"{name}` and add it from its new place."
        )
    return root


def _root(data: Path | None) -> Path | None:
    given = data or (Path(os.environ["JOINTBENCH_DATA"]) if os.environ.get("JOINTBENCH_DATA") else None)
    if given is not None and not given.is_dir():
        raise DataError(f"{given}: there is no such folder. Check --data or JOINTBENCH_DATA.")
    return given


def _by_key(entry: Entry, data: Path | None, labels: Path | None) -> tuple[Path | None, DataSpec]:
    """A registered dataset in the folder of data, or in the file that is given instead."""
    params: dict[str, Any] = {}
    if data is not None and data.is_file():
        _demand(entry, "path", f"{data} is a file, and")
        data, params["path"] = data.parent, data.name
    root = _root(data)
    if labels is not None:
        _demand(entry, "labels", "--labels is given, and")
        params["labels"] = labels_below(root or Path.cwd(), labels)
    if root is not None and entry.card.checked:  # type: ignore[union-attr]
        params["name"] = Path(params["path"]).stem if "path" in params else root.resolve().name
    return root, DataSpec(key=entry.key, params=params)


def _demand(entry: Entry, parameter: str, what: str) -> None:
    if parameter not in entry.parameters:
        raise RequestError(
            f"{what} dataset {entry.key!r} has no parameter {parameter!r}. Give --data a folder, or leave out "
            "--dataset to have the layout recognized."
        )


def parse_params(texts: Sequence[str], entry: Entry) -> dict[str, Any]:
    """``KEY=VALUE`` to values in YAML: numbers, truth values, text, and lists such as ``[0, 2000]``.

    Raises:
        SpecError, UnknownNameError: a text is no such pair, a value is no scalar or list, or does not fit the dataset.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals):
            raise SpecError(f"--data-param {text!r} is no KEY=VALUE. Write for example --data-param image_size=64.")
        if key in found:
            raise SpecError(f"--data-param gives {key!r} twice. Remove one.")
        found[key] = _value(value, entry.parameters.get(key), text)
    complete = entry.complete(found)
    return {key: complete[key] for key in found}


def _value(text: str, default: Any, option: str) -> Any:
    if isinstance(default, str):
        return text  # a name may look like a number
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(
            f"--data-param {option!r}: the value is no YAML. Quote it, or write a list as [a, b]."
        ) from error
    if isinstance(default, tuple) and not isinstance(value, list):
        raise SpecError(f"--data-param {option!r}: a list is needed. Write {option.partition('=')[0]}=[{text}].")
    scalars = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | float | bool) for item in scalars):
        raise SpecError(f"--data-param {option!r}: a number, a text, true, false or a list of these is needed.")
    return value


def words_of(params: Mapping[str, Any]) -> str:
    """Parameters as they are typed, for a listing."""
    return " ".join(f"{key}={value}" for key, value in params.items() if key != "name")

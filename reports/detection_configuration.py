"""What a setting of detection is made of: every value with its source, before anything ran as well as after."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from bench.detection.detectron2_config import detectron2_config
from bench.detection.recipes import DetectionRecipe, resolved
from bench.errors import SpecError
from bench.table import Cell, Column, Row, Table
from reports.detection_page import Entry, Setting
from reports.table2_measured import ARCHITECTURES, ENGINES, EXPLAINED
from reports.words import counted, listed

SUITE = "this evaluation"
UNKNOWN = {
    "MODEL.PIXEL_MEAN": "255 times the encoder's",
    "MODEL.PIXEL_STD": "255 times the encoder's",
    "MODEL.ROI_HEADS.NUM_CLASSES": "as many as the data have",
    "MODEL.DEVICE": "that of the run",
}
"""What a plan does not know of Detectron2's configuration; a run does."""
SYNCHRONIZED = dict.fromkeys(
    ("MODEL.RESNETS.NORM", "MODEL.FPN.NORM"), "naiveSyncBN in several processes; BN in one, which is the same"
)


@dataclass(frozen=True, kw_only=True)
class Value:
    """One line of a configuration."""

    key: str
    value: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A setting's configuration: in words, and every value."""

    sentences: tuple[str, ...]
    table: Table


def configuration(setting: Setting) -> Configuration:
    """Of all methods together; where they differ, each value names its methods."""
    values = {entry.title: tuple(_values(entry)) for entry in setting.entries}
    keys = dict.fromkeys(value.key for own in values.values() for value in own)
    found = {title: {value.key: value for value in own} for title, own in values.items()}
    rows = [_row(key, {title: own[key] for title, own in found.items() if key in own}, of=len(found)) for key in keys]
    engine = _engine(setting.entries[0])
    return Configuration(
        sentences=tuple(_sentences(setting)),
        table=Table(
            key=f"{setting.key}-configuration",
            title="Resolved configuration",
            caption=f"What {engine} is told: {setting.title} on {setting.data}. What is not listed keeps its default.",
            stub="Setting",
            columns=(Column(title="value"), Column(title="source")),
            rows=tuple(rows),
        ),
    )


def _engine(entry: Entry) -> str:
    name = str(_params(entry).get("engine", "torchvision"))
    return ENGINES.get(name, name)


def _params(entry: Entry) -> Mapping[str, Any]:
    return entry.results[0].planned.spec.protocol_params


def _explained(entry: Entry) -> tuple[DetectionRecipe, tuple[float, ...], tuple[str, ...]]:
    """Recipe, learning rates and departures that the plan's parameters come to."""
    params = _params(entry)
    return resolved(**{name: params[name] for name in EXPLAINED if params.get(name) is not None or name == "recipe"})


# --- values -----------------------------------------------------------------------------------------------------


def _values(entry: Entry) -> Iterable[Value]:
    params = _params(entry)
    recipe, rates, _ = _explained(entry)
    if len(rates) > 1:
        words = ", ".join(f"{rate:g}" for rate in rates)
        yield Value(key="learning rates", value=words, source=f"{SUITE}; the validation scenes choose one")
    if params.get("engine") == "detectron2":
        recorded = next((details["configuration"] for details in entry.details if details.get("configuration")), None)
        settings = recorded or _planned(entry, recipe)
        for item in settings:
            yield Value(key=str(item["key"]), value=_text(item["value"]), source=str(item["source"]))
        return
    yield Value(key="frozen", value=_text(bool(params.get("frozen"))), source=SUITE)
    for field in fields(recipe):
        if field.name not in ("sources", "experiment"):
            source = recipe.sources.get(field.name) or recipe.sources.get("", "the recipe")
            yield Value(key=field.name, value=_text(getattr(recipe, field.name)), source=source)


def _planned(entry: Entry, recipe: DetectionRecipe) -> list[dict[str, Any]]:
    """Detectron2's configuration as the plan knows it, which has neither looked at the images nor at the encoder."""
    spec = entry.results[0].planned.spec
    depth = re.search(r"\d+$", spec.pretrain.backbone)
    try:
        settings = detectron2_config(
            recipe,
            depth=int(depth.group()) if depth else 0,
            num_classes=1,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            frozen=bool(spec.protocol_params.get("frozen")),
        )
    except SpecError as error:
        return [{"key": "configuration", "value": "none", "source": str(error)}]
    unknown = UNKNOWN | (SYNCHRONIZED if recipe.batch_norm == "synchronized" else {})
    return [
        {**setting.record(), "value": unknown.get(setting.key, setting.value) if setting.value != "" else ""}
        for setting in settings
    ]


def _row(key: str, values: Mapping[str, Value], *, of: int) -> Row:
    """One setting; values in which methods differ stand one after the other, each with its methods."""
    groups: dict[tuple[str, str], list[str]] = {}
    for title, value in values.items():
        groups.setdefault((value.value, value.source), []).append(title)
    shared = len(groups) == 1 and len(values) == of
    most = max(groups, key=lambda group: len(groups[group]))
    parts = []
    for group, titles in groups.items():
        rest = group == most and len(groups) > 1 and len(titles) > 3
        parts.append(group[0] if shared else f"{group[0]} ({'the others' if rest else listed(titles)})")
    sources = dict.fromkeys(source for _, source in groups)
    return Row(title=key, cells=(Cell(text="; ".join(parts)), Cell(text="; ".join(sources))))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or "none"
    return json.dumps(value)


# --- words ------------------------------------------------------------------------------------------------------


def _sentences(setting: Setting) -> Iterable[str]:
    first = setting.entries[0]
    backbone = "the backbone frozen" if _params(first).get("frozen") else "the backbone fine-tuned"
    state = "" if setting.ran else " It has not run yet; this is what a run would be told."
    recipes = _told(setting, lambda entry: f"recipe {_params(entry)['recipe']}")
    detectors = _told(setting, _detector)
    yield f"Engine {_engine(first)}; {recipes}; {detectors}; {backbone}.{state}"
    yield f"Learning rate: {_told(setting, lambda entry: _rate_words(*_explained(entry)[:2]))}."
    yield from dict.fromkeys(_built([details for entry in setting.entries for details in entry.details]))
    if devices := list(dict.fromkeys(words for entry in setting.entries for words in _devices(entry))):
        yield f"It ran {listed(devices)}."
    departures = _told(setting, lambda entry: ", ".join(_explained(entry)[2]) or "none")
    yield f"Departures from the recipe: {departures}."


def _detector(entry: Entry) -> str:
    architecture = _explained(entry)[0].architecture
    return ARCHITECTURES.get(architecture, architecture)


def _told(setting: Setting, words: Callable[[Entry], str]) -> str:
    """What is said of the methods; where it differs, each time with its methods."""
    groups: dict[str, list[str]] = {}
    for entry in setting.entries:
        groups.setdefault(words(entry), []).append(entry.title)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{text} ({listed(titles)})" for text, titles in groups.items())


def _rate_words(recipe: DetectionRecipe, rates: Sequence[float]) -> str:
    given = " or ".join(f"{rate:g}" for rate in rates)
    chosen = ", as the validation scenes choose," if len(rates) > 1 else ""
    if recipe.batch_size == recipe.reference_batch:
        return f"{given}{chosen} for batches of {recipe.batch_size} scenes, not scaled"
    scaled = " or ".join(f"{rate * recipe.batch_size / recipe.reference_batch:g}" for rate in rates)
    return (
        f"{given}{chosen} for batches of {recipe.reference_batch} scenes, scaled in proportion to {scaled} for batches "
        f"of {recipe.batch_size}"
    )


def _built(recorded: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    """What the engine recorded: its version, what of the encoders arrived in the detectors, and what differs here."""
    yield from (f"{details['engine_version']}." for details in recorded if details.get("engine_version"))
    reports = [details["conversion"] for details in recorded if details.get("conversion")]
    largest = [float(value) for report in reports for value in (report.get("differences") or {}).values()]
    if largest:
        tensors = " or ".join(map(str, sorted({report["tensors"] for report in reports})))
        yield (
            f"All {tensors} tensors of every encoder arrived in its detector, whose features on a test image equal the "
            f"encoder's: they differ by {max(largest):.1g} of the largest value at most."
        )
    yield from (f"{note[:1].upper()}{note[1:]}." for details in recorded for note in details.get("engine_notes") or ())


def _devices(entry: Entry) -> Iterable[str]:
    """Where the detectors were trained, as the evaluations recorded it."""
    for details in entry.details:
        if "device" in details and "processes" in details:
            processes, own = int(details["processes"]), details.get("scenes_per_process")
            share = f", {counted(int(own), 'scene')} of a step each" if own and processes > 1 else ""
            yield f"on {details['device']} in {processes} {'process' if processes == 1 else 'processes'}{share}"

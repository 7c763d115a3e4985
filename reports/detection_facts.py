"""What stands behind one value of detection, for its panel: detector, recipe, learning rate, counts, conversion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from reports.table2_measured import ARCHITECTURES, ENGINES
from reports.words import counted, listed

TOLD = (
    "engine", "engine_version", "engine_notes", "recipe", "architecture", "frozen", "lr", "applied_lr", "lr_scaling",
    "departures", "device", "processes", "scenes_per_process", "training_scenes", "scenes_without_objects",
    "resumed_at", "conversion", "layout", "parameters",
)  # fmt: skip
"""Keys of the details that the facts below tell in words."""
ELSEWHERE = ("settings", "configuration", "curve", "grid", "measured", "classes", "stages", "strides", "undefined")
"""Keys that the page of detection shows in figures and tables, or that are told in part here."""

Pair = tuple[str, str]


def detector_pairs(details: Mapping[str, Any]) -> tuple[Pair, ...]:
    """Label and value of each fact, in the order of reading; nothing that was not recorded."""
    pairs = (*_detector(details), *_training(details), *_scenes(details), *_conversion(details))
    return tuple((label, value) for label, value in pairs if value)


def _detector(details: Mapping[str, Any]) -> Iterable[Pair]:
    engine, architecture = str(details.get("engine", "")), str(details.get("architecture", ""))
    version = details.get("engine_version")
    parameters = details.get("parameters")
    yield "engine", str(version or ENGINES.get(engine, engine))
    yield "detector", ARCHITECTURES.get(architecture, architecture)
    yield "weights of the detector", counted(int(parameters), "number") if parameters else ""
    yield "backbone", "frozen" if details.get("frozen") else "fine-tuned"
    yield "recipe", str(details.get("recipe", ""))
    departures = details.get("departures")
    yield "departures from it", "; ".join(map(str, departures)) if departures else "none" if departures == [] else ""


def _training(details: Mapping[str, Any]) -> Iterable[Pair]:
    settings: Mapping[str, Any] = details.get("settings") or {}
    iterations = settings.get("iterations")
    yield "iterations", f"{iterations} of {settings.get('batch_size')} scenes" if iterations else ""
    yield "learning rate", str(details.get("lr_scaling", ""))
    grid = [run for run in details.get("grid") or () if isinstance(run, Mapping)]
    tried = [f"{run.get('lr'):g} ({_validated(run)})" for run in grid if isinstance(run.get("lr"), float | int)]
    yield "chosen on validation among", listed(tried) if len(tried) > 1 else ""
    processes = details.get("processes")
    each = details.get("scenes_per_process")
    shared = f", {processes} process{'' if processes == 1 else 'es'}" if processes else ""
    yield "device", f"{details.get('device', '')}{shared}{f' with {each} scenes each' if each else ''}".strip(", ")
    resumed = details.get("resumed_at")
    yield "resumed at iteration", ", ".join(map(str, resumed)) if resumed else ""


def _validated(run: Mapping[str, Any]) -> str:
    if run.get("finite") is False:
        return "diverged"
    ap = run.get("validation_ap")
    return "not tried" if ap is None else f"AP {ap:.2f} % on validation"


def _scenes(details: Mapping[str, Any]) -> Iterable[Pair]:
    training = details.get("training_scenes")
    empty = details.get("scenes_without_objects")
    left = f"; {counted(int(empty), 'scene')} without objects left out" if empty else ""
    yield "training scenes", f"{training}{left}" if training else ""
    measured: Mapping[str, Any] = details.get("measured") or {}
    classes = measured.get("classes") or ()
    if classes and measured.get("scenes"):
        objects = sum(int(item.get("objects", 0)) for item in classes)
        kinds = f"{len(classes)} class{'' if len(classes) == 1 else 'es'}"
        yield "test scenes", f"{measured['scenes']}, with {counted(objects, 'object')} of {kinds}"
    yield "layout", {"voc": "VOC", "coco": "COCO"}.get(str(details.get("layout", "")), "")


def _conversion(details: Mapping[str, Any]) -> Iterable[Pair]:
    """The proof that a converted backbone is the encoder."""
    report: Mapping[str, Any] = details.get("conversion") or {}
    if report:
        tensors = report.get("tensors")
        differences = report.get("differences") or {}
        values = list(differences.values()) if isinstance(differences, Mapping) else list(differences)
        numbers = [float(value) for value in values if isinstance(value, float | int)]
        parts = [f"{tensors} tensors, all in their places" if tensors else ""]
        parts.append(f"channels in the order {report['channel_order']}" if report.get("channel_order") else "")
        parts.append(f"feature maps differ by at most {max(numbers):.1e} of their largest value" if numbers else "")
        yield "conversion", "; ".join(part for part in parts if part)
    notes = details.get("engine_notes")
    yield "notes of the engine", "; ".join(map(str, notes)) if isinstance(notes, list) else str(notes or "")

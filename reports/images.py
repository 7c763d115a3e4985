"""The images behind the results: how many, of how many patients, and what is on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.table import Cell, Column, Row, Table
from reports.measured import Measured
from reports.results import parsed
from reports.words import counted, listed

ORDER = ("train", "unlabelled", "validation", "test")
SERVES = {
    "train": "pre-training; with its labels, what the evaluation learns from",
    "unlabelled": "pre-training only",
    "validation": "choosing settings of the evaluation",
    "test": "every value in this report; read once, last",
}
SERVES_ELSEWHERE = SERVES | {"train": "what the evaluation learns from", "unlabelled": "nothing in this report"}
"""Of images on which no encoder was pre-trained here."""
COUNT, SHARE = "images", "share of test images"


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """One dataset in words and tables.

    Attributes:
        sentences: size, patients, balance.
        splits: a row for each split.
        classes: a row for each class or finding; None where they are too many to list.
        objects: boxes of each class in each split; None where the images have none.
    """

    title: str
    sentences: tuple[str, ...]
    splits: Table
    classes: Table | None
    objects: Table | None = None


def image_sets(measured: Measured) -> tuple[ImageSet, ...]:
    """Every evaluation dataset whose facts a result of the plan has recorded, in the order of the plan."""
    found: dict[str, tuple[str, Mapping[str, Any], Mapping[str, str]]] = {}
    specs = [result.planned.spec for result in measured.results]
    pretrained = {spec.pretrain.data.canonical_json() for spec in specs if not spec.pretrain.imported}
    for result in measured.results:
        spec = result.planned.spec
        for row in result.metrics.values():
            key = spec.data.canonical_json()
            if key not in found and (facts := parsed(row["details"]).get("data")):
                serves = SERVES if key in pretrained else SERVES_ELSEWHERE
                found[key] = (measured.data_title(spec.data), facts, serves)
    return tuple(_image_set(*item, number) for number, item in enumerate(found.values()))


def _image_set(title: str, facts: Mapping[str, Any], serves: Mapping[str, str], number: int) -> ImageSet:
    suffix = f"-{number + 1}" if number else ""
    return ImageSet(
        title=title,
        sentences=tuple(_sentences(facts)),
        splits=_split_table(title, facts, serves, f"splits{suffix}"),
        classes=_class_table(title, facts, f"classes{suffix}") if facts["classes"] else None,
        objects=_object_table(title, facts, f"objects{suffix}") if facts["classes"] else None,
    )


def _splits(facts: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: facts["splits"][name] for name in ORDER if name in facts["splits"]}


def _sentences(facts: Mapping[str, Any]) -> Iterable[str]:
    splits = _splits(facts)
    height, width = facts["image_size"]
    size = f"{width} × {height} pixels"
    color = {1: "gray", 3: "color"}.get(facts["channels"], f"{facts['channels']} channels")
    total = sum(split["images"] for split in splits.values())
    kind = "findings, any number on an image" if facts["multilabel"] else "classes, one on each image"
    objects = _objects(facts)
    if objects:
        kind = "classes of objects, any number in an image"
    yield (
        f"{counted(total, 'image')}, as the networks see them {size} ({color}, {facts['bits']} bits), "
        f"with {facts['class_count']} {kind}."
    )
    if objects:
        yield from _about_objects(facts, objects)
    if all(split["patients"] is None for split in splits.values()):
        yield "Patients are not known, so nothing shows whether one patient's images lie in several splits."
    elif facts["shared_patients"]:
        count = facts["shared_patients"]
        yield f"{counted(count, 'patient')} {'has' if count == 1 else 'have'} images in more than one split."
    else:
        yield "No patient has images in more than one split."
    yield from _balance(facts)


ASIDE = {
    "difficult": "are difficult and neither count when found nor when missed",
    "crowd": "are regions of many objects, in which what is found does not count",
    "dropped": "were left out, because nothing can be learned from them",
}


def _about_objects(facts: Mapping[str, Any], objects: Mapping[str, Sequence[int]]) -> Iterable[str]:
    """How many boxes there are, how many do not count, and images without any."""
    counts = listed([f"{sum(own)} in the {name} split" for name, own in objects.items()])
    yield f"They have boxes around {sum(map(sum, objects.values()))} objects: {counts}."
    kinds = [split.get("object_kinds") or {} for split in _splits(facts).values()]
    aside = {kind: sum(int(own.get(kind, 0)) for own in kinds) for kind in (*ASIDE, "empty")}
    if more := [f"{aside[kind]} {words}" for kind, words in ASIDE.items() if aside[kind]]:
        yield f"Of further boxes {'; '.join(more)}."
    if aside["empty"]:
        yield f"{counted(aside['empty'], 'image')} without any object: nothing may be found there."
    yield "Detectors see the scenes in a size of their own, not in that of the pre-training."


def _balance(facts: Mapping[str, Any]) -> Iterable[str]:
    counts = facts["splits"]["train"].get("counts")
    if not counts or facts["multilabel"]:
        return
    named = sorted(zip(counts, facts["classes"], strict=True))
    (least, rarest), (most, commonest) = named[0], named[-1]
    if least == most:
        yield "Every class has the same number of training images."
    else:
        yield (
            f"The largest class, {commonest}, has {counted(most, 'training image')}, the smallest, {rarest}, "
            f"{counted(least, 'training image')}."
        )


def _split_table(title: str, facts: Mapping[str, Any], serves: Mapping[str, str], key: str) -> Table:
    splits = _splits(facts)
    patients = any(split["patients"] is not None for split in splits.values())
    rows = []
    for name, split in splits.items():
        cells = [Cell(text=str(split["images"]))]
        if patients:
            lacking = split["without_patient"]
            more = f" and {counted(lacking, 'image')} without" if lacking else ""
            cells.append(Cell(text="unknown" if split["patients"] is None else f"{split['patients']}{more}"))
        rows.append(Row(title=name, cells=(*cells, Cell(text=serves[name]))))
    columns = [Column(title=COUNT), *([Column(title="patients")] if patients else []), Column(title="serves")]
    return Table(
        key=key,
        title="Splits",
        caption=f"How the images of {title} are divided.",
        stub="Split",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _objects(facts: Mapping[str, Any]) -> dict[str, list[int]]:
    """Boxes of each class, by split; empty where the images have none."""
    return {name: split["objects"] for name, split in _splits(facts).items() if any(split.get("objects") or ())}


def _object_table(title: str, facts: Mapping[str, Any], key: str) -> Table | None:
    found = _objects(facts)
    if not found:
        return None
    rows = (
        Row(title=str(name), cells=tuple(Cell(text=str(own[index])) for own in found.values()))
        for index, name in enumerate(facts["classes"])
    )
    return Table(
        key=key,
        title="Objects",
        caption=f"Boxes of each class in {title}; those that do not count, difficult ones and regions of many, are "
        "left out.",
        stub="Class",
        columns=tuple(Column(title=name, groups=("objects",)) for name in found),
        rows=tuple(rows),
    )


def _class_table(title: str, facts: Mapping[str, Any], key: str) -> Table:
    splits = {name: split for name, split in _splits(facts).items() if "counts" in split and name != "unlabelled"}
    rows = []
    for index, name in enumerate(facts["classes"]):
        cells = []
        for split in splits.values():
            lacking = split["images"] - split["known"][index]
            unknown = f" (of {split['known'][index]} known)" if facts["multilabel"] and lacking else ""
            cells.append(Cell(text=f"{split['counts'][index]}{unknown}"))
        known = splits["test"]["known"][index]
        share = f"{100 * splits['test']['counts'][index] / known:.1f} %" if known else "unknown"
        rows.append(Row(title=str(name), cells=(*cells, Cell(text=share))))
    heading, stub, what = "Classes", "Class", "Images of each class"
    if _objects(facts):
        heading, what = "Images by class", "Images with objects of each class"
    elif facts["multilabel"]:
        heading, stub, what = "Findings", "Finding", "Images with each finding"
    return Table(
        key=key,
        title=heading,
        caption=f"{what} in the {listed(list(splits))} splits of {title}.",
        stub=stub,
        columns=(*(Column(title=name, groups=(COUNT,)) for name in splits), Column(title=SHARE)),
        rows=tuple(rows),
    )

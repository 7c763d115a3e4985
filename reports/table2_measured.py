"""The measured half of Table 2: one row per encoder, columns for each setting of detection, which are never mixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.detection.recipes import DetectionRecipe, find_recipe, resolved
from bench.metric import AP, AP50, AP75, MASK_AP, MASK_AP50, MASK_AP75, VOC_AP, VOC_AP50, VOC_AP75, Metric
from bench.spec import IMPORTED, RunSpec
from bench.table import Cell, Column, Row, Table
from reports.measured import Measured, contenders, epochs_cell, import_notes, method_citations
from reports.places import DETECTION, method_path
from reports.results import Result, number, row_key, summarize
from reports.ties import RULE, mark_best
from reports.words import counted

BOXES, MASKS, VOC = (AP, AP50, AP75), (MASK_AP, MASK_AP50, MASK_AP75), (VOC_AP, VOC_AP50, VOC_AP75)
VOC_LAYOUT = "voc"
"""The dataset on which VOC's rule is defined."""
CONTEXT = ("pre-trained on", "backbone", "epochs", "seeds")
ENGINES = {"torchvision": "torchvision", "detectron2": "Detectron2"}
ARCHITECTURES = {
    "single_stage": "single-stage detector",
    "faster_rcnn_c4": "Faster R-CNN, C4",
    "faster_rcnn_fpn": "Faster R-CNN, FPN",
    "mask_rcnn_c4": "Mask R-CNN, C4",
    "mask_rcnn_fpn": "Mask R-CNN, FPN",
}
EXPLAINED = ("recipe", "architecture", "iterations", "batch_size", "lrs", "sides", "test_side", "flip")
"""The protocol's parameters of which a recipe is made."""
NOTE = (
    "AP is that of COCO: the mean over overlaps (IoU) 0.5, 0.55, …, 0.95 and over classes, precision read at 101 "
    "recalls. VOC AP, in sets of VOC's layout, reads it at 11 recalls, as published values on VOC do."
)
MEASURED_NOTE = (
    "Intervals: bootstrap over test scenes (or patients, where they are known) for one seed, the range of two seeds, "
    "Student's t over three or more, none where all seeds agree. Values compete within one setting, pre-training set, "
    "backbone and number of epochs; baselines, imported checkpoints and stale values do not compete. Within a setting "
    "the learning rate may differ by method, and so may what the method's paper changes in the published experiment: "
    "the page “Detection” has every value."
)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One setting of detection in the plan: what stands under it may be compared.

    Attributes:
        data: title of the scenes.
        how: engine, detector, what is trained and for how long.
        results: of all encoders.
        metrics: those that are defined here.
    """

    key: tuple[str, ...]
    data: str
    how: str
    results: tuple[Result, ...]
    metrics: tuple[Metric, ...]

    def of(self, row: tuple[str, ...]) -> list[Result]:
        """The seeds of one encoder."""
        return [result for result in self.results if encoder_key(result.planned.spec) == row]


def encoder_key(spec: RunSpec) -> tuple[str, ...]:
    """What a row stands for: method, pre-training set, backbone and epochs. An imported encoder's set is unknown."""
    method, data, backbone, epochs, _ = row_key(spec)
    return method, IMPORTED if spec.pretrain.imported else data, backbone, epochs


def transfers(measured: Measured) -> tuple[Transfer, ...]:
    """Every setting of detection, in the order of the plan."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in measured.results:
        spec = result.planned.spec
        if spec.protocol == DETECTION:
            groups.setdefault((spec.data.canonical_json(), spec.variant, _how(spec)), []).append(result)
    return tuple(
        Transfer(
            key=key,
            data=measured.data_title(group[0].planned.spec.data),
            how=key[2],
            results=tuple(group),
            metrics=detection_metrics(group),
        )
        for key, group in groups.items()
    )


def _how(spec: RunSpec) -> str:
    """``torchvision, single-stage detector, fine-tuned, 300 iterations``: everything but the learning rate, which may
    be chosen for each encoder, and what a method's paper changes in the experiment that others run, too."""
    params: Mapping[str, Any] = spec.protocol_params
    name = str(params.get("recipe", "small"))
    named, recipe = find_recipe(name), recipe_of(params)
    engine = str(params.get("engine", "torchvision"))
    sizes = {"training": recipe.sides, "test": (recipe.test_side,)}
    other = recipe.sides != named.sides or recipe.test_side != named.test_side
    parts = [
        spec.variant,
        ENGINES.get(engine, engine),
        ARCHITECTURES[recipe.architecture],
        "frozen backbone" if params.get("frozen") else "fine-tuned",
        counted(recipe.iterations, "iteration"),
        f"{recipe.batch_size} scenes each" if recipe.batch_size != named.batch_size else "",
        *(f"{split} side {'–'.join(map(str, sides))}" for split, sides in sizes.items() if other and any(sides)),
        f"flip {recipe.flip:g}" if recipe.flip != named.flip else "",
        f"recipe {named.experiment or name}",
    ]
    return ", ".join(part for part in parts if part)


def recipe_of(params: Mapping[str, Any]) -> DetectionRecipe:
    """The recipe that the protocol's parameters come to."""
    given = {key: params[key] for key in EXPLAINED if params.get(key) is not None}
    recipe, _, _ = resolved(**{"recipe": "small", **given})
    return recipe


def detection_metrics(results: Sequence[Result]) -> tuple[Metric, ...]:
    """Boxes always; masks and VOC's rule where a stored value says that they are defined, or a plan without any value
    that they will be."""
    kinds = [BOXES]
    for kind in (MASKS, VOC):
        rows = [result.metrics[metric.key] for result in results for metric in kind if metric.key in result.metrics]
        if any(number(row["value"]) is not None for row in rows) or (not rows and _will_have(kind, results)):
            kinds.append(kind)
    return tuple(metric for kind in kinds for metric in kind)


def _will_have(kind: tuple[Metric, ...], results: Sequence[Result]) -> bool:
    specs = [result.planned.spec for result in results]
    if kind is MASKS:
        return any(recipe_of(spec.protocol_params).masks for spec in specs)
    return any(spec.data.key == VOC_LAYOUT for spec in specs)


def encoders_of(found: Sequence[Transfer]) -> dict[tuple[str, ...], list[Result]]:
    """The results of all settings by row, in the order of the plan."""
    rows: dict[tuple[str, ...], list[Result]] = {}
    for transfer in found:
        for result in transfer.results:
            rows.setdefault(encoder_key(result.planned.spec), []).append(result)
    return rows


def context_of(measured: Measured, group: Sequence[Result]) -> tuple[Cell, ...]:
    """Pre-training set, backbone, epochs and seeds of a row."""
    pretrain = group[0].planned.spec.pretrain
    return (
        Cell(text=IMPORTED if pretrain.imported else measured.data_title(pretrain.data)),
        Cell(text=measured.title(pretrain.backbone)),
        epochs_cell(group),
        Cell(text=counted(len({result.seed for result in group}), "seed")),
    )


def only_detection(measured: Measured) -> Measured:
    """What Table 2 shows and links to."""
    kept = tuple(result for result in measured.results if result.planned.spec.protocol == DETECTION)
    return Measured(results=kept, methods=measured.methods, protocols=measured.protocols, titles=measured.titles)


def measured_table(measured: Measured) -> Table | None:
    """Table 2 as measured; None where the plan has no detection."""
    found = transfers(measured)
    if not found:
        return None
    rows = encoders_of(found)
    columns = [Column(title=title) for title in CONTEXT]
    columns += [Column(title=m.title, groups=(t.data, t.how), metric=m) for t in found for m in t.metrics]
    table = Table(
        key="table2-measured",
        title="Table 2, as measured",
        caption="Transfer to object detection: average precision on the test scenes in %. The setting stands above its "
        "columns, what was pre-trained in each row.",
        columns=tuple(columns),
        rows=tuple(
            Row(
                title=measured.method_title(key[0]),
                key=key[0],
                href=method_path(key[0]),
                cells=(*context_of(measured, group), *transfer_cells(found, key)),
            )
            for key, group in rows.items()
        ),
        notes=import_notes(only_detection(measured)),
        rules=(NOTE, RULE, MEASURED_NOTE),
        citations=method_citations(only_detection(measured)),
    )
    return mark_transfers(table, measured, found, list(rows), start=len(CONTEXT))


def transfer_cells(found: Sequence[Transfer], row: tuple[str, ...]) -> tuple[Cell, ...]:
    """The values of one encoder under every setting."""
    return tuple(summarize(transfer.of(row), metric) for transfer in found for metric in transfer.metrics)


def mark_transfers(
    table: Table,
    measured: Measured,
    found: Sequence[Transfer],
    rows: Sequence[tuple[str, ...] | None],
    *,
    start: int,
    where: str = "",
) -> Table:
    """Mark best groups among rows of the same pre-training set, backbone and epochs, in each column.

    Args:
        table: the table.
        measured: what it is made of.
        found: the settings whose columns begin at ``start``.
        rows: key of the encoder of each row, None for a row without one.
        start: index of the first column of values.
        where: begins the notes.
    """
    contexts: dict[tuple[str, ...], list[int]] = {}
    for index, row in enumerate(rows):
        if row is not None and not measured.is_baseline(row[0]):
            contexts.setdefault(row[1:], []).append(index)
    headed = table.columns
    table = replace(table, columns=tuple(replace(column, groups=()) for column in headed))  # notes name settings once
    for members in contexts.values():
        words = _context_words(measured, found, rows[members[0]]) if len(contexts) > 1 else ""
        first = start
        for transfer in found:
            groups = {i: transfer.of(key) for i in members if (key := rows[i]) is not None}
            last = first + len(transfer.metrics)
            columns = [
                contenders(table, measured, column, groups) if first <= column < last else ()
                for column in range(len(headed))
            ]
            setting = f"{transfer.data}, {transfer.how}" if len(found) > 1 else ""
            table = mark_best(table, columns, where="; ".join(filter(None, (where, words, setting))))
            first = last
    return replace(table, columns=headed)


def _context_words(measured: Measured, found: Sequence[Transfer], row: tuple[str, ...] | None) -> str:
    assert row is not None
    cells = context_of(measured, encoders_of(found)[row])
    return f"{cells[0].text}, {cells[1].text}, {cells[2].text} epochs"

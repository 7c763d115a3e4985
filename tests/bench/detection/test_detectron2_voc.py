"""VOC's average precision beside that of Detectron2's evaluation; without it these tests are skipped."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from bench.data.detection import ArrayScenes, DetectionDataset, objects_of, presence
from bench.detection.detector import Found
from bench.statistics.detection import average_precision_statistic, detection_frame, detection_scores

pytestmark = pytest.mark.skipif(find_spec("detectron2") is None, reason="Detectron2 is not installed")

SCENES, CLASSES = 30, ("cat", "dog", "bird")

OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox></object>"""


def drawn() -> tuple[DetectionDataset, list[Found]]:
    """Scenes with some difficult objects; detections beside them, twice, of the wrong class, and at random places."""
    rng = np.random.default_rng(0)
    scenes, boxes, labels, difficult, found = [], [], [], [], []
    scores = iter(rng.permutation(999) / 1000)
    for scene in range(SCENES):
        own: list[tuple[list[float], int]] = []
        for _ in range(rng.integers(0, 5)):
            corner, size = rng.integers(0, 80, 2), rng.integers(20, 50, 2)
            box = [*map(float, corner), *map(float, corner + size)]
            scenes.append(scene)
            boxes.append(box)
            labels.append(int(rng.integers(len(CLASSES))))
            difficult.append(bool(rng.random() < 0.25))
            for _ in range(rng.integers(0, 3)):
                label = labels[-1] if rng.random() < 0.8 else int(rng.integers(len(CLASSES)))
                own.append(([round(value + rng.uniform(-6, 6), 1) for value in box], label))
        own += [([5.0, 5.0, 30.5, 40.0], int(rng.integers(len(CLASSES)))) for _ in range(rng.integers(0, 2))]
        drawn_scores = sorted((next(scores) for _ in own), reverse=True)
        found.append(
            Found(
                boxes=np.array([box for box, _ in own], dtype=np.float32).reshape(-1, 4),
                scores=np.array(drawn_scores, dtype=np.float32),
                labels=np.array([label for _, label in own], dtype=np.int64),
            )
        )
    objects = objects_of(scenes, boxes, labels, difficult=difficult)
    images = np.zeros((SCENES, 130, 130, 1), dtype=np.uint8)
    data = DetectionDataset(
        key="drawn",
        title="Drawn",
        images=images,
        labels=presence(objects, scenes=SCENES, classes=len(CLASSES)),
        class_names=CLASSES,
        splits={"train": np.arange(0), "validation": np.arange(0), "test": np.arange(SCENES)},
        scenes=ArrayScenes(images),
        objects=objects,
        layout="voc",
    )
    return data, found


def written(folder: Path, data: DetectionDataset, found: list[Found]) -> None:
    """Annotations and detections as VOC's files have them, whose pixels are counted from 1."""
    for scene in range(SCENES):
        own = data.objects.of(scene)
        objects = [
            OBJECT.format(
                name=CLASSES[own.labels[row]],
                difficult=int(own.difficult[row]),
                xmin=int(own.boxes[row, 0]) + 1,
                ymin=int(own.boxes[row, 1]) + 1,
                xmax=int(own.boxes[row, 2]),
                ymax=int(own.boxes[row, 3]),
            )
            for row in range(len(own))
        ]
        (folder / f"{scene}.xml").write_text(f"<annotation>{''.join(objects)}</annotation>")
    (folder / "scenes.txt").write_text("\n".join(map(str, range(SCENES))))
    for label, name in enumerate(CLASSES):
        lines = [
            f"{scene} {score:.3f} {box[0] + 1:.1f} {box[1] + 1:.1f} {box[2]:.1f} {box[3]:.1f}"
            for scene, own in enumerate(found)
            for box, score, other in zip(own.boxes, own.scores, own.labels, strict=True)
            if other == label
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines))


def test_voc_values_are_those_of_detectron2(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from detectron2.evaluation.pascal_voc_evaluation import voc_eval

    data, found = drawn()
    written(tmp_path, data, found)
    frame = detection_frame(data.split("test"), found, pictures=0)
    ours = average_precision_statistic(frame, len(CLASSES), metric_key="voc_ap").by_class(np.ones((1, SCENES)))[:, :, 0]
    theirs = np.empty_like(ours)
    files = (str(tmp_path / "{}.txt"), str(tmp_path / "{}.xml"), str(tmp_path / "scenes.txt"))
    for row, name in enumerate(CLASSES):
        for column, overlap in enumerate(range(50, 100, 5)):
            theirs[row, column] = 100 * voc_eval(*files, name, ovthresh=overlap / 100, use_07_metric=True)[2]
    assert theirs[:, 0].min() > 5 and theirs[:, 0].max() < 95
    assert np.abs(ours - theirs).max() < 1e-6
    scores, _ = detection_scores(frame, CLASSES, layout="voc", seed=0)
    values = {score.metric.key: score.value for score in scores}
    assert values["voc_ap"] == pytest.approx(theirs.mean(), abs=1e-6)
    assert values["voc_ap50"] == pytest.approx(theirs[:, 0].mean(), abs=1e-6)
    assert values["voc_ap75"] == pytest.approx(theirs[:, 5].mean(), abs=1e-6)

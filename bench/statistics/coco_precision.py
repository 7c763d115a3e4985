"""Average precision and recall of COCO, by faster-coco-eval: the values that are reported.

The rules are those of Lin et al. 2014 (arXiv:1405.0312) and cocodataset.org/#detection-eval: detections of a scene are
matched by falling score to objects of their class with an overlap (IoU) of at least 0.5, 0.55, …, 0.95; precision is
interpolated at 101 recalls; the 100 best detections of a class in a scene count; AP is the mean over overlaps and
classes. AP50 and AP75 are AP at the one overlap of 0.5 and 0.75.

Crowds (``iscrowd``) are ignored: finding them is neither right nor wrong, however often. Objects that VOC marks as
``difficult`` are ignored too, as COCO ignores objects of another size: neither missing such an object nor the first
detection of it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bench.data.detection import Objects
from bench.statistics.detection_frames import Detections, run_lengths

Kind = Literal["box", "mask"]

OVERLAPS: NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
RECALLS: NDArray[np.float64] = np.linspace(0.0, 1.0, 101)
MOST = (1, 10, 100)
"""Detections of a class in a scene that count, for average recall; for precision the last."""
SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas of objects in square pixels, both ends included."""
OUTSIDE = -1.0
"""An area that no range of sizes holds, so that the object is ignored."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CocoEvaluation:
    """Precision and recall in [0, 1]; -1 where a class has no object that counts.

    Attributes:
        precision: (10 overlaps, 101 recalls, K classes, 4 sizes): all, small, medium, large; 100 detections.
        recall: (10 overlaps, K classes, 4 sizes, 3 numbers of detections).
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def average_precision(
        self, *, overlap: float | None = None, label: int | None = None, size: str | None = None
    ) -> float:
        """AP in percent; NaN where nothing counts.

        Args:
            overlap: one of 0.5, 0.55, …; None for the mean of all.
            label: one class; None for the mean over those that have objects.
            size: ``small``, ``medium`` or ``large``; None for all.
        """
        values = self.precision[:, :, :, _size_index(size)]
        if overlap is not None:
            values = values[np.isclose(OVERLAPS, overlap)]
        return _mean(values if label is None else values[:, :, label])

    def average_recall(self, *, most: int = 100, size: str | None = None) -> float:
        """Mean over overlaps and classes of the highest recall in percent, by ``most`` detections; NaN without any."""
        return _mean(self.recall[:, :, _size_index(size), MOST.index(most)])


def _size_index(size: str | None) -> int:
    return 0 if size is None else 1 + list(SIZES).index(size)


def _mean(values: NDArray[np.float64]) -> float:
    counted = values[values > -1]
    return 100 * float(counted.mean()) if len(counted) else float("nan")


def coco_evaluation(
    truth: Objects, found: Detections, sizes: NDArray[np.int64], *, classes: int, kind: Kind
) -> CocoEvaluation:
    """Evaluate what was found.

    Args:
        truth: objects of n scenes, with masks where ``kind`` is ``mask``.
        found: detections, likewise.
        sizes: (n, 2) height and width of the scenes.
        classes: K.
        kind: whether boxes or masks are compared.
    """
    from faster_coco_eval import COCO, COCOeval_faster  # imported late: plans and pages without detection skip it

    silent = _Silence()
    known = COCO(print_function=silent)
    known.dataset = _dataset(truth, sizes, classes, kind)
    known.createIndex()
    results = known.loadRes(_results(found, sizes, kind))
    evaluation = COCOeval_faster(
        known, results, iouType={"box": "bbox", "mask": "segm"}[kind], print_function=silent, rle_iou_max_workers=1
    )
    evaluation.params.iouThrs, evaluation.params.recThrs, evaluation.params.maxDets = OVERLAPS, RECALLS, list(MOST)
    evaluation.evaluate()
    evaluation.accumulate()
    return CocoEvaluation(
        precision=np.asarray(evaluation.eval["precision"])[..., -1], recall=np.asarray(evaluation.eval["recall"])
    )


class _Silence:
    """Takes the place of a function that prints."""

    def __call__(self, *words: Any) -> None:
        return None


def sides(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(…, 4) boxes as left, top, width, height, the form of COCO."""
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def _dataset(truth: Objects, sizes: NDArray[np.int64], classes: int, kind: Kind) -> dict[str, Any]:
    areas = np.where(truth.difficult, OUTSIDE, truth.areas).tolist()
    boxes, crowd = sides(truth.boxes).tolist(), truth.crowd.tolist()
    masks = run_lengths(truth.masks, sizes[truth.scene]) if kind == "mask" else []
    annotations: list[dict[str, Any]] = []
    for row, (scene, label) in enumerate(zip(truth.scene.tolist(), truth.labels.tolist(), strict=True)):
        annotations.append(
            {
                "id": row + 1,
                "image_id": scene + 1,
                "category_id": label + 1,
                "bbox": boxes[row],
                "area": areas[row],
                "iscrowd": int(crowd[row]),
                **({"segmentation": masks[row]} if masks else {}),
            }
        )
    images = [{"id": row + 1, "height": int(h), "width": int(w)} for row, (h, w) in enumerate(sizes)]
    categories = [{"id": label + 1, "name": str(label)} for label in range(classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _results(found: Detections, sizes: NDArray[np.int64], kind: Kind) -> list[dict[str, Any]]:
    # Results with a box are measured by the box's area: those of masks have none.
    shape: Sequence[Any]
    if kind == "box":
        name, shape = "bbox", sides(found.boxes).tolist()
    else:
        name, shape = "segmentation", run_lengths(found.masks, sizes[found.scene])
    rows = zip(found.scene.tolist(), found.labels.tolist(), found.scores.tolist(), shape, strict=True)
    return [
        {"image_id": scene + 1, "category_id": label + 1, "score": score, name: own}
        for scene, label, score, own in rows
    ]

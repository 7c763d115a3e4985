"""What a detector found in each test scene beside what is there, as a frame that the store keeps.

One row per scene. Everything that scores need is in it, so that they are recomputed without the data, and shown
without the detector.

============================  ==========================================================================================
``sample``, ``name``          index in the dataset, and what messages and pages call the scene
``height``, ``width``         of the scene in pixels
``found_boxes``               4 n numbers: left, top, right, bottom of n detections, in single precision
``found_scores``              n scores
``found_labels``              n classes
``found_masks``               n run lengths in the form of COCO, as JSON; no such column where nothing has a mask
``true_boxes`` …              the same of the objects: ``true_labels``, ``true_crowd``, ``true_difficult``,
                              ``true_areas`` and, where the set has masks, ``true_masks``
``picture``                   PNG of the first scenes, without boxes, at most 256 pixels long; None for the others
``patient``                   where the data know it
============================  ==========================================================================================
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import Pixels
from bench.data.detection import DetectionSubset, Objects
from bench.errors import JobError

if TYPE_CHECKING:
    import pandas as pd

    from bench.detection.detector import Found

LONGEST_PICTURE = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """What was found in many scenes, one row each, in the order of the scenes.

    Attributes:
        scene: (D,) int64, ascending: row of the frame.
        boxes: (D, 4) float64: left, top, right, bottom in pixels of the scene.
        scores: (D,) float64.
        labels: (D,) int64.
        masks: D run lengths in the form of COCO, as JSON, or empty.
    """

    scene: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    masks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)


def detection_frame(subset: DetectionSubset, found: Sequence[Found], *, pictures: int) -> pd.DataFrame:
    """One row per scene, as the docstring of this module says.

    Args:
        subset: n scenes with their objects.
        found: what was found in each of them, in pixels of the scene.
        pictures: of how many scenes, from the first on, the frame keeps a picture.

    Raises:
        JobError: a box, score or label that cannot be: a detector that computes nonsense must not get a score.
    """
    if len(found) != len(subset):
        raise ValueError(f"{len(subset)} scenes need what was found in each, got {len(found)}.")
    names, sizes, objects = subset.scenes.names, subset.scenes.sizes, subset.objects
    masked = any(item.masks for item in found)
    for name, item in zip(names, found, strict=True):
        _check(name, item, classes=subset.labels.shape[1], masked=masked)
    columns: dict[str, list[Any]] = {
        "sample": subset.samples.tolist(),
        "name": list(names),
        "height": sizes[:, 0].tolist(),
        "width": sizes[:, 1].tolist(),
        "found_boxes": [np.asarray(item.boxes, dtype=np.float32).ravel().tolist() for item in found],
        "found_scores": [np.asarray(item.scores, dtype=np.float32).tolist() for item in found],
        "found_labels": [np.asarray(item.labels).tolist() for item in found],
    }
    if masked:
        columns["found_masks"] = [list(item.masks) for item in found]
    true = [objects.of(index) for index in range(len(subset))]
    columns |= {
        "true_boxes": [own.boxes.ravel().tolist() for own in true],
        "true_labels": [own.labels.tolist() for own in true],
        "true_crowd": [own.crowd.tolist() for own in true],
        "true_difficult": [own.difficult.tolist() for own in true],
        "true_areas": [own.areas.tolist() for own in true],
    }
    if objects.masks:
        columns["true_masks"] = [list(own.masks) for own in true]
    columns["picture"] = [_picture(subset.scenes[i]) if i < pictures else None for i in range(len(subset))]
    if "patient" in subset.metadata:
        columns["patient"] = subset.metadata["patient"].tolist()
    import pandas as pd  # imported late: pages without detection skip it

    return pd.DataFrame(columns)


def _check(name: str, found: Found, *, classes: int, masked: bool) -> None:
    boxes, count = np.asarray(found.boxes, dtype=np.float64).reshape(-1, 4), len(found.labels)
    if len(boxes) != count or len(found.scores) != count or len(found.masks) != (count if masked else 0):
        raise JobError(
            f"{name}: {len(boxes)} boxes, {len(found.scores)} scores, {count} labels and {len(found.masks)} masks were "
            "found. Give one of each for every object, and masks for all scenes or for none."
        )
    labels = np.asarray(found.labels)
    if not np.isfinite(boxes).all() or (boxes[:, 2:] < boxes[:, :2]).any() or not np.isfinite(found.scores).all():
        raise JobError(
            f"{name}: a box or score that was found is no number, or a box ends before it begins. Boxes are left, top, "
            "right, bottom in pixels of the scene; look for a loss that diverged."
        )
    if count and (labels.min() < 0 or labels.max() >= classes):
        raise JobError(
            f"{name}: found class {labels.max()}, but there are {classes}, counted from 0. Leave out others."
        )


def _picture(pixels: Pixels) -> bytes:
    from PIL import Image

    eight = pixels if pixels.dtype == np.uint8 else (pixels // 257).astype(np.uint8)
    image = Image.fromarray(eight[:, :, 0] if eight.shape[2] == 1 else np.ascontiguousarray(eight[:, :, :3]))
    image.thumbnail((LONGEST_PICTURE, LONGEST_PICTURE))
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return content.getvalue()


def detections_in(frame: pd.DataFrame) -> Detections:
    """What was found, from a frame as it was made or as the store gives it back."""
    counts = [len(item) for item in frame["found_labels"]]
    return Detections(
        scene=np.repeat(np.arange(len(frame)), counts),
        boxes=_joined(frame["found_boxes"], np.float64).reshape(-1, 4),
        scores=_joined(frame["found_scores"], np.float64),
        labels=_joined(frame["found_labels"], np.int64),
        masks=tuple(mask for item in frame["found_masks"] for mask in item) if "found_masks" in frame else (),
    )


def objects_in(frame: pd.DataFrame) -> Objects:
    """The objects of the scenes, from a frame as it was made or as the store gives it back."""
    counts = [len(item) for item in frame["true_labels"]]
    return Objects(
        scene=np.repeat(np.arange(len(frame)), counts),
        boxes=_joined(frame["true_boxes"], np.float64).reshape(-1, 4),
        labels=_joined(frame["true_labels"], np.int64),
        crowd=_joined(frame["true_crowd"], np.bool_),
        difficult=_joined(frame["true_difficult"], np.bool_),
        areas=_joined(frame["true_areas"], np.float64),
        masks=tuple(mask for item in frame["true_masks"] for mask in item) if "true_masks" in frame else (),
    )


def patients_in(frame: pd.DataFrame) -> NDArray[np.str_] | None:
    """The patient of each scene where the frame knows it."""
    return frame["patient"].to_numpy(dtype=np.str_) if "patient" in frame else None


def sizes_in(frame: pd.DataFrame) -> NDArray[np.int64]:
    """(n, 2) height and width of the scenes."""
    return frame[["height", "width"]].to_numpy(dtype=np.int64)


def run_lengths(masks: Iterable[str], sizes: NDArray[np.int64]) -> list[dict[str, Any]]:
    """Compressed run lengths of masks, which are polygons or run lengths in the form of COCO, as JSON.

    Args:
        masks: m of them.
        sizes: (m, 2) height and width of the scene of each.
    """
    from faster_coco_eval import mask  # imported late: few sets have masks

    compress: Callable[..., dict[str, Any]] = mask.segmToRle
    return [compress(json.loads(text), int(w), int(h)) for text, (h, w) in zip(masks, sizes, strict=True)]


def _joined(lists: Iterable[Any], dtype: type[np.generic]) -> NDArray[Any]:
    parts = [np.asarray(item, dtype=dtype) for item in lists]
    return np.concatenate([np.empty(0, dtype=dtype), *parts])

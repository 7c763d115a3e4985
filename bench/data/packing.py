"""Datasets as named arrays, which the cache keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import ImageDataset
from bench.data.detection import ArrayScenes, DetectionDataset, Dropped, Objects, SceneFiles

COLUMNS = ("scene", "boxes", "labels", "crowd", "difficult", "areas")


def pack(dataset: ImageDataset) -> dict[str, Any]:
    """Everything that :func:`unpack` needs; the images of the dataset are in memory."""
    head: dict[str, Any] = {
        "key": dataset.key,
        "title": dataset.title,
        "class_names": dataset.class_names,
        "splits": list(dataset.splits),
        "metadata": list(dataset.metadata),
    }
    arrays: dict[str, Any] = {"images": dataset.images, "labels": dataset.labels}
    arrays |= {f"split {name}": rows for name, rows in dataset.splits.items()}
    arrays |= {f"column {name}": values for name, values in dataset.metadata.items()}
    if isinstance(dataset, DetectionDataset):
        head |= {"layout": dataset.layout, "scenes": _scenes_head(dataset), "remarks": dataset.remarks}
        head["dropped"] = [(item.scene, item.text) for item in dataset.dropped]
        arrays |= {f"objects {name}": getattr(dataset.objects, name) for name in COLUMNS}
        # One text, not an array of texts: those are all as long as the longest.
        arrays["objects masks"] = np.frombuffer(json.dumps(dataset.objects.masks).encode(), dtype=np.uint8)
        arrays["scene sizes"] = dataset.scenes.sizes
    return {"head": np.array(json.dumps(head)), **arrays}


def unpack(archive: Mapping[str, NDArray[Any]]) -> ImageDataset:
    """The dataset of these arrays.

    Raises:
        KeyError, ValueError: they are not what :func:`pack` made.
    """
    head = json.loads(str(archive["head"]))
    common: dict[str, Any] = {
        "key": head["key"],
        "title": head["title"],
        "images": archive["images"],
        "labels": archive["labels"],
        "class_names": tuple(head["class_names"]),
        "splits": {name: archive[f"split {name}"] for name in head["splits"]},
        "metadata": {name: archive[f"column {name}"] for name in head["metadata"]},
    }
    if "layout" not in head:
        return ImageDataset(**common)
    masks = tuple(json.loads(archive["objects masks"].tobytes()))
    return DetectionDataset(
        **common,
        layout=head["layout"],
        objects=Objects(**{name: archive[f"objects {name}"] for name in COLUMNS}, masks=masks),
        scenes=_scenes(head["scenes"], common["images"], archive["scene sizes"]),
        dropped=tuple(Dropped(scene, text) for scene, text in head["dropped"]),
        remarks=tuple(head["remarks"]),
    )


def _scenes_head(dataset: DetectionDataset) -> dict[str, Any] | None:
    """Where the scenes are; None where they are the images."""
    scenes = dataset.scenes
    if isinstance(scenes, ArrayScenes):
        return None
    if not isinstance(scenes, SceneFiles):
        raise TypeError(f"{dataset.key}: scenes of type {type(scenes).__name__} cannot be kept.")
    return {"root": str(scenes.root), "names": scenes.names, "channels": scenes.channels}


def _scenes(head: Mapping[str, Any] | None, images: NDArray[Any], sizes: NDArray[np.int64]) -> ArrayScenes | SceneFiles:
    if head is None:
        return ArrayScenes(images)
    return SceneFiles(root=Path(head["root"]), names=tuple(head["names"]), sizes=sizes, channels=head["channels"])

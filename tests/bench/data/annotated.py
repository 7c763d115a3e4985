"""Scenes with boxes, written to a folder in VOC's and COCO's layout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .tiny import write_image

Thing = tuple[str, float, float, float, float]
SIZE = (30, 20)
"""Width and height of a scene unless the test says another."""


def thing_xml(thing: Thing, *, difficult: int | str = 0) -> str:
    name, *ends = thing
    box = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), ends, strict=True))
    return f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


def write_xml(file: Path, things: Sequence[Thing | str] = (), *, size: tuple[int, int] | None = SIZE) -> None:
    told = "" if size is None else f"<size><width>{size[0]}</width><height>{size[1]}</height></size>"
    objects = "".join(thing if isinstance(thing, str) else thing_xml(thing) for thing in things)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation>{told}{objects}</annotation>", encoding="utf-8")


def write_voc(
    folder: Path, scenes: Mapping[str, Sequence[Thing | str]], lists: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Images of noise, annotations, and lists of ImageSets/Main."""
    for stem, things in scenes.items():
        write_image(folder / f"JPEGImages/{stem}.png", size=SIZE)
        write_xml(folder / f"Annotations/{stem}.xml", things)
    for name, stems in (lists or {}).items():
        file = folder / f"ImageSets/Main/{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(stems) + "\n")
    return folder


def many_scenes(count: int) -> dict[str, list[Thing | str]]:
    """A cat in each second scene, a dog in each third."""
    return {
        f"s{k:03d}": [
            *([("cat", 2, 3, 10, 12)] if k % 2 == 0 else []),
            *([("dog", 5, 5, 20, 18)] if k % 3 == 0 else []),
        ]
        for k in range(count)
    }


def entry(identity: int, image: int, category: int, box: Sequence[float], **more: Any) -> dict[str, Any]:
    area = box[2] * box[3] if len(box) == 4 else 0
    return {"id": identity, "image_id": image, "category_id": category, "bbox": list(box), "area": area, **more}


def coco_json(
    images: Mapping[int, str], annotations: Sequence[dict[str, Any]], categories: Mapping[int, str] | None = None
) -> dict[str, Any]:
    return {
        "images": [{"id": k, "file_name": v, "width": SIZE[0], "height": SIZE[1]} for k, v in images.items()],
        "annotations": list(annotations),
        "categories": [{"id": k, "name": v} for k, v in (categories or {3: "cat", 7: "dog"}).items()],
    }


def write_json(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def write_coco(folder: Path, count: int, *, file: str = "annotations.json", images: str = "images") -> dict[str, Any]:
    """Scenes of noise and one JSON file; every second has a cat, every third a dog."""
    for k in range(count):
        write_image(folder / images / f"s{k:03d}.png", size=SIZE)
    things = [(k, category) for k in range(count) for category, every in ((3, 2), (7, 3)) if k % every == 0]
    objects = [entry(n, 10 + k, category, (1, 2, 10, 8)) for n, (k, category) in enumerate(things, start=100)]
    content = coco_json({10 + k: f"s{k:03d}.png" for k in range(count)}, objects)
    write_json(folder / file, content)
    return content


def write_turned(file: Path, *, size: tuple[int, int], orientation: int) -> None:
    """A JPEG, left half black and right half white as it is stored, with an EXIF orientation."""
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    pixels[:, size[0] // 2 :] = 255
    image = Image.fromarray(pixels)
    exif = image.getexif()
    exif[274] = orientation
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, exif=exif, quality=95)

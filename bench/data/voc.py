"""Scenes with boxes in PASCAL VOC's layout: an XML file for each image (Everingham et al. 2010).

Coordinates: VOC counts pixels from 1 and a box includes its last one, so that (xmin - 1, ymin - 1, xmax, ymax) are the
ends in continuous coordinates, as Detectron2 reads them. Tools that count from 0 write boxes that this moves by one
pixel, and an xmin of 0 becomes -1: that one pixel is cut off. A box whose ends are the same would be one pixel wide; no
object is, so that it counts as without area. Of an object marked ``difficult`` it does not count whether it is found.

Three layouts are read: the development kits (``VOC2007``, ``VOC2012`` in one folder: published, all with their official
splits); ``Annotations``, ``JPEGImages`` and the lists of ``ImageSets/Main``, each optional but the first; and XML files
beside their images, in one folder or in one for each split.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.card import Capability, DatasetCard, PublishedSizes
from bench.data.annotations import Annotation, Box, Complaint, Complaints, check_flawed
from bench.data.detection import DetectionDataset
from bench.data.files import depends_on
from bench.data.imaging import Size
from bench.data.scenes import Listing, Settled, dataset_of, offered, settled
from bench.data.voc_layout import Home, find_home
from bench.errors import DataError
from bench.registry import register_dataset

# fmt: off
OFFICIAL = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
"""The classes of PASCAL VOC in their official order."""
SLACK = (1.0, 0.0)
"""What the format explains: a box counted from 0 begins one pixel before its image."""
UNREADABLE = Complaint("annotations that cannot be read", "Write them anew, or remove them with their images.")
NO_NUMBER = Complaint("objects without four numbers, a name or a truth value", "Correct them.")
UNKNOWN_CLASS = Complaint(
    "objects of an unknown class", "Correct the name, or list all classes: --data-param classes=[a, b]."
)


@dataclass(frozen=True)
class Described:
    """One XML file: (height, width) where it says them, and name, box and difficulty of each object."""

    size: Size | None
    objects: tuple[tuple[str, Box, bool], ...]


def read_xml(file: Path, where: str, complaints: Complaints) -> Described:
    """What an annotation says; errors are collected under ``where``."""
    try:
        top = ET.parse(file).getroot()
        if top.tag != "annotation":
            raise DataError(f"its element is <{top.tag}>, not <annotation>")
        width, height = (_count(top.findtext(f"size/{side}")) for side in ("width", "height"))
    except (ET.ParseError, OSError, DataError, ValueError) as error:
        complaints.add(UNREADABLE, f"{where} ({error})")
        return Described(None, ())
    found = []
    for number, item in enumerate(top.findall("object"), start=1):
        name = (item.findtext("name") or "").strip()
        try:
            found.append((_named(name), _box(item), bool(_count(item.findtext("difficult")))))
        except ValueError as error:
            complaints.add(NO_NUMBER, f"{where}, object {number} ({name}): {error}")
            found.append((name, (0.0, 0.0, 1.0, 1.0), False))  # the set is refused; the others keep their numbers
    return Described((height, width) if width and height else None, tuple(found))


def _named(name: str) -> str:
    if not name:
        raise ValueError("no name")
    return name


def _count(text: str | None) -> int:
    """A whole number; nothing counts as 0, which many tools write for a size that they do not know."""
    value = float((text or "0").strip() or "0")
    if value < 0 or value != int(value):
        raise ValueError(f"{text!r} is no whole number")
    return int(value)


def _box(item: ET.Element) -> Box:
    """Continuous ends; equal ends stay equal, because such an object has no area."""
    texts = [item.findtext(f"bndbox/{end}") for end in ("xmin", "ymin", "xmax", "ymax")]
    left, top, right, bottom = (float(text) if text else math.nan for text in texts)
    if not all(map(math.isfinite, (left, top, right, bottom))):
        raise ValueError(f"xmin, ymin, xmax, ymax are {', '.join(map(str, texts))}")
    return (left - 1 if left < right else left, top - 1 if top < bottom else top, right, bottom)


def _listing(home: Home, classes: Sequence[str], complaints: Complaints) -> Listing:
    described = [read_xml(home.root / member.xml, member.xml, complaints) for member in home.members]
    names = {name for item in described for name, _, _ in item.objects}
    known = list(classes) or (OFFICIAL if home.published else sorted(names - {""}))
    if not known:
        complaints.add(UNREADABLE, f"{home.root} (no object in any of them)")
    numbers = {name: number for number, name in enumerate(known)}
    annotations = []
    for scene, (member, item) in enumerate(zip(home.members, described, strict=True)):
        for number, (name, box, difficult) in enumerate(item.objects, start=1):
            where = f"{member.xml}, object {number} ({name})"
            if name and name not in numbers:
                complaints.add(UNKNOWN_CLASS, where)
            label = numbers.get(name, 0)
            annotations.append(Annotation(scene=scene, where=where, box=box, label=label, difficult=difficult))
    return Listing(
        root=home.root,
        names=tuple(member.image for member in home.members),
        sizes=tuple(item.size for item in described),
        sides=tuple(member.side for member in home.members),
        annotations=annotations,
        class_names=tuple(known),
        published=home.published,
        remarks=home.remarks,
    )


def _settled(root: Path, params: Mapping[str, Any]) -> tuple[Home, Settled]:
    check_flawed(params["flawed"])
    home = find_home(root / params["path"], years=params["years"])
    complaints = Complaints(params["name"] or home.title)
    listing = _listing(home, params["classes"], complaints)
    shares = {name: params[name] for name in ("validation", "test")}
    return home, settled(listing, complaints, flawed=params["flawed"], slack=SLACK, **shares)


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """Annotations, lists and images; of the development kits the folders, whose files are not edited in place."""
    home = find_home(root / str(params["path"]), years=params["years"])
    return home.files


def offers(root: Path, params: Mapping[str, Any]) -> tuple[Capability, ...]:
    """Boxes, and findings where the splits have both kinds of scenes."""
    home = find_home(root / str(params["path"]), years=params["years"])
    if home.published:
        return ("boxes", "multilabel") if params["validation"] else ("boxes",)
    return offered(_settled(root, params)[1])


def is_own(root: Path, params: Mapping[str, Any]) -> bool:
    """Anything but the development kits."""
    return not find_home(root / str(params["path"]), years=params["years"]).published


@register_dataset(
    "voc",
    card=DatasetCard(
        title="PASCAL VOC",
        summary="Scenes with boxes in VOC's layout: the development kits 2007 and 2012 with their official splits, or "
        "images of the user's own, split by their lists or stratified by the classes in them.",
        license="research use (PASCAL VOC, Flickr terms of use), or the user's own",
        source="XML annotations with images in the folder of data (Everingham et al. 2010)",
        capabilities=("boxes", "multilabel"),
        checked=True,
        published=PublishedSizes(train=14_896, validation=1_655, test=4_952, classes=20, image_size=64),
    ),
)
@depends_on(packages=("Pillow",), files=find_files, offers=offers, own=is_own)
def voc(
    root: Path,
    *,
    name: str = "",
    path: str = "",
    years: tuple[int, ...] = (),
    classes: tuple[str, ...] = (),
    image_size: int = 64,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    flawed: str = "drop",
    allow_leakage: bool = False,
) -> DetectionDataset:
    """Load scenes with boxes in VOC's layout.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the name of their folder.
        path: where they are, relative to ``root``.
        years: development kits whose ``trainval`` is trained on, such as ``(2007, 2012)``; empty takes all that are
            there. The test split is the ``test`` of 2007.
        classes: their names in order, another one is an error; empty takes the official twenty for the development
            kits, otherwise all that occur, sorted.
        image_size: side in pixels of the squares for pre-training; the scenes keep their size. They are cut out of the
            center, so that a class at the border of a scene may be missing from its square.
        channels: 1 (gray) or 3 (color); 0 finds it.
        validation, test: shares of the training scenes for a split that no list gives. With ``validation`` 0 all are
            trained on, those of a list ``val`` too: the published protocol.
        flawed: ``drop`` leaves out objects without area or outside their image, ``clip`` also cuts boxes that reach
            beyond it at the border, ``refuse`` accepts none of these.
        allow_leakage: accept identical images in more than one split.
    """
    params = {"name": name, "path": path, "years": years, "classes": classes, "flawed": flawed}
    home, found = _settled(root, {**params, "validation": validation, "test": test})
    return dataset_of(found, "voc", name or home.title, layout="voc", image_size=image_size, channels=channels)

"""Scenes with boxes and masks in COCO's layout: one JSON file for each split (Lin et al. 2014, arXiv:1405.0312).

Boxes are left, top, width and height in continuous coordinates; what reaches less than a pixel beyond its image is
rounding and cut off. Categories are numbered in the order of their identifiers, which need not be consecutive. The
official validation images (``instances_val2017.json``) are the test split, on which results are published; a
validation split is drawn from the training images, or there is none. Files of the user's own serve the splits that
their names or folders tell (``train/_annotations.coco.json``); a single one is split.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.card import Capability, DatasetCard, PublishedSizes
from bench.data.annotations import Annotation, Complaint, Complaints, check_flawed
from bench.data.coco_layout import Home, Part, find_home, read_json
from bench.data.detection import DetectionDataset
from bench.data.files import depends_on
from bench.data.image_files import images_below
from bench.data.imaging import Size
from bench.data.leakage import number_of
from bench.data.scenes import Listing, Settled, dataset_of, offered, settled
from bench.data.segmentation import checked_mask
from bench.registry import register_dataset

SLACK = (1.0, 1.0)
"""Less than a pixel beyond the image is rounding."""
MISSING = Complaint(
    "images that are not there", "Add the files, or remove them and their objects from the annotations."
)
UNKNOWN_CATEGORY = Complaint("objects of an unknown category", "Correct their category_id, or add the category.")
UNKNOWN_IMAGE = Complaint("objects of an unknown image", "Correct their image_id, or add the image.")
SAME_ID = Complaint("objects that share their id with another", "Give each its own.")
SAME_IMAGE = Complaint("images that share their id or file with another", "Keep one, with the objects of both.")
SAME_CATEGORY = Complaint("categories that share their id or name, or differ between files", "Make them alike.")
WRONG = Complaint("entries that cannot be read", "Correct or remove them.")


@dataclass
class _Read:
    """What was read so far, over all files of a set."""

    root: Path
    complaints: Complaints
    categories: dict[int, str] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)
    sizes: list[Size | None] = field(default_factory=list)
    sides: list[str] = field(default_factory=list)
    found: list[Annotation] = field(default_factory=list)  # labels are identifiers of categories


def _read_part(read: _Read, part: Part, present: Mapping[str, None] | None) -> None:
    """Add one file; ``present`` are all images below the root, None where nobody looks for them."""
    content, at = read_json(part.file), part.file.relative_to(read.root).as_posix()
    _read_categories(read, content["categories"], at)
    scenes = _read_images(read, content["images"], part, at, present)
    seen: set[Any] = set()
    for number, entry in enumerate(content["annotations"], start=1):
        identity = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(identity, int | str):
            read.complaints.add(WRONG, f"{at}, annotation number {number} (no id)")
            continue
        where = f"{at}, annotation {identity}"
        if identity in seen:
            read.complaints.add(SAME_ID, where)
        seen.add(identity)
        category, image = entry.get("category_id"), entry.get("image_id")
        if not isinstance(category, int) or category not in read.categories:
            read.complaints.add(UNKNOWN_CATEGORY, f"{where} (category {category!r})")
        elif not isinstance(image, int | str) or image not in scenes:
            read.complaints.add(UNKNOWN_IMAGE, f"{where} (image {image!r})")
        else:
            _read_object(read, entry, scenes[image], f"{where} ({read.categories[category]})")


def _read_categories(read: _Read, entries: Sequence[Any], at: str) -> None:
    before: dict[int, str] = dict(read.categories)
    own: dict[int, str] = {}
    for entry in entries:
        if not (isinstance(entry, dict) and isinstance(entry.get("id"), int) and isinstance(entry.get("name"), str)):
            read.complaints.add(WRONG, f"{at}, category {entry!r}")
            continue
        if entry["id"] in own or entry["name"] in own.values():
            read.complaints.add(SAME_CATEGORY, f"{at}, category {entry['id']} ({entry['name']})")
        own[entry["id"]] = entry["name"]
        if entry.get("supercategory") not in (None, entry["name"]):
            read.groups.add(str(entry["supercategory"]))
    if before and own != before:
        odd = sorted({identity for identity, _ in own.items() ^ before.items()})
        read.complaints.add(SAME_CATEGORY, f"{at}, category {odd[0]}")
    read.categories.update(own)


def _read_images(
    read: _Read, entries: Sequence[Any], part: Part, at: str, present: Mapping[str, None] | None
) -> dict[Any, int]:
    """The scene of each image identifier of this file."""
    scenes: dict[Any, int] = {}
    names: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or not isinstance(entry.get("id"), int | str):
            read.complaints.add(WRONG, f"{at}, image number {number} (no id or no file_name)")
            continue
        where = f"{at}, image {entry['id']} ({name})"
        if entry["id"] in scenes or name in names:
            read.complaints.add(SAME_IMAGE, where)
        names.add(name)
        path = _located(name, part.folders, present)
        if path is None:
            read.complaints.add(MISSING, where)
        size = _size(entry)
        if size is None:
            read.complaints.add(WRONG, f"{where}: no whole width and height above 0")
        scenes[entry["id"]] = len(read.names)
        read.names.append(path or name)
        read.sizes.append(size)
        read.sides.append(part.side)
    return scenes


def _located(name: str, folders: Sequence[str], present: Mapping[str, None] | None) -> str | None:
    name = name.replace("\\", "/").removeprefix("./")
    paths = [name if folder == "." else f"{folder}/{name}" for folder in folders]
    return next((path for path in paths if present is None or path in present), None)


def _size(entry: Mapping[str, Any]) -> Size | None:
    height, width = entry.get("height"), entry.get("width")
    whole = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
    return (height, width) if whole else None  # type: ignore[return-value]


def _read_object(read: _Read, entry: Mapping[str, Any], scene: int, where: str) -> None:
    box = entry.get("bbox")
    numbers = box if isinstance(box, list) and len(box) == 4 else [math.nan]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers):
        read.complaints.add(WRONG, f"{where}: bbox {box!r}")
        return
    left, top, width, height = map(float, numbers)
    mask, area = "", None
    size = read.sizes[scene]
    if size and (segmentation := entry.get("segmentation")):  # without a size the set is refused
        try:
            mask, area = checked_mask(segmentation, size)
        except ValueError as error:
            read.complaints.add(WRONG, f"{where}: {error}")
    told = entry.get("area")
    read.found.append(
        Annotation(
            scene=scene,
            where=where,
            box=(left, top, left + width, top + height),
            label=entry["category_id"],
            crowd=bool(entry.get("iscrowd", 0)),
            area=float(told) if isinstance(told, int | float) and math.isfinite(told) and told >= 0 else area,
            mask=mask,
        )
    )


def _listing(home: Home, complaints: Complaints) -> Listing:
    present = None if home.published else dict.fromkeys(images_below(home.root))
    read = _Read(root=home.root, complaints=complaints)
    for part in home.parts:
        _read_part(read, part, present)
    twice = [name for name, count in Counter(read.names).items() if count > 1]
    for name in twice if len(home.parts) > 1 else ():  # one file tells it itself
        complaints.add(SAME_IMAGE, name)
    counts = Counter(item.label for item in read.found)
    groups = [name for identity, name in read.categories.items() if name in read.groups and not counts[identity]]
    order = [identity for identity in sorted(read.categories) if read.categories[identity] not in groups]
    if not read.found:
        complaints.add(WRONG, f"{home.parts[0].file.relative_to(home.root).as_posix()}: no object")
    numbers = {identity: number for number, identity in enumerate(order)}
    masked = sum(bool(item.mask) for item in read.found)
    whole = masked == len(read.found)
    return Listing(
        root=home.root,
        names=tuple(read.names),
        sizes=tuple(read.sizes),
        sides=tuple(read.sides),
        annotations=[replace(item, label=numbers[item.label], mask=item.mask if whole else "") for item in read.found],
        class_names=tuple(read.categories[identity] for identity in order),
        published=home.published,
        remarks=tuple(_remarks(groups, masked, len(read.found), len(present or ()) - len(set(read.names)))),
    )


def _remarks(groups: Sequence[str], masked: int, objects: int, images: int) -> Iterable[str]:
    if groups:
        yield f"{', '.join(groups)}: a group of categories without objects of its own, no class"
    if 0 < masked < objects:
        yield f"{objects - masked} of {objects} objects have no segmentation: the masks of the others are not used"
    if images > 0:
        yield f"{number_of(images, 'image')} that no annotation file names, left out"


def _home(root: Path, params: Mapping[str, Any]) -> Home:
    return find_home(root / str(params["path"]), file=str(params["annotations"]), year=int(params["year"]))


def _settled(root: Path, params: Mapping[str, Any]) -> tuple[Home, Settled]:
    check_flawed(params["flawed"])
    home = _home(root, params)
    complaints = Complaints(_title(home, params["name"]))
    shares = {name: params[name] for name in ("validation", "test")}
    return home, settled(_listing(home, complaints), complaints, flawed=params["flawed"], slack=SLACK, **shares)


def _title(home: Home, name: str) -> str:
    return name or (home.title if home.published else home.root.resolve().name)


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The annotation files, and the images; of the published set their folders."""
    home = _home(root, params)
    files = [part.file for part in home.parts]
    if home.published:
        return [*files, *(home.root / folder for part in home.parts for folder in part.folders)]
    return [*files, *(home.root / name for name in images_below(home.root))]


def offers(root: Path, params: Mapping[str, Any]) -> tuple[Capability, ...]:
    """Boxes; masks where every object has one; findings where the splits have both kinds of scenes."""
    if _home(root, params).published:
        return ("boxes", "masks", "multilabel") if params["validation"] else ("boxes", "masks")
    return offered(_settled(root, params)[1])


def is_own(root: Path, params: Mapping[str, Any]) -> bool:
    """Anything but the official files."""
    return not _home(root, params).published


@register_dataset(
    "coco",
    card=DatasetCard(
        title="COCO",
        summary="Scenes with boxes and masks in COCO's layout: the official files, whose validation images are the "
        "test split, or images of the user's own, split by their files or stratified by the classes in them.",
        license="CC BY 4.0 (annotations), Flickr terms of use (images), or the user's own",
        source="JSON annotations with images in the folder of data (Lin et al. 2014, arXiv:1405.0312)",
        capabilities=("boxes", "masks", "multilabel"),
        checked=True,
        published=PublishedSizes(train=106_458, validation=11_829, test=5_000, classes=80, image_size=64),
    ),
)
@depends_on(packages=("Pillow",), files=find_files, offers=offers, own=is_own)
def coco(
    root: Path,
    *,
    name: str = "",
    path: str = "",
    annotations: str = "",
    year: int = 0,
    image_size: int = 64,
    channels: int = 3,
    validation: float = 0.1,
    test: float = 0.2,
    flawed: str = "drop",
    allow_leakage: bool = False,
) -> DetectionDataset:
    """Load scenes with boxes and masks in COCO's layout.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the name of their folder.
        path: where they are, relative to ``root``.
        annotations: the one annotation file, relative to ``path``, whose images are split; empty finds the files.
        year: of the official files, 2014 or 2017; 0 takes the later that is there.
        image_size: side in pixels of the squares for pre-training; the scenes keep their size. They are cut out of the
            center, so that a class at the border of a scene may be missing from its square.
        channels: 1 (gray) or 3 (color); 0 finds it.
        validation, test: shares of the training scenes for a split that no file gives. With ``validation`` 0 all are
            trained on, those of a file for validation too: the published protocol.
        flawed: ``drop`` leaves out objects without area or outside their image, ``clip`` also cuts boxes that reach
            beyond it at the border, ``refuse`` accepts none of these.
        allow_leakage: accept identical images in more than one split.
    """
    params = {"name": name, "path": path, "annotations": annotations, "year": year, "flawed": flawed}
    home, found = _settled(root, {**params, "validation": validation, "test": test})
    return dataset_of(found, "coco", _title(home, name), layout="coco", image_size=image_size, channels=channels)

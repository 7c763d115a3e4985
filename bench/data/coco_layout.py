"""Where the parts of a set in COCO's layout are: annotation files, the split that each serves, and image folders."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.data.files import existing_folder, read_bytes, unreadable
from bench.data.folder import SPLIT_NAMES
from bench.data.image_files import HIDDEN, images_below, places_of_a_set
from bench.errors import DataError

OFFICIAL = re.compile(r"instances_(train|val)(2014|2017)\.json")
TEST_IMAGES = {"2014": 40_504, "2017": 5_000}
"""Official validation images: a set of the user's own with the official names has another number of them."""
USUAL = "coco"
"""The folder that usually holds the official files, which is known by its name beside other sets, such as ImageNet."""
OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")
"""Official files that hold no boxes of objects."""
ROBOFLOW = "_annotations.coco.json"
NEEDED = ("images", "annotations", "categories")


@dataclass(frozen=True)
class Part:
    """One annotation file, the split that it serves, and the folders below the root in which its images may be."""

    file: Path
    side: str
    folders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Home:
    """A set that was found.

    Attributes:
        root: the folder that all paths are relative to.
        parts: its annotation files.
        title: of the published COCO; empty for a set of the user's own.
    """

    root: Path
    parts: tuple[Part, ...]
    title: str = ""

    @property
    def published(self) -> bool:
        """Whether it is a benchmark that is taken as it is."""
        return bool(self.title)


class _NoJsonError(DataError):
    """A file is damaged, whatever it was meant to hold."""


def read_json(file: Path) -> dict[str, Any]:
    """The content of an annotation file.

    Raises:
        DataError: it is no JSON, or lacks images, annotations or categories.
    """
    try:
        content = json.loads(read_bytes(file))
    except ValueError as error:
        raise _NoJsonError(str(unreadable(file, f"it is no JSON ({error})"))) from error
    lacking = [name for name in NEEDED if not (isinstance(content, dict) and isinstance(content.get(name), list))]
    if lacking:
        raise unreadable(file, f"it is no annotation file of COCO: it has no list of {', '.join(lacking)}")
    return content  # type: ignore[no-any-return]


def find_home(folder: Path, *, file: str = "", year: int = 0) -> Home:
    """The set in ``folder``, or one level below.

    Args:
        folder: where to look.
        file: the one annotation file, relative to it, when it is named.
        year: of the official files, when both are there.

    Raises:
        DataError: there is none, it is not of the year, or two files serve one split.
    """
    existing_folder(folder)
    if file:
        if not (folder / file).is_file():
            raise DataError(f"{folder} has no annotation file {file}. Correct the parameter `annotations`.")
        return Home(root=folder, parts=(_part(folder, folder / file, "train"),))
    for place in (*places_of_a_set(folder), folder / USUAL):
        if official := _official(folder, place, year):
            return official
    if year:
        raise DataError(f"{folder} is not the official COCO {year} with all its images. Set `year` to 0, or add them.")
    for place in places_of_a_set(folder):
        parts = _others(folder, place)
        if damaged := _damaged(place, alone=not parts):
            raise damaged
        if parts:
            return Home(root=folder, parts=_one_each(parts))
    raise DataError(
        f"{folder} has no annotations in COCO's layout: looked for annotations/*.json, */{ROBOFLOW} and one JSON file, "
        "here and one level below. Name the file with the parameter `annotations`."
    )


def is_home(folder: Path) -> bool:
    """Whether :func:`find_home` looks for its set in ``folder``."""
    return any(_official(folder, place, 0) or _others(folder, place) for place in places_of_a_set(folder))


def _official(root: Path, place: Path, year: int) -> Home | None:
    """Training and validation file of one year: the latter is the test split, on which results are published."""
    found = {m.groups(): file for file in _jsons(place / "annotations") if (m := OFFICIAL.fullmatch(file.name))}
    for wanted in [str(year)] if year else ["2017", "2014"]:
        tested = _images_of(place, f"val{wanted}")
        if not {("train", wanted), ("val", wanted)} <= found.keys() or tested is None:
            continue
        if len(images_below(tested)) != TEST_IMAGES[wanted]:
            continue
        trained = _images_of(place, f"train{wanted}")
        if trained is None:
            raise DataError(f"{place} has no folder train{wanted} with the images of its annotations. Unpack them.")
        parts = (
            Part(found["train", wanted], "train", (_below(root, trained),)),
            Part(found["val", wanted], "test", (_below(root, tested),)),
        )
        return Home(root=root, parts=parts, title=f"COCO {wanted}")
    return None


def _images_of(place: Path, name: str) -> Path | None:
    return next((folder for folder in (place / name, place / "images" / name) if folder.is_dir()), None)


def _others(root: Path, place: Path) -> list[Part]:
    """A file in each folder of a split; else files whose names tell the split; else one file, to be split."""
    by_folder = [
        Part(file, SPLIT_NAMES[child.name], (_below(root, child),))
        for child in _folders(place)
        if child.name in SPLIT_NAMES
        for file in _jsons(child)
        if _is_coco(file)
    ]
    if by_folder:
        return by_folder
    files = [file for inside in (place / "annotations", place) for file in _jsons(inside) if _is_coco(file)]
    sides = [side_of(file) for file in files]
    if len(files) == 1:
        return [_part(root, files[0], "train")]
    return [_part(root, file, side) for file, side in zip(files, sides, strict=True) if side]


def damaged_annotations(folder: Path) -> DataError | None:
    """The error for a file that may hold the annotations of a folder where :func:`is_home` finds none."""
    return next((error for place in places_of_a_set(folder) if (error := _damaged(place, alone=True))), None)


def _damaged(place: Path, *, alone: bool) -> DataError | None:
    """The error for a damaged file that would serve a split, which must not silently be without its scenes.

    Args:
        place: of the set.
        alone: no annotation file is there, so that any damaged one may be it.
    """
    in_splits = [file for child in _folders(place) if child.name in SPLIT_NAMES for file in _jsons(child)]
    for file in (*in_splits, *_jsons(place / "annotations"), *_jsons(place)):
        reason = _reason_against(*_stamped(file))
        if isinstance(reason, _NoJsonError) and (alone or file in in_splits or side_of(file)):
            return reason
    return None


def side_of(file: Path) -> str:
    """The split that a file's name tells: ``instances_val2017.json`` is for validation; empty where it tells none."""
    words = [re.sub(r"\d+$", "", word) for word in re.split(r"[^a-z0-9]+", file.stem.lower())]
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "")


def _part(root: Path, file: Path, side: str) -> Part:
    """Images are beside the file, in a folder ``images``, or in one that is called like the split or the file's end."""
    around = [file.parent, *([file.parent.parent] if file.parent != root else [])]
    words = ["", "images", "Images"]
    last = re.split(r"[^A-Za-z0-9]+", file.stem)[-1]
    words += [
        f"{prefix}{word}"
        for prefix in ("", "images/")
        for word in dict.fromkeys((last, *SPLIT_NAMES))
        if word == last or SPLIT_NAMES[word] == side
    ]
    return Part(file, side, tuple(dict.fromkeys(_below(root, place / word) for place in around for word in words)))


def _one_each(parts: Sequence[Part]) -> tuple[Part, ...]:
    for part in parts:
        same = [other.file for other in parts if other.side == part.side]
        if len(same) > 1:
            raise DataError(
                f"{same[0]} and {same[1]} both serve the split {part.side}. Remove one, or name the only one with the "
                "parameter `annotations`."
            )
    if all(part.side != "train" for part in parts):
        raise DataError(f"{parts[0].file.parent} has annotations for {parts[0].side}, none to train on. Add them.")
    return tuple(parts)


def _is_coco(file: Path) -> bool:
    if file.name.startswith(OTHER_TASKS):
        return False
    if file.name == ROBOFLOW or file.name.startswith("instances_"):
        return True
    return _reason_against(*_stamped(file)) is None


def _stamped(file: Path) -> tuple[Path, int, int]:
    status = file.stat()
    return file, status.st_mtime_ns, status.st_size


@cache
def _reason_against(file: Path, mtime_ns: int, size: int) -> DataError | None:
    """Why a file is no annotation file, if so; read once while it stays as it is, for it may be large."""
    try:
        read_json(file)
    except DataError as error:
        return type(error)(str(error))  # without the traceback, which holds the content
    return None


def _jsons(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.glob("*.json") if file.is_file() and not file.name.startswith(HIDDEN))


def _folders(folder: Path) -> list[Path]:
    return sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith(HIDDEN))


def _below(root: Path, folder: Path) -> str:
    return folder.relative_to(root).as_posix()

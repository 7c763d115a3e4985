"""Where the parts of a set in VOC's layout are: annotations, images and lists of splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.data.files import existing_folder, read_bytes, unreadable
from bench.data.folder import SPLIT_NAMES
from bench.data.image_files import HIDDEN, images_below, places_of_a_set
from bench.data.imaging import SUFFIXES
from bench.data.leakage import listing, number_of
from bench.errors import DataError

ANNOTATIONS = "Annotations"
LISTS = "ImageSets/Main"
IMAGE_FOLDERS = ("JPEGImages", "Images", "images")
YEARS = (2007, 2012)
TEST_YEAR = 2007
OFFICIAL_SIZES = {
    ("VOC2007", "trainval"): 5_011,
    ("VOC2007", "test"): 4_952,
    ("VOC2012", "trainval"): 11_540,
}
"""Images of the official lists: a set of the user's own in folders of these names has other numbers."""
LISTED = {"trainval": "train", "train": "train", "val": "validation", "test": "test"}
"""The lists that are read, and the split of their scenes; a later one knows better: ``trainval`` is ``train`` and
``val``."""
APART = (("train", "val"), ("train", "test"), ("val", "test"), ("trainval", "test"))


@dataclass(frozen=True)
class Member:
    """One scene: paths of its image and annotation below the root, and its split."""

    image: str
    xml: str
    side: str = "train"


@dataclass(frozen=True, kw_only=True)
class Home:
    """A set that was found.

    Attributes:
        root: the folder that all paths are relative to.
        title: what it is called unless the user says.
        members: its scenes, in an order that no file system decides.
        files: what decides its content.
        published: whether these are the development kits.
        remarks: what is left out, in words.
    """

    root: Path
    title: str
    members: tuple[Member, ...]
    files: tuple[Path, ...]
    published: bool = False
    remarks: tuple[str, ...] = field(default=())


KITS = "VOCdevkit"
"""The folder of the official archives, which is known by its name beside other sets, such as ImageNet."""


def kind_of_home(folder: Path) -> tuple[str, Path] | None:
    """``kit``, ``lists`` or ``beside`` and the folder that has this layout: this one, or for the first two one below;
    None where there is none."""
    if _is_beside(folder) or any(_is_beside(folder / word) for word in SPLIT_NAMES):
        return "beside", folder
    for place in (*places_of_a_set(folder), folder / KITS):
        if any(_has_xml(place / f"VOC{year}" / ANNOTATIONS) for year in YEARS):
            return "kit", place
        if _has_xml(place / ANNOTATIONS):
            return "lists", place
    return None


def _has_xml(folder: Path) -> bool:
    return folder.is_dir() and any(_xml_below(folder))


def _xml_below(folder: Path) -> Iterator[Path]:
    return (file for file in folder.glob("*.xml") if not file.name.startswith(HIDDEN))


def _is_beside(folder: Path) -> bool:
    first = next(_xml_below(folder), None)
    if first is None or not any(
        first.with_suffix(suffix).exists() for suffix in (*SUFFIXES, *map(str.upper, SUFFIXES))
    ):
        return False
    return b"<annotation" in read_bytes(first)[:2000]


def find_home(folder: Path, *, years: Sequence[int] = ()) -> Home:
    """The set in ``folder``, or one level below.

    Raises:
        DataError: there is none, or its parts do not fit together.
    """
    existing_folder(folder)
    found = kind_of_home(folder)
    if found is None:
        raise DataError(
            f"{folder} has no annotations in VOC's layout: looked for {ANNOTATIONS}/*.xml, VOC2007/{ANNOTATIONS} and "
            "XML files beside images, here and one level below. Name their folder with the parameter `path`."
        )
    kind, place = found
    if kind == "kit":
        return _kit(folder, place, years)
    if years:
        raise DataError(f"{folder} has no folders VOC2007 or VOC2012, to which `years` belongs. Leave it out.")
    return _listed(folder, place) if kind == "lists" else _beside(folder)


def _kit(root: Path, place: Path, years: Sequence[int]) -> Home:
    """``trainval`` of the years, and the ``test`` of 2007."""
    present = [year for year in YEARS if _has_xml(place / f"VOC{year}" / ANNOTATIONS)]
    if missing := [year for year in years if year not in present]:
        raise DataError(
            f"{place} has no VOC{missing[0]}/{ANNOTATIONS}. Unpack that year's archive, or name the years that are "
            f"there with --data-param years=[{', '.join(map(str, present))}]."
        )
    chosen = sorted(set(years or present))
    wanted = [(year, "trainval", "train") for year in chosen] + [(TEST_YEAR, "test", "test")]
    lists = [(place / f"VOC{year}" / LISTS / f"{name}.txt", side) for year, name, side in wanted]
    alone = len(present) == 1 and not years  # a set of the user's own may be in a folder with the name of a year
    if alone and not all(file.is_file() for file, _ in lists):
        return _listed(root, place / f"VOC{present[0]}")
    if absent := [file for file, _ in lists if not file.is_file()]:
        raise DataError(
            f"{absent[0]} is not there: scenes are trained on by `trainval` of each year and tested by `test` of "
            f"{TEST_YEAR}. Unpack its archive, or name the folder of one year with the parameter `path`."
        )
    entries = [(file, side, _entries(file)) for file, side in lists]
    published = all(len(names) == OFFICIAL_SIZES[file.parts[-4], file.stem] for file, _, names in entries)
    if alone and not published:
        return _listed(root, place / f"VOC{present[0]}")
    members: list[Member] = []
    for file, side, names in entries:
        home = file.parents[2]
        images, prefix = _by_stem(root, home / "JPEGImages"), (home / ANNOTATIONS).relative_to(root).as_posix()
        _demand(file, [name for name in names if name not in images], "without an image")
        xmls = {xml.stem for xml in _xml_below(home / ANNOTATIONS)}
        _demand(file, [name for name in names if name not in xmls], "without an annotation")
        members += [Member(images[name], f"{prefix}/{name}.xml", side) for name in names]
    if not published:
        return _home(root, members, [file for file, _ in lists], 0, "")
    folders = [file.parents[2] / name for file, _ in lists for name in (ANNOTATIONS, "JPEGImages")]
    title = "PASCAL VOC " + "+".join(map(str, chosen))
    files = (*(file for file, _ in lists), *folders)
    return Home(root=root, title=title, members=tuple(members), files=files, published=True)


def _listed(root: Path, place: Path) -> Home:
    """``Annotations`` with images and, where there are such, lists."""
    folder = next((place / name for name in IMAGE_FOLDERS if (place / name).is_dir()), place)
    images = _by_stem(root, folder)
    annotations = place / ANNOTATIONS
    xmls = {
        file.relative_to(annotations).with_suffix("").as_posix(): file.relative_to(root).as_posix()
        for file in annotations.rglob("*.xml")
        if not file.name.startswith(HIDDEN)
    }
    lists = {name: place / LISTS / f"{name}.txt" for name in LISTED if (place / LISTS / f"{name}.txt").is_file()}
    sides = _sides(lists)
    chosen = sorted(sides or xmls)
    _demand(annotations, [entry for entry in chosen if entry not in xmls], "without an annotation")
    _demand(annotations, [entry for entry in chosen if entry not in images], f"without an image below {folder}")
    members = [Member(images[entry], xmls[entry], sides.get(entry, "train")) for entry in chosen]
    left_out = len(images) - len(members)
    return _home(root, members, lists.values(), left_out, "in no list" if sides else "without an annotation")


def _beside(root: Path) -> Home:
    """XML files beside their images, in one folder or in folders named after the splits."""
    places = {root: "train"} if _is_beside(root) else {}
    places |= {root / word: side for word, side in SPLIT_NAMES.items() if (root / word).is_dir()}
    members: list[Member] = []
    left_out = 0
    for place, side in places.items():
        images = {stem: path for stem, path in _by_stem(root, place).items() if "/" not in stem}
        xmls = {file.stem: file.relative_to(root).as_posix() for file in _xml_below(place)}
        _demand(place, [stem for stem in sorted(xmls) if stem not in images], "without an image")
        members += [Member(images[stem], xmls[stem], side) for stem in sorted(xmls)]
        left_out += len(images) - len(xmls)
    if all(member.side != "train" for member in members):
        raise DataError(f"{root} has no annotated scene to train on. Add a folder train.")
    return _home(root, members, (), left_out, "without an annotation")


def _home(root: Path, members: Sequence[Member], lists: Iterable[Path], left_out: int, why: str) -> Home:
    inside = [root / path for member in members for path in (member.xml, member.image)]
    remarks = (f"{number_of(left_out, 'image')} {why}, left out",) if left_out else ()
    return Home(root=root, title=root.resolve().name, members=tuple(members), files=(*lists, *inside), remarks=remarks)


def _by_stem(root: Path, folder: Path) -> dict[str, str]:
    """Path below ``root`` of each image below ``folder``, by its path below that without the ending."""
    existing_folder(folder)
    prefix = folder.relative_to(root).as_posix()
    found: dict[str, str] = {}
    for name in images_below(folder):
        stem = name.rpartition(".")[0]
        path = name if prefix == "." else f"{prefix}/{name}"
        if stem in found:
            raise DataError(f"{root}: {found[stem]} and {path} could both be the image of {stem}.xml. Remove one.")
        found[stem] = path
    return found


def _sides(lists: Mapping[str, Path]) -> dict[str, str]:
    """The split of each listed scene; nothing where there are no lists.

    Raises:
        DataError: a scene is in two splits, or none is for training.
    """
    entries = {name: _entries(file) for name, file in lists.items()}
    for first, second in APART:
        if shared := sorted(set(entries.get(first, ())) & set(entries.get(second, ()))):
            raise DataError(
                f"{lists[second]} and {lists[first].name} both list {number_of(len(shared), 'scene')}: "
                f"{listing(shared)}. Keep each in one split."
            )
    sides = {entry: side for name, side in LISTED.items() for entry in entries.get(name, ())}
    if sides and "train" not in sides.values():
        raise DataError(
            f"{next(iter(lists.values())).parent} lists no scene to train on. Add train.txt or trainval.txt."
        )
    return sides


def _entries(file: Path) -> list[str]:
    """The scenes that a list names, without the ending of an image.

    Raises:
        DataError: it is no text, or names a scene twice.
    """
    try:
        lines = [line.strip() for line in read_bytes(file).decode("utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise unreadable(file, "it is no text in UTF-8") from error
    entries = [line.rpartition(".")[0] if line.lower().endswith(SUFFIXES) else line for line in lines if line]
    if len(set(entries)) < len(entries):
        twice = next(entry for entry in entries if entries.count(entry) > 1)
        raise DataError(f"{file} lists {twice} twice. Remove one of the lines.")
    return entries


def _demand(place: Path, lacking: Sequence[str], what: str) -> None:
    if lacking:
        raise DataError(
            f"{place}: {number_of(len(lacking), 'scene')} {what}: {listing(lacking)}. Add the files, or remove what "
            "names them."
        )

"""ImageNet-100: 100 classes of the user's copy of ImageNet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.card import DatasetCard, PublishedSizes
from bench.data import imagenet
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on, read_bytes
from bench.errors import DataError
from bench.registry import register_dataset

CMC_CLASSES = Path(__file__).with_name("imagenet100.txt")


def classes_file(root: Path, classes: str) -> Path:
    """The list that ``classes`` names, relative to ``root``; the usual one when it is empty."""
    return root / classes if classes else CMC_CLASSES


def read_classes(file: Path) -> tuple[str, ...]:
    """Synset identifiers, one a line; what follows a ``#`` is a comment.

    Raises:
        DataError: a line is none, or an identifier stands there twice.
    """
    text = read_bytes(file).decode("utf-8", errors="replace")
    found = [word for line in text.splitlines() if (word := line.split("#")[0].strip())]
    wrong = [word for word in found if not imagenet.WNID.fullmatch(word)]
    if wrong or len(found) < 2 or len(set(found)) < len(found):
        reason = (
            f"{wrong[0]!r} is no synset identifier" if wrong else f"{len(set(found))} different of {len(found)} lines"
        )
        raise DataError(f"{file}: {reason}. Write one identifier such as n01440764 on each line.")
    return tuple(found)


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The list, and what ImageNet itself depends on."""
    return [classes_file(root, str(params["classes"])), *imagenet.find_files(root, params)]


@register_dataset(
    "imagenet100",
    card=DatasetCard(
        title="ImageNet-100",
        summary="100 classes of ImageNet, by default those of CMC; the official validation images are the test split, "
        "a stratified hundredth of the training images is for validation.",
        license="research use (ImageNet terms of access)",
        source="ILSVRC 2012 in the folder of data; classes of Tian, Krishnan and Isola (2020)",
        published=PublishedSizes(train=126_689 - 1_267, validation=1_267, test=5_000, classes=100, image_size=224),
    ),
)
@depends_on(packages=("Pillow",), files=find_files)
def imagenet100(
    root: Path, *, path: str = "", classes: str = "", image_size: int = 224, validation: float = 0.01
) -> ImageDataset:
    """Load the classes of a list; the images stay in their files until they are read.

    Args:
        root: the folder of data.
        path: the folder that holds ``train`` and ``val``, relative to ``root``; empty looks in the usual places.
        classes: a file of synset identifiers, relative to ``root``; empty takes the list of CMC.
        image_size: height and width of the loaded images in pixels.
        validation: share of the training images that are the validation split.
    """
    return imagenet.read_imagenet(
        "imagenet100",
        "ImageNet-100",
        imagenet.layout(root, path),
        wnids=read_classes(classes_file(root, classes)),
        image_size=image_size,
        validation=validation,
    )

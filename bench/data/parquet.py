"""Encoded images in Parquet files: a column of bytes, or of structs with a field ``bytes``, and columns of labels.

The other columns are read as those of :mod:`bench.data.labels_csv`. Without a column ``split`` the names of the files
or of their folders give it when all begin with one: ``train-00000-of-00002.parquet``. Images are read by row group;
a set that does not fit into memory is read fastest when its row groups are small.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.card import Capability, DatasetCard
from bench.data.assignment import SPLIT_WORDS, assembled, assign, offered
from bench.data.dataset import ImageDataset, Pixels, Rows
from bench.data.files import depends_on, existing_folder, unreadable
from bench.data.image_files import form_of, gathered, in_threads
from bench.data.imaging import Form, Kind, decode_image, kind_of_bytes
from bench.data.label_table import LabelTable, from_columns, roles_of
from bench.data.splits import check_shares
from bench.errors import DataError
from bench.registry import register_dataset

KEPT_GROUPS = 16
"""Row groups whose encoded images are kept for the next call."""


@dataclass(frozen=True)
class RowGroup:
    """Some rows of a file, which are read together; ``start`` is the first one's number in the whole set."""

    file: Path
    number: int
    start: int


@dataclass(frozen=True, kw_only=True)
class ParquetImages:
    """Images (N, size, size, channels), decoded when they are read.

    Attributes:
        groups: the row groups in their order.
        count: number of images.
        column: the column of images.
        form: what they are decoded to.
    """

    groups: tuple[RowGroup, ...]
    count: int
    column: str
    form: Form

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, self.form.size, self.form.size, self.form.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.form.dtype

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: Rows) -> Pixels:
        chosen = np.arange(self.count)[rows]
        images = np.empty((len(chosen), *self.shape[1:]), dtype=self.dtype)
        owner = np.searchsorted([group.start for group in self.groups], chosen, side="right") - 1
        for number in np.unique(owner).tolist():
            group, positions = self.groups[number], np.flatnonzero(owner == number)
            images[positions] = self._decoded(group, (chosen[positions] - group.start).tolist())
        return images

    def _decoded(self, group: RowGroup, rows: Sequence[int]) -> Pixels:
        contents = _contents(group.file, group.number, self.column, group.file.stat().st_mtime_ns)
        return gathered(lambda row: decode_image(contents[row], self.form, name=_name(group, row)), rows, self.form)

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype=dtype)


def _name(group: RowGroup, row: int) -> str:
    return f"{group.file}, row group {group.number}, row {row}"


def _open(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, f"it is truncated or no Parquet file ({error})") from error


@lru_cache(maxsize=KEPT_GROUPS)
def _contents(file: Path, group: int, column: str, changed: int) -> list[bytes]:
    """The encoded images of a row group; ``changed`` tells another version of the file apart."""
    import pyarrow as pa

    try:
        with _open(file) as content:
            values = content.read_row_group(group, columns=[column]).column(column).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, f"its row group {group} is damaged ({error})") from error
    found: list[bytes] = []
    for row, value in enumerate(values):
        image = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(image, bytes):
            raise DataError(
                f"{file}, row group {group}, row {row}: the column {column!r} holds no bytes of an image. Name the "
                "column of encoded images with the parameter `image`, and embed images that are only linked."
            )
        found.append(image)
    return found


def find_files(root: Path, params: Mapping[str, Any]) -> Iterable[Path]:
    """The Parquet file that ``path`` names, or all below the folder that it names.

    Raises:
        DataError: there is none.
    """
    place = root / str(params["path"])
    if place.is_file():
        return [place]
    found = sorted(existing_folder(place).rglob("*.parquet"))
    if not found:
        raise DataError(f"No .parquet file below {place}. Name the file or its folder with the parameter `path`.")
    return found


def read_table(files: Sequence[Path], *, image: str, label: str = "", findings: Sequence[str] = ()) -> LabelTable:
    """Labels and further columns of all files, as text.

    Raises:
        DataError: a file lacks the column of images or others that the first one has.
    """
    parts = [_columns(file, image) for file in files]
    home = files[0] if len(files) == 1 else files[0].parent
    for file, part in zip(files, parts, strict=True):
        if list(part) != list(parts[0]):
            raise unreadable(
                file, f"its columns are {', '.join(part)}; those of {files[0].name}: {', '.join(parts[0])}"
            )
    counts = [len(next(iter(part.values()), ())) for part in parts]
    columns = {name: tuple(value for part in parts for value in part[name]) for name in parts[0]}
    words = [_split_word(file) for file in files]
    if "split" not in roles_of(columns) and all(words):
        columns["split"] = tuple(word for word, count in zip(words, counts, strict=True) for _ in range(count))
    names = [f"{file.name}:{row}" for file, count in zip(files, counts, strict=True) for row in range(count)]
    return from_columns(home, columns, names=names, label=label, findings=findings)


def _split_word(file: Path) -> str:
    words = (re.split(r"[-_.]", file.stem)[0].casefold(), file.parent.name.casefold())
    return next((word for word in words if word in SPLIT_WORDS), "")


def _columns(file: Path, image: str) -> dict[str, tuple[str, ...]]:
    import pyarrow as pa

    with _open(file) as content:
        schema = content.schema_arrow
        if image not in schema.names:
            raise DataError(
                f"{file} has no column {image!r}; it has {', '.join(schema.names)}. Name the column of images with the "
                "parameter `image`."
            )
        plain = [
            field.name
            for field in schema
            if field.name != image and not pa.types.is_nested(field.type) and not pa.types.is_binary(field.type)
        ]
        table = content.read(columns=plain)
    named = _class_labels(schema.metadata or {})
    return {
        name: tuple(_text(value, named.get(name, ())) for value in table.column(name).to_pylist()) for name in plain
    }


def _class_labels(metadata: Mapping[bytes, bytes]) -> dict[str, Sequence[str]]:
    """Names of numbered classes, which the library ``datasets`` writes into the schema."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _text(value: Any, names: Sequence[str]) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if names and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else ""
    return str(value)


def _row_groups(files: Sequence[Path]) -> Iterator[RowGroup]:
    start = 0
    for file in files:
        with _open(file) as content:
            for number in range(content.num_row_groups):
                yield RowGroup(file, number, start)
                start += content.metadata.row_group(number).num_rows


def _kinds(groups: Sequence[RowGroup], column: str) -> dict[str, Kind]:
    """Channels and depths that occur, each with the name of one image that has them: all headers are read once."""
    found: dict[Kind, str] = {}
    for group in groups:
        contents = _contents(group.file, group.number, column, group.file.stat().st_mtime_ns)
        named = [(content, _name(group, row)) for row, content in enumerate(contents)]
        kinds = in_threads(lambda pair: kind_of_bytes(pair[0], name=pair[1]), named)
        for (_, name), kind in zip(named, kinds, strict=True):
            found.setdefault(kind, name)
    return {name: kind for kind, name in found.items()}


def offers(root: Path, params: Mapping[str, Any]) -> tuple[Capability, ...]:
    """What the columns offer; no image is read."""
    files = list(find_files(root, params))
    return offered(read_table(files, image=params["image"], label=params["label"], findings=params["findings"]))


@register_dataset(
    "parquet",
    card=DatasetCard(
        title="Images in Parquet",
        summary="Encoded images with classes or findings; the files' own splits, or split by patient where patients "
        "are known, stratified.",
        license="the user's own",
        source="Parquet files in the folder of data",
        capabilities=("labels", "multilabel", "metadata"),
        checked=True,
    ),
)
@depends_on(packages=("Pillow", "pyarrow"), files=find_files, offers=offers)
def parquet(
    root: Path,
    *,
    name: str = "",
    path: str = "",
    image: str = "image",
    label: str = "",
    findings: tuple[str, ...] = (),
    image_size: int = 64,
    channels: int = 0,
    window: tuple[float, ...] = (),
    validation: float = 0.1,
    test: float = 0.2,
    use_splits: bool = True,
    allow_leakage: bool = False,
) -> ImageDataset:
    """Load Parquet files; the images stay there until they are read.

    Args:
        root: the folder of data.
        name: what addresses and tables call these images; empty takes the name of the file or folder.
        path: the file, or a folder of files, relative to ``root``.
        image: the column of encoded images.
        label: the column of classes, when it is not called ``label``.
        findings: the columns of findings; empty takes all that hold only 1, 0, -1 and blanks.
        image_size: height and width of the loaded images in pixels.
        channels: 1 (gray), 3 (color) or the number of bands; 0 finds it: color when any image is in color.
        window: (low, high) in the images' units, mapped to the full range; empty keeps the range of their type.
        validation, test: shares of the labelled images for a split that the files do not give.
        use_splits: take the splits of the files; false splits anew.
        allow_leakage: accept splits of the files that have a patient on two sides.
    """
    check_shares(validation, test)
    files = list(find_files(root, {"path": path}))
    table = read_table(files, image=image, label=label, findings=findings)
    sides = assign(table, validation=validation, test=test, use_splits=use_splits, allow_leakage=allow_leakage)
    groups = tuple(_row_groups(files))
    form = form_of(_kinds(groups, image), size=image_size, channels=channels, window=window)
    images = ParquetImages(groups=groups, count=len(table.names), column=image, form=form)
    return assembled("parquet", name or (root / path).resolve().stem, images=images, table=table, split=sides)

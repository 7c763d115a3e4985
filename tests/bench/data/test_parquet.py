from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.data import parquet as module
from bench.data.parquet import offers, parquet
from bench.errors import DataError

DEFAULTS: dict[str, Any] = {"path": "", "image": "image", "label": "", "findings": ()}


def encoded(value: int, *, mode: str = "L", dtype: type = np.uint8) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(np.full((6, 6), value, dtype=dtype))
    (image.convert(mode) if mode != "L" else image).save(stream, "PNG")
    return stream.getvalue()


def write(file: Path, numbers: range, *, struct: bool = True, metadata: Any = None, **columns: Any) -> None:
    """Images of the value of their number, four to a row group."""
    contents = [{"bytes": encoded(n), "path": f"{n}.png"} if struct else encoded(n) for n in numbers]
    table = pa.table({"image": contents, **columns})
    if metadata:
        table = table.replace_schema_metadata({"huggingface": json.dumps(metadata)})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, row_group_size=4)


def values(images: Any) -> list[int]:
    return np.asarray(images)[:, 0, 0, 0].tolist()


@pytest.mark.parametrize("struct", [True, False])
def test_images_stay_with_their_labels_over_files_and_row_groups(tmp_path: Path, struct: bool) -> None:
    for part in range(2):
        numbers = range(10 * part, 10 * part + 10)
        write(
            tmp_path / f"{part}.parquet",
            numbers,
            struct=struct,
            label=["even" if n % 2 == 0 else "odd" for n in numbers],
        )
    dataset = parquet(tmp_path, image_size=6)
    assert dataset.images.shape == (20, 6, 6, 1)
    assert values(dataset.images) == list(range(20))
    assert [dataset.class_names[label] for label in dataset.labels[:3]] == ["even", "odd", "even"]
    assert {name: len(index) for name, index in dataset.splits.items()} == {"train": 14, "validation": 2, "test": 4}
    assert offers(tmp_path, DEFAULTS) == ("labels",)
    rows = np.array([13, 2, 2, 19, 0])
    assert values(pickle.loads(pickle.dumps(dataset.images))[rows]) == rows.tolist()


def test_only_the_row_groups_that_are_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", range(20), label=list("xy") * 10)
    images = parquet(tmp_path, image_size=6).images
    module._contents.cache_clear()
    read = []
    original = pq.ParquetFile.read_row_group
    monkeypatch.setattr(
        pq.ParquetFile, "read_row_group", lambda self, i, **options: read.append(i) or original(self, i, **options)
    )
    assert values(images[np.array([9, 1, 11])]) == [9, 1, 11]
    assert read == [0, 2]


def test_the_names_of_files_give_splits_and_the_schema_class_names(tmp_path: Path) -> None:
    info = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    for split, numbers in (("train", range(8)), ("validation", range(8, 12)), ("test", range(12, 16))):
        write(tmp_path / f"{split}-00000-of-00001.parquet", numbers, metadata=info, label=[n % 2 for n in numbers])
    dataset = parquet(tmp_path, image_size=6)
    assert dataset.class_names == ("cat", "dog")
    assert [values(dataset.split(name).images) for name in ("train", "validation", "test")] == [
        list(range(8)),
        [8, 9, 10, 11],
        [12, 13, 14, 15],
    ]
    assert dataset.split("test").labels.tolist() == [0, 1, 0, 1]


def test_findings_patients_and_missing_values_are_read(tmp_path: Path) -> None:
    write(
        tmp_path / "a.parquet",
        range(24),
        Edema=[True, False] * 12,
        Mass=[1.0, None, -1.0, 0.0] * 6,
        patient_id=[n // 2 for n in range(24)],
        embedding=[[0.5]] * 24,
    )
    dataset = parquet(tmp_path, image_size=6)
    assert dataset.class_names == ("Edema", "Mass")
    assert dataset.labels[:4].tolist() == [[1, 1], [0, -2], [1, -1], [0, 0]]
    assert offers(tmp_path, DEFAULTS) == ("multilabel", "metadata")
    sides = [set(dataset.split(name).metadata["patient"].tolist()) for name in dataset.splits]
    assert sum(map(len, sides)) == 12


def test_unlabelled_rows_are_for_pretraining_and_deep_images_make_the_set_deep(tmp_path: Path) -> None:
    images = [encoded(n) for n in range(9)] + [encoded(5000, dtype=np.uint16)]
    table = pa.table({"picture": images, "label": ["a", "b", None, "a", "b", "a", "b", "a", "b", "a"]})
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = parquet(tmp_path, path="a.parquet", image="picture", image_size=6)
    assert dataset.title == "a" and values(dataset.images) == [257 * n for n in range(9)] + [5000]
    assert values(dataset.split("unlabelled").images) == [514]


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No .parquet file below .* `path`"):
        parquet(tmp_path)
    file = tmp_path / "a.parquet"
    write(file, range(9), label=list("xyz") * 3, split=["train"] * 9)
    with pytest.raises(
        DataError, match=r"a.parquet has no column 'photo'; it has image, label, split\. Name the column"
    ):
        parquet(tmp_path, image="photo")
    with pytest.raises(DataError, match=r"a.parquet, row group 0, row 0: the column 'split' holds no bytes"):
        parquet(tmp_path, image="split")
    write(tmp_path / "b.parquet", range(3), klass=list("xyz"))
    with pytest.raises(DataError, match=r"b.parquet: its columns are klass; those of a.parquet: label, split"):
        parquet(tmp_path)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a.parquet: it is truncated or no Parquet file"):
        parquet(tmp_path, path="a.parquet")


def test_a_broken_image_is_named_by_its_row(tmp_path: Path) -> None:
    contents = [encoded(n) for n in range(9)]
    contents[5] = contents[5][:30] + b"junk"
    pq.write_table(pa.table({"image": contents, "label": list("xyz") * 3}), tmp_path / "a.parquet", row_group_size=4)
    with pytest.raises(DataError, match=r"a.parquet, row group 1, row 1 is (truncated|no image)"):
        np.asarray(parquet(tmp_path, image_size=6).images)

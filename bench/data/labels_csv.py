"""A CSV of labels."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.data.label_table import ROLES, LabelTable, from_columns, roles_of
from bench.errors import DataError

DELIMITERS = (",", ";", "\t")
FIRST_ROW = 2  # the header is row 1, as spreadsheets count


def read_labels(file: Path, *, label: str = "", findings: Sequence[str] = ()) -> LabelTable:
    """Read a CSV of labels.

    Args:
        file: comma, semicolon or tab separated, UTF-8, with a header.
        label: the column of classes; empty takes the one called ``label`` or ``class``.
        findings: the columns of findings; empty takes all that hold only 1, 0, -1 (uncertain) and blanks (unknown).

    Raises:
        DataError: it cannot be read, or its columns do not say what the labels are.
    """
    columns = _columns(file)
    roles = roles_of(columns)
    if "file" not in roles:
        raise DataError(
            f"{file} has no column of image files: looked for {', '.join(ROLES['file'])} among {', '.join(columns)}. "
            "Rename the column with the file names to `file`."
        )
    names = [name.replace("\\", "/") for name in columns[roles["file"]]]
    _refuse_repetition(file, names)
    return from_columns(file, columns, names=names, label=label, findings=findings, first_row=FIRST_ROW)


def _columns(file: Path) -> dict[str, tuple[str, ...]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = max(DELIMITERS, key=first.count)
            rows = [row for row in csv.reader(stream, delimiter=delimiter, strict=True) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"The labels {file} cannot be read ({error}). Give a CSV in UTF-8 with a header, as the parameter `labels`."
        ) from error
    if len(rows) < 2:
        raise DataError(f"The labels {file} have no rows. Give a CSV with a header and one row for each image.")
    header = [name.strip() for name in rows[0]]
    repeated = [name for name, count in Counter(header).items() if count > 1]
    if repeated:
        raise DataError(f"{file} has the column {repeated[0]!r} more than once. Rename or remove one.")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(
                f"{file}, row {number} has {len(row)} fields, the header {len(header)}. Correct the row; quote values "
                f"that contain {delimiter!r}."
            )
    return dict(zip(header, zip(*([value.strip() for value in row] for row in rows[1:]), strict=True), strict=True))


def _refuse_repetition(file: Path, names: Sequence[str]) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        listing = ", ".join(repeated[:5])
        raise DataError(f"{file} lists {len(repeated)} files more than once: {listing}. Keep one row for each image.")

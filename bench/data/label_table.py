"""Labels in columns of text: which column plays which role, and the labels as numbers.

Column names are compared without case, blanks, hyphens and underscores: ``Patient ID`` is ``patient_id``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import UNCERTAIN, UNKNOWN
from bench.errors import DataError

Columns = Mapping[str, tuple[str, ...]]

ROLES = {
    "file": ("file", "filename", "filepath", "image", "imagefile", "imagepath", "imageindex", "path"),
    "label": ("label", "class"),
    "patient": ("patient", "patientid"),
    "study": ("study", "studyid", "studyinstanceuid"),
    "laterality": ("laterality", "imagelaterality"),
    "view": ("view", "viewposition", "frontal/lateral"),
    "split": ("split",),
}
METADATA = ("patient", "study", "laterality", "view")
FINDING_VALUES = {1.0: 1, 0.0: 0, -1.0: UNCERTAIN}
BLANK = ("", "nan")


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """The rows of a table of labels.

    Attributes:
        file: where they come from; named in errors.
        names: the n images as the rows name them.
        labels: (n,) classes or (n, F) findings, int64; ``UNKNOWN`` where the table is blank.
        class_names: one per class or finding.
        columns: the n values of each further role that has a column: patient, study, laterality, view, split.
        first_row: how the file counts the first row.
    """

    file: Path
    names: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    first_row: int = 0

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(n,) whether the row has its class, or at least one finding that is mentioned."""
        known: NDArray[np.bool_] = (self.labels != UNKNOWN).reshape(len(self.labels), -1).any(axis=1)
        return known


def from_columns(
    file: Path,
    columns: Columns,
    *,
    names: Sequence[str],
    label: str = "",
    findings: Sequence[str] = (),
    first_row: int = 0,
) -> LabelTable:
    """Find roles and labels among columns of text.

    Args:
        file: where they come from; named in errors.
        columns: n texts by column name; blank where nothing is known.
        names: the n images.
        label: the column of classes; empty takes the one called ``label`` or ``class``.
        findings: the columns of findings; empty takes all that hold only 1, 0, -1 (uncertain) and blanks (unknown).
        first_row: how the file counts the first row.

    Raises:
        DataError: the columns do not say what the labels are.
    """
    roles = roles_of(columns)
    if label and findings:
        raise DataError(f"{file}: both `label` and `findings` are given. An image has one class or findings: drop one.")
    lacking = [name for name in (*findings, label) if name and name not in columns]
    if lacking:
        raise DataError(f"{file} has no column {lacking[0]!r}; it has {', '.join(columns)}. Correct the name.")
    chosen = _chosen(file, columns, roles, label=label, findings=tuple(findings))
    if isinstance(chosen, str):
        class_names, labels = _classes(file, columns[chosen], chosen)
    else:
        class_names, labels = chosen, _findings(file, columns, chosen, first_row)
    return LabelTable(
        file=file,
        names=tuple(names),
        labels=labels,
        class_names=class_names,
        columns={role: columns[column] for role, column in roles.items() if role not in ("file", "label")},
        first_row=first_row,
    )


def roles_of(columns: Iterable[str]) -> dict[str, str]:
    """The column of each role that has one; of two, the one whose name stands first in ``ROLES``."""
    plain = {_plain(column): column for column in reversed(list(columns))}
    found = {role: next((plain[alias] for alias in aliases if alias in plain), None) for role, aliases in ROLES.items()}
    return {role: column for role, column in found.items() if column is not None}


def _plain(column: str) -> str:
    return column.casefold().replace(" ", "").replace("_", "").replace("-", "")


def _chosen(
    file: Path, columns: Columns, roles: Mapping[str, str], *, label: str, findings: tuple[str, ...]
) -> str | tuple[str, ...]:
    """The column of classes, or the columns of findings."""
    if label or findings:
        return label or findings
    own = [name for name in columns if name not in roles.values() and _is_finding(columns[name])]
    if "label" in roles and own:
        raise DataError(
            f"{file} has a column {roles['label']!r} and columns that look like findings ({', '.join(own[:5])}). Say "
            f"which count: label={roles['label']}, or findings=[…]."
        )
    if "label" in roles or own:
        return roles.get("label") or tuple(own)
    raise DataError(
        f"{file} has neither a column `label` nor columns of only 1, 0, -1 and blanks; it has {', '.join(columns)}. "
        "Name the column of classes with the parameter `label`, or those of findings with `findings`."
    )


def _classes(file: Path, values: Sequence[str], column: str) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    names = sorted(set(values) - {""}, key=lambda name: (0, int(name), name) if name.isdecimal() else (1, 0, name))
    if len(names) < 2:
        listing = f"only {names[0]!r}" if names else "no value"
        raise DataError(f"{file}: the column {column!r} has {listing}; two or more classes are needed. Add the others.")
    number = {name: index for index, name in enumerate(names)}
    return tuple(names), np.array([number.get(value, UNKNOWN) for value in values], dtype=np.int64)


def _is_finding(values: Sequence[str]) -> bool:
    numbers = {_finding(value) for value in set(values)}
    return None not in numbers and bool(numbers - {UNKNOWN})


def _finding(value: str) -> int | None:
    if value.casefold() in BLANK:
        return UNKNOWN
    try:
        return FINDING_VALUES.get(float(value))
    except ValueError:
        return None


def _findings(file: Path, columns: Columns, names: Sequence[str], first_row: int) -> NDArray[np.int64]:
    labels = np.empty((len(columns[names[0]]), len(names)), dtype=np.int64)
    for position, name in enumerate(names):
        for row, value in enumerate(columns[name]):
            number = _finding(value)
            if number is None:
                raise DataError(
                    f"{file}, row {row + first_row}: the finding {name!r} is {value!r}; 1 (present), 0 (absent), -1 "
                    "(uncertain) or blank (unknown) is needed. Correct it."
                )
            labels[row, position] = number
    if not (labels == 1).any():
        raise DataError(f"{file}: no image has any of the findings {', '.join(names[:5])}. Add images that have them.")
    return labels

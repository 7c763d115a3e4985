"""The six columns of Table 1."""

from __future__ import annotations

from bench.metric import TOP1, TOP5, Metric
from bench.table import Column

PLACES: tuple[tuple[str, float, Metric], ...] = (
    ("linear_probe", 1.0, TOP1),
    ("linear_probe", 1.0, TOP5),
    ("semi_supervised", 0.01, TOP1),
    ("semi_supervised", 0.01, TOP5),
    ("semi_supervised", 0.1, TOP1),
    ("semi_supervised", 0.1, TOP5),
)
"""Protocol, label fraction and metric of the six columns."""

HEADINGS = {
    ("linear_probe", 1.0): "Linear",
    ("semi_supervised", 0.01): "1 % of labels",
    ("semi_supervised", 0.1): "10 % of labels",
}

DIAGNOSTICS, AUDIT, LABELS = "diagnostics", "false_negative_audit", "label_efficiency"
DETECTION = "detection"
"""The protocol of Table 2 and of the page of detections."""
DESCRIBED = (DIAGNOSTICS, AUDIT)
"""The protocols of the page of diagnostics."""

OWN_TABLES = (*DESCRIBED, LABELS, DETECTION)
"""Protocols with a page of their own, because they describe more than they score or have settings of their own."""

WHAT = "Linear evaluation on frozen features and semi-supervised fine-tuning, accuracy on the test split in %."
"""What the table shows, for captions."""


def slug(name: str) -> str:
    """A method's name as part of a path or of an id: ``vicreg[no variance]`` is ``vicreg-no-variance``."""
    return "-".join("".join(sign if sign.isalnum() or sign == "_" else " " for sign in name).split())


def method_path(name: str) -> str:
    """The path of a method's page."""
    return f"methods/{slug(name)}.html"


def value_columns(*outer: str) -> tuple[Column, ...]:
    """The six columns below the spanners ``outer``."""
    return tuple(
        Column(title=metric.title, groups=(*outer, HEADINGS[protocol, fraction]), metric=metric)
        for protocol, fraction, metric in PLACES
    )

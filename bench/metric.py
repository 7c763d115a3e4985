"""Metrics: name, unit, direction and format live here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measured quantity.

    Attributes:
        key: identifier in the store, for example ``top1``.
        title: column heading.
        unit: ``%``, ``mm``, ``s`` or empty for a pure number.
        higher_is_better: direction of improvement.
        decimals: digits after the point in tables.
    """

    key: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    decimals: int = 1

    def format(self, value: float | None) -> str:
        """Render ``value`` for a table; a missing or undefined value gives an empty string."""
        if value is None or math.isnan(value):
            return ""
        return f"{value:.{self.decimals}f}"


TOP1 = Metric(key="top1", title="top-1", unit="%")
TOP5 = Metric(key="top5", title="top-5", unit="%")
TRAINING_LOSS = Metric(key="training_loss", title="final training loss", higher_is_better=False, decimals=4)

METRICS: dict[str, Metric] = {metric.key: metric for metric in (TOP1, TOP5, TRAINING_LOSS)}

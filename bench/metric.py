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
        higher_is_better: direction of improvement; None where a value is neither better nor worse than another.
        decimals: digits after the point in tables.
        lower, upper: bounds of the possible values, such as 0 and 100 for an accuracy; absent where there is none.
    """

    key: str
    title: str
    unit: str = ""
    higher_is_better: bool | None = True
    decimals: int = 1
    lower: float | None = None
    upper: float | None = None

    def format(self, value: float | None) -> str:
        """Render ``value`` for a table; a missing or undefined value gives an empty string."""
        if value is None or math.isnan(value):
            return ""
        text = f"{value:.{self.decimals}f}"
        return text if float(text) else text.lstrip("-")  # a rounded loss of nothing is nothing

    def clip(self, value: float) -> float:
        """The possible value that is nearest to ``value``, for an interval that was computed without the bounds."""
        if self.lower is not None:
            value = max(value, self.lower)
        return value if self.upper is None else min(value, self.upper)


TOP1 = Metric(key="top1", title="top-1", unit="%", lower=0.0, upper=100.0)
TOP5 = Metric(key="top5", title="top-5", unit="%", lower=0.0, upper=100.0)
BALANCED_ACCURACY = Metric(key="balanced_accuracy", title="balanced accuracy", unit="%", lower=0.0, upper=100.0)
AUROC = Metric(key="auroc", title="AUROC", unit="%", lower=0.0, upper=100.0)
AVERAGE_PRECISION = Metric(key="average_precision", title="average precision", unit="%", lower=0.0, upper=100.0)
TRAINING_LOSS = Metric(key="training_loss", title="final training loss", higher_is_better=False, decimals=4)

AP = Metric(key="ap", title="AP", unit="%", lower=0.0, upper=100.0)
AP50 = Metric(key="ap50", title="AP50", unit="%", lower=0.0, upper=100.0)
AP75 = Metric(key="ap75", title="AP75", unit="%", lower=0.0, upper=100.0)
MASK_AP = Metric(key="mask_ap", title="mask AP", unit="%", lower=0.0, upper=100.0)
MASK_AP50 = Metric(key="mask_ap50", title="mask AP50", unit="%", lower=0.0, upper=100.0)
MASK_AP75 = Metric(key="mask_ap75", title="mask AP75", unit="%", lower=0.0, upper=100.0)
VOC_AP = Metric(key="voc_ap", title="VOC AP", unit="%", lower=0.0, upper=100.0)
VOC_AP50 = Metric(key="voc_ap50", title="VOC AP50", unit="%", lower=0.0, upper=100.0)
VOC_AP75 = Metric(key="voc_ap75", title="VOC AP75", unit="%", lower=0.0, upper=100.0)

# fmt: off
METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        TOP1, TOP5, BALANCED_ACCURACY, AUROC, AVERAGE_PRECISION, TRAINING_LOSS,
        AP, AP50, AP75, MASK_AP, MASK_AP50, MASK_AP75, VOC_AP, VOC_AP50, VOC_AP75,
    )
}
# fmt: on

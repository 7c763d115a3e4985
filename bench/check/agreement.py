"""Whether two evaluations agree: their details without times, their predictions up to rounding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

MEASURED = ("seconds", "memory_mb")
"""Details of any depth that two evaluations need not share."""


def lasting(details: Any) -> Any:
    """The details without times and memory, which no two evaluations share."""
    if isinstance(details, dict):
        return {name: lasting(value) for name, value in details.items() if name not in MEASURED}
    return [lasting(value) for value in details] if isinstance(details, list | tuple) else details


def equal_frames(one: pd.DataFrame, other: pd.DataFrame) -> bool:
    """Whether all values are the same; lists of numbers up to what a sum in another order makes of them."""
    if one.shape != other.shape:
        return False
    pairs = [(one[name].reset_index(drop=True), other[name].reset_index(drop=True)) for name in one]
    return all(close_columns(a, b) if a.dtype == object else a.equals(b) for a, b in pairs)


def close_columns(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    """Whether two columns hold the same, numbers approximately."""
    if one.dtype.kind == "f":
        return bool(np.isclose(one, other, rtol=1e-3, atol=1e-4, equal_nan=True).all())
    if one.dtype != object:
        return bool((one == other).all())
    return all(_close_cells(a, b) for a, b in zip(one, other, strict=True))


def _close_cells(one: Any, other: Any) -> bool:
    """Whether two cells are equal: lists of numbers, approximately, or anything else."""
    if not isinstance(one, list | tuple | np.ndarray):
        return bool(one == other)
    a, b = np.asarray(one), np.asarray(other)
    if a.shape != b.shape or a.dtype.kind != "f":
        return bool(np.array_equal(a, b))
    return bool(np.isclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True).all())

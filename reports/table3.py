"""Table 3: methods in medical imaging, as a review lists them, beside what this harness measured for such methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.card import MethodCard, ProtocolCard
from bench.errors import RequestError
from bench.table import Table
from reports.measured import Measured
from reports.table1 import Origin
from reports.table3_measured import measured_tables
from reports.table3_published import published_tables

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan import Plan


def build_tables(
    origin: Origin,
    *,
    plan: Plan | None = None,
    rows: pd.DataFrame | None = None,
    published: pd.DataFrame | None = None,
    methods: Mapping[str, MethodCard] | None = None,
    protocols: Mapping[str, ProtocolCard] | None = None,
    titles: Mapping[str, str] | None = None,
) -> tuple[Table, ...]:
    """Table 3 in one of its forms.

    Args:
        origin: ``published`` needs nothing else; ``measured`` and ``both`` need ``plan`` and ``rows``.
        published: unused: Table 3 lists works, not values; taken so that all three tables are asked for alike.
        methods: cards by key; a pretext method without one has blank properties.
        titles: printed names of datasets and backbones by key.

    Returns:
        ``published``: pretext methods counted, then one table for each category. ``measured``: one for each protocol
        under which the plan has methods for medical images, which may be none. ``both``: all of these.

    Raises:
        RequestError: there is no such origin, or an input is missing.
    """
    del published
    if origin not in ("published", "measured", "both"):
        raise RequestError(f"There is no origin {origin!r}. Known: published, measured, both.")
    printed = () if origin == "measured" else published_tables(methods or {})
    if origin == "published":
        return printed
    if plan is None or rows is None:
        raise RequestError(f"Table 3 with origin {origin!r} needs a plan and the store's rows.")
    measured = Measured.of(plan, rows, methods=methods or {}, protocols=protocols or {}, titles=titles or {})
    return (*printed, *measured_tables(measured))

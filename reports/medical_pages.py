"""What the two pages on medical imaging show: Table 3, and the published numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from bench.table import Table
from reports.comparison import page_of
from reports.measured import Measured
from reports.medical_gain import Effusion, gain_sentences, gain_table
from reports.medical_layouts import Record
from reports.medical_other import oct_table, tracking_table
from reports.medical_tables import printed_tables, source_panels
from reports.panels import measured_panels
from reports.places import method_path
from reports.table3_measured import measured_tables, medical
from reports.table3_published import family_table, work_panels, work_tables

Show = Callable[[Table], dict[str, Any]]
"""Makes of a table what a template places."""


def table3_content(measured: Measured, show: Show) -> dict[str, Any]:
    """Pretext methods, what was measured for methods of medical imaging, and the works."""

    def page(key: str) -> str:
        name = page_of(measured, key)
        return method_path(name) if name else ""

    return {
        "families": show(family_table(measured.methods, page_of=page)),
        "measured": [show(table) for table in measured_tables(measured)],
        "works": [show(table) for table in work_tables(linked=True)],
        "panels": (*measured_panels(medical(measured)), *work_panels()),
    }


def medical_content(records: Sequence[Record], show: Show) -> dict[str, Any]:
    """The 14 % taken apart, then every published table."""
    found = Effusion.of(records)
    return {
        "sentences": gain_sentences(found),
        "headline": show(gain_table(found)),
        "tables": [show(table) for table in printed_tables(records)],
        "others": [show(table) for table in (tracking_table(records), oct_table(records))],
        "panels": source_panels(records),
    }

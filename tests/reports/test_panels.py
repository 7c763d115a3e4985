"""Panels: what stands behind a value of a table."""

from __future__ import annotations

from dataclasses import replace

from reports.measured import Measured
from reports.panels import measured_panels

from .synthetic import METHODS, PROTOCOLS, make_plan, make_rows


def test_values_of_a_protocol_that_compares_images_are_said_to_belong_to_the_set() -> None:
    plan = make_plan(states={})
    cards = {**PROTOCOLS, "knn": replace(PROTOCOLS["knn"], compares_images=True)}
    measured = Measured.of(plan, make_rows(plan), methods=METHODS, protocols=cards, titles={})
    said = {}
    for panel in measured_panels(measured, method="vicreg"):
        facts = [fact for run in panel.runs for section in run.sections for fact in section.facts]
        said[panel.title.split(": ")[1].split(" on ")[0]] = any("set of images as a whole" in f.value for f in facts)
    assert said.pop("k-NN") and said and not any(said.values())

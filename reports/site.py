"""The static site: it opens from ``file://``, loads nothing from elsewhere, and equal inputs give equal bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.card import MethodCard, ProtocolCard
from reports import ablations, detection_page, label_efficiency
from reports.breakdown import breakdowns
from reports.contest import Loader
from reports.detection_gain import gains
from reports.diagnostics import described
from reports.files import Files
from reports.findings import finding_tables
from reports.images import image_sets
from reports.measured import Measured
from reports.medical_tables import medical_values
from reports.pages import Pages
from reports.places import method_path
from reports.probe_agreement import agreement_table
from reports.published_rows import published_rows
from reports.table2_published import printed_detectors
from reports.verdict import verdicts

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan import Plan


def build_site(
    out: Path,
    *,
    plan: Plan,
    rows: pd.DataFrame,
    history: pd.DataFrame,
    published: pd.DataFrame,
    methods: Mapping[str, MethodCard],
    protocols: Mapping[str, ProtocolCard],
    suite: str,
    titles: Mapping[str, str] | None = None,
    predictions: Loader | None = None,
) -> Path:
    """Build the report.

    Args:
        out: folder of the report; made when it does not exist.
        plan: every cell with its state.
        rows, history: the store's frames.
        published: the published values.
        methods, protocols: cards by key.
        suite: key of the suite, as the pages print it.
        titles: printed names of datasets and backbones by key.
        predictions: of an evaluation by its identity; without them methods are not compared image by image.

    Returns:
        The path of ``index.html``.
    """
    measured = Measured.of(plan, rows, methods=methods, protocols=protocols, titles=titles or {})
    printed = published_rows(published)
    files = Files()
    shared = _shared(plan, measured, suite)
    losses = {item.name: item for item in breakdowns(measured, history)}
    pages = Pages(
        files=files,
        shared=shared,
        measured=measured,
        printed=printed,
        detectors=printed_detectors(published),
        medicine=medical_values(published),
        losses=losses,
    )
    gained = gains(measured, predictions)
    pages.index(verdicts(measured, predictions) if predictions else (), gained)
    pages.images()
    pages.findings()
    pages.table1(agreement_table(measured, predictions))
    pages.table2(gained)
    for page in (pages.table3, pages.medical, pages.methods, pages.diagnostics, pages.label_efficiency):
        page()
    pages.ablations()
    pages.breakdown(history)
    pages.detection(predictions)
    for key in dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results):
        if key in measured.methods:
            pages.method(key, history)
    pages.errata()
    pages.about()
    files.write(out)
    return out / "index.html"


def _shared(plan: Plan, measured: Measured, suite: str) -> dict[str, Any]:
    """What every page has: style and script with their hashes, navigation, the stamp of the inputs."""
    style, script = _static("report.css"), _static("report.js")
    keys = dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results)
    return {
        "style": style,
        "script": script,
        "policy": "; ".join(
            (
                "default-src 'none'",
                f"style-src '{_source_hash(style)}'",
                f"script-src '{_source_hash(script)}'",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        "suite_key": suite,
        "suite": plan.content,
        "navigation": [
            {"href": method_path(key), "title": measured.method_title(key)} for key in keys if key in measured.methods
        ],
        "stamp": _stamp(measured),
        "image_sets": image_sets(measured),
        "finding_tables": finding_tables(measured),
        "diagnosed": bool(described(measured).results),
        "label_studies": label_efficiency.studies(measured),
        "detection_settings": detection_page.settings(measured),
        "studies": ablations.families(measured, _expected(plan)),
    }


def _expected(plan: Plan) -> dict[str, str]:
    """What each setting of the suite is to show, by name."""
    listed = () if plan.content.methods == "all" else plan.content.methods
    return {candidate.name: candidate.expected for candidate in listed}


def _stamp(measured: Measured) -> str:
    """Digest of what is shown: the cells, their states and the stored jobs behind them."""
    digest = hashlib.sha256()
    for result in measured.results:
        stored = [str(row["identity"]) for row in result.metrics.values()]
        values = [repr(row["value"]) for row in result.metrics.values()]
        digest.update("\0".join([result.planned.address, result.planned.state, *stored, *values]).encode())
    return digest.hexdigest()[:16]


def _source_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _static(name: str) -> str:
    return resources.files("reports").joinpath("static", name).read_text(encoding="utf-8")

"""The static site: it opens from ``file://``, loads nothing from elsewhere, and equal inputs give equal bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.card import MethodCard, ProtocolCard
from bench.published import CONFIDENCE_WORDS, load_papers
from bench.published.errata import CHECKS, SEVERITIES, errata_csv, load_errata
from bench.table import MARKS, STATES, Format, Table
from bench.table_html import to_html
from reports import ablations, label_efficiency
from reports.architecture import draw_architecture
from reports.bibtex import bibtex
from reports.breakdown import Breakdown, breakdown_figure, breakdown_table, breakdowns, epochs_csv
from reports.comparison import caption, comparison_table, gallery, page_of
from reports.contest import Loader
from reports.curves import training_figures
from reports.diagnostics import (
    QUANTITIES,
    audit_table,
    collapse_flags,
    described,
    diagnostics_table,
    linked_from_index,
    method_tables,
    no_collapse,
    scored,
)
from reports.findings import finding_tables
from reports.glossary import GLOSSARY
from reports.images import ImageSet, image_sets
from reports.label_figures import method_figure, whole_figure
from reports.label_tables import RULES as LABEL_RULES
from reports.label_tables import accuracy_table, utility_table
from reports.measured import MEASURED_NOTE, Measured, companion_table, measured_table
from reports.method_page import card_facts, collapse_facts, encoders, results_table
from reports.overview import compute_seconds, counts, environments, gaps, headline, recipe_table
from reports.panels import measured_panels, published_panels
from reports.places import method_path, slug
from reports.plots import draw, draw_multiples
from reports.probe_agreement import agreement_table
from reports.published_rows import PublishedRow, published_rows, short_name
from reports.spectra import spectrum_figures
from reports.table1 import LOWER_BOUND_NOTE, PUBLISHED_NOTE, published_table, side_by_side
from reports.ties import RULE
from reports.verdict import Verdict, verdicts

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

    from bench.plan import Plan

DOWNLOADS: tuple[tuple[Format, str, str], ...] = (
    ("csv", "csv", "CSV"),
    ("md", "md", "Markdown"),
    ("latex", "tex", "LaTeX"),
    ("json", "json", "JSON"),
)
LISTING = ".jointbench-report"
"""Names of the files of the last build, so that the next one removes those it no longer writes."""


@dataclass
class Site:
    """The pages and files of one build, by path relative to the site's root."""

    files: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, text: str) -> None:
        self.files[path] = text if text.endswith("\n") else text + "\n"

    def write(self, out: Path) -> None:
        """Write all files and remove those that an earlier build wrote and this one does not."""
        listing = out / LISTING
        earlier = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
        for path in sorted(set(earlier) - set(self.files)):
            if (out / path).resolve().is_relative_to(out.resolve()):
                (out / path).unlink(missing_ok=True)
        for path, text in self.files.items():
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        listing.write_text("\n".join(sorted(self.files)) + "\n", encoding="utf-8", newline="\n")


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
        rows: the store's rows.
        history: the store's history frame.
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
    site = Site()
    shared = _shared(plan, measured, suite)
    losses = {item.name: item for item in breakdowns(measured, history)}
    pages = _Pages(site=site, shared=shared, measured=measured, printed=printed, losses=losses)
    pages.index(verdicts(measured, predictions) if predictions else ())
    pages.images()
    pages.findings()
    pages.table1(agreement_table(measured, predictions))
    pages.methods()
    pages.breakdown(history)
    pages.diagnostics()
    pages.label_efficiency()
    pages.ablations()
    for key in dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results):
        if key in measured.methods:
            pages.method(key, history)
    pages.errata()
    pages.about()
    site.write(out)
    return out / "index.html"


@dataclass(frozen=True, kw_only=True)
class _Pages:
    """Makes the pages; templates place what it hands them."""

    site: Site
    shared: Mapping[str, Any]
    measured: Measured
    printed: tuple[PublishedRow, ...]
    losses: Mapping[str, Breakdown]

    @property
    def fits_table1(self) -> bool:
        """Whether the suite measures anything that Table 1 has a column for."""
        return bool(self.measured.shown)

    def index(self, found: Sequence[Verdict]) -> None:
        first = side_by_side(self.printed, self.measured) if self.fits_table1 else companion_table(self.measured)
        self._page(
            "index.html",
            title="Overview",
            verdicts=[{"words": item, "pairs": self._table(item.pairs) if item.pairs else None} for item in found],
            headline=headline(self.measured),
            counts=counts(self.measured),
            flags=collapse_flags(self.measured),
            gaps=gaps(self.measured),
            table=self._table(first) if first else None,
            fits_table1=self.fits_table1,
            recipes=self._table(recipe_table(self.measured)),
            environments=environments(self.measured),
            minutes=f"{compute_seconds(self.measured) / 60:.1f}",
            panels=(*measured_panels(linked_from_index(self.measured)), *published_panels(self.printed)),
        )

    def images(self) -> None:
        found: tuple[ImageSet, ...] = self.shared["image_sets"]
        sets = [
            {
                "words": item,
                "splits": self._table(item.splits),
                "classes": self._table(item.classes) if item.classes else None,
            }
            for item in found
        ]
        if sets:
            self._page("images.html", title="The images", sets=sets)

    def findings(self) -> None:
        found: tuple[Table, ...] = self.shared["finding_tables"]
        if found:
            self._page("findings.html", title="Findings", tables=[self._table(table) for table in found])

    def table1(self, agreement: Table | None) -> None:
        companion = companion_table(self.measured)
        tables = [side_by_side(self.printed, self.measured), measured_table(self.measured)] if self.fits_table1 else []
        tables += [table for table in (companion, agreement) if table]
        tables.append(published_table(self.printed))
        self._page(
            "table1.html",
            title="Table 1",
            fits_table1=self.fits_table1,
            tables=[self._table(table) for table in tables],
            panels=(*measured_panels(scored(self.measured)), *published_panels(self.printed)),
        )

    def methods(self) -> None:
        self._page(
            "methods.html",
            title="Methods",
            families=gallery(self.measured),
            table=self._table(comparison_table(self.measured)),
            panels=(),
        )

    def errata(self) -> None:
        items = load_errata()
        path = "downloads/errata.csv"
        self.site.add(path, errata_csv(items))
        concerned = {key: page_of(self.measured, key) for item in items for key in item.methods}
        self._page(
            "errata.html",
            title="Errata of the survey",
            items=items,
            severities=SEVERITIES,
            checks=CHECKS,
            pages={
                key: {"href": method_path(name), "title": self.measured.methods[key].title}
                for key, name in concerned.items()
                if name
            },
            numbers=path,
        )

    def breakdown(self, history: pd.DataFrame) -> None:
        items = tuple(self.losses.values())
        title = self.measured.method_title
        figures = [(breakdown_figure(item, title=title(item.name)), method_path(item.name)) for item in items]
        path = "downloads/breakdown-epochs.csv"
        self.site.add(path, epochs_csv(self.measured, history))
        self._page(
            "breakdown.html",
            title="Loss terms",
            figures=[{"figure": figure, "svg": draw(figure), "href": href} for figure, href in figures],
            table=self._table(breakdown_table(self.measured, items)) if items else None,
            numbers=path,
        )

    def diagnostics(self) -> None:
        table, audit = diagnostics_table(self.measured), audit_table(self.measured)
        if table or audit:
            self._page(
                "diagnostics.html",
                title="Diagnostics",
                flags=collapse_flags(self.measured),
                diagnostics=self._table(table) if table else None,
                audit=self._table(audit) if audit else None,
                quantities=QUANTITIES,
                panels=measured_panels(described(self.measured)),
            )

    def label_efficiency(self) -> None:
        found: tuple[label_efficiency.Study, ...] = self.shared["label_studies"]
        parts = []
        for study in found:
            figures = [(entry, method_figure(study, entry)) for entry in study.entries]
            drawn = [(entry, figure) for entry, figure in figures if figure is not None]
            panels = [figure for _, figure in drawn]
            whole = whole_figure(study, panels)
            tables = (
                utility_table(self.measured, study),
                accuracy_table(self.measured, study),
            )
            parts.append(
                {
                    "study": study,
                    "whole": {"figure": whole, "svg": draw_multiples(panels, whole)} if len(panels) > 1 else None,
                    "figures": [
                        {
                            "figure": figure,
                            "svg": draw(figure),
                            "href": method_path(entry.name),
                            "verdict": entry.headline,
                        }
                        for entry, figure in drawn
                    ],
                    "tables": [self._table(table) for table in tables],
                }
            )
        if found:
            self._page(
                "label_efficiency.html",
                title="Label efficiency",
                parts_of_page=parts,
                rules=LABEL_RULES,
                panels=measured_panels(label_efficiency.budgeted(self.measured)),
            )

    def ablations(self) -> None:
        found: tuple[ablations.Family, ...] = self.shared["studies"]
        if found:
            tables = [ablations.ablation_table(self.measured, family) for family in found]
            self._page(
                "ablations.html",
                title="Ablations",
                headline=ablations.headline(found),
                rules=ablations.RULES,
                tables=[self._table(table) for table in tables],
            )

    def method(self, key: str, history: pd.DataFrame) -> None:
        card = self.measured.methods[key]
        loss = self.losses.get(key)
        figures = [breakdown_figure(loss, title="Loss terms")] if loss else []
        identities = encoders(self.measured, key)
        figures += training_figures(history, identities, method=slug(key))
        audit = audit_table(self.measured, method=key)
        self._page(
            method_path(key),
            title=card.title,
            card=card,
            architecture=draw_architecture(card),
            words=caption(self.measured, key),
            facts=card_facts(card),
            collapse=collapse_facts(card),
            figures=[{"figure": figure, "svg": draw(figure)} for figure in figures],
            flags=[replace(flag, href="#training") for flag in collapse_flags(self.measured, method=key)],
            no_collapse=no_collapse(self.measured, history, identities, method=key),
            diagnostics=[self._table(table, base="../") for table in method_tables(self.measured, key)],
            spectra=[{"figure": f, "svg": draw(f)} for f in spectrum_figures(self.measured, key)],
            audit=self._table(audit, base="../") if audit else None,
            table=self._table(results_table(self.measured, key), base="../"),
            panels=measured_panels(self.measured, method=key),
        )

    def about(self) -> None:
        cited = dict.fromkeys(str(record["paper"]) for row in self.printed for record in row.values.values())
        cited |= dict.fromkeys(method.paper for method in self.measured.methods.values() if method.paper)
        papers = load_papers()
        self._page(
            "about.html",
            title="How to read this report",
            states=[mark for mark in STATES.values() if mark.meaning],
            marks=MARKS,
            confidence=CONFIDENCE_WORDS,
            rules=(RULE, MEASURED_NOTE, PUBLISHED_NOTE, LOWER_BOUND_NOTE),
            glossary=GLOSSARY,
            papers=[(papers[key], short_name(key)) for key in sorted(cited) if key in papers],
        )

    def _table(self, table: Table, *, base: str = "") -> dict[str, Any]:
        """A table's HTML with its downloads, which are written beside the pages."""
        links = []
        for form, suffix, label in DOWNLOADS:
            path = f"downloads/{table.key}.{suffix}"
            self.site.add(path, table.render(form))
            links.append({"href": base + path, "label": label})
        if table.citations:
            path = f"downloads/{table.key}.bib"
            self.site.add(path, bibtex(table.citations))
            links.append({"href": base + path, "label": "BibTeX"})
        return {"key": table.key, "title": table.title, "html": to_html(table, base=base), "links": links}

    def _page(self, path: str, **content: Any) -> None:
        base = "../" * path.count("/")
        text = (
            _environment()
            .get_template(path if "/" not in path else "method.html")
            .render({**self.shared, **content, "base": base, "here": path})
        )
        self.site.add(path, text)


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


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

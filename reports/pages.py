"""The pages of the report: each gathers what its template places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from bench.published import CONFIDENCE_WORDS, load_papers
from bench.published.errata import CHECKS, SEVERITIES, errata_csv, load_errata
from bench.published.works import REVIEW
from bench.table import MARKS, STATES, Format, Table
from bench.table_html import to_html
from reports import ablations, table2_beside, table2_measured
from reports.architecture import draw_architecture
from reports.bibtex import bibtex
from reports.breakdown import Breakdown, breakdown_figure, breakdown_table, epochs_csv
from reports.comparison import caption, comparison_table, gallery, page_of
from reports.contest import Loader
from reports.curves import training_figures
from reports.detection_configuration import configuration
from reports.detection_figures import iteration_figure, loss_figures, recall_figure
from reports.detection_gain import Gained, gain_sentences, gain_table
from reports.detection_page import Setting, sentences
from reports.detection_pictures import LEGEND, sheet
from reports.detection_seen import seen
from reports.detection_tables import class_table, size_table
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
from reports.files import Files
from reports.glossary import GLOSSARY
from reports.images import ImageSet
from reports.label_efficiency import Study, budgeted
from reports.label_figures import method_figure, whole_figure
from reports.label_tables import RULES as LABEL_RULES
from reports.label_tables import accuracy_table, utility_table
from reports.measured import MEASURED_NOTE, Measured, companion_table, measured_table
from reports.medical_layouts import Record
from reports.medical_pages import medical_content, table3_content
from reports.method_page import card_facts, collapse_facts, encoders, results_table
from reports.overview import compute_seconds, counts, environments, gaps, headline, recipe_table
from reports.panels import measured_panels, printed_panels, published_panels
from reports.places import method_path, slug
from reports.plots import draw, draw_multiples
from reports.published_rows import PublishedRow, short_name
from reports.spectra import spectrum_figures
from reports.table1 import LOWER_BOUND_NOTE, PUBLISHED_NOTE, published_table, side_by_side
from reports.table2 import published_tables
from reports.table2_measured import only_detection
from reports.table2_published import Printed
from reports.ties import RULE
from reports.verdict import Verdict
from reports.words import listed

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

DOWNLOADS: tuple[tuple[Format, str, str], ...] = (
    ("csv", "csv", "CSV"),
    ("md", "md", "Markdown"),
    ("latex", "tex", "LaTeX"),
    ("json", "json", "JSON"),
)


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Makes the pages; templates place what it hands them."""

    files: Files
    shared: Mapping[str, Any]
    measured: Measured
    printed: tuple[PublishedRow, ...]
    detectors: tuple[Printed, ...]
    medicine: tuple[Record, ...]
    losses: Mapping[str, Breakdown]

    @property
    def fits_table1(self) -> bool:
        """Whether the suite measures anything that Table 1 has a column for."""
        return bool(self.measured.shown)

    def index(self, found: Sequence[Verdict], gained: Gained) -> None:
        detection = table2_measured.measured_table(self.measured)
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
            table2=self._table(detection) if detection else None,
            gained=gain_sentences(gained),
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
                "objects": self._table(item.objects) if item.objects else None,
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

    def table2(self, gained: Gained) -> None:
        found = (
            table2_beside.side_by_side(self.detectors, self.measured),
            table2_measured.measured_table(self.measured),
            gain_table(self.measured, gained),
        )
        tables = [table for table in found if table]
        self._page(
            "table2.html",
            title="Table 2",
            measures=bool(tables),
            gained=gain_sentences(gained),
            tables=[self._table(table) for table in (*tables, *published_tables(self.detectors))],
            panels=(*measured_panels(only_detection(self.measured)), *printed_panels(self.detectors)),
        )

    def table3(self) -> None:
        self._page("table3.html", title="Table 3", **table3_content(self.measured, self._table))

    def medical(self) -> None:
        content = medical_content(self.medicine, self._table)
        self._page("medical.html", title="Medical imaging, as published", **content)

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
        self.files.add(path, errata_csv(items))
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
        self.files.add(path, epochs_csv(self.measured, history))
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
        found: tuple[Study, ...] = self.shared["label_studies"]
        if found:
            self._page(
                "label_efficiency.html",
                title="Label efficiency",
                parts_of_page=[self._study(study) for study in found],
                rules=LABEL_RULES,
                panels=measured_panels(budgeted(self.measured)),
            )

    def _study(self, study: Study) -> dict[str, Any]:
        """One setting of the protocol: all methods in one figure, the numbers, and a figure for each method."""
        figures = [(entry, method_figure(study, entry)) for entry in study.entries]
        drawn = [(entry, figure) for entry, figure in figures if figure is not None]
        panels = [figure for _, figure in drawn]
        whole = whole_figure(study, panels)
        return {
            "study": study,
            "whole": {"figure": whole, "svg": draw_multiples(panels, whole)} if len(panels) > 1 else None,
            "figures": [
                {"figure": figure, "svg": draw(figure), "href": method_path(entry.name), "verdict": entry.headline}
                for entry, figure in drawn
            ],
            "tables": [
                self._table(utility_table(self.measured, study)),
                self._table(accuracy_table(self.measured, study)),
            ],
        }

    def detection(self, predictions: Loader | None) -> None:
        found: tuple[Setting, ...] = self.shared["detection_settings"]
        if found:
            shown = [self._detection(setting, predictions) for setting in found]
            pictures = {key: symbol for item in shown for key, symbol in item["seen"].symbols.items()}
            self._page("detection.html", title="Detection", settings=shown, sheet=sheet(pictures), legend=LEGEND)

    def _detection(self, setting: Setting, predictions: Loader | None) -> dict[str, Any]:
        """One setting of the protocol: pictures, curves, values by class and size, and what it was told."""
        shown, told = seen(setting, predictions), configuration(setting)
        tried = iteration_figure(setting)
        figures = [*(recall_figure(setting, curves) for curves in shown.curves), *([tried] if tried else [])]
        tables = (class_table(self.measured, setting), size_table(self.measured, setting))
        return {
            "setting": setting,
            "sentences": tuple(sentences(setting)),
            "seen": shown,
            "left_out": listed(shown.left_out) if shown.left_out else "",
            "columns": [(title, f"score ≥ {least:.2f}" if least < 2 else "") for title, least in shown.methods.items()],
            "seeded": any(len(entry.results) > 1 for entry in setting.entries),
            "figures": [{"figure": figure, "svg": draw(figure)} for figure in figures],
            "tables": [self._table(table) for table in tables if table],
            "configuration": told,
            "configured": self._table(told.table),
        }

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
        figures += [*training_figures(history, identities, method=slug(key)), *loss_figures(self.measured, key)]
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
        cited |= dict.fromkeys((REVIEW, *(str(record["paper"]) for record in self.medicine)))
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
            self.files.add(path, table.render(form))
            links.append({"href": base + path, "label": label})
        if table.citations:
            path = f"downloads/{table.key}.bib"
            self.files.add(path, bibtex(table.citations))
            links.append({"href": base + path, "label": "BibTeX"})
        return {"key": table.key, "title": table.title, "html": to_html(table, base=base), "links": links}

    def _page(self, path: str, **content: Any) -> None:
        base = "../" * path.count("/")
        text = (
            _environment()
            .get_template(path if "/" not in path else "method.html")
            .render({**self.shared, **content, "base": base, "here": path})
        )
        self.files.add(path, text)


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

"""The static site: it opens from ``file://``, loads nothing from elsewhere, and equal inputs give equal bytes."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.card import MethodCard, ProtocolCard
from bench.published import CONFIDENCE_WORDS, load_papers
from bench.table import MARKS, STATES, Format, Table
from bench.table_html import to_html
from reports.bibtex import bibtex
from reports.curves import training_figures
from reports.measured import MEASURED_NOTE, Measured, companion_table, measured_table
from reports.method_page import card_facts, collapse_facts, encoders, results_table
from reports.overview import compute_seconds, counts, environments, gaps, headline, recipe_table
from reports.panels import measured_panels, published_panels
from reports.places import method_path, slug
from reports.plots import draw
from reports.published_rows import PublishedRow, published_rows, short_name
from reports.table1 import LOWER_BOUND_NOTE, PUBLISHED_NOTE, published_table, side_by_side
from reports.ties import RULE

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

    Returns:
        The path of ``index.html``.
    """
    measured = Measured.of(plan, rows, methods=methods, protocols=protocols, titles=titles or {})
    printed = published_rows(published)
    site = Site()
    shared = _shared(plan, measured, suite)
    pages = _Pages(site=site, shared=shared, measured=measured, printed=printed)
    pages.index()
    pages.table1()
    for key in dict.fromkeys(result.planned.spec.pretrain.name for result in measured.results):
        if key in measured.methods:
            pages.method(key, history)
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

    def index(self) -> None:
        self._page(
            "index.html",
            title="Overview",
            headline=headline(self.measured),
            counts=counts(self.measured),
            gaps=gaps(self.measured),
            table=self._table(side_by_side(self.printed, self.measured)),
            recipes=self._table(recipe_table(self.measured)),
            environments=environments(self.measured),
            minutes=f"{compute_seconds(self.measured) / 60:.1f}",
            panels=(*measured_panels(self.measured), *published_panels(self.printed)),
        )

    def table1(self) -> None:
        companion = companion_table(self.measured)
        tables = [side_by_side(self.printed, self.measured), measured_table(self.measured)]
        tables += [companion] if companion else []
        tables.append(published_table(self.printed))
        self._page(
            "table1.html",
            title="Table 1",
            tables=[self._table(table) for table in tables],
            panels=(*measured_panels(self.measured), *published_panels(self.printed)),
        )

    def method(self, key: str, history: pd.DataFrame) -> None:
        card = self.measured.methods[key]
        figures = training_figures(history, encoders(self.measured, key), method=slug(key))
        self._page(
            method_path(key),
            title=card.title,
            card=card,
            facts=card_facts(card),
            collapse=collapse_facts(card),
            figures=[{"figure": figure, "svg": draw(figure)} for figure in figures],
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
    }


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

"""Reports of a request: which rows they show, and whether the report on disk still holds."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.errors import RequestError
from bench.identity import digest
from bench.plan import Plan
from bench.storage import replace_file

if TYPE_CHECKING:
    from bench.registry import Catalog
    from bench.request import Request

STAMP = "build.json"


def _reports(module: str) -> Any:
    """A module of ``reports``, which stands above this package and is therefore looked up by name."""
    return importlib.import_module(f"reports.{module}")


def check_writable(out: Path) -> None:
    """Make the report's folder, so that hours of computing do not end at a place that cannot be written.

    Raises:
        RequestError: the folder cannot be made or written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise RequestError(f"{out}: the report cannot be written there: {error}. Choose another --out.") from error


def build_report(request: Request, plan: Plan, out: Path, *, anew: bool) -> tuple[Path, bool]:
    """Write the site under ``out``; returns its index, and if it was built.

    Args:
        anew: build it even when the one there is complete and shows exactly this.

    Raises:
        RequestError: ``out`` cannot be written.
    """
    check_writable(out)
    stamp = _stamp(request, plan)
    index = out / "index.html"
    if not anew and _is_complete(out, stamp):
        return index, False
    rows = shown_rows(plan, request.results.frame())
    _reports("site").build_site(
        out,
        plan=plan,
        rows=rows,
        history=request.results.history(sorted(set(rows["pretrain_identity"]))),
        published=_published(),
        suite=plan.suite,
        predictions=request.results.predictions,
        **_names(request.catalog),
    )
    pages = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.html"))
    replace_file(out / STAMP, json.dumps({"stamp": stamp, "pages": pages}).encode())
    return index, True


def render_tables(request: Request, numbers: Sequence[str], *, origin: str, format: str) -> str:
    """Comparison tables in one of the output formats; several in JSON are one list.

    Raises:
        RequestError: Table 2 or 3 alone was asked for, measured, and nothing measures it.
    """
    plan = request.plan(request.results.frame())
    rows = shown_rows(plan, request.results.frame())
    shared = {"plan": plan, "rows": rows, "published": _published(), **_names(request.catalog)}
    tables: list[Any] = []
    if "1" in numbers:
        tables.append(_reports("table1").build_table(origin, **shared))
    if "2" in numbers:
        tables += _reports("table2").build_tables(origin, **shared)
    if "3" in numbers:
        tables += _reports("table3").build_tables(origin, **shared)
    if not tables:
        raise RequestError(_without_tables(plan.suite, numbers))
    rendered = [str(table.render(format)) for table in tables]
    if format == "json" and len(rendered) > 1:
        return json.dumps([json.loads(text) for text in rendered], ensure_ascii=False, indent=1) + "\n"
    return "\n".join(rendered)


def _without_tables(suite: str, numbers: Sequence[str]) -> str:
    """Why a measured table has no values in this suite, and what to do."""
    if "2" in numbers:
        return (
            f"Table 2: the suite {suite} measures no detection. Choose a suite with the protocol `detection`, such as "
            "quick, or --origin published."
        )
    return (
        f"Table 3: the suite {suite} has no method that is made for medical images and none with pairs by metadata. "
        "Choose a suite with such a method, `medaug` for example, or --origin published."
    )


def shown_rows(plan: Plan, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows behind the plan's cells: the answer of a fresh cell, the earlier answer of a stale one, the failure of
    a failed one, and the pre-trainings of all of these."""
    wanted = {cell.identity.digest for cell in plan.cells} | {cell.stored for cell in plan.cells if cell.stored}
    cells = rows[rows["identity"].isin(wanted)]
    pretrainings = {cell.pretraining.digest for cell in plan.cells} | set(cells["pretrain_identity"])
    return rows[rows["identity"].isin(wanted | pretrainings)].reset_index(drop=True)


def _names(catalog: Catalog) -> dict[str, Any]:
    """Cards of methods and protocols, titles of datasets and backbones: what a report calls things."""
    return {
        "methods": {entry.key: entry.card for entry in catalog.methods},
        "protocols": {entry.key: entry.card for entry in catalog.protocols},
        "titles": {entry.key: entry.card.title for entry in (*catalog.datasets, *catalog.backbones)},
    }


def _published() -> pd.DataFrame:
    published: pd.DataFrame = importlib.import_module("bench.published").load_published()
    return published


def _stamp(request: Request, plan: Plan) -> str:
    """Digest of everything that a report shows: results, states, cards and the report's own source."""
    cells = [[cell.address, cell.identity.digest, cell.state, cell.reason, cell.command] for cell in plan.cells]
    names = repr(_names(request.catalog))
    words = plan.content.canonical_json()  # pages print its title, its summary and what each setting is to show
    return digest([request.results.digest(), cells, words, names, _source_digest()])


def _source_digest() -> str:
    content = hashlib.sha256()
    for package in ("reports", "bench.published"):
        spec = importlib.util.find_spec(package)
        assert spec is not None and spec.origin is not None
        for file in sorted(
            path for path in Path(spec.origin).parent.rglob("*") if path.is_file() and path.suffix != ".pyc"
        ):
            content.update(file.read_bytes())
    detection = (
        *("detection", "detection_curves", "detection_frames"),
        *("average_precision", "coco_precision", "matching"),
    )
    statistics = (*detection, "label_outcome", "paired", "proportion", "ranking", "utility", "weighted")
    computed = (f"statistics/{name}.py" for name in statistics)
    configured = ("detection/recipes.py", "detection/detectron2_config.py")
    for name in ("table.py", "table_html.py", "table_latex.py", "metric.py", *configured, *computed):
        content.update((Path(__file__).parent / name).read_bytes())
    return content.hexdigest()


def _is_complete(out: Path, stamp: str) -> bool:
    try:
        built = json.loads((out / STAMP).read_text())
        return built["stamp"] == stamp and all((out / page).is_file() for page in built["pages"])
    except (OSError, ValueError, KeyError, TypeError):
        return False

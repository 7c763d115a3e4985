"""The steps that several commands share: from options to a request, its computation and its report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from bench.plan import Plan, PlannedCell
    from bench.request import Request


def make_request(
    suite: str,
    methods: str,
    protocols: str,
    seeds: int | None,
    data: Path | None,
    dataset: str,
    store: str,
    plugin: list[Path] | None,
    *,
    labels: Path | None = None,
    data_param: Sequence[str] | None = None,
    **execution: Any,
) -> Request:
    """The request; an empty ``suite`` means ``quick``, or ``own`` for images of the user's own."""
    from bench.choice import default_suite
    from bench.request import Request

    return Request(
        suite=suite or default_suite(data, dataset),
        methods=_split(methods),
        protocols=_split(protocols),
        seeds=seeds,
        data=data,
        dataset=dataset,
        labels=labels,
        data_params=tuple(data_param or ()),
        store=store,
        plugins=tuple(plugin or ()),
        **execution,
    )


def bring_up_to_date(request: Request, out: Path) -> tuple[Plan, int]:
    """Compute what the store lacks, or all with ``--force``; returns the new plan and how many cells failed.

    Args:
        out: where the report will be written: that it can be is checked before anything is computed.
    """
    from bench.job import restore_training_rows
    from bench.plan import require_data
    from bench.reporting import check_writable

    plan = request.plan(request.results.frame())
    cells = plan.cells if request.force else plan.to_run
    require_data(cells)
    check_writable(out)
    failures = 0
    if cells:
        print(f"{plan.suite}: {counts(plan)}. Computing {number_of(len(cells), 'cell')}.", flush=True)
        failures = compute(request, plan.suite, cells)
        plan = request.plan(request.results.frame())
    else:
        print(f"{plan.suite}: nothing to do, all {number_of(len(plan.cells), 'cell')} fresh.")
    restore_training_rows(request.results, plan.cells)
    return plan, failures


def show_report(request: Request, out: Path) -> None:
    """Rebuild the report where it does not show the present state, and say where it is."""
    print_problems(request)
    index, built = build_whole_report(request, out)
    print(f"Report: {index.resolve()}{'' if built else ' (unchanged)'}")


def compute(request: Request, suite: str, cells: Sequence[PlannedCell]) -> int:
    """Run the cells under a progress view; returns how many failed."""
    from rich.console import Console

    from bench.progress import ProgressView
    from bench.runner import run as run_cells

    try:
        with ProgressView(len(cells), Console()) as view:
            run_cells(suite, cells, request.settings, view.notify, catalog=request.catalog)
    except KeyboardInterrupt:
        print("\njointbench: interrupted. What is finished is kept; run the same command to go on.", file=sys.stderr)
        raise typer.Exit(130) from None
    return view.failed


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def number_of(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def counts(plan: Plan) -> str:
    return ", ".join(f"{count} {state}" for state, count in plan.counts().items())


def build_whole_report(request: Request, out: Path, *, anew: bool = False) -> tuple[Path, bool]:
    """The report always shows the whole suite: what was left out of this run is not thrown out of it."""
    from dataclasses import replace

    from bench.reporting import build_report

    whole = replace(request, methods=(), protocols=())
    return build_report(whole, whole.plan(request.results.frame()), out, anew=anew)


def print_problems(request: Request) -> None:
    for problem in request.results.problems:
        print(problem, file=sys.stderr)


def exit_with_failures(plan: Plan, failures: int) -> None:
    failed = [cell for cell in plan.cells if cell.state == "failed"]
    if failed or failures:
        print(f"{number_of(max(len(failed), failures), 'cell')} failed:", file=sys.stderr)
        for cell in failed:
            print(f"  {cell.address}: {cell.reason}", file=sys.stderr)
        if not failed:
            print("  (the lines above tell the reasons; any earlier results are kept)", file=sys.stderr)
        raise typer.Exit(1)

"""The command line. Heavy imports stay inside the commands that need them: ``--help`` answers at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import bench
from bench.cli_store import STORE, StoreUrl, store_app
from bench.errors import JointbenchError

if TYPE_CHECKING:
    from bench.plan import Plan, PlannedCell
    from bench.request import Request

app = typer.Typer(
    name="jointbench",
    help="Which self-supervised method should I use on my images, how sure is that, and how many labels does it save?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(store_app, name="store")

SuiteArgument = Annotated[str, typer.Argument(metavar="SUITE", help="Key of a suite, or a YAML file.")]
Methods = Annotated[str, typer.Option(metavar="A,B", help="Only these methods.")]
Protocols = Annotated[str, typer.Option(metavar="P,Q", help="Only these protocols.")]
Seeds = Annotated[int | None, typer.Option(min=1, help="Number of seeds, instead of the suite's.")]
Data = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Class folders of images, or where --dataset lies."),
]
Dataset = Annotated[str, typer.Option(metavar="KEY", help="Dataset that replaces the suite's.")]
Plugins = Annotated[list[Path] | None, typer.Option("--plugin", metavar="FILE", help="A file that registers more.")]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where the report is written.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where to compute.")]
Devices = Annotated[int, typer.Option(min=1, help="Devices that share each pre-training, one process on each.")]
Workers = Annotated[int, typer.Option(min=0, help="Worker processes; 0 chooses by device and cores.")]
Threads = Annotated[int, typer.Option(min=0, help="Threads of each worker; 0 is one on a CPU.")]
Force = Annotated[bool, typer.Option("--force", help="Evaluate the chosen cells again, from the stored encoders.")]
Kind = Literal["methods", "protocols", "datasets", "backbones", "suites"]
NewKind = Literal["method", "protocol", "dataset"]
Origin = Literal["published", "measured", "both"]
Format = Literal["md", "csv", "latex", "json", "html"]

QUICK, REPORT = "quick", "jointbench-report"


@app.command()
def run(
    suite: SuiteArgument = QUICK,
    methods: Methods = "",
    protocols: Protocols = "",
    seeds: Seeds = None,
    data: Data = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    out: Out = Path(REPORT),
    plugin: Plugins = None,
    device: Device = "auto",
    devices: Devices = 1,
    workers: Workers = 0,
    threads: Threads = 0,
    force: Force = False,  # noqa: FBT002 (Typer passes options by name)
) -> None:
    """Compute every cell that is missing, stale or failed, then rebuild the report of the whole suite."""
    from bench.job import restore_training_rows
    from bench.reporting import check_writable

    request = _request(
        suite, methods, protocols, seeds, data, dataset, store, plugin,
        device=device, devices=devices, workers=workers, threads=threads, force=force,
    )  # fmt: skip
    plan = request.plan(request.results.frame())
    cells = plan.cells if force else plan.to_run
    check_writable(out)
    failures = 0
    if cells:
        print(f"{plan.suite}: {_counts(plan)}. Computing {_number(len(cells), 'cell')}.", flush=True)
        failures = _compute(request, plan.suite, cells)
        plan = request.plan(request.results.frame())
    else:
        print(f"{plan.suite}: nothing to do, all {_number(len(plan.cells), 'cell')} fresh.")
    restore_training_rows(request.results, plan.cells)
    _print_problems(request)
    index, built = _build_report(request, out)
    print(f"Report: {index.resolve()}{'' if built else ' (unchanged)'}")
    _exit_with_failures(plan, failures)


@app.command()
def plan(
    suite: SuiteArgument = QUICK,
    methods: Methods = "",
    protocols: Protocols = "",
    seeds: Seeds = None,
    data: Data = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    plugin: Plugins = None,
) -> None:
    """Show what would run, and why, and what it cost last time."""
    from bench.reporting import cost_in_words

    request = _request(suite, methods, protocols, seeds, data, dataset, store, plugin)
    rows = request.results.frame()
    planned = request.plan(rows)
    width = max(len(cell.address) for cell in planned.cells)
    for cell in planned.cells:
        state = f"stale({'|'.join(cell.stale)})" if cell.state == "stale" else cell.state
        print(f"{state:<14} {cell.address:<{width}}  {'' if cell.state == 'fresh' else cell.reason}".rstrip())
    print(f"\n{planned.suite}: {_counts(planned)}.{cost_in_words(planned, rows)}")
    _print_problems(request)


@app.command()
def why(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="Address of a cell, or a part that names just one.")],
    suite: Annotated[str, typer.Option(metavar="SUITE", help="Suite that the cell belongs to.")] = QUICK,
    seeds: Seeds = None,
    data: Data = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    plugin: Plugins = None,
) -> None:
    """Say what changed since a cell was computed, and print the command that recomputes it."""
    request = _request(suite, "", "", seeds, data, dataset, store, plugin)
    found = _find_cell(request.plan(request.results.frame()), cell)
    state = f"stale({'|'.join(found.stale)})" if found.state == "stale" else found.state
    print(f"{found.address}\n{state}: {found.reason}")
    for line in found.changes:
        print(f"  - {line}")
    print(f"spec {found.identity.spec[:12]}  code {found.identity.code[:12]}  data {found.identity.data[:12]}")
    print(f"Recompute: {found.command}")


@app.command()
def report(
    suite: SuiteArgument = QUICK,
    methods: Methods = "",
    protocols: Protocols = "",
    seeds: Seeds = None,
    data: Data = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    out: Out = Path(REPORT),
    plugin: Plugins = None,
) -> None:
    """Build the HTML report from what the store holds."""
    request = _request(suite, methods, protocols, seeds, data, dataset, store, plugin)
    index, _ = _build_report(request, out, anew=True)
    _print_problems(request)
    print(f"Report: {index.resolve()}")


@app.command()
def tables(
    number: Annotated[Literal["1", "all"], typer.Argument(help="Number of the table.")] = "all",
    origin: Annotated[Origin, typer.Option(help="Whose values.")] = "both",
    format: Annotated[Format, typer.Option(help="Output format.")] = "md",
    suite: Annotated[str, typer.Option(metavar="SUITE", help="Suite whose cells are shown.")] = QUICK,
    methods: Methods = "",
    seeds: Seeds = None,
    data: Data = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    plugin: Plugins = None,
) -> None:
    """Print a comparison table."""
    from bench.reporting import render_table

    request = _request(suite, methods, "", seeds, data, dataset, store, plugin)
    for table in ("1",) if number == "all" else (number,):
        print(render_table(request, table, origin=origin, format=format))
    _print_problems(request)


@app.command("list")
def list_entries(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
    plugin: Plugins = None,
) -> None:
    """List what is registered."""
    from bench.registry import discover
    from bench.suite import load_suite

    catalog = discover(plugin or ())
    if kind == "suites":
        lines = [(key, load_suite(path).title) for key, path in sorted(catalog.suites.items())]
    else:
        entries = catalog.registry(kind.removesuffix("s"))
        lines = [(entry.key, f"{entry.card.title}: {entry.card.summary}") for entry in entries]
    width = max((len(key) for key, _ in lines), default=0)
    for key, text in lines:
        print(f"{key:<{width}}  {text}")


@app.command()
def new(
    kind: Annotated[NewKind, typer.Argument(help="What to start.")],
    name: Annotated[str, typer.Argument(help="Its key, in lower case.")],
) -> None:
    """Write a runnable file to start from, and a test for it."""
    from bench.scaffold import scaffold

    made = scaffold(kind, name, Path.cwd())
    for path in made.files:
        print(f"Wrote {path}")
    print(made.next_step)


@app.command()
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that registers something.")]) -> None:
    """Run the contract battery on every method and protocol that a file registers."""
    from bench.scaffold import check_file

    failed = 0
    for entry, results in check_file(file):
        print(f"{entry.kind} {entry.key} ({entry.where})")
        for result in results:
            print(
                f"  {'ok  ' if result.ok else 'FAIL'} {result.name}"
                + ("" if result.ok else f"\n       {result.message}")
            )
            failed += not result.ok
    if failed:
        raise typer.Exit(1)


@app.command()
def doctor(store: StoreUrl = STORE, data: Data = None) -> None:
    """Check this machine: versions, device, memory, store, data, optional parts."""
    from bench.doctor import examine

    findings = examine(store, data)
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.subject}: {finding.text}")
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def version(value: bool) -> None:  # noqa: FBT001 (a Typer callback)
    if value:
        print(f"jointbench {bench.__version__}")
        raise typer.Exit


@app.callback()
def root(
    _version: Annotated[bool, typer.Option("--version", callback=version, is_eager=True, help="Print it.")] = False,  # noqa: FBT002
) -> None:
    pass


# --- shared by the commands -------------------------------------------------------------------------------------


def _request(
    suite: str,
    methods: str,
    protocols: str,
    seeds: int | None,
    data: Path | None,
    dataset: str,
    store: str,
    plugin: list[Path] | None,
    **execution: Any,
) -> Request:
    from bench.request import Request

    return Request(
        suite=suite,
        methods=_split(methods),
        protocols=_split(protocols),
        seeds=seeds,
        data=data,
        dataset=dataset,
        store=store,
        plugins=tuple(plugin or ()),
        **execution,
    )


def _compute(request: Request, suite: str, cells: Sequence[PlannedCell]) -> int:
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


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _counts(plan: Plan) -> str:
    return ", ".join(f"{count} {state}" for state, count in plan.counts().items())


def _find_cell(plan: Plan, name: str) -> PlannedCell:
    from bench.errors import RequestError, UnknownNameError

    found = [cell for cell in plan.cells if cell.address == name] or [c for c in plan.cells if name in c.address]
    if not found:
        raise UnknownNameError("cell", name, [cell.address for cell in plan.cells])
    if len(found) > 1:
        listing = ", ".join(cell.address for cell in found)
        raise RequestError(f"{name!r} names {len(found)} cells: {listing}. Name one of them.")
    return found[0]


def _build_report(request: Request, out: Path, *, anew: bool = False) -> tuple[Path, bool]:
    """The report always shows the whole suite: what was left out of this run is not thrown out of it."""
    from dataclasses import replace

    from bench.reporting import build_report

    whole = replace(request, methods=(), protocols=())
    return build_report(whole, whole.plan(request.results.frame()), out, anew=anew)


def _print_problems(request: Request) -> None:
    for problem in request.results.problems:
        print(problem, file=sys.stderr)


def _exit_with_failures(plan: Plan, failures: int) -> None:
    failed = [cell for cell in plan.cells if cell.state == "failed"]
    if failed or failures:
        print(f"{_number(max(len(failed), failures), 'cell')} failed:", file=sys.stderr)
        for cell in failed:
            print(f"  {cell.address}: {cell.reason}", file=sys.stderr)
        if not failed:
            print("  (the lines above tell the reasons; any earlier results are kept)", file=sys.stderr)
        raise typer.Exit(1)


def main() -> None:
    """Entry point of the command: a known error is one message and exit code 2, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character is no reason to fail
    try:
        app()
    except JointbenchError as error:
        print(f"jointbench: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

"""The command line. Heavy imports stay inside the commands that need them: ``--help`` answers at once."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import bench
from bench.cli_data import data_app
from bench.cli_options import (
    REPORT,
    Calibrate,
    Data,
    DataParams,
    Dataset,
    Device,
    Devices,
    Force,
    Format,
    Kind,
    Labels,
    Loaders,
    Methods,
    NewKind,
    Origin,
    Out,
    Plugins,
    Protocols,
    Seeds,
    SuiteArgument,
    SuiteOption,
    Threads,
    Workers,
)
from bench.cli_steps import (
    bring_up_to_date,
    build_whole_report,
    counts,
    exit_with_failures,
    make_request,
    number_of,
    print_problems,
    show_report,
)
from bench.cli_store import STORE, StoreUrl, store_app
from bench.cli_weights import evaluate, export
from bench.errors import JointbenchError

if TYPE_CHECKING:
    from bench.cost import Costs
    from bench.plan import Plan, PlannedCell

app = typer.Typer(
    name="jointbench",
    help="Which self-supervised method should I use on my images, how sure is that, and how many labels does it save?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(store_app, name="store")
app.add_typer(data_app, name="data")


@app.command()
def run(
    suite: SuiteArgument = "",
    methods: Methods = "",
    protocols: Protocols = "",
    seeds: Seeds = None,
    data: Data = None,
    labels: Labels = None,
    data_param: DataParams = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    out: Out = Path(REPORT),
    plugin: Plugins = None,
    device: Device = "auto",
    devices: Devices = 1,
    workers: Workers = 0,
    threads: Threads = 0,
    loaders: Loaders = 0,
    force: Force = False,  # noqa: FBT002 (Typer passes options by name)
) -> None:
    """Compute every cell that is missing, stale or failed, then rebuild the report of the whole suite."""
    request = make_request(
        suite, methods, protocols, seeds, data, dataset, store, plugin,
        labels=labels, data_param=data_param, device=device, devices=devices, workers=workers, threads=threads,
        loaders=loaders, force=force,
    )  # fmt: skip
    plan, failures = bring_up_to_date(request, out)
    show_report(request, out)
    exit_with_failures(plan, failures)


@app.command()
def plan(
    suite: SuiteArgument = "",
    methods: Methods = "",
    protocols: Protocols = "",
    seeds: Seeds = None,
    data: Data = None,
    labels: Labels = None,
    data_param: DataParams = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    plugin: Plugins = None,
    device: Device = "auto",
    workers: Workers = 0,
    threads: Threads = 0,
    calibrate: Calibrate = True,  # noqa: FBT002 (Typer passes options by name)
) -> None:
    """Show what would run, and why, and what it will cost: by the last run, else by a short calibration.

    Without the files of a published dataset its published sizes tell the price, and the exit code is 2.
    """
    from bench.cost import plan_costs

    request = make_request(
        suite, methods, protocols, seeds, data, dataset, store, plugin,
        labels=labels, data_param=data_param, device=device, workers=workers, threads=threads,
    )  # fmt: skip
    rows = request.results.frame()
    planned = request.plan(rows)
    costs = plan_costs(planned, rows, request.calibration() if calibrate and planned.to_run else None)
    _print_plan(planned, costs)
    print(f"\n{planned.suite}: {counts(planned)}. {costs.sentence(workers=request.planned_workers)}".rstrip())
    print_problems(request)
    _refuse_absent_data(planned)


@app.command()
def why(
    cell: Annotated[str, typer.Argument(metavar="CELL", help="Address of a cell, or a part that names just one.")],
    suite: SuiteOption = "",
    seeds: Seeds = None,
    data: Data = None,
    labels: Labels = None,
    data_param: DataParams = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    plugin: Plugins = None,
) -> None:
    """Say what changed since a cell was computed, and print the command that recomputes it."""
    request = make_request(suite, "", "", seeds, data, dataset, store, plugin, labels=labels, data_param=data_param)
    found = _find_cell(request.plan(request.results.frame()), cell)
    state = f"stale({'|'.join(found.stale)})" if found.state == "stale" else found.state
    print(f"{found.address}\n{state}: {found.reason}")
    for line in found.changes:
        print(f"  - {line}")
    print(f"spec {found.identity.spec[:12]}  code {found.identity.code[:12]}  data {found.identity.data[:12]}")
    print(f"Recompute: {found.command}")


@app.command()
def report(
    suite: SuiteArgument = "",
    methods: Methods = "",
    protocols: Protocols = "",
    seeds: Seeds = None,
    data: Data = None,
    labels: Labels = None,
    data_param: DataParams = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    out: Out = Path(REPORT),
    plugin: Plugins = None,
) -> None:
    """Build the HTML report from what the store holds."""
    request = make_request(
        suite, methods, protocols, seeds, data, dataset, store, plugin, labels=labels, data_param=data_param
    )
    index, _ = build_whole_report(request, out, anew=True)
    print_problems(request)
    print(f"Report: {index.resolve()}")


@app.command()
def tables(
    number: Annotated[Literal["1", "2", "3", "all"], typer.Argument(help="Number of the table.")] = "all",
    origin: Annotated[Origin, typer.Option(help="Whose values.")] = "both",
    format: Annotated[Format, typer.Option(help="Output format.")] = "md",
    suite: SuiteOption = "",
    methods: Methods = "",
    seeds: Seeds = None,
    data: Data = None,
    labels: Labels = None,
    data_param: DataParams = None,
    dataset: Dataset = "",
    store: StoreUrl = STORE,
    plugin: Plugins = None,
) -> None:
    """Print a comparison table: 1 is linear and semi-supervised evaluation, 2 detection, 3 medical imaging."""
    from bench.reporting import render_tables

    request = make_request(
        suite, methods, "", seeds, data, dataset, store, plugin, labels=labels, data_param=data_param
    )
    numbers = ("1", "2", "3") if number == "all" else (number,)
    print(render_tables(request, numbers, origin=origin, format=format))
    print_problems(request)


app.command()(evaluate)
app.command()(export)


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
    if kind == "datasets":
        from bench.cli_data import kept_lines

        lines += kept_lines()
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


def _print_plan(plan: Plan, costs: Costs) -> None:
    """Every cell with state, cost and reason; an encoder's training comes before its first cell."""
    from bench.plan import training_address_of

    width = max(len(cell.address) for cell in plan.cells)
    announced = set()
    for cell in plan.cells:
        training = training_address_of(cell.spec.pretrain)
        if training in costs.trainings and training not in announced:
            announced.add(training)
            print(f"{'train':<14} {training:<{width}}  {costs.trainings[training].words:>8}")
        state = f"stale({'|'.join(cell.stale)})" if cell.state == "stale" else cell.state
        cost = costs.cells[cell.address].words if cell.address in costs.cells else ""
        reason = "" if cell.state == "fresh" else cell.reason
        if cell.absent:  # the whole reason comes once, at the end
            reason = f"the data are not here: {', '.join(cell.absent)}"
        print(f"{state:<14} {cell.address:<{width}}  {cost:>8}  {reason}".rstrip())


def _refuse_absent_data(plan: Plan) -> None:
    """What is not here cannot be computed: the command ends as ``run`` would."""
    from bench.errors import DataError
    from bench.plan import require_data

    lacking = [cell for cell in plan.to_run if cell.absent]
    try:
        require_data(lacking)
    except DataError as error:
        part = "Nothing of this" if len(lacking) == len(plan.to_run) else f"{number_of(len(lacking), 'cell')}"
        names = ", ".join(dict.fromkeys(label for cell in lacking for label in cell.absent))
        raise DataError(
            f"{part} can run here yet, and the price rests on the published sizes of {names}: the data are not here. "
            f"{error}"
        ) from error


def _find_cell(plan: Plan, name: str) -> PlannedCell:
    from bench.errors import RequestError, UnknownNameError

    found = [cell for cell in plan.cells if cell.address == name] or [c for c in plan.cells if name in c.address]
    if not found:
        raise UnknownNameError("cell", name, [cell.address for cell in plan.cells])
    if len(found) > 1:
        listing = ", ".join(cell.address for cell in found)
        raise RequestError(f"{name!r} names {len(found)} cells: {listing}. Name one of them.")
    return found[0]


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

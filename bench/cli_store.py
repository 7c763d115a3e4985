"""The commands ``jointbench store …``: look at the result store and keep it sound."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from bench import DEFAULT_STORE

STORE = DEFAULT_STORE
StoreUrl = Annotated[str, typer.Option("--store", metavar="URL", help="Where results are kept.")]

store_app = typer.Typer(help="Look after the result store.", no_args_is_help=True)


@store_app.command()
def show(
    store: StoreUrl = STORE,
    format: Annotated[Literal["text", "csv"], typer.Option(help="Output format.")] = "text",
) -> None:
    """Print the stored rows."""
    from bench.store import Store

    held = Store(store)
    columns = ["status", "cell", "metric", "value", "low", "high", "n", "error_type", "finished_at"]
    frame = held.frame()[columns]
    if format == "csv":
        print(frame.to_csv(index=False), end="")
    else:
        print(frame.drop(columns="finished_at").to_string(index=False) if len(frame) else "The store is empty.")
    for problem in held.problems:
        print(problem, file=sys.stderr)


@store_app.command()
def verify(store: StoreUrl = STORE) -> None:
    """Check every checksum; damaged files go to quarantine."""
    from bench.store import Store

    problems = Store(store).verify()
    for problem in problems:
        print(problem)
    print(f"Problems found: {len(problems)}.")
    if problems:
        raise typer.Exit(1)


@store_app.command()
def compact(store: StoreUrl = STORE) -> None:
    """Join all parts into one file, without what newer results replace."""
    from bench.store import Store

    before, after = Store(store).compact()
    print(f"Parts: {before} before, {after} after.")

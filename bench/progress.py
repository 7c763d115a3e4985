"""What a user sees while jobs run: progress bars in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench.job import Event


class ProgressView:
    """Shows the events of a run: one bar for the plan and one for each running job.

    Args:
        total: number of cells to compute.
        console: where to print; bars only when it is a terminal.
    """

    def __init__(self, total: int, console: Console) -> None:
        self.console = console
        self.total = total
        self.done = 0
        self.failed = 0
        self.started = time.perf_counter()
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        if console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                console=console,
            )

    def __enter__(self) -> Self:
        if self.bars:
            self.bars.start()
            self.plan_task = self.bars.add_task("[bold]all cells", total=self.total, text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bars:
            self.bars.stop()

    def notify(self, event: Event) -> None:
        """Show one event."""
        if event.kind in ("finished", "failed"):
            self._close(event)
        elif event.kind == "waiting":
            self._line(f"{event.job}: {event.text}", mark="[yellow]waits[/]")
        elif self.bars:
            self._advance(event)
        elif event.kind == "progress" and _is_milestone(event):
            self._line(f"{event.job}: {event.done}/{event.total}, {event.text}")

    def _close(self, event: Event) -> None:
        self.done += event.is_cell
        self.failed += event.is_cell and event.kind == "failed"
        mark = "[red]failed[/]" if event.kind == "failed" else "[green]done[/]"
        self._line(f"{event.job}: {event.text}", mark=mark)
        if self.bars:
            self.bars.update(self.plan_task, completed=self.done)
            if event.job in self.tasks:
                self.bars.remove_task(self.tasks.pop(event.job))

    def _advance(self, event: Event) -> None:
        assert self.bars is not None
        if event.job not in self.tasks:
            self.tasks[event.job] = self.bars.add_task(escape(event.job), total=event.total or None, text="")
        self.bars.update(self.tasks[event.job], completed=event.done, text=escape(event.text))

    def _line(self, text: str, *, mark: str = "[blue]runs[/]") -> None:
        seconds = time.perf_counter() - self.started
        count = f"{self.done}/{self.total}"
        self.console.print(f"{seconds:6.0f} s  {count:>7}  {mark}  {escape(text)}", highlight=False, soft_wrap=True)


def _is_milestone(event: Event) -> bool:
    """Every quarter of a training, so that a log stays readable."""
    return event.total > 0 and event.done % max(1, event.total // 4) == 0

"""What a plan will cost: by the last run of the same job where there is one, else by a short calibration.

The calibration measures on this machine how long the suite's backbones take for an image, forward and forward with
backward, and how fast matrix products are; cards and protocols say how many of each a job needs. It takes seconds and
leaves out what is small: optimizer steps, losses, reading data. Its results are kept in the cache folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.plan import Plan, PlannedCell, training_address_of
from bench.spec import PretrainSpec, RunSpec

if TYPE_CHECKING:
    import pandas as pd

Source = Literal["last run", "calibration", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Seconds of one job in one process, or None where nothing tells."""

    seconds: float | None
    source: Source

    @property
    def words(self) -> str:
        """``about 3 min``; a question mark where nothing tells."""
        return "?" if self.seconds is None else duration(self.seconds)


UNKNOWN = Estimate(seconds=None, source="unknown")


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Estimates of everything that a plan is going to compute.

    Attributes:
        trainings: by address, each pre-training that has to run.
        cells: by address, each evaluation that has to run, without its pre-training.
    """

    trainings: Mapping[str, Estimate]
    cells: Mapping[str, Estimate]

    @property
    def seconds(self) -> float:
        """Sum of all that is known."""
        return sum(estimate.seconds or 0.0 for estimate in (*self.trainings.values(), *self.cells.values()))

    def sentence(self, *, workers: int) -> str:
        """The total in words, with where it comes from and what is not in it; empty when there is nothing to run."""
        every = [*self.trainings.values(), *self.cells.values()]
        if not every:
            return ""
        sources = Counter(estimate.source for estimate in every)
        if not self.seconds:
            return "No earlier run tells the cost."
        words = [f"About {duration(self.seconds)} of computing"]
        if workers > 1:
            words.append(f", {duration(self.seconds / workers)} with {workers} workers")
        words.append(f" (jobs estimated: {sources['last run']} by their last run, {sources['calibration']} by ")
        words.append(f"calibration, {sources['unknown']} not)." if sources["unknown"] else "calibration).")
        return "".join(words)


Calibrated = Callable[[PretrainSpec | RunSpec], float | None]
"""Seconds of a pre-training (a PretrainSpec) or of an evaluation (a RunSpec), None where nothing tells."""


def plan_costs(plan: Plan, rows: pd.DataFrame, calibrated: Calibrated | None) -> Costs:
    """The cost of everything that the plan has to compute.

    Args:
        rows: the store's frame.
        calibrated: estimates what no stored run tells; None leaves it unknown.
    """
    done = rows[rows["status"] == "ok"].drop_duplicates("identity").sort_values("finished_at", kind="stable")
    newest = done.drop_duplicates("cell", keep="last")
    last = dict(zip(newest["cell"], newest["seconds_total"], strict=True))
    stored = set(done["identity"])

    def estimate(address: str, spec: PretrainSpec | RunSpec) -> Estimate:
        if address in last:
            return Estimate(seconds=float(last[address]), source="last run")
        seconds = calibrated(spec) if calibrated else None
        return UNKNOWN if seconds is None else Estimate(seconds=seconds, source="calibration")

    trainings = {
        training_address_of(cell.spec.pretrain): estimate(training_address_of(cell.spec.pretrain), cell.spec.pretrain)
        for cell in _one_per_training(plan.to_run)
        if cell.pretraining.digest not in stored and cell.spec.pretrain.training is not None
    }
    return Costs(trainings=trainings, cells={cell.address: estimate(cell.address, cell.spec) for cell in plan.to_run})


def _one_per_training(cells: Sequence[PlannedCell]) -> Sequence[PlannedCell]:
    return tuple({cell.pretraining.digest: cell for cell in cells}.values())


def duration(seconds: float) -> str:
    """A time in the unit that a reader thinks in: ``0.4 s``, ``12 min``, ``5.2 h``, ``30 days``, ``4.5 years``."""
    for unit, size, limit in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 72), ("days", 86400, 730)):
        if seconds < size * limit:
            value = seconds / size
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    years = seconds / (365.25 * 86400)
    return f"{years:.1f} years" if years < 10 else f"{years:.0f} years"

"""Training of a detector of any engine, tries on validation scenes on the way, and what it finds in a split."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from bench.data.detection import DetectionSubset
from bench.detection.batches import SceneBatches
from bench.detection.detector import Built, Detector, Scene, Task
from bench.detection.finding import detect_all
from bench.detection.optimizer import average_statistics, build_optimizer, lr_scaling
from bench.detection.recipes import DetectionRecipe
from bench.errors import DataError, JobError
from bench.protocol import Workspace
from bench.provenance import peak_memory_mb
from bench.statistics.coco_precision import coco_evaluation
from bench.statistics.detection_frames import detection_frame, detections_in
from bench.training.distributed import (
    average_gradients,
    averaged,
    equal_everywhere,
    process_count,
    process_rank,
    wait_for_all,
)
from bench.training.norm import synchronize_batch_norm
from bench.training.randomness import isolated_rng, rng_state, set_rng_state

__all__ = ["Trained", "detect_all", "train_detector"]

CURVE_ROWS = 100
CHECK_EVERY = 10
"""Iterations after which losses are looked at: the device need not be waited for in between."""
QUICK_SAVE = 0.5
"""Seconds: what takes longer to save is saved less often in proportion. A published detector takes some seconds."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What came of a training.

    Attributes:
        detector: trained, in evaluation mode.
        recipe: that it followed.
        finite: False where the loss or a weight became NaN or infinite, which ended the training.
        validation_ap: box AP in percent on the validation scenes after the last iteration; None without any.
        curve: JSON rows: ``iteration`` (done), ``lr``, ``losses`` by name and their sum ``total`` (means since the row
            before), ``seconds`` since the start, ``memory_mb`` (peak of the process; ``device_memory_mb`` too on CUDA),
            and ``ap``, ``ap50`` where the validation scenes were tried.
        details: JSON: what the building recorded, devices, processes, the learning rate's scaling.
    """

    detector: Detector
    recipe: DetectionRecipe
    finite: bool
    validation_ap: float | None
    curve: list[dict[str, Any]]
    details: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """One candidate of a choice among learning rates, JSON-serializable."""
        return {
            "lr": self.recipe.lr,
            "applied_lr": self.recipe.applied_lr,
            "finite": self.finite,
            "validation_ap": self.validation_ap,
            "iterations": self.curve[-1]["iteration"] if self.curve else 0,
            "seconds": self.curve[-1]["seconds"] if self.curve else 0.0,
            "tries": [[row["iteration"], row["ap"], row["ap50"]] for row in self.curve if "ap" in row],
        }


def train_detector(
    built: Built,
    task: Task,
    train: DetectionSubset,
    validation: DetectionSubset,
    *,
    seed: int,
    trials: int,
    workspace: Workspace,
    run: tuple[int, int] = (0, 1),
) -> Trained:
    """Train in place, or go on where the workspace's checkpoint stopped: bit for bit on a CPU, in one process.

    All random draws follow from ``seed``; several runs with the same seed see the same scenes.

    Args:
        built: a detector of any engine.
        task: that it was built for.
        train: scenes to learn from.
        validation: scenes to try it on; perhaps none.
        trials: how often it is tried, evenly spread, the end included.
        workspace: keeps what is needed to go on, and is told about 100 times how far it is.
        run: number and count of the trainings of one evaluation, of which the checkpoint keeps all that are finished.

    Raises:
        SpecError: the batch cannot be divided over the processes, or a trained weight is in no parameter group.
        DataError: the scenes do not fit the encoder, cannot be read, or hold nothing to learn from.
        JobError: the processes do not start from the same weights.
    """
    _check_channels(task, train)
    with isolated_rng(seed, "detection training", device=task.device):
        return _Training(built, task, train, validation, seed, trials, workspace, run).run()


def _check_channels(task: Task, train: DetectionSubset) -> None:
    """Gray scenes get the channels of an encoder of color images; nothing else can be made to fit.

    Raises:
        DataError: it does not.
    """
    found, wanted = train.images.shape[-1], task.encoder.channels
    if found not in (1, wanted):
        raise DataError(
            f"detection: the scenes have {found} channels, the encoder takes {wanted}. Choose scenes with {wanted} "
            "channels, or an encoder that was pre-trained on images with the channels of the scenes."
        )


class _Training:
    """State of one training: everything that a checkpoint holds."""

    def __init__(
        self,
        built: Built,
        task: Task,
        train: DetectionSubset,
        validation: DetectionSubset,
        seed: int,
        trials: int,
        workspace: Workspace,
        run: tuple[int, int],
    ) -> None:
        self.built, self.task, self.recipe, self.validation = built, task, task.recipe, validation
        self.workspace, self.number, self.runs = workspace, *run
        self.detector = built.detector.to(task.device)
        self.batches = SceneBatches(train, self.recipe, seed=seed, device=task.device)
        self.left_out = len(train) - len(self.batches.rows)
        if self.recipe.batch_norm == "synchronized" and not self.detector.synchronized:
            synchronize_batch_norm(self.detector, task.device)
        self.optimizer = build_optimizer(self.detector, self.recipe)
        self.tries = _spread(self.recipe.iterations, trials) if len(validation) else frozenset()
        self.iteration = 0
        self.names: tuple[str, ...] = ()
        self.pending: list[Tensor] = []  # unchecked rows (terms,) on the device
        self.checked: list[list[float]] = []  # rows since the last one of the curve
        self.curve: list[dict[str, Any]] = []
        self.finite = True
        self.seconds = 0.0  # before this process took over
        self.saving = 0.0  # seconds that the last save took
        self.resumed: list[int] = []
        self.finished: list[dict[str, Any]] = []  # the trainings of this evaluation that are over

    def run(self) -> Trained:
        over = self.restore()
        self.check_processes()
        self.started = self.saved = time.perf_counter()
        if not over:
            self.iterate()
            self.finish()
        self.detector.eval()
        return Trained(
            detector=self.detector,
            recipe=self.recipe,
            finite=self.finite,
            validation_ap=self.curve[-1].get("ap") if self.finite and self.curve else None,
            curve=self.curve,
            details=self.details(),
        )

    def iterate(self) -> None:
        total = self.recipe.iterations
        rows = _spread(total, CURVE_ROWS) | self.tries
        self.detector.train()
        with closing(self.batches.starting_at(self.iteration)) as batches:
            while self.finite and self.iteration < total:
                self.step(next(batches))
                due = self.iteration in rows
                if due or len(self.pending) == CHECK_EVERY:
                    self.collect()
                    if self.finite and due:
                        self.note()
                    if self.finite and self.iteration < total:
                        self.save_in_time()

    def step(self, scenes: Sequence[Scene]) -> None:
        """One optimizer step."""
        factor = self.recipe.factor(self.iteration)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        self.iteration += 1
        try:
            terms = self.detector.losses(scenes)
        except FloatingPointError:  # how Detectron2 says that proposals are no numbers
            if process_count() > 1:
                raise
            self.finite = False
            return
        self.check_names(terms)
        total = torch.stack(tuple(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        average_gradients(self.detector.parameters())
        self.optimizer.step()
        average_statistics(self.detector)
        self.pending.append(torch.stack([*(term.detach() for term in terms.values()), total.detach()]))

    def check_names(self, terms: dict[str, Tensor]) -> None:
        names = tuple(terms)
        if not names or (self.names and names != self.names):
            raise TypeError(
                f"{type(self.detector).__name__}.losses must return the same named terms at every step; it returned "
                f"{list(names)} after {list(self.names)}."
            )
        self.names = names

    def collect(self) -> None:
        """Bring losses to the CPU; one that is not finite ends the training."""
        if self.pending:
            rows = averaged(torch.stack(self.pending).double()).cpu()
            self.pending = []
            self.finite = self.finite and bool(rows.isfinite().all())
            self.checked += rows.tolist()

    def note(self) -> None:
        """A row of the curve; where it is time, with a try on the validation scenes."""
        *means, total = torch.tensor(self.checked, dtype=torch.float64).mean(dim=0).tolist()
        self.checked = []
        row: dict[str, Any] = {
            "iteration": self.iteration,
            "lr": self.recipe.applied_lr * self.recipe.factor(self.iteration - 1),
            "losses": dict(zip(self.names, means, strict=True)),
            "total": total,
        }
        last = self.iteration == self.recipe.iterations
        if last or self.iteration in self.tries:
            self.finite = all(bool(weight.isfinite().all()) for weight in self.detector.parameters())
        if last and self.finite:
            self.detector.finish(self.further_batches)
            average_statistics(self.detector.train())
        if self.iteration in self.tries and self.finite:
            row["ap"], row["ap50"] = self.try_out()
        row["seconds"] = round(self.elapsed(), 3)
        row["memory_mb"] = round(peak_memory_mb(), 1)
        if self.task.device == "cuda":
            row["device_memory_mb"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
        self.curve.append(row)
        self.report()

    def further_batches(self, count: int) -> Iterator[list[Scene]]:
        """``count`` batches that come after those of the training."""
        with closing(self.batches.starting_at(self.recipe.iterations)) as batches:
            yield from islice(batches, count)

    def try_out(self) -> tuple[float | None, float | None]:
        """AP and AP50 on the validation scenes; None where they hold no object that counts."""
        found = detect_all(self.detector, self.validation, self.recipe, device=self.task.device)
        frame = detection_frame(self.validation, found, pictures=0)
        evaluation = coco_evaluation(
            self.validation.objects,
            detections_in(frame),
            self.validation.scenes.sizes,
            classes=len(self.task.class_names),
            kind="box",
        )
        ap, ap50 = (evaluation.average_precision(overlap=overlap) for overlap in (None, 0.5))
        return (None if math.isnan(ap) else ap), (None if math.isnan(ap50) else ap50)

    def report(self) -> None:
        total = self.recipe.iterations
        tried = [row["ap"] for row in self.curve if row.get("ap") is not None]
        text = f"loss {self.curve[-1]['total']:.3g}" + (f", AP {tried[-1]:.1f}" if tried else "")
        if self.runs > 1:
            text = f"lr {self.recipe.lr:g}: {text}"
        if process_rank() == 0:
            self.workspace.report(self.number * total + self.iteration, self.runs * total, text)

    def elapsed(self) -> float:
        return self.seconds + time.perf_counter() - self.started

    def details(self) -> dict[str, Any]:
        return {
            **self.built.details,
            "device": self.task.device,
            "processes": process_count(),
            "scenes_per_process": self.batches.own,
            "lr_scaling": lr_scaling(self.recipe),
            "training_scenes": len(self.batches.rows),
            "scenes_without_objects": self.left_out,
            "resumed_at": list(self.resumed),
        }

    def check_processes(self) -> None:
        """All processes are at the same place; from there on they do the same."""
        place = torch.tensor(self.iteration, device=self.task.device)
        if not equal_everywhere([place, *self.detector.parameters(), *self.detector.buffers()]):
            raise JobError(
                f"detection: the {process_count()} processes do not start from the same weights. A detector must draw "
                "its initial weights from torch's, NumPy's or Python's global generators, which are seeded."
            )

    def save_in_time(self) -> None:
        file = self.workspace.checkpoint
        if file is None or process_rank() or self.pending:
            return
        began = time.perf_counter()
        if began - self.saved < file.every_seconds * max(1.0, self.saving / QUICK_SAVE):
            return
        file.save(
            {
                "finished": self.finished,
                "unfinished": {
                    "number": self.number,
                    "iteration": self.iteration,
                    "detector": self.detector.state_dict(),
                    "optimizer": self.optimizer.state_dict(),
                    "rng": rng_state(self.task.device),
                    "names": list(self.names),
                    "checked": self.checked,
                    "curve": self.curve,
                    "seconds": self.elapsed(),
                    "resumed": self.resumed,
                },
            }
        )
        self.saved = time.perf_counter()
        self.saving = self.saved - began

    def finish(self) -> None:
        """Keep the finished training: another learning rate may come after it, and the test scenes do."""
        if self.workspace.checkpoint is None:
            return
        own = {
            "finite": self.finite,
            "detector": self.detector.state_dict(),
            "curve": self.curve,
            "resumed": self.resumed,
        }
        self.finished = [*self.finished[: self.number], own]
        if process_rank() == 0:
            self.workspace.checkpoint.save({"finished": self.finished, "unfinished": None})
        wait_for_all(self.task.device)

    def restore(self) -> bool:
        """Take over what the checkpoint holds; whether this training is over already."""
        state = self.workspace.checkpoint.load() if self.workspace.checkpoint else None
        if state is None:
            return False
        self.finished = state["finished"]
        if len(self.finished) > self.number:
            own = self.finished[self.number]
            self.finite = own["finite"]
            self.iteration = self.recipe.iterations
        elif state["unfinished"] and state["unfinished"]["number"] == self.number:
            own = state["unfinished"]
            self.optimizer.load_state_dict(own["optimizer"])
            set_rng_state(own["rng"], self.task.device)
            self.iteration, self.seconds, self.checked = own["iteration"], own["seconds"], own["checked"]
            self.names = tuple(own["names"])
        else:
            return False
        self.detector.load_state_dict(own["detector"])
        self.curve, self.resumed = own["curve"], own["resumed"]
        if self.iteration < self.recipe.iterations:
            self.resumed = [*self.resumed, self.iteration]
            return False
        return True


def _spread(total: int, count: int) -> frozenset[int]:
    """``count`` numbers up to ``total``, evenly spread, the last included."""
    return frozenset(-(-total * (k + 1) // count) for k in range(count))

"""The pre-training loop on Lightning Fabric.

One step: pick images, make views, sum the method's named terms, step, ``method.after_step``. Losses stay on the device
until the end of an epoch (at most ``CHECK_EVERY`` steps), so that no step waits for it.

Several processes run the same loop on parts of every batch. Random states, weights, checks and decisions are the same
in all of them; batch norm, losses and gradients are those of the whole batch (``distributed.py``, ``norm.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from numpy.typing import NDArray
from torch import Tensor

from bench.data.dataset import Images
from bench.errors import CollapseError, JobError, SpecError, TrainingError
from bench.spec import PretrainSpec, TrainingSpec
from bench.training.batches import Batches
from bench.training.checkpoint import CheckpointFile
from bench.training.diagnostics import Spread, diagnostic_terms, measured_spread
from bench.training.distributed import average_gradients, averaged, equal_everywhere, process_count, process_rank
from bench.training.health import CollapseWatch, check_parameters, check_terms
from bench.training.history import EpochRecord, HistoryRow, Kind, TrainingResult
from bench.training.layout import to_channels_last
from bench.training.method import Method
from bench.training.norm import synchronize_batch_norm
from bench.training.optimizers import build_optimizer, scaled_lr
from bench.training.pairing import Pairing
from bench.training.precision import true_float32
from bench.training.randomness import isolated_rng, rng_state, set_rng_state
from bench.training.schedule import Schedule, set_learning_rates

CHECK_EVERY = 100
TOTAL = "total"


def pretrain(
    method: Method,
    spec: PretrainSpec,
    images: Images,
    labels: NDArray[np.int64] | None,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: str = "cpu",
    checkpoint: CheckpointFile | None = None,
    progress: Callable[[EpochRecord], None] | None = None,
    pairing: Pairing | None = None,
    sides: NDArray[np.int64] | None = None,
) -> TrainingResult:
    """Train ``method`` in place on the training split.

    Within a process group all processes call this with the same arguments and end with the same weights: those of one
    process on the same batches, up to rounding. (A method that draws random numbers for the rows of its batch has to
    draw them for the whole batch.) Only the first process needs ``progress``; only it writes the checkpoint. The same
    spec, images and number of threads give the same weights bit for bit on a CPU, whether or not the training was
    interrupted and resumed. Global random states are as before afterwards.

    Args:
        method: freshly initialized; it ends on ``device``, in training mode.
        spec: what is trained; ``spec.training`` is the recipe.
        images: (n, H, W, C) uint8 or uint16.
        labels: (n,) int64; they reach the method only if its card says ``uses_labels``.
        mean, std: per channel, on the [0, 1] scale.
        device: ``cpu`` or ``cuda``; of several processes each takes the CUDA device of its rank.
        checkpoint: where to save and resume, or None; the caller deletes it when the result is safe.
        progress: called after each epoch, once it is saved.
        pairing, sides: of these images, see :class:`bench.training.batches.Batches`; sides reach only such a method.

    Raises:
        SpecError: recipe, views, batch or device do not fit the method or the data.
        DivergenceError, CollapseError: a loss or a parameter is not finite; all embeddings became the same vector.
        JobError, DataError: the processes do not start from the same weights; an image cannot be read.
    """
    training = _checked_recipe(method, spec, labels, device)
    arithmetic = true_float32() if training.precision == "32-true" else nullcontext()
    with isolated_rng(spec.seed, "training", device=device), arithmetic:
        fabric = Fabric(
            accelerator=device,
            devices=[process_rank()] if device == "cuda" else 1,
            precision=training.precision,
            plugins=[LightningEnvironment()],
        )
        batches = Batches(
            spec,
            images,
            labels if method.card.uses_labels else None,
            views=method.card.view_count(spec.method_params),
            mean=mean,
            std=std,
            device=fabric.device,
            pairing=pairing,
            sides=sides if method.card.uses_laterality else None,
        )
        with batches:
            return _Training(fabric, method, training, batches, device).run(checkpoint, progress)


def _checked_recipe(method: Method, spec: PretrainSpec, labels: NDArray[np.int64] | None, device: str) -> TrainingSpec:
    if spec.training is None:
        raise SpecError(f"Method {spec.method!r} has no training recipe. Add `training` to its spec.")
    if device not in ("cpu", "cuda"):
        raise SpecError(f"Device {device!r} is not supported. Choose cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise SpecError("Device 'cuda' was asked for and torch finds none. Choose --device cpu.")
    if device == "cpu" and spec.training.precision == "16-mixed":
        raise SpecError("Precision 16-mixed needs a CUDA device. On a CPU choose bf16-mixed or 32-true.")
    if method.card.uses_labels and labels is None:
        raise SpecError(f"Method {spec.method!r} learns from labels and dataset {spec.data.key!r} gives none.")
    return spec.training


class _Training:
    """State of one training: everything that a checkpoint holds."""

    def __init__(self, fabric: Fabric, method: Method, training: TrainingSpec, batches: Batches, device: str) -> None:
        self.fabric, self.method, self.training, self.batches, self.device = fabric, method, training, batches, device
        # Convolutions are 6 to 39 % faster in this layout on a CPU, and under mixed precision on a GPU.
        to_channels_last(method)
        self.model = fabric.setup_module(method.train())  # casts for 64-true, so the optimizer comes after it
        synchronize_batch_norm(method, device)
        self.peak = scaled_lr(training)
        self.bare_optimizer = build_optimizer(_covering_groups(method), training)
        wrapped = fabric.setup_optimizers(self.bare_optimizer)
        assert not isinstance(wrapped, tuple)
        self.optimizer = wrapped
        self.schedule = Schedule.of(training, steps_per_epoch=len(batches))
        self.epoch = 0
        self.history: list[HistoryRow] = []
        self.seconds = {"data_wait": 0.0, "compute": 0.0, "checkpoint": 0.0}
        self.names: tuple[str, ...] = ()
        self.collapse = ""
        self.watch = CollapseWatch(epochs=training.epochs, remedy=method.card.complete_collapse)

    def run(self, checkpoint: CheckpointFile | None, progress: Callable[[EpochRecord], None] | None) -> TrainingResult:
        if checkpoint is not None and (state := checkpoint.load()) is not None:
            self.restore(state)
        self.check_processes()
        saved = time.perf_counter()
        while self.epoch < self.training.epochs:
            record = self.run_epoch_or_tell()
            due = checkpoint is not None and time.perf_counter() - saved >= checkpoint.every_seconds
            if checkpoint is not None and due and process_rank() == 0:
                saved = self.save(checkpoint)
            if progress is not None:
                progress(record)
        working = self.seconds["data_wait"] + self.seconds["compute"]
        seen = self.schedule.total_steps * self.batches.size
        return TrainingResult(
            history=self.history,
            seconds=dict(self.seconds),
            images_per_second=seen / working,
            steps=self.schedule.total_steps,
            collapse=self.collapse,
        )

    def run_epoch_or_tell(self) -> EpochRecord:
        """One epoch; an error that ends the training takes the history with it."""
        try:
            return self.run_epoch()
        except TrainingError as error:
            error.history = tuple(self.history)
            raise

    def run_epoch(self) -> EpochRecord:
        """One pass over the data, then the checks: nothing unhealthy is ever saved."""
        started = time.perf_counter()
        self.batches.start_epoch(self.epoch)
        self.seconds["data_wait"] += time.perf_counter() - started
        losses: list[Tensor] = []  # checked rows (steps, terms) on the CPU
        pending: list[Tensor] = []  # unchecked rows (terms,) on the device
        spreads: dict[str, Spread] = {}
        for step in range(len(self.batches)):
            first, last = self.epoch == step == 0, step == len(self.batches) - 1
            pending.append(self.run_step(step, spreads if first or last else None))
            if first or last or len(pending) == CHECK_EVERY:
                losses.append(self.collect(pending, sum(map(len, losses))))
                pending = []
            if first:
                self.watch_for_collapse(spreads, loss=float(losses[0][0, -1]))
        self.epoch += 1
        check_parameters(self.method, epoch=self.epoch, training=self.training)
        means = dict(zip(self.names, torch.cat(losses).mean(dim=0).tolist(), strict=True))
        self.note("term", means)
        self.note("diagnostic", diagnostic_terms(spreads))
        last_step = self.epoch * len(self.batches) - 1
        self.note("schedule", {"lr": self.peak * self.schedule.factor(last_step)})
        total = means.pop(TOTAL)
        self.watch_for_collapse(spreads, loss=total)
        spent = time.perf_counter() - started
        return EpochRecord(epoch=self.epoch, epochs=self.training.epochs, terms=means, total=total, seconds=spent)

    def run_step(self, step: int, spreads: dict[str, Spread] | None) -> Tensor:
        """One optimizer step; returns the detached terms and their sum, still on the device."""
        started = time.perf_counter()
        views, labels = self.batches.load(self.epoch, step)
        loaded = time.perf_counter()
        done = self.epoch * len(self.batches) + step
        set_learning_rates(self.bare_optimizer, peak=self.peak, factor=self.schedule.factor(done))
        with nullcontext() if spreads is None else measured_spread(self.method, spreads):
            terms = self.model(views) if labels is None else self.model(views, labels)
        self.check_names(terms)
        total = torch.stack(tuple(terms.values())).sum()
        self.fabric.backward(total)
        average_gradients(self.method.parameters())
        if self.training.clip_grad_norm:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.training.clip_grad_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.method.after_step(done + 1, self.schedule.total_steps)
        row = torch.stack([*(term.detach() for term in terms.values()), total.detach()])
        self.seconds["data_wait"] += loaded - started
        self.seconds["compute"] += time.perf_counter() - loaded
        return row

    def check_names(self, terms: Any) -> None:
        """A method returns the same named scalars at every step."""
        names = (*terms, TOTAL) if isinstance(terms, dict) else ()
        if self.names and names == self.names:
            return
        scalars = isinstance(terms, dict) and all(isinstance(t, Tensor) and t.ndim == 0 for t in terms.values())
        if self.names or not terms or not scalars or TOTAL in terms:
            raise TypeError(
                f"{type(self.method).__name__}.forward must return a dict of named scalar loss terms, the same names "
                f"at every step and none called {TOTAL!r}; it returned {terms!r}."
            )
        self.names = names

    def collect(self, pending: list[Tensor], done: int) -> Tensor:
        """Bring losses to the CPU and end the training if one is not finite."""
        started = time.perf_counter()
        values = averaged(torch.stack(pending).double()).cpu()  # waits for the device
        self.seconds["compute"] += time.perf_counter() - started
        check_terms(values, self.names, epoch=self.epoch + 1, first_step=done + 1, training=self.training)
        return values

    def check_processes(self) -> None:
        """All processes are at the same place; from there on they do the same."""
        place = torch.tensor(self.epoch, device=self.fabric.device)
        if not equal_everywhere([place, *self.method.parameters(), *self.method.buffers()]):
            raise JobError(
                f"The {process_count()} processes of this training do not start from the same weights. A method must "
                "draw its initial weights from torch's, NumPy's or Python's global generators, which are seeded."
            )

    def watch_for_collapse(self, spreads: dict[str, Spread], *, loss: float) -> None:
        """Remember the evidence of a collapse, or end the training with it."""
        self.collapse = self.watch.observe(spreads, epoch=self.epoch, loss=loss)
        if self.collapse and self.training.on_collapse == "stop":
            raise CollapseError(self.collapse)

    def note(self, kind: Kind, values: dict[str, float]) -> None:
        self.history += [HistoryRow(epoch=self.epoch, kind=kind, term=k, value=v) for k, v in values.items()]

    def save(self, checkpoint: CheckpointFile) -> float:
        """Write the checkpoint; returns the time at which that was done."""
        started = time.perf_counter()
        checkpoint.save(
            {
                "epoch": self.epoch,
                "method": self.method.state_dict(),
                "optimizer": self.bare_optimizer.state_dict(),
                "precision": self.fabric.strategy.precision.state_dict(),
                "rng": rng_state(self.device),
                "history": [(row.epoch, row.kind, row.term, row.value) for row in self.history],
                "seconds": self.seconds,
                "names": self.names,
                "watch": self.watch.state(),
                "collapse": self.collapse,
            }
        )
        ended = time.perf_counter()
        self.seconds["checkpoint"] += ended - started
        return ended

    def restore(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state["method"])
        self.bare_optimizer.load_state_dict(state["optimizer"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.history = [HistoryRow(epoch=e, kind=k, term=t, value=v) for e, k, t, v in state["history"]]
        self.seconds, self.names, self.epoch = state["seconds"], state["names"], state["epoch"]
        self.watch.restore(state["watch"])
        self.collapse = state["collapse"]
        set_rng_state(state["rng"], self.device)


def _covering_groups(method: Method) -> list[dict[str, Any]]:
    """The method's parameter groups, which must hold every trained parameter."""
    groups = method.parameter_groups()
    held = {id(parameter) for group in groups for parameter in group.get("params", ())}
    left = [
        name for name, parameter in method.named_parameters() if parameter.requires_grad and id(parameter) not in held
    ]
    if left:
        raise SpecError(
            f"{type(method).__name__}.parameter_groups() leaves out {left}, which would stay untrained. "
            "Add them to a group, or freeze them with requires_grad_(False)."
        )
    return groups

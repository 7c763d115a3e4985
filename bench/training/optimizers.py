"""Optimizers: SGD, Adam and AdamW from torch, LARS, and how a recipe becomes one of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.errors import SpecError
from bench.spec import TrainingSpec

REFERENCE_BATCH = 256
GROUP_KEYS = frozenset({"params", "lr_scale", "constant_lr"})


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (arXiv:1708.03888), in the form of the VICReg and Barlow Twins authors.

    For each parameter p with gradient g::

        d = g + weight_decay * p
        q = eta * |p| / |d|         (1 where either norm is 0)
        m = momentum * m + q * d
        p = p - lr * m

    Args:
        params: parameters or groups of parameters.
        lr: learning rate.
        momentum: coefficient of the running sum m.
        weight_decay: coefficient of the L2 penalty; with 0 the rate is still adapted.
        eta: trust coefficient.
        exclude_1d: parameters with fewer than two dimensions (biases, normalization) get no decay and q = 1.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eta: float = 1e-3,
        exclude_1d: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "eta": eta,
            "exclude_1d": exclude_1d,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step; parameters without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: Mapping[str, Any], params: list[Tensor]) -> None:
        adapted = [p for p in params if p.ndim > 1 or not group["exclude_1d"]]
        plain = [p for p in params if p.ndim <= 1 and group["exclude_1d"]]
        updates = _trusted_updates(adapted, eta=group["eta"], weight_decay=group["weight_decay"]) if adapted else []
        updates += [p.grad for p in plain if p.grad is not None]
        params = adapted + plain
        buffers = [self._momentum_buffer(p) for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(params, buffers, alpha=-group["lr"])

    def _momentum_buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _trusted_updates(params: list[Tensor], *, eta: float, weight_decay: float) -> list[Tensor]:
    """q * (g + weight_decay * p) for each parameter, without waiting for the device."""
    gradients = [p.grad for p in params if p.grad is not None]
    decayed = list(torch._foreach_add(gradients, params, alpha=weight_decay))
    weight_norms = torch.stack(torch._foreach_norm(params))
    update_norms = torch.stack(torch._foreach_norm(decayed))
    trust = torch.where((weight_norms > 0) & (update_norms > 0), eta * weight_norms / update_norms, 1.0)
    torch._foreach_mul_(decayed, list(trust.unbind()))
    return decayed


def scaled_lr(training: TrainingSpec) -> float:
    """The peak learning rate: base rate times batch/256 (``linear``), its root (``sqrt``) or 1 (``none``)."""
    ratio = training.batch_size / REFERENCE_BATCH
    factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[training.lr_scaling]
    return training.lr * factor


def build_optimizer(groups: Sequence[Mapping[str, Any]], training: TrainingSpec) -> torch.optim.Optimizer:
    """Make the recipe's optimizer.

    Args:
        groups: as of :meth:`bench.training.method.Method.parameter_groups`.
        training: recipe; its ``exclude_1d`` splits each group, so that parameters with fewer than two dimensions get
            no weight decay.

    Returns:
        An optimizer whose groups keep ``lr_scale`` and ``constant_lr`` for
        :func:`bench.training.schedule.set_learning_rates`, at their peak learning rate.

    Raises:
        SpecError: a group has no trained parameter or an unknown entry.
    """
    prepared = [part for index, group in enumerate(groups) for part in _prepare(group, index, training)]
    peak = scaled_lr(training)
    if training.optimizer == "lars":
        return LARS(
            prepared,
            lr=peak,
            momentum=training.momentum,
            weight_decay=training.weight_decay,
            eta=training.lars_eta,
            exclude_1d=training.exclude_1d,
        )
    # Fused is 2 to 8 times faster than torch's default on a CPU. Under a gradient scaler it would unscale by itself,
    # which Fabric refuses to combine with clipping.
    fused = training.precision != "16-mixed"
    if training.optimizer in ("adam", "adamw"):
        kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
        return kind(prepared, lr=peak, weight_decay=training.weight_decay, fused=fused)
    return torch.optim.SGD(
        prepared, lr=peak, momentum=training.momentum, weight_decay=training.weight_decay, fused=fused
    )


def _prepare(group: Mapping[str, Any], index: int, training: TrainingSpec) -> list[dict[str, Any]]:
    """One group, or two when its one-dimensional parameters are excluded from weight decay."""
    where = f"parameter_groups(), group {index}"
    if unknown := sorted(group.keys() - GROUP_KEYS):
        raise SpecError(f"{where}: unknown entries {unknown}. Known: {', '.join(sorted(GROUP_KEYS))}.")
    params = [p for p in group.get("params", ()) if p.requires_grad]
    if not params:
        raise SpecError(f"{where}: has no parameter that is trained. Leave the group out.")
    scale = float(group.get("lr_scale", 1.0))
    common: dict[str, Any] = {
        "lr": scaled_lr(training) * scale,
        "lr_scale": scale,
        "constant_lr": bool(group.get("constant_lr", False)),
        "weight_decay": training.weight_decay,
    }
    if training.exclude_1d and training.optimizer != "lars":  # LARS tells them apart by itself
        matrices = [p for p in params if p.ndim > 1]
        vectors = [p for p in params if p.ndim <= 1]
        parts = [common | {"params": matrices}, common | {"params": vectors, "weight_decay": 0.0}]
        return [part for part in parts if part["params"]]
    return [common | {"params": params}]

"""How a detector's weights move: the recipe's optimizer, and what several processes must agree on."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bench.detection.detector import Detector
from bench.detection.recipes import DetectionRecipe
from bench.errors import SpecError
from bench.training.distributed import averaged, process_count


def lr_scaling(recipe: DetectionRecipe) -> str:
    """How the learning rate follows from the batch, in words."""
    if recipe.batch_size == recipe.reference_batch:
        return f"lr {recipe.lr:g} for batches of {recipe.batch_size}, as they are"
    return (
        f"lr {recipe.lr:g} for batches of {recipe.reference_batch}; batch {recipe.batch_size} -> {recipe.applied_lr:g}"
    )


def build_optimizer(detector: Detector, recipe: DetectionRecipe) -> torch.optim.Optimizer:
    """The recipe's optimizer, whose groups keep their peak learning rate.

    Raises:
        SpecError: a trained parameter is in no group.
    """
    groups = [{**group, "params": list(group["params"])} for group in detector.parameter_groups(recipe)]
    groups = [{**group, "peak": group["lr"]} for group in groups if group["params"]]
    held = {id(parameter) for group in groups for parameter in group["params"]}
    left = [name for name, p in detector.named_parameters() if p.requires_grad and id(p) not in held]
    if left or not groups:
        raise SpecError(
            f"{type(detector).__name__}.parameter_groups() leaves out {left or 'everything'}, which would stay "
            "untrained. Add it to a group, or freeze it with requires_grad_(False)."
        )
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.applied_lr, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD(
        groups, lr=recipe.applied_lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )


@torch.no_grad()
def average_statistics(detector: nn.Module) -> None:
    """Make the running statistics, which each process moves by its own scenes, the same everywhere."""
    if process_count() == 1:
        return
    norms = [part for part in detector.modules() if isinstance(part, _BatchNorm) and part.training]
    held = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
    if held:
        means = averaged(torch.cat(held))
        for buffer, mean in zip(held, means.split_with_sizes([len(b) for b in held]), strict=True):
            buffer.copy_(mean)

"""Every method computes in W processes what it computes in one on the same global batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from bench.card import MethodCard
from bench.check.methods import NUM_CLASSES, TinyBackbone
from bench.errors import JointbenchError
from bench.registry import Catalog, Entry, discover
from bench.training.distributed import average_gradients, averaged, equal_everywhere, own_rows
from bench.training.method import Method
from bench.training.norm import synchronize_batch_norm
from bench.training.randomness import isolated_rng

from .ranks import in_group

BATCH, STEPS = 32, 2
SMALL = {"queue": 48, "sub_batch": 12, "support_views": 2, "": 16}
"""Whole numbers by what their names hold: a queue that the batch does not divide, several sub-batches."""
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "barlow_twins, the authors' gradient": ("barlow_twins", {"reduction": "paper_exact"}),
    "simclr, the authors' sum": ("simclr", {"definition": "code"}),
    "simclr_fnc, elimination": ("simclr_fnc", {"strategy": "elimination"}),
    "moco_fnc, elimination": ("moco_fnc", {"strategy": "elimination", "aggregation": "mean"}),
    "vicreg, the paper's definition": ("vicreg", {"definition": "paper"}),
    "medaug, synthetic": ("medaug", {"negatives": "synthetic", "share": 0.5}),
    "medaug, appended": ("medaug", {"negatives": "appended", "share": 0.5}),
    "wmse, 4 views": ("wmse", {"positives": 4, "iterations": 2}),
}


@cache
def catalog() -> Catalog:
    return discover()


def cases() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every registered method that trains, and some with other settings."""
    trained = {entry.key: (entry.key, {}) for entry in catalog().methods if is_trained(entry)}
    return {**trained, **VARIANTS}


def is_trained(entry: Entry) -> bool:
    assert isinstance(entry.card, MethodCard)
    return entry.card.trains


def small(name: str, value: Any) -> Any:
    if isinstance(value, tuple) and all(isinstance(width, int) for width in value):
        return tuple(min(width, 6) for width in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return min(value, next(limit for part, limit in SMALL.items() if part in name))
    return value


@dataclass
class Case:
    """A small method in float64, and what two steps make of it."""

    method: Method
    views: int
    card: MethodCard

    @classmethod
    def of(cls, key: str, given: Mapping[str, Any]) -> Case:
        entry = catalog().methods[key]
        card = entry.card
        assert isinstance(card, MethodCard)
        params = {name: small(name, value) for name, value in entry.complete({}).items()} | dict(given)
        classes = {"num_classes": NUM_CLASSES} if card.uses_labels else {}
        with isolated_rng(0, "heads"):
            method = entry.load()(TinyBackbone(3, 8), **params, **classes).double()
        return cls(method, card.view_count(params), card)

    def run(self) -> dict[str, Tensor]:
        """Terms and gradients of the first step, and the state after two steps."""
        synchronize_batch_norm(self.method, "cpu")
        groups = [{"params": group["params"]} for group in self.method.parameter_groups()]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
        found: dict[str, Tensor] = {}
        for step in range(1, STEPS + 1):
            labels = {"labels": own_rows(torch.arange(BATCH) % NUM_CLASSES)} if self.card.uses_labels else {}
            if self.card.uses_laterality:
                labels["laterality"] = own_rows((torch.arange(BATCH) % 2)[:, None].expand(-1, self.views))
            with isolated_rng(step, "training"):
                terms = self.method([own_rows(view) for view in global_views(step, self.views)], **labels)
                total = torch.stack(tuple(terms.values())).sum()
                optimizer.zero_grad()
                torch.autograd.backward(total)
                average_gradients(self.method.parameters())
                if step == 1:
                    found = {f"term {name}": averaged(term.detach()) for name, term in terms.items()}
                    found["total"] = averaged(total.detach())
                    found |= {f"gradient {name}": g.clone() for name, g in self.gradients().items()}
                optimizer.step()
                self.method.after_step(step, STEPS)
        assert equal_everywhere(self.method.state_dict().values()), "the processes have drifted apart"
        return found | {f"state {name}": value.clone() for name, value in self.method.state_dict().items()}

    def gradients(self) -> dict[str, Tensor]:
        return {name: p.grad for name, p in self.method.named_parameters() if p.grad is not None}


def global_views(step: int, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 3, 8, 8, generator=generator, dtype=torch.float64)
    return [images + 0.5 * torch.randn(images.shape, generator=generator, dtype=images.dtype) for _ in range(count)]


def run_all() -> dict[str, dict[str, Tensor] | str]:
    """Every case; what cannot run says why, in all processes alike."""
    results: dict[str, dict[str, Tensor] | str] = {}
    for name, (key, given) in cases().items():
        try:
            results[name] = Case.of(key, given).run()
        except (JointbenchError, ValueError, TypeError) as error:
            results[name] = f"{type(error).__name__}: {error}"
    return results


@cache
def alone() -> dict[str, Any]:
    return run_all()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_compute_what_one_does_on_the_same_batch(processes: int) -> None:
    results = in_group(processes, run_all)  # starting processes is what costs: once for all methods
    assert list(results) == list(alone())
    for name, expected in alone().items():
        found = results[name]
        assert not isinstance(expected, str) and not isinstance(found, str), (name, expected, found)
        assert list(found) == list(expected)
        scaled = "paper_exact" in cases()[name][1].values()
        for key, value in expected.items():
            if scaled and key.startswith("state"):
                continue  # another gradient leads elsewhere
            factor = processes if scaled and key.startswith("gradient") else 1
            exact = found[key] * factor if factor > 1 else found[key]
            said = f"{name}, {processes} processes, {key}: "
            assert_close(exact, value, rtol=1e-9, atol=1e-12, msg=lambda text, said=said: said + text)


@pytest.mark.parametrize("name", cases())
def test_two_steps_change_parameters_running_statistics_and_queues(name: str) -> None:
    """Otherwise the comparison above would compare nothing."""
    key, given = cases()[name]
    fresh = Case.of(key, given).method.state_dict()
    found = {name.removeprefix("state "): value for name, value in alone()[name].items() if name.startswith("state ")}
    still = [name for name, value in fresh.items() if torch.equal(value, found[name])]
    trained = [parameter for parameter, value in Case.of(key, given).method.named_parameters() if value.requires_grad]
    assert not set(still) & set(trained) and not [name for name in still if "running" in name or "queue" in name]

"""The battery for methods: tiny backbones, random views, no data, a few seconds."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bench.card import MethodCard
from bench.check.battery import CheckResult, ContractBrokenError, literal_defaults, run_checks
from bench.declaration import REQUIRED
from bench.registry import Entry
from bench.training.method import Method
from bench.training.randomness import isolated_rng

BATCH, OTHER_BATCH = 12, 8
SIZE = 16
NUM_CLASSES = 3
HEADS = ("projector", "predictor", "expander", "head")
LARGEST_WIDTH = 64
STEPS = 4


def check_method(entry: Entry) -> list[CheckResult]:
    """Run the battery on a registered method.

    Widths of heads (tuples of whole numbers in a parameter whose name speaks of a projector, predictor, expander or
    head) are cut to 64, so that a projector of 8192 does not slow the battery; the rest has its defaults.
    """
    assert isinstance(entry.card, MethodCard)
    trial = MethodTrial(entry, entry.card)
    results = run_checks((*CARD_CHECKS, builds), trial, entry)
    if results[-1].ok and entry.card.trains:
        results += run_checks((runs,), trial, entry)
        if results[-1].ok:
            results += run_checks(TRAINING_CHECKS, trial, entry)
    return results


class TinyBackbone(nn.Module):
    """Images (B, C, H, W) to representations (B, width)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.feature_dim = width
        self.blocks = nn.Sequential(
            nn.Conv2d(channels, 8, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, width, 3, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.feature_maps(images)[-1].mean(dim=(2, 3))

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """One map (B, width, H/4, W/4)."""
        return [self.blocks(images)]


class MethodTrial:
    """Builds and feeds one method."""

    def __init__(self, entry: Entry, card: MethodCard) -> None:
        self.entry = entry
        self.card = card
        self.params = {name: _smaller(name, value) for name, value in entry.complete({}).items()}
        if entry.parameters.get("num_classes") is REQUIRED:
            self.params["num_classes"] = NUM_CLASSES
        self.view_count = card.view_count(self.params)

    def build(self, *, seed: int = 0, channels: int = 3, width: int = 12) -> Method:
        with isolated_rng(seed, "heads"):
            method: Method = self.entry.load()(TinyBackbone(channels, width), **self.params)
        return method

    def views(self, *, seed: int = 0, batch: int = BATCH, channels: int = 3) -> list[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(batch, channels, SIZE, SIZE, generator=generator)
        shape = images.shape
        return [images + 0.5 * torch.randn(shape, generator=generator) for _ in range(self.view_count)]

    def terms(self, method: Method, views: Sequence[Tensor], *, seed: int = 0) -> dict[str, Tensor]:
        """One forward pass, its random numbers seeded."""
        rows = torch.arange(len(views[0]))
        more = {"labels": rows % NUM_CLASSES} if self.card.uses_labels else {}
        if self.card.uses_laterality:
            more["laterality"] = (rows % 2)[:, None].expand(-1, len(views))
        with isolated_rng(seed, "training"):
            terms: dict[str, Tensor] = method(views, **more)
        return terms

    def loss(self, method: Method, views: Sequence[Tensor], *, seed: int = 0) -> Tensor:
        return torch.stack(tuple(self.terms(method, views, seed=seed).values())).sum()


def _smaller(name: str, value: Any) -> Any:
    widths = isinstance(value, tuple) and all(isinstance(width, int) for width in value)
    if widths and any(head in name for head in HEADS):
        return tuple(min(width, LARGEST_WIDTH) for width in value)
    return value


def card_is_complete(trial: MethodTrial) -> None:
    """The card has a title, a one-sentence summary and, if the method trains, its loss as an equation."""
    card = trial.card
    for name in ("title", "summary"):
        if not getattr(card, name).strip():
            raise ContractBrokenError(f"the card's {name} is empty. Fill it in: tables and pages print it.")
    if card.trains and "=" not in card.loss:
        raise ContractBrokenError('the card shows no loss equation. Add loss="L = …".')
    if card.gradient_views != "all" and any(not 0 <= view < trial.view_count for view in card.gradient_views):
        raise ContractBrokenError(
            f"gradient_views {card.gradient_views} names a view that does not exist; views is {trial.view_count}."
        )


def remedy_is_declared(trial: MethodTrial) -> None:
    """The card says what prevents complete collapse."""
    if trial.card.family != "baseline" and not trial.card.complete_collapse.strip():
        raise ContractBrokenError(
            "the card does not say what keeps the embeddings from becoming one constant vector. "
            'Add complete_collapse="…" (a term, negatives, a predictor with a stopped gradient, …).'
        )


def deviations_are_declared(trial: MethodTrial) -> None:
    """Every `# Deviates:` line of the file and every deviation of the card name each other, with a reason."""
    declared = {deviation.what for deviation in trial.card.deviations}
    for deviation in trial.card.deviations:
        if not deviation.what.strip() or not deviation.reason.strip():
            raise ContractBrokenError("a deviation of the card lacks `what` or `reason`. Say both.")
    lines = trial.entry.file.read_text(encoding="utf-8").splitlines()
    marked = {line.split("# Deviates:", 1)[1].strip() for line in lines if line.strip().startswith("# Deviates:")}
    if silent := marked - declared:
        raise ContractBrokenError(
            f"`# Deviates: {min(silent)}` is not in the card. Add Deviation(what=<the same words>, reason=…)."
        )
    if unmarked := declared - marked:
        raise ContractBrokenError(
            f"the card's deviation {min(unmarked)!r} is not marked in the code. Put `# Deviates: <the same words>` "
            "above the line that departs."
        )


def defaults_are_literals(trial: MethodTrial) -> None:
    """Every hyper-parameter has a literal default."""
    literal_defaults(trial.entry)


def builds(trial: MethodTrial) -> None:
    """It is built on any backbone, which it keeps as `self.backbone` with its initial weights."""
    for channels, width in ((1, 12), (3, 20)):
        backbone = TinyBackbone(channels, width)
        before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
        method = trial.entry.load()(backbone, **trial.params)
        if not isinstance(method, Method):
            raise ContractBrokenError(f"{trial.entry.name} must inherit from bench.training.method.Method.")
        if method.backbone is not backbone:
            raise ContractBrokenError(
                "self.backbone is not the backbone that was given. Call super().__init__(backbone)."
            )
        if _differences(before, backbone.state_dict()):
            raise ContractBrokenError("building changes the backbone's weights. All methods start from the same ones.")


def runs(trial: MethodTrial) -> None:
    """`forward` returns the same named, finite scalar terms for 1 and 3 channels and for any batch size."""
    names: list[tuple[str, ...]] = []
    for channels, width in ((1, 20), (3, 12)):
        method = trial.build(channels=channels, width=width)
        for batch in (BATCH, OTHER_BATCH):
            terms = trial.terms(method, trial.views(batch=batch, channels=channels))
            if not isinstance(terms, dict) or not terms or "total" in terms:
                raise ContractBrokenError(
                    f"forward returned {terms!r}. Return a dict of loss terms by name; the name 'total' is the loop's."
                )
            for name, term in terms.items():
                where = f"term {name!r} on {batch} images of {channels} channels"
                if not isinstance(term, Tensor) or term.ndim != 0:
                    raise ContractBrokenError(f"{where} is not a scalar tensor. Reduce it over the batch.")
                if not term.isfinite():
                    raise ContractBrokenError(f"{where} is {term.item()}. Look for a division, logarithm or root of 0.")
            names.append(tuple(terms))
    if len(set(names)) > 1:
        raise ContractBrokenError(
            f"the names of the terms change: {sorted(set(names))}. Return the same at every step."
        )
    promised = tuple(term.name for term in trial.card.terms)
    if promised and promised != names[0]:
        raise ContractBrokenError(
            f"forward returns the terms {names[0]}, the card describes {promised}. Give the card one "
            'Term(name="…", acts="between the branches", role="…") for each, in the order of forward.'
        )


def parameters_get_gradients(trial: MethodTrial) -> None:
    """Every trained parameter is in one group and gets a finite gradient; frozen ones belong to a momentum copy."""
    method = trial.build()
    torch.autograd.backward(trial.loss(method, trial.views()))
    grouped = [id(parameter) for group in method.parameter_groups() for parameter in group["params"]]
    for name, parameter in method.named_parameters():
        count = grouped.count(id(parameter))
        if not parameter.requires_grad:
            if trial.card.branches != "momentum":
                raise ContractBrokenError(
                    f"{name} is frozen, but the card's branches is {trial.card.branches!r}. Declare "
                    'branches="momentum", or make it a buffer.'
                )
            if count or parameter.grad is not None:
                raise ContractBrokenError(f"{name} is frozen, yet it is in a parameter group or got a gradient.")
        elif count != 1:
            raise ContractBrokenError(f"{name} is in {count} parameter groups. Each trained parameter is in one.")
        elif parameter.grad is None:
            raise ContractBrokenError(
                f"{name} gets no gradient. Use it in the loss, or freeze it with requires_grad_(False)."
            )
        elif not parameter.grad.isfinite().all():
            raise ContractBrokenError(f"the gradient of {name} is not finite. Look for a root or a norm at 0.")


def views_get_gradients(trial: MethodTrial) -> None:
    """Exactly the views in the card's `gradient_views` get a gradient."""
    method = trial.build()
    pixels = [view.requires_grad_() for view in trial.views()]
    torch.autograd.backward(trial.loss(method, [view.clone() for view in pixels]))
    reached = tuple(i for i, view in enumerate(pixels) if view.grad is not None and bool(view.grad.count_nonzero()))
    promised = range(trial.view_count) if trial.card.gradient_views == "all" else sorted(trial.card.gradient_views)
    if reached != tuple(promised):
        raise ContractBrokenError(
            f"the views that get a gradient are {reached}, the card says {trial.card.gradient_views}. "
            "Look for a detach() too many or too few, or correct the card."
        )


def seed_decides(trial: MethodTrial) -> None:
    """The same seed gives the same weights and the same loss."""
    first, second = trial.build(seed=3), trial.build(seed=3)
    if changed := _differences(first.state_dict(), second.state_dict()):
        raise ContractBrokenError(
            f"two builds with one seed differ in {changed[0]}. Draw from torch's global generator only."
        )
    losses = [trial.loss(method, trial.views(), seed=5).item() for method in (first, second)]
    if losses[0] != losses[1]:
        raise ContractBrokenError(
            f"two losses with one seed differ: {losses[0]!r}, {losses[1]!r}. Draw from torch's global generator only."
        )


def state_survives_a_checkpoint(trial: MethodTrial) -> None:
    """Training continues from a checkpoint as if it had not stopped: momentum, queues and counters are in the state."""
    method = trial.build()
    optimizer = _optimizer(method)
    _train(trial, method, optimizer, steps=range(1, 3))
    file = io.BytesIO()
    torch.save({"method": method.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = trial.build(seed=1)
    resumed.load_state_dict(saved["method"])
    resumed_optimizer = _optimizer(resumed)
    resumed_optimizer.load_state_dict(saved["optimizer"])
    losses = _train(trial, method, optimizer, steps=range(3, STEPS + 1))
    resumed_losses = _train(trial, resumed, resumed_optimizer, steps=range(3, STEPS + 1))
    advice = "Register what it remembers as parameter or buffer (self.register_buffer), whole numbers included."
    if not torch.allclose(torch.tensor(losses), torch.tensor(resumed_losses), rtol=1e-5):
        raise ContractBrokenError(f"after a resume the losses are {resumed_losses}, without it {losses}. {advice}")
    if changed := _differences(method.state_dict(), resumed.state_dict(), rtol=1e-5):
        raise ContractBrokenError(f"after a resume {changed[0]} takes other values than without it. {advice}")


def inputs_stay(trial: MethodTrial) -> None:
    """`forward` leaves its views as they were."""
    views = trial.views()
    copies = [view.clone() for view in views]
    trial.terms(trial.build(), views)
    for index, (view, copy) in enumerate(zip(views, copies, strict=True)):
        if not torch.equal(view, copy):
            raise ContractBrokenError(f"forward changes view {index} in place. Work on a copy.")


def mixed_precision_works(trial: MethodTrial) -> None:
    """Under bfloat16 autocast the loss is computed in float32 and its gradients are finite."""
    method = trial.build()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = trial.terms(method, trial.views())
    for name, term in terms.items():
        if term.dtype != torch.float32 or not term.isfinite():
            raise ContractBrokenError(
                f"under autocast term {name!r} is {term.item()} in {term.dtype}. Put the loss into a function and "
                "decorate it with bench.training.precision.full_precision."
            )
    torch.autograd.backward(tuple(terms.values()))
    for name, parameter in method.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise ContractBrokenError(f"under autocast the gradient of {name} is not finite.")


def _optimizer(method: Method) -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": g["params"]} for g in method.parameter_groups()], lr=0.01, momentum=0.9)


def _train(trial: MethodTrial, method: Method, optimizer: torch.optim.Optimizer, *, steps: range) -> list[float]:
    losses = []
    for step in steps:
        loss = trial.loss(method, trial.views(seed=step), seed=step)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        with isolated_rng(step, "training"):
            method.after_step(step, STEPS)
        losses.append(loss.item())
    return losses


def _differences(one: dict[str, Any], other: dict[str, Any], *, rtol: float = 0.0) -> list[str]:
    """Names of tensors that differ."""
    return [
        name
        for name in one
        if name not in other or not torch.allclose(one[name].double(), other[name].double(), rtol=rtol, atol=rtol)
    ]


Check = Callable[[MethodTrial], None]
CARD_CHECKS: tuple[Check, ...] = (card_is_complete, remedy_is_declared, deviations_are_declared, defaults_are_literals)
TRAINING_CHECKS: tuple[Check, ...] = (
    parameters_get_gradients,
    views_get_gradients,
    seed_decides,
    state_survives_a_checkpoint,
    inputs_stay,
    mixed_precision_works,
)

"""Recipes of semi-supervised fine-tuning, as data, each value beside its source.

Published rates are those at the published batch size; another batch size scales them as the recipe says. Common to all
published ones: a fresh linear head on the features as they are (weights N(0, 0.01²), bias 0, as the authors of VICReg
and Barlow Twins have it), momentum 0.9, no weight decay, statistics of the batch, random resized crops and flips. Where
the authors let the rate follow the epochs, here it follows the steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

from bench.errors import SpecError
from bench.spec import ViewSpec
from bench.training.finetuning import FineTuning

ONE, TEN = 0.01, 0.1
BETWEEN = 0.03
"""Label fractions below take the settings for 1 %, the others those for 10 %."""

Rates = tuple[tuple[float, float], ...]
Head = Literal["fitted", "fresh", "projector"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is fine-tuned with few labels.

    Attributes:
        source: where the values are printed; empty for the common recipe, which is this project's own.
        epochs: by label fraction, the numbers of passes over the labelled images among which the validation split
            chooses; empty where the recipe counts steps.
        rates: by label fraction, the pairs of backbone and head learning rate among which the validation split chooses.
        scaling: how the rates follow another batch size.
        starts: heads to start from, among which the validation split chooses: ``fitted`` is linear and was fitted on
            frozen features, ``fresh`` is random, ``projector`` is random on the first layer of the projector.
        copies: augmented copies of each labelled image for the fit of the head.
        batch_size, optimizer, weight_decay, schedule, warmup, milestones, decay, order, label_smoothing, batch_norm: as
            in :class:`bench.training.finetuning.FineTuning`.
        crop_scale, rotation, flip: the view.
    """

    source: str = ""
    epochs: Mapping[float, tuple[int, ...]] = field(default_factory=dict)
    rates: Mapping[float, Rates]
    scaling: Literal["linear", "sqrt"] = "linear"
    starts: tuple[Head, ...] = ("fresh",)
    copies: int = 0
    batch_size: int
    optimizer: Literal["adamw", "sgd", "nesterov", "lars"] = "sgd"
    weight_decay: float = 0.0
    schedule: Literal["cosine", "steps"] = "cosine"
    warmup: float = 0.0
    milestones: tuple[float, ...] = ()
    decay: float = 1.0
    order: Literal["choices", "passes"] = "passes"
    label_smoothing: float = 0.0
    batch_norm: str = "batch"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    rotation: float = 0.0
    flip: float = 0.5

    @property
    def view(self) -> ViewSpec:
        return ViewSpec(crop_scale=self.crop_scale, rotation=self.rotation, flip=self.flip, jitter=0.0, grayscale=0.0)


def _both(value: Any) -> dict[float, Any]:
    return {ONE: value, TEN: value}


BYOL_SWEEP = tuple((rate, rate) for rate in (0.01, 0.02, 0.05, 0.1, 0.005))

RECIPES: dict[str, Recipe] = {
    # For sets of thousands of small images; chosen on validation splits. AdamW, because the rates of SGD that suit a
    # pre-trained backbone diverge on a random one, and one recipe has to serve both. So do its two starts: a head that
    # fits is worth more than any other setting to a pre-trained network, and is in the way of a random one, whose
    # features are others once batch norm trains.
    "common": Recipe(
        rates=_both(((1e-3, 1e-3), (3e-3, 1e-3))),
        starts=("fitted", "fresh"),
        copies=10,
        batch_size=64,
        optimizer="adamw",
        weight_decay=0.01,
        warmup=0.1,
        order="choices",
        label_smoothing=0.1,
        crop_scale=(0.6, 1.0),
        rotation=15.0,
        flip=0.0,
    ),
    "vicreg": Recipe(
        source="Bardes, Ponce, LeCun 2022 (VICReg), appendix on semi-supervised evaluation; authors' evaluate.py",
        epochs=_both((20,)),
        rates={ONE: ((0.03, 0.08),), TEN: ((0.01, 0.1),)},  # paper
        batch_size=256,  # paper
        schedule="cosine",  # paper
    ),
    "barlow_twins": Recipe(
        source="Zbontar et al. 2021 (Barlow Twins), appendix on semi-supervised training",
        epochs=_both((20,)),
        rates=_both(((0.002, 0.5),)),  # paper
        batch_size=256,  # paper
        schedule="steps",  # paper: times 0.2 after epochs 12 and 16
        milestones=(12 / 20, 16 / 20),
        decay=0.2,
    ),
    "barlow_twins_repo": Recipe(
        source="facebookresearch/barlowtwins, command of the README; evaluate.py",
        epochs=_both((20,)),
        rates=_both(((0.005, 0.5),)),  # README
        batch_size=256,  # evaluate.py
        schedule="cosine",  # evaluate.py
    ),
    "byol": Recipe(
        source="Grill et al. 2020 (BYOL), appendix on semi-supervised training",
        epochs=_both((30, 50)),  # paper: a sweep
        rates=_both(BYOL_SWEEP),  # paper: a sweep, one rate for all
        batch_size=1024,  # paper
        optimizer="nesterov",  # paper
        schedule="cosine",  # the paper names none: that of its linear evaluation
    ),
    "simclr": Recipe(
        source="Chen et al. 2020 (SimCLR), appendix B.5; google-research/simclr",
        epochs={ONE: (60,), TEN: (30,)},  # paper
        rates=_both(((0.8, 0.8),)),  # paper: 0.05 * batch / 256
        batch_size=4096,  # paper
        optimizer="nesterov",  # paper
        schedule="cosine",  # the paper names none and no warm-up: that of the code
    ),
    "swav": Recipe(
        source="Caron et al. 2020 (SwAV); facebookresearch/swav, commands for eval_semisup.py",
        epochs=_both((20,)),
        rates={ONE: ((0.02, 5.0),), TEN: ((0.01, 0.2),)},
        batch_size=256,
        schedule="steps",  # times 0.2 after epochs 12 and 16
        milestones=(12 / 20, 16 / 20),
        decay=0.2,
    ),
    "simclr_v2": Recipe(
        source="Chen et al. 2020 (SimCLR v2), fine-tuning from layer 1 of the head; also used by the authors of FNC",
        epochs={ONE: (60,), TEN: (30,)},
        rates=_both(((0.16, 0.16),)),  # 0.005 * sqrt(batch)
        scaling="sqrt",
        starts=("projector",),
        batch_size=1024,
        optimizer="lars",
        schedule="cosine",  # google-research/simclr
    ),
}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A recipe with the user's own values, for one subset.

    Attributes:
        recipe: with these values.
        trials: every way to fine-tune among which the validation split chooses.
        departures: from the published recipe, in words.
    """

    recipe: Recipe
    trials: tuple[FineTuning, ...]
    departures: tuple[str, ...]


def find_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        SpecError: there is none.
    """
    if name not in RECIPES:
        raise SpecError(f"semi_supervised: there is no recipe {name!r}. Choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def choose_settings(
    recipe: Recipe, *, fraction: float, labelled: int, steps: int, epochs: int, changes: Mapping[str, Any]
) -> Chosen:
    """The trials of a recipe for a subset.

    Args:
        fraction: share of the training labels, which decides between the settings for 1 % and 10 %.
        labelled: number of labelled images.
        steps: optimizer steps of a recipe that counts steps.
        epochs: instead of a published recipe's own; 0 keeps those.
        changes: fields of the recipe that the user sets, ``backbone_lrs`` and ``head_lrs``; None keeps the recipe's.
    """
    share = ONE if fraction < BETWEEN else TEN
    given = {name: value for name, value in changes.items() if value is not None}
    rates = _rates(recipe.rates[share], given.pop("backbone_lrs", None), given.pop("head_lrs", None))
    changed = replace(recipe, rates={share: rates}, **given)
    batch_size, factor = changed.batch_size, 1.0
    departures = [f"{n} is {v}, published {getattr(recipe, n)}" for n, v in given.items() if v != getattr(recipe, n)]
    if recipe.source:
        batch_size = min(batch_size, labelled)
        ratio = batch_size / recipe.batch_size
        factor = ratio if recipe.scaling == "linear" else ratio**0.5
        if batch_size < changed.batch_size:
            departures.append(f"batches are of {batch_size}, because there are no more labelled images")
        if rates != recipe.rates[share]:
            departures.append(f"learning rates are {rates}, published {recipe.rates[share]}")
            factor = 1.0  # who sets a rate means that rate
        if factor != 1:
            departures.append(f"learning rates are {factor:.4g} times the published ones, to suit the batch size")
        if fraction != share:
            departures.append(
                f"the settings are published for {share:.0%} of the labels, here there are {fraction:.3g}"
            )
    lengths = {epochs} if epochs else set(recipe.epochs.get(share, ()))
    if recipe.source and lengths != set(recipe.epochs[share]):
        departures.append(f"epochs are {epochs}, published {', '.join(map(str, recipe.epochs[share]))}")
    counted = [max(1, round(e * labelled / batch_size)) for e in sorted(lengths)] or [steps]
    trials = tuple(
        _settings(changed, length, batch_size, backbone_lr * factor, head_lr * factor)
        for length, (backbone_lr, head_lr) in product(counted, rates)
    )
    return Chosen(recipe=changed, trials=trials, departures=tuple(departures) if recipe.source else ())


def _rates(own: Rates, backbone_lrs: tuple[float, ...] | None, head_lrs: tuple[float, ...] | None) -> Rates:
    """The recipe's pairs, or all pairs of the user's rates; a kind that the user leaves open keeps the recipe's."""
    if backbone_lrs is None and head_lrs is None:
        return own
    backbone = backbone_lrs if backbone_lrs is not None else dict.fromkeys(rate for rate, _ in own)
    head = head_lrs if head_lrs is not None else dict.fromkeys(rate for _, rate in own)
    return tuple(product(backbone, head))


def _settings(recipe: Recipe, steps: int, batch_size: int, backbone_lr: float, head_lr: float) -> FineTuning:
    return FineTuning(
        steps=steps,
        batch_size=batch_size,
        backbone_lr=backbone_lr,
        head_lr=head_lr,
        optimizer=recipe.optimizer,
        weight_decay=recipe.weight_decay,
        schedule=recipe.schedule,
        warmup=recipe.warmup,
        milestones=recipe.milestones,
        decay=recipe.decay,
        order=recipe.order,
        label_smoothing=recipe.label_smoothing,
        batch_norm=recipe.batch_norm,
        view=recipe.view,
    )

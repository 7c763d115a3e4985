"""Recipes of linear evaluation: how a linear classifier on frozen features is trained, each value with its source.

Where a paper and its authors' repository disagree, one of them is taken; ``conflicts`` names the other and the reason.
``common`` is one recipe and one grid for all methods; it is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from bench.errors import SpecError, UnknownNameError

REFERENCE_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class ProbeRecipe:
    """How the classifier is trained.

    Attributes:
        key: name of the recipe.
        optimizer: ``sgd``, or ``lars``: SGD whose step is scaled by η‖w‖ / (‖g‖ + weight decay · ‖w‖), bias included.
        lrs, weight_decays: the grid; the validation split chooses.
        lr_scaling: ``linear`` multiplies the rates by batch/256, ``none`` leaves them.
        momentum, nesterov: of either optimizer.
        decay_bias: the bias has weight decay, too.
        epochs: passes over the training images.
        batch_size: images of a step.
        milestones: epochs at which the rate falls to a tenth; without any it follows a cosine to 0.
        rate_changes: the cosine moves on after every ``step`` or every ``epoch``.
        init_std: standard deviation of the first weights; the first biases are 0.
        standardize: features are shifted and scaled to mean 0 and deviation 1 on the training split.
        crop_scale: share of the image's area that a training crop covers, (low, high).
        flip: probability of a horizontal flip.
        sources: where each of these values is from.
        conflicts: what another source says, and why it was not taken.
    """

    key: str
    optimizer: Literal["sgd", "lars"]
    lrs: tuple[float, ...]
    lr_scaling: Literal["none", "linear"]
    weight_decays: tuple[float, ...]
    momentum: float
    nesterov: bool
    decay_bias: bool
    epochs: int
    batch_size: int
    milestones: tuple[int, ...]
    rate_changes: Literal["step", "epoch"]
    init_std: float
    standardize: bool
    crop_scale: tuple[float, float]
    flip: float
    sources: Mapping[str, str] = field(default_factory=dict)
    conflicts: tuple[str, ...] = ()

    def changed(self, **values: Any) -> tuple[ProbeRecipe, tuple[str, ...]]:
        """The recipe with other values, and each departure in words; None leaves a value as it is.

        Milestones move with the number of epochs.

        Raises:
            SpecError: a value is out of range.
        """
        given: dict[str, Any] = {
            name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if v is not None
        }
        different = {name: value for name, value in given.items() if value != getattr(self, name)}
        departures = tuple(f"{name} {value} instead of {getattr(self, name)}" for name, value in different.items())
        if "epochs" in different and self.milestones:
            _check_count("epochs", different["epochs"])
            share = different["epochs"] / self.epochs
            different["milestones"] = tuple(round(share * milestone) for milestone in self.milestones)
        changed = replace(self, **different)
        changed.check()
        return changed, departures

    def check(self) -> None:
        """Raise SpecError where a value is out of range."""
        for name in ("lrs", "weight_decays"):
            values = getattr(self, name)
            if not isinstance(values, tuple) or not values or not all(_is_number(value) for value in values):
                raise SpecError(f"linear_probe: lrs and weight_decays need one value each at least, got {values!r}.")
        for name in ("epochs", "batch_size"):
            _check_count(name, getattr(self, name))
        if self.optimizer not in ("sgd", "lars"):
            raise SpecError(f"linear_probe: a recipe's optimizer is 'sgd' or 'lars', got {self.optimizer!r}.")

    def rates(self, batch_size: int) -> tuple[float, ...]:
        """The peak learning rates for batches of this many images."""
        factor = batch_size / REFERENCE_BATCH if self.lr_scaling == "linear" else 1.0
        return tuple(factor * lr for lr in self.lrs)

    def settings(self) -> dict[str, Any]:
        """Every value, for the record."""
        left_out = ("key", "sources", "conflicts")
        held = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in left_out}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in held.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise SpecError(f"linear_probe: {name} must be a whole number above 0, got {value!r}.")


_OWN = "choice of this benchmark"
_SGD = "torch.optim.SGD as the repository calls it"
_CROP = ((0.08, 1.0), "torchvision's default, which the repository keeps")
_NORMAL = (0.01, "repository: weights from a normal distribution of this deviation")
_RAW = (False, "paper: the classifier takes the features as they are")
_FLIP = (0.5, "paper: random crops and flips")

_RECIPES: dict[str, dict[str, tuple[Any, str]]] = {
    "common": {
        "optimizer": ("sgd", _OWN),
        "lrs": ((0.01, 0.03, 0.1, 0.3, 1.0), _OWN),
        "lr_scaling": ("none", _OWN),
        "weight_decays": ((0.0, 1e-4, 1e-3, 1e-2), _OWN),
        "momentum": (0.9, "every published recipe"),
        "nesterov": (False, _OWN),
        "decay_bias": (False, _OWN),
        "epochs": (100, "MoCo, VICReg, Barlow Twins"),
        "batch_size": (256, "MoCo, VICReg, Barlow Twins"),
        "milestones": ((), "cosine, as most published recipes"),
        "rate_changes": ("step", _OWN),
        "init_std": (0.0, "the problem is convex: the start decides nothing"),
        "standardize": (True, "so that one grid fits features of any scale"),
        "crop_scale": ((0.08, 1.0), "every published recipe, as its authors run it"),
        "flip": (0.5, "every published recipe"),
    },
    "vicreg": {
        "optimizer": ("sgd", "arXiv:2105.04906, appendix C; facebookresearch/vicreg evaluate.py"),
        "lrs": ((0.02,), "arXiv:2105.04906, appendix C; README of facebookresearch/vicreg"),
        "lr_scaling": ("none", "evaluate.py: the rate as given"),
        "weight_decays": ((1e-6,), "arXiv:2105.04906, appendix C; evaluate.py"),
        "momentum": (0.9, "evaluate.py"),
        "nesterov": (False, _SGD),
        "decay_bias": (True, _SGD),
        "epochs": (100, "arXiv:2105.04906, appendix C; evaluate.py"),
        "batch_size": (256, "arXiv:2105.04906, appendix C; evaluate.py"),
        "milestones": ((), "cosine: arXiv:2105.04906, appendix C; evaluate.py"),
        "rate_changes": ("epoch", "evaluate.py"),
        "init_std": _NORMAL,
        "standardize": _RAW,
        "crop_scale": _CROP,
        "flip": _FLIP,
    },
    "barlow_twins": {
        "optimizer": ("sgd", "arXiv:2103.03230, appendix; facebookresearch/barlowtwins evaluate.py"),
        "lrs": ((0.3,), "arXiv:2103.03230, appendix; evaluate.py"),
        "lr_scaling": ("none", "evaluate.py: the rate as given"),
        "weight_decays": ((1e-6,), "arXiv:2103.03230, appendix; evaluate.py"),
        "momentum": (0.9, "evaluate.py"),
        "nesterov": (False, _SGD),
        "decay_bias": (True, _SGD),
        "epochs": (100, "arXiv:2103.03230, appendix; evaluate.py"),
        "batch_size": (256, "arXiv:2103.03230, appendix; evaluate.py"),
        "milestones": ((), "cosine: arXiv:2103.03230, appendix; evaluate.py"),
        "rate_changes": ("epoch", "evaluate.py"),
        "init_std": _NORMAL,
        "standardize": _RAW,
        "crop_scale": _CROP,
        "flip": _FLIP,
    },
    "byol": {
        "optimizer": ("sgd", "arXiv:2006.07733, appendix C"),
        "lrs": ((0.4, 0.3, 0.2, 0.1, 0.05), "arXiv:2006.07733, appendix C: swept on 10 009 held-out training images"),
        "lr_scaling": ("linear", "deepmind-research byol/utils/schedules.py"),
        "weight_decays": ((0.0,), "arXiv:2006.07733, appendix C: no regularization"),
        "momentum": (0.9, "byol/configs/eval.py"),
        "nesterov": (True, "arXiv:2006.07733, appendix C; byol/configs/eval.py"),
        "decay_bias": (False, "no decay at all"),
        "epochs": (80, "arXiv:2006.07733, appendix C; byol/configs/eval.py"),
        "batch_size": (1024, "arXiv:2006.07733, appendix C"),
        "milestones": ((), "cosine: byol/utils/schedules.py"),
        "rate_changes": ("step", "byol/utils/schedules.py"),
        "init_std": (0.0221, "haiku's Linear: 1 / sqrt(2048 features), without its truncation"),
        "standardize": _RAW,
        "crop_scale": ((0.08, 1.0), "byol/utils/dataset.py"),
        "flip": _FLIP,
    },
    "moco": {
        "optimizer": ("sgd", "facebookresearch/moco main_lincls.py"),
        "lrs": ((30.0,), "arXiv:1911.05722, section 4.1; main_lincls.py: features are small and stay unscaled"),
        "lr_scaling": ("none", "main_lincls.py: the rate as given"),
        "weight_decays": ((0.0,), "arXiv:1911.05722, section 4.1; main_lincls.py"),
        "momentum": (0.9, "main_lincls.py"),
        "nesterov": (False, _SGD),
        "decay_bias": (False, "no decay at all"),
        "epochs": (100, "arXiv:1911.05722, section 4.1; main_lincls.py"),
        "batch_size": (256, "main_lincls.py"),
        "milestones": ((60, 80), "main_lincls.py: a tenth at each"),
        "rate_changes": ("epoch", "main_lincls.py"),
        "init_std": _NORMAL,
        "standardize": _RAW,
        "crop_scale": _CROP,
        "flip": _FLIP,
    },
    "simsiam": {
        "optimizer": ("lars", "arXiv:2011.10566, appendix A; main_lincls.py --lars: η 0.001, on the bias, too"),
        "lrs": ((0.1,), "facebookresearch/simsiam main_lincls.py"),
        "lr_scaling": ("linear", "arXiv:2011.10566, appendix A; main_lincls.py"),
        "weight_decays": ((0.0,), "arXiv:2011.10566, appendix A; main_lincls.py"),
        "momentum": (0.9, "arXiv:2011.10566, appendix A; main_lincls.py"),
        "nesterov": (False, _SGD),
        "decay_bias": (False, "no decay at all"),
        "epochs": (90, "arXiv:2011.10566, appendix A"),
        "batch_size": (4096, "arXiv:2011.10566, appendix A; main_lincls.py"),
        "milestones": ((), "cosine: arXiv:2011.10566, appendix A; main_lincls.py"),
        "rate_changes": ("epoch", "main_lincls.py"),
        "init_std": _NORMAL,
        "standardize": _RAW,
        "crop_scale": _CROP,
        "flip": _FLIP,
    },
    "simclr": {
        "optimizer": ("sgd", "arXiv:2002.05709, appendix B.6: no LARS"),
        "lrs": ((0.1,), "arXiv:2002.05709, appendix B.6: 1.6 = 0.1 x 4096/256"),
        "lr_scaling": ("linear", "arXiv:2002.05709, appendix B.6"),
        "weight_decays": ((0.0,), "arXiv:2002.05709, appendix B.6: no regularization"),
        "momentum": (0.9, "arXiv:2002.05709, appendix B.6"),
        "nesterov": (True, "arXiv:2002.05709, appendix B.6; google-research/simclr model_util.py"),
        "decay_bias": (False, "no decay at all"),
        "epochs": (90, "arXiv:2002.05709, appendix B.6"),
        "batch_size": (4096, "arXiv:2002.05709, appendix B.6"),
        "milestones": ((), "cosine without a warm-up: model_util.py; the paper only excludes the warm-up"),
        "rate_changes": ("step", "model_util.py"),
        "init_std": (0.01, "model_util.py, linear_layer"),
        "standardize": _RAW,
        "crop_scale": ((0.08, 1.0), "google-research/simclr data_util.py"),
        "flip": _FLIP,
    },
}

_CONFLICTS: dict[str, tuple[str, ...]] = {
    "vicreg": (
        "crop_scale: the paper crops 0.2 to 1; its evaluate.py keeps 0.08 to 1, with which the released weights were "
        "evaluated",
        "lrs: evaluate.py defaults to 0.3; paper and README agree on 0.02",
    ),
    "byol": (
        "lr_scaling: the paper lists the rates without a rule; its code multiplies its 0.2, one of them, by batch/256",
    ),
    "simsiam": (
        "lrs: the paper says 0.02; main_lincls.py trains with 0.1, and its README prints the accuracy of that",
        "epochs: main_lincls.py defaults to 100; the paper's 90 was taken, the schedule is the same",
    ),
    "simclr": (
        "weight_decays: the README's command has 1e-6; the paper's 0 was taken, with batches of 4096 that it describes",
    ),
}

PROBE_RECIPES: Mapping[str, ProbeRecipe] = {
    key: ProbeRecipe(
        key=key,
        **{name: value for name, (value, _) in settings.items()},
        sources={name: source for name, (_, source) in settings.items()},
        conflicts=_CONFLICTS.get(key, ()),
    )
    for key, settings in _RECIPES.items()
}


def find_recipe(key: str) -> ProbeRecipe:
    """The recipe of this name.

    Raises:
        UnknownNameError: there is none.
    """
    if key not in PROBE_RECIPES:
        raise UnknownNameError("recipe of linear_probe", key, PROBE_RECIPES)
    return PROBE_RECIPES[key]

"""How a detector is trained: published recipes of transfer, and one for small sets on a CPU.

A recipe is data; this module imports neither torch nor an engine, so that plans and reports can show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from bench.errors import SpecError

Engine = Literal["torchvision", "detectron2"]
Architecture = Literal["single_stage", "faster_rcnn_fpn", "faster_rcnn_c4", "mask_rcnn_c4", "mask_rcnn_fpn"]

ARCHITECTURES: dict[Engine, tuple[Architecture, ...]] = {
    "torchvision": ("single_stage", "faster_rcnn_fpn"),
    "detectron2": ("faster_rcnn_c4", "faster_rcnn_fpn", "mask_rcnn_c4", "mask_rcnn_fpn"),
}


@dataclass(frozen=True, kw_only=True)
class DetectionRecipe:
    """One way to train a detector.

    Attributes:
        architecture: of the detector.
        iterations: optimizer steps.
        batch_size: scenes of a step, over all devices.
        reference_batch: the batch that ``lr`` is for; another one scales the rate in proportion.
        lr: peak learning rate at ``reference_batch``.
        optimizer: ``sgd`` with ``momentum``, or ``adamw``.
        momentum, weight_decay: of the optimizer; normalization layers are not decayed where ``decay_norm`` is False.
        warmup: iterations with a linear warm-up, which begins at ``warmup_factor`` of the rate.
        schedule: ``steps`` multiplies the rate by ``decay`` at each of ``milestones``; ``cosine`` goes to 0.
        milestones: iterations.
        sides: shorter sides in pixels of training scenes: one of them is drawn each time, or with ``side_sampling``
            ``range`` any length between the two.
        longest: a longer side above it makes the scene smaller.
        test_side, test_longest: the same in evaluation.
        flip: probability of a horizontal flip.
        batch_norm: of the backbone: ``batch``, ``synchronized`` over devices, or ``frozen``.
        precise_bn: batches of the training scenes by which running statistics are computed at the end; 0 keeps them.
        score_threshold, nms_threshold, detections: what counts as found: least score, overlap at which the weaker of
            two goes, and most objects of a scene.
        rpn_loss_weight: factor on the losses of the network that proposes regions.
        experiment: key of the recipe whose published experiment this is too, where a paper runs it with other values;
            empty for its own.
        sources: where each value is from, by the attribute's name; ``""`` names the source of all others.
    """

    architecture: Architecture
    iterations: int
    batch_size: int
    reference_batch: int
    lr: float
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_norm: bool = True
    warmup: int = 0
    warmup_factor: float = 0.001
    schedule: Literal["steps", "cosine"] = "steps"
    milestones: tuple[int, ...] = ()
    decay: float = 0.1
    sides: tuple[int, ...] = ()
    side_sampling: Literal["choice", "range"] = "choice"
    longest: int = 1333
    test_side: int = 800
    test_longest: int = 1333
    flip: float = 0.5
    batch_norm: Literal["batch", "synchronized", "frozen"] = "batch"
    precise_bn: int = 0
    score_threshold: float = 0.05
    nms_threshold: float = 0.5
    detections: int = 100
    rpn_loss_weight: float = 1.0
    experiment: str = ""
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def applied_lr(self) -> float:
        """The peak rate of this batch size."""
        return self.lr * self.batch_size / self.reference_batch

    @property
    def masks(self) -> bool:
        return self.architecture.startswith("mask")

    def factor(self, iteration: int) -> float:
        """Factor on the peak learning rate at ``iteration``, counted from 0."""
        import math

        warm = 1.0
        if iteration < self.warmup:
            warm = self.warmup_factor + (1 - self.warmup_factor) * iteration / self.warmup
        if self.schedule == "cosine":
            return warm * 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))
        return warm * self.decay ** sum(iteration >= milestone for milestone in self.milestones)


# What was read for the published recipes, and at which commit.
_MOCO = "facebookresearch/moco at 7397dfe, detection/configs/"
_DETECTRON2 = "Detectron2 at 02b5c4e, "
_DEFAULTS = f"{_DETECTRON2}detectron2/config/defaults.py"
_PAPER = "He et al. 2020 (MoCo, arXiv:1911.05722), section 4.2, from memory"

VOC07_12 = DetectionRecipe(
    architecture="faster_rcnn_c4",
    iterations=24000,
    batch_size=16,
    reference_batch=16,
    lr=0.02,
    decay_norm=False,
    warmup=100,
    milestones=(18000, 22000),
    sides=tuple(range(480, 801, 32)),
    batch_norm="synchronized",
    precise_bn=200,
    sources={
        "": _DEFAULTS,
        **dict.fromkeys(
            ("architecture", "batch_size", "reference_batch", "lr", "batch_norm"), f"{_MOCO}Base-RCNN-C4-BN.yaml"
        ),
        **dict.fromkeys(
            ("iterations", "milestones", "warmup", "sides", "test_side"), f"{_MOCO}pascal_voc_R_50_C4_24k.yaml"
        ),
        "precise_bn": f"{_MOCO}Base-RCNN-C4-BN.yaml; its 200 batches: {_DEFAULTS}",
    },
)

VOC07 = replace(
    VOC07_12,
    iterations=9000,
    milestones=(6750, 8250),
    sources={
        **VOC07_12.sources,
        "iterations": f"{_PAPER}: 9k iterations on trainval2007; its configuration is not among the published files",
        "milestones": f"at the shares 3/4 and 11/12 of {_MOCO}pascal_voc_R_50_C4_24k.yaml",
    },
)

COCO_C4_1X = replace(
    VOC07_12,
    architecture="mask_rcnn_c4",
    iterations=90000,
    milestones=(60000, 80000),
    warmup=1000,
    sides=tuple(range(640, 801, 32)),
    sources={
        **VOC07_12.sources,
        **dict.fromkeys(("architecture", "sides", "test_side"), f"{_MOCO}coco_R_50_C4_2x.yaml"),
        **dict.fromkeys(("iterations", "milestones"), f"{_DETECTRON2}configs/Base-RCNN-C4.yaml"),
        "warmup": _DEFAULTS,
    },
)

COCO_C4_2X = replace(
    COCO_C4_1X,
    iterations=180000,
    milestones=(120000, 160000),
    sources={
        **COCO_C4_1X.sources,
        **dict.fromkeys(("iterations", "milestones"), f"{_MOCO}coco_R_50_C4_2x.yaml"),
    },
)

# MoCo's repository has no configuration with FPN.
_FPN = f"{_PAPER}: batch normalization is trained and synchronized, with FPN too"

COCO_FPN_1X = replace(
    COCO_C4_1X,
    architecture="mask_rcnn_fpn",
    sources={
        **COCO_C4_1X.sources,
        **dict.fromkeys(
            ("architecture", "batch_size", "reference_batch", "lr", "iterations", "milestones", "sides"),
            f"{_DETECTRON2}configs/Base-RCNN-FPN.yaml",
        ),
        "batch_norm": _FPN,
        "precise_bn": f"as with C4, {_MOCO}Base-RCNN-C4-BN.yaml; its 200 batches: {_DEFAULTS}",
    },
)

COCO_FPN_2X = replace(
    COCO_FPN_1X,
    iterations=180000,
    milestones=(120000, 160000),
    sources={
        **COCO_FPN_1X.sources,
        **dict.fromkeys(("iterations", "milestones"), f"{_MOCO}coco_R_50_C4_2x.yaml, whose schedule is that of 2x"),
    },
)

_BARLOW_TWINS = "Zbontar et al. 2021 (Barlow Twins, arXiv:2103.03230), its settings of detection"

VOC07_12_BARLOW_TWINS = replace(
    VOC07_12,
    lr=0.1,
    warmup=1000,
    warmup_factor=0.333,
    experiment="voc07+12",
    sources={**VOC07_12.sources, **dict.fromkeys(("lr", "warmup", "warmup_factor"), _BARLOW_TWINS)},
)

COCO_C4_1X_BARLOW_TWINS = replace(
    COCO_C4_1X,
    lr=0.03,
    experiment="coco_c4_1x",
    sources={**COCO_C4_1X.sources, "lr": _BARLOW_TWINS},
)

_VICREG = "Bardes et al. 2022 (VICReg, arXiv:2105.04906), its settings of detection"

VOC07_12_VICREG = replace(
    VOC07_12,
    lr=0.1,
    warmup=1000,
    warmup_factor=0.333,
    rpn_loss_weight=0.2,
    experiment="voc07+12",
    sources={**VOC07_12.sources, **dict.fromkeys(("lr", "warmup", "warmup_factor", "rpn_loss_weight"), _VICREG)},
)

COCO_FPN_1X_VICREG = replace(
    COCO_FPN_1X,
    lr=0.04,
    warmup=50,
    experiment="coco_fpn_1x",
    sources={**COCO_FPN_1X.sources, **dict.fromkeys(("lr", "warmup"), _VICREG)},
)

RECIPES: dict[str, DetectionRecipe] = {
    "voc07+12": VOC07_12,
    "voc07": VOC07,
    "coco_c4_1x": COCO_C4_1X,
    "coco_c4_2x": COCO_C4_2X,
    "coco_fpn_1x": COCO_FPN_1X,
    "coco_fpn_2x": COCO_FPN_2X,
    "voc07+12_barlow_twins": VOC07_12_BARLOW_TWINS,
    "coco_c4_1x_barlow_twins": COCO_C4_1X_BARLOW_TWINS,
    "voc07+12_vicreg": VOC07_12_VICREG,
    "coco_fpn_1x_vicreg": COCO_FPN_1X_VICREG,
    # Chosen on the validation scenes of digit_scenes.
    "small": DetectionRecipe(
        architecture="single_stage",
        iterations=150,
        batch_size=16,
        reference_batch=16,
        lr=4e-3,
        optimizer="adamw",
        warmup=20,
        schedule="cosine",
        longest=0,
        test_side=0,
        test_longest=0,
        flip=0.0,
        sources={"": "a choice of this package"},
    ),
}


def find_recipe(name: str) -> DetectionRecipe:
    """The recipe of this name.

    Raises:
        SpecError: there is none.
    """
    if name not in RECIPES:
        raise SpecError(f"detection: there is no recipe {name!r}. Choose one of {', '.join(RECIPES)}.")
    return RECIPES[name]


def changed(recipe: DetectionRecipe, **changes: Any) -> tuple[DetectionRecipe, tuple[str, ...]]:
    """The recipe with other values where they are not None, and each departure in words.

    Other iterations move the milestones in proportion, fewer the warm-up too. The source of another value says what the
    recipe has.
    """
    given = {name: value for name, value in changes.items() if value is not None and value != getattr(recipe, name)}
    words = tuple(f"{name} {value}; the recipe has {getattr(recipe, name)}" for name, value in given.items())
    if "iterations" in given:
        share = given["iterations"] / recipe.iterations
        given.setdefault("milestones", tuple(round(share * at) for at in recipe.milestones))
        given.setdefault("warmup", round(share * recipe.warmup) if share < 1 else recipe.warmup)
    other = {n: v for n, v in given.items() if v != getattr(recipe, n)}
    sources = {name: f"this evaluation; the recipe has {getattr(recipe, name)}" for name in other}
    return replace(recipe, **given, sources={**recipe.sources, **sources}), words


def resolved(
    *,
    recipe: str,
    architecture: str | None = None,
    iterations: int = 0,
    batch_size: int = 0,
    lrs: Sequence[float] | None = None,
    sides: Sequence[int] | None = None,
    test_side: int | None = None,
    flip: float | None = None,
) -> tuple[DetectionRecipe, tuple[float, ...], tuple[str, ...]]:
    """What the parameters of the protocol ``detection`` come to, which explains them.

    Returns:
        The recipe at the first learning rate, all learning rates, and each departure from the named recipe in words.

    Raises:
        SpecError: there is no such recipe.
    """
    named = find_recipe(recipe)
    found, departures = changed(
        named,
        architecture=architecture,
        iterations=iterations or None,
        batch_size=batch_size or None,
        sides=None if sides is None else tuple(sides),
        test_side=test_side if test_side is not None or not sides else sides[-1],
        flip=flip,
    )
    rates = (found.lr,) if lrs is None else tuple(lrs)
    if rates != (named.lr,):
        departures += (f"lr {', '.join(f'{lr:g}' for lr in rates)}; the recipe has {named.lr:g}",)
        found = replace(found, sources={**found.sources, "lr": f"this evaluation; the recipe has {named.lr:g}"})
    return replace(found, lr=rates[0]) if rates else found, rates, departures


def check_engine(engine: str, architecture: str) -> None:
    """Refuse an unknown engine, or an architecture that it does not have.

    Raises:
        SpecError: with what there is.
    """
    if engine not in get_args(Engine):
        raise SpecError(f"detection: there is no engine {engine!r}. Choose one of {', '.join(get_args(Engine))}.")
    known = ARCHITECTURES[engine]  # type: ignore[index]
    if architecture not in known:
        raise SpecError(
            f"detection: engine {engine} has no architecture {architecture!r}. It has {', '.join(known)}; "
            "the recipe or `architecture` names it."
        )

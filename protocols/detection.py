"""Transfer to object detection: an encoder becomes the backbone of a detector, which learns from scenes with boxes.

The published experiments fine-tune Faster R-CNN on PASCAL VOC and Mask R-CNN on COCO (He et al. 2020, MoCo,
arXiv:1911.05722, section 4.2, and its detection code, whose settings later papers share). Engine ``detectron2`` runs
them with Detectron2; engine ``torchvision`` needs nothing further and serves small sets.

1. The encoder's copy becomes the backbone; every tensor of it must arrive, or the job fails.
2. The detector is trained on the training scenes, once for each learning rate. On the way it is tried on the
   validation scenes; the last trial chooses the rate. A published recipe has one rate, so that nothing is chosen.
3. The test scenes are read once. Average precision is that of COCO (101 recall points, mean over IoU 0.5:0.95), and in
   sets of VOC's layout that of VOC 2007 too (11 recall points), which is what published values on VOC are.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bench.card import Need, ProtocolCard
from bench.data.dataset import ImageDataset
from bench.data.detection import DetectionDataset
from bench.detection.detector import Task
from bench.detection.engines import build
from bench.detection.products import head_products
from bench.detection.recipes import check_engine, resolved
from bench.detection.training import Trained, detect_all, train_detector
from bench.encoders.encoder import Encoder
from bench.errors import DataError, DivergenceError, JobError, SpecError
from bench.metric import AP, AP50, AP75, MASK_AP, MASK_AP50, MASK_AP75, VOC_AP, VOC_AP50, VOC_AP75
from bench.protocol import Outcome, Protocol, Work
from bench.registry import register_protocol
from bench.statistics.detection import breakdown, detection_frame, detection_scores
from bench.training.precision import true_float32
from bench.training.randomness import isolated_rng


@register_protocol(
    "detection",
    card=ProtocolCard(
        title="Object detection",
        summary="Average precision of a detector whose backbone is the encoder, fine-tuned on scenes with boxes unless "
        "it is frozen.",
        metrics=(AP, AP50, AP75, MASK_AP, MASK_AP50, MASK_AP75, VOC_AP, VOC_AP50, VOC_AP75),
        requires=("boxes",),
        paper="he2020moco",
        chance="near 0: a box at a random place hardly ever overlaps an object by half",
        needs=(
            Need(
                parameter="engine",
                value="detectron2",
                module="detectron2",
                advice="Install it from its repository as its INSTALL.md says (python -m pip install "
                "--no-build-isolation 'git+https://github.com/facebookresearch/detectron2.git', with torch installed "
                "first), or choose engine: torchvision.",
            ),
        ),
    ),
)
class Detection(Protocol):
    """Training of a detector, and its average precision.

    A setting of None or 0 is the recipe's own; a value that a published recipe does not have is kept as a departure.

    Args:
        engine: ``torchvision``, or ``detectron2`` where that is installed.
        recipe: key of ``bench.detection.recipes.RECIPES``.
        architecture: instead of the recipe's: ``single_stage``, ``faster_rcnn_fpn``, ``faster_rcnn_c4``,
            ``mask_rcnn_c4`` or ``mask_rcnn_fpn``, as far as the engine has it.
        frozen: the backbone keeps its weights.
        iterations: optimizer steps; milestones move in proportion, and with fewer steps the warm-up.
        batch_size: scenes of a step over all devices; the learning rate is scaled in proportion.
        lrs: learning rates at the recipe's reference batch; the validation split chooses among several.
        sides: shorter sides in pixels of training scenes; the last also of test scenes, unless ``test_side`` says.
        test_side: shorter side of test scenes.
        flip: probability of a horizontal flip.
        trials: how often the detector is tried on the validation split, the end included.
        pictures: test scenes that are kept in the store with what was found, for the report.
    """

    def __init__(
        self,
        *,
        engine: str = "torchvision",
        recipe: str = "small",
        architecture: str | None = None,
        frozen: bool = False,
        iterations: int = 0,
        batch_size: int = 0,
        lrs: tuple[float, ...] | None = None,
        sides: tuple[int, ...] | None = None,
        test_side: int | None = None,
        flip: float | None = None,
        trials: int = 4,
        pictures: int = 6,
    ) -> None:
        self.name = recipe
        self.engine = engine
        self.frozen = frozen
        self.recipe, self.lrs, self.departures = resolved(
            recipe=recipe,
            architecture=architecture,
            iterations=iterations,
            batch_size=batch_size,
            lrs=lrs,
            sides=sides,
            test_side=test_side,
            flip=flip,
        )
        check_engine(engine, self.recipe.architecture)
        if not self.lrs or min(self.lrs) <= 0 or iterations < 0 or batch_size < 0 or trials < 1 or pictures < 0:
            raise SpecError("detection: needs a learning rate above 0 and a trial; no setting may be negative.")
        if min((self.recipe.test_side, *(sides or (1,)))) < 0 or 0 in (sides or ()) or not 0 <= self.recipe.flip <= 1:
            raise SpecError(
                f"detection: sides {sides}, test_side {test_side} and flip {flip} must be lengths in pixels above 0 "
                "(test_side 0 keeps test scenes as they are; leave sides empty to keep training scenes) and a "
                "probability."
            )
        self.trials = trials
        self.pictures = pictures

    def evaluate(self, encoder: Encoder, data: ImageDataset, *, seed: int, device: str) -> Outcome:
        started = time.perf_counter()
        if not isinstance(data, DetectionDataset):
            raise DataError(f"detection: {data.title} has no boxes. Choose scenes in VOC's or COCO's layout.")
        if lacking := self.card.lacking({"engine": self.engine}):
            raise JobError(f"detection: {lacking}")
        train, validation = data.split("train"), data.split("validation")
        if len(self.lrs) > 1 and not len(validation):
            raise DataError(f"detection: {data.title} has no validation scenes to choose a learning rate. Give one.")
        runs: list[Trained] = []
        with true_float32():
            for number, lr in enumerate(self.lrs):
                recipe = replace(self.recipe, lr=lr)
                task = Task(
                    encoder=encoder, class_names=data.class_names, recipe=recipe, frozen=self.frozen, device=device
                )
                with isolated_rng(seed, "detection", device=device):  # every rate begins with the same weights
                    built = build(self.engine, task)
                runs.append(
                    train_detector(
                        built,
                        task,
                        train,
                        validation,
                        seed=seed,
                        trials=self.trials,
                        workspace=self.workspace,
                        run=(number, len(self.lrs)),
                    )
                )
            best = _choose(runs)
            trained = time.perf_counter()
            test = data.split("test")
            found = detect_all(best.detector, test, best.recipe, device=device)
        frame = detection_frame(test, found, pictures=self.pictures)
        scores, undefined = detection_scores(frame, data.class_names, layout=data.layout, seed=seed)
        return Outcome(
            scores=scores,
            predictions=frame,
            details={
                "engine": self.engine,
                "recipe": self.name,
                "architecture": self.recipe.architecture,
                "frozen": self.frozen,
                "lr": best.recipe.lr,
                "applied_lr": best.recipe.applied_lr,
                "settings": settings(best.recipe),
                "departures": list(self.departures),
                "classes": list(data.class_names),
                "layout": data.layout,
                "grid": [run.record() for run in runs],
                "curve": best.curve,
                **best.details,
                "undefined": undefined,
                "measured": breakdown(frame, data.class_names),
            },
            seconds={"fit": trained - started, "test": time.perf_counter() - trained},
        )

    def work(self, sizes: Mapping[str, int], *, num_classes: int, feature_dim: int) -> Work:
        recipe = self.recipe
        sides = recipe.sides or ((recipe.test_side,) if recipe.test_side else ())
        # Scenes are wider than high, mostly 4:3.
        pixels = sum(side * side for side in sides) / len(sides) * 4 / 3 if sides else None
        rates = len(self.lrs)
        tried = rates * min(self.trials, recipe.iterations) * sizes["validation"]
        trained = float(rates * recipe.iterations * recipe.batch_size)
        forward = float(tried + sizes["test"] + (0 if self.frozen else rates * recipe.precise_bn * recipe.batch_size))
        heads = head_products(recipe, classes=num_classes, feature_dim=feature_dim)
        return Work(
            forward=forward + (trained if self.frozen else 0.0),
            trained=0.0 if self.frozen else trained,
            products=3 * trained * heads.trained + forward * heads.tested,
            products_by_pixel=(3 * trained + forward) * heads.by_pixel,
            pixels=pixels,
        )


def settings(recipe: Any) -> dict[str, Any]:
    """The recipe's values, JSON-serializable."""
    return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(recipe).items() if name != "sources"}


def _choose(runs: list[Trained]) -> Trained:
    """Highest AP on validation; of equal ones the first."""
    finite = [run for run in runs if run.finite]
    if not finite:
        raise DivergenceError("detection: the loss became NaN or infinite. Take smaller learning rates (lrs).")
    return max(finite, key=lambda run: -1.0 if run.validation_ap is None else run.validation_ap)

"""The battery for protocols: a few evaluations of a tiny encoder on a synthetic dataset.

It has six classes, findings where the card asks for ``multilabel``, or scenes where it asks for ``boxes``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bench.card import ProtocolCard
from bench.check.agreement import close_columns, equal_frames, lasting
from bench.check.battery import CheckResult, ContractBrokenError, literal_defaults, run_checks
from bench.check.methods import TinyBackbone
from bench.check.scenes import RecordingScenes, check_frame, other_objects, recomputed, synthetic_scenes
from bench.data.dataset import UNCERTAIN, UNKNOWN, ImageDataset, Subset
from bench.data.pixels import planes, unit
from bench.encoders.encoder import Encoder
from bench.metric import AUROC, AVERAGE_PRECISION, BALANCED_ACCURACY, TOP1, TOP5
from bench.protocol import Outcome, Protocol
from bench.registry import Entry
from bench.statistics.ranking import Curve, average_precisions, curves, roc_areas
from bench.training.randomness import isolated_rng

NUM_CLASSES = 6
SIZES = {"train": 600, "validation": 60, "test": 60}
SEED = 1
LENGTHS, LONGEST = ("steps", "epochs", "iterations"), 20
PREDICTED = ("top", "log_p", "probability", "found_")
"""How the columns of what was predicted begin; the others may hold the label."""
PICTURE = "picture"
"""A column of images for pages, which the first scenes have, whichever these are."""


def check_protocol(entry: Entry) -> list[CheckResult]:
    """Run the battery on a registered protocol.

    Parameters called ``steps``, ``epochs`` or ``iterations`` are cut to 20, so that the battery stays quick; the rest
    has its defaults. A protocol whose card says ``compares_images`` is not asked to judge each image alone.
    """
    assert isinstance(entry.card, ProtocolCard)
    trial = ProtocolTrial(entry, entry.card)
    results = run_checks((card_is_complete, defaults_are_literals, evaluates), trial, entry)
    if not results[-1].ok:
        return results
    skipped = (judges_each_image_alone,) if entry.card.compares_images else ()
    return results + run_checks([check for check in OUTCOME_CHECKS if check not in skipped], trial, entry)


@dataclass(frozen=True, kw_only=True)
class RecordingDataset(ImageDataset):
    """A dataset that notes which splits were read, in order."""

    reads: list[str] = field(default_factory=list)

    def split(self, name: str) -> Subset:
        self.reads.append(name)
        return super().split(name)


def synthetic_dataset() -> RecordingDataset:
    """Noisy copies of one 8x8 pattern per class."""
    rng = np.random.default_rng(0)
    total = sum(SIZES.values())
    labels = np.arange(total, dtype=np.int64) % NUM_CLASSES
    patterns = rng.uniform(60, 195, (NUM_CLASSES, 8, 8, 1))
    pixels = patterns[labels] + rng.normal(0, 30, (total, 8, 8, 1))
    ends = np.cumsum([0, *SIZES.values()])
    return RecordingDataset(
        key="synthetic",
        title="Synthetic patterns",
        images=pixels.clip(0, 255).astype(np.uint8),
        labels=labels,
        class_names=tuple("abcdef"),
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(SIZES)},
    )


def synthetic_findings() -> RecordingDataset:
    """Noisy sums of the patterns of an image's findings; two images a patient, some labels uncertain or unknown."""
    rng = np.random.default_rng(0)
    total = sum(SIZES.values())
    labels = rng.integers(0, 2, (total, NUM_CLASSES))
    patterns = rng.uniform(-60, 60, (NUM_CLASSES, 64))
    pixels = (128 + labels @ patterns + rng.normal(0, 20, (total, 64))).reshape(total, 8, 8, 1)
    labels[rng.random(labels.shape) < 0.05] = UNCERTAIN
    labels[rng.random(labels.shape) < 0.05] = UNKNOWN
    return replace(
        synthetic_dataset(),
        title="Synthetic findings",
        images=pixels.clip(0, 255).astype(np.uint8),
        labels=labels,
        metadata={"patient": np.array([f"patient {index // 2}" for index in range(total)])},
    )


def other_labels(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Another class for every image, or the opposite of every known finding."""
    if labels.ndim == 2:
        return np.where(labels >= 0, 1 - labels, labels)
    return (labels + 1) % NUM_CLASSES


def unlike_half(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """About half of the images, which are unlike the whole."""
    return labels[:, 0] == 1 if labels.ndim == 2 else labels < NUM_CLASSES // 2


def tiny_encoder(data: ImageDataset) -> Encoder:
    """A random convolutional network whose running statistics have seen the training images."""
    mean, std = data.channel_statistics
    with isolated_rng(0, "backbone"):
        module = TinyBackbone(data.channels, 12)
    encoder = Encoder(
        module=module,
        feature_dim=12,
        channels=data.channels,
        image_size=data.image_size,
        mean=mean,
        std=std,
        origin="random weights",
        identity="",
    )
    with torch.no_grad():
        module.train()(encoder.normalize(unit(planes(data.split("train").images[:]))))
    module.eval()
    return encoder


def synthetic_data(card: ProtocolCard) -> RecordingDataset | RecordingScenes:
    """What the card asks for."""
    if "boxes" in card.requires:
        return synthetic_scenes()
    return synthetic_findings() if "multilabel" in card.requires else synthetic_dataset()


def with_other_test_labels(data: RecordingDataset | RecordingScenes) -> RecordingDataset | RecordingScenes:
    """The same images, of which those of the test split show something else, as their labels and boxes say."""
    if isinstance(data, RecordingScenes):
        return other_objects(data)
    labels, test = data.labels.copy(), data.splits["test"]
    labels[test] = other_labels(labels[test])
    return replace(data, labels=labels, reads=[])


def _cut(name: str, value: Any) -> Any:
    """A length of at most 20; None and 0 stand for one that the protocol finds itself, iterations for the recipe's."""
    if name == "iterations":
        return min(value or LONGEST, LONGEST)
    return min(value, LONGEST) if name in LENGTHS and value else value


class ProtocolTrial:
    """One protocol on the synthetic dataset; the first evaluation is shared by the checks."""

    def __init__(self, entry: Entry, card: ProtocolCard) -> None:
        self.entry = entry
        self.card = card
        self.params = {name: _cut(name, value) for name, value in entry.complete({}).items()}
        self.data = synthetic_data(card)
        self.encoder = tiny_encoder(self.data)
        self.weights = {name: tensor.clone() for name, tensor in self.encoder.module.state_dict().items()}

    def evaluate(self, data: ImageDataset) -> Outcome:
        protocol = self.entry.load()(**self.params)
        if not isinstance(protocol, Protocol):
            raise ContractBrokenError(f"{self.entry.name} must inherit from bench.protocol.Protocol.")
        return protocol.evaluate(self.encoder, data, seed=SEED, device="cpu")

    @cached_property
    def outcome(self) -> Outcome:
        return self.evaluate(self.data)

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """What must not depend on anything but the encoder, the fit and the scene or image."""
        return self.outcome.predictions.drop(columns=PICTURE, errors="ignore")

    @cached_property
    def test_labels(self) -> NDArray[np.int64]:
        return self.data.labels[self.data.splits["test"]]


def card_is_complete(trial: ProtocolTrial) -> None:
    """The card has a title, a summary and at least one metric."""
    if not (trial.card.title.strip() and trial.card.summary.strip() and trial.card.metrics):
        raise ContractBrokenError("the card lacks a title, a summary or metrics. Tables print all three.")


def defaults_are_literals(trial: ProtocolTrial) -> None:
    """Every parameter has a literal default."""
    literal_defaults(trial.entry)


def evaluates(trial: ProtocolTrial) -> None:
    """`evaluate` returns an Outcome with the card's metrics, in order."""
    outcome = trial.outcome
    if not isinstance(outcome, Outcome):
        raise ContractBrokenError(f"evaluate returned {type(outcome).__name__}. Return a bench.protocol.Outcome.")
    metrics = tuple(score.metric for score in outcome.scores)
    if metrics != trial.card.metrics:
        returned, promised = ([m.key for m in group] for group in (metrics, trial.card.metrics))
        raise ContractBrokenError(f"evaluate returned the metrics {returned}, the card promises {promised}.")


def scores_are_sound(trial: ProtocolTrial) -> None:
    """Every score counts the test images, and its interval holds it and says what it covers."""
    for score in trial.outcome.scores:
        what = f"score {score.metric.key!r}"
        if score.n != len(trial.test_labels):
            raise ContractBrokenError(f"{what} has n={score.n}; the test split has {len(trial.test_labels)} images.")
        if math.isnan(score.value):
            if score.metric.key not in trial.outcome.details.get("undefined", {}):
                raise ContractBrokenError(f"{what} is NaN. Say why in details['undefined'][{score.metric.key!r}].")
        elif score.low is not None and score.high is not None:
            if not score.low <= score.value <= score.high:
                raise ContractBrokenError(f"{what} is {score.value}, outside [{score.low}, {score.high}].")
            if not score.covers or not score.method:
                raise ContractBrokenError(f"{what} has an interval, but `covers` or `method` is empty.")


def predictions_are_complete(trial: ProtocolTrial) -> None:
    """The predictions hold every test sample once, by its index in the dataset."""
    predictions = trial.outcome.predictions
    if "sample" not in predictions:
        raise ContractBrokenError("the predictions have no column 'sample'. Add subset.samples.")
    if sorted(predictions["sample"]) != sorted(trial.data.splits["test"]):
        raise ContractBrokenError("the predictions' samples are not those of the test split, each once.")
    if isinstance(trial.data, RecordingScenes):
        test = trial.data.splits["test"]
        check_frame(predictions, trial.data.objects.of_scenes(test), test)


def predictions_recompute_scores(trial: ProtocolTrial) -> None:
    """Top-1 and top-5 follow from the predictions, and so do balanced accuracy, AUROC and average precision."""
    predictions = trial.outcome.predictions
    if isinstance(trial.data, RecordingScenes):
        _check_detections(trial, trial.data)
    for score in trial.outcome.scores:
        if not math.isnan(score.value) and (recompute := RECOMPUTED.get(score.metric.key)):
            value = recompute(predictions)
            if not math.isclose(value, score.value, abs_tol=1e-3):  # columns are stored in single precision
                raise ContractBrokenError(f"{score.metric.key} is {score.value}, the predictions give {value}.")
        ranks = {TOP1.key: 1, TOP5.key: 5}.get(score.metric.key)
        if ranks is None or math.isnan(score.value):
            continue
        columns = [f"top{rank}" for rank in range(1, ranks + 1)]
        if missing := [name for name in ("label", *columns) if name not in predictions]:
            raise ContractBrokenError(f"the predictions lack {missing}, so {score.metric.key} cannot be recomputed.")
        hits = predictions[columns].eq(predictions["label"], axis=0).any(axis=1)
        if not math.isclose(100 * hits.mean(), score.value, abs_tol=1e-9):
            raise ContractBrokenError(f"{score.metric.key} is {score.value}, the predictions give {100 * hits.mean()}.")


def _check_detections(trial: ProtocolTrial, data: RecordingScenes) -> None:
    values = recomputed(trial.outcome.predictions, data, seed=SEED)
    for score in trial.outcome.scores:
        value = values.get(score.metric.key, score.value)
        if not (math.isclose(value, score.value, abs_tol=1e-6) or (math.isnan(value) and math.isnan(score.value))):
            raise ContractBrokenError(f"{score.metric.key} is {score.value}, the predictions give {value}.")


def _balanced_accuracy(predictions: pd.DataFrame) -> float:
    correct = predictions["top1"] == predictions["label"]
    return float(100 * correct.groupby(predictions["label"]).mean().mean())


def _macro(curve: Curve) -> Callable[[pd.DataFrame], float]:
    """Mean over the columns ``probability …`` against ``label …``, or ``log_p…`` against ``label``; NaN without any."""

    def value(predictions: pd.DataFrame) -> float:
        columns = [str(name) for name in predictions if str(name).startswith(("log_p", "probability "))]
        if not columns:
            return math.nan
        scores = predictions[columns].to_numpy(dtype=np.float64)
        if columns[0].startswith("log_p"):
            labels = (predictions["label"].to_numpy()[:, None] == np.arange(len(columns))).astype(np.int64)
        else:
            labels = predictions[[name.replace("probability ", "label ", 1) for name in columns]].to_numpy()
        found = curves(curve, scores, labels, np.ones((1, len(scores))))[:, 0]
        return float(found[~np.isnan(found)].mean())

    return value


RECOMPUTED: dict[str, Callable[[pd.DataFrame], float]] = {
    BALANCED_ACCURACY.key: _balanced_accuracy,
    AUROC.key: _macro(roc_areas),
    AVERAGE_PRECISION.key: _macro(average_precisions),
}


def details_are_json(trial: ProtocolTrial) -> None:
    """The details are JSON, and the seconds are times by phase."""
    try:
        json.dumps(trial.outcome.details, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ContractBrokenError(
            f"the details are not JSON: {error}. Use plain numbers, strings and lists."
        ) from error
    if not trial.outcome.seconds or any(value < 0 for value in trial.outcome.seconds.values()):
        raise ContractBrokenError(f"the seconds are {trial.outcome.seconds}. Give the wall time of each phase.")


def reads_test_last_and_once(trial: ProtocolTrial) -> None:
    """The test split is read once, after everything else."""
    data = replace(trial.data, reads=[])
    trial.evaluate(data)
    if data.reads.count("test") != 1 or data.reads[-1] != "test":
        raise ContractBrokenError(
            f"the splits were read in the order {data.reads}. Fit on train, choose on validation, then call "
            'data.split("test"), once.'
        )


def ignores_test_labels(trial: ProtocolTrial) -> None:
    """Other test labels change neither what was chosen nor what is predicted; details['measured'] may follow them."""
    other = trial.evaluate(with_other_test_labels(trial.data))
    before, after = (
        {name: value for name, value in outcome.details.items() if name != "measured"}
        for outcome in (trial.outcome, other)
    )
    if json.dumps(lasting(before), sort_keys=True) != json.dumps(lasting(after), sort_keys=True):
        raise ContractBrokenError(
            "with other test labels the details differ: something was chosen on the test split. Further measurements "
            "on it, which decide nothing, go to details['measured']."
        )
    ranked = [name for name in trial.predictions if str(name).startswith(PREDICTED)]
    if not equal_frames(other.predictions[ranked], trial.predictions[ranked]):
        raise ContractBrokenError("with other test labels the predicted classes differ: they were used in the fit.")


def judges_each_image_alone(trial: ProtocolTrial) -> None:
    """What is predicted for a test image does not depend on which others are in the test split."""
    kept = trial.data.splits["test"][unlike_half(trial.test_labels)]
    fewer = trial.evaluate(replace(trial.data, splits={**trial.data.splits, "test": kept}, reads=[])).predictions
    before, after = (frame.set_index("sample").loc[kept] for frame in (trial.predictions, fewer))
    for name in before:
        if not close_columns(before[name], after[name]):
            raise ContractBrokenError(
                f"with half of the test images, {name!r} of the others changes: something was estimated on the test "
                "split. Take statistics from the training split; a protocol that compares images with each other says "
                "compares_images=True in its card."
            )


def seed_decides(trial: ProtocolTrial) -> None:
    """The same seed gives the same scores and predictions."""
    again = trial.evaluate(trial.data)
    values = [[score.value for score in outcome.scores] for outcome in (trial.outcome, again)]
    if repr(values[0]) != repr(values[1]) or not equal_frames(
        again.predictions[list(trial.predictions)], trial.predictions
    ):
        raise ContractBrokenError(
            f"two evaluations with one seed gave {values[0]} and {values[1]}. Draw every random number from the seed."
        )


def encoder_stays(trial: ProtocolTrial) -> None:
    """The encoder's weights and statistics are as before."""
    _ = trial.outcome
    for name, tensor in trial.encoder.module.state_dict().items():
        if not torch.equal(tensor.cpu(), trial.weights[name]):
            raise ContractBrokenError(f"{name} of the encoder was changed. Train encoder.clone() instead.")


OUTCOME_CHECKS: tuple[Callable[[ProtocolTrial], None], ...] = (
    scores_are_sound,
    predictions_are_complete,
    predictions_recompute_scores,
    details_are_json,
    reads_test_last_and_once,
    ignores_test_labels,
    judges_each_image_alone,
    seed_decides,
    encoder_stays,
)

"""What to do next, and what to beware of: the end of the verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from bench.metric import AP, AUROC, TOP1
from bench.statistics.paired import needed
from reports.contest import POINTS, Contest, value_words
from reports.words import counted, listed

WITHOUT_PATIENTS = frozenset(
    (
        *("digits", "mnist5k", "fashion_mnist", "cifar10", "cifar100", "stl10"),
        *("imagenet", "imagenet100", "tiny_imagenet", "digit_scenes"),
    )
)
"""Datasets of things and characters: nobody misses their patients."""
FEW_POSITIVES, FEW_IMAGES, FEW_PATIENTS, FEW_TRAINING, ENOUGH_SEEDS = 10, 100, 30, 200, 3
NO_DETECTOR = 1.0
"""An AP below it says that nearly nothing is found."""
FEW_OBJECTS = 100
HOPELESS = 20.0
"""A test split that had to grow more than so many times is no advice."""


# --- what to do next --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do, with the command that does it where there is one."""

    text: str
    command: str = ""


def advice(contest: Contest) -> Iterable[Advice]:
    lacking = [title for title, _ in contest.absent]
    if lacking:
        yield Advice(text=f"Finish {listed(lacking)}: “What is missing” below has the reasons and the commands.")
    trained = [entrant.seeds for entrant in contest.entrants if entrant.epochs]
    if trained and min(trained) < ENOUGH_SEEDS:
        yield Advice(
            text=f"Train each method {ENOUGH_SEEDS} times, because a single training may be lucky.",
            command=f"{contest.command} --seeds {ENOUGH_SEEDS}",
        )
    yield from (Advice(text=sentence) for sentence in _separation(contest))


def _separation(contest: Contest) -> Iterable[str]:
    """What would tell the best from the last of its group, the pair of it that differs most."""
    if contest.comparison is None or len(contest.methods) < 2:
        return
    leaders = contest.comparison.leaders(contest.methods)
    if len(leaders) < 2:
        return
    best, last = (contest.entrants[index] for index in (leaders[0], leaders[-1]))
    item = contest.comparison.between(leaders[0], leaders[-1])
    if not item.value:
        yield f"{best.title} and {last.title} have the same value: choose by cost, or by what you know of them."
        return
    pairs = len(contest.comparison.differences)
    more = needed(item, seeds=min(best.seeds, last.seeds), pairs=pairs)
    seen = f"if they truly differ by the {POINTS.format(item.value)} points seen here"
    if more.images is not None and more.images <= HOPELESS:
        count = _rounded(contest.images * more.images)
        kind = "test images" + (" (and more patients in proportion)" if contest.clustered else "")
        yield (
            f"To tell {best.title} from {last.title}, which differ most in the leading group, about {count} {kind} "
            f"would be needed in place of {contest.images}, {seen}."
        )
    elif more.seeds is not None and more.seeds <= HOPELESS * best.seeds:
        yield f"To tell {best.title} from {last.title}, about {more.seeds} seeds of each would be needed, {seen}."
    else:
        yield (
            f"{best.title} and {last.title} lie so close that more than {HOPELESS:.0f} times the test images would be "
            "needed to tell them apart: choose by cost, or by what you know of them."
        )


def _rounded(count: float) -> int:
    """Up to two digits: the estimate is no better than that."""
    unit: int = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / unit) * unit


# --- what to beware of ------------------------------------------------------------------------------------------


def warnings(contest: Contest, collapsed: Sequence[str]) -> Iterable[str]:
    yield from _about_patients(contest)
    yield from _about_numbers(contest)
    yield from _about_guessing(contest)
    for title in dict.fromkeys(collapsed):
        yield f"{title} collapsed in training: its network gives nearly the same answer for every image."
    for title, reason in contest.absent:
        yield f"{title} takes no part in the comparison: {reason}."
    epochs = {entrant.epochs for entrant in contest.entrants if entrant.epochs}
    if len(epochs) > 1:
        yield f"The methods were trained for different numbers of epochs ({listed([str(e) for e in sorted(epochs)])})."


def _about_patients(contest: Contest) -> Iterable[str]:
    if contest.facts.get("shared_patients"):
        yield (
            f"{counted(contest.facts['shared_patients'], 'patient')} have images in more than one split: a method may "
            "recognize the patient in place of the disease, and all values are too high."
        )
    if contest.patients is None or not (contest.patients != "").any():
        if contest.facts.get("dataset") in WITHOUT_PATIENTS:
            return
        yield (
            "Patients are unknown. If several images come from one patient, some may lie in the training and in the "
            "test images: the values would be too high and the intervals too narrow. A table of labels with a column "
            "“patient” rules that out."
        )
    elif (contest.patients == "").any():
        lacking = int((contest.patients == "").sum())
        yield f"The patient of {counted(lacking, 'test image')} is unknown; each counts as a patient of its own."


def _about_numbers(contest: Contest) -> Iterable[str]:
    count = contest.patient_count
    if contest.images < FEW_IMAGES or (count is not None and count < FEW_PATIENTS):
        of = f" of {counted(count, 'patient')}" if count else ""
        yield f"The test split is small: {counted(contest.images, 'image')}{of}. Only large differences can show."
    if contest.objects is not None and contest.objects < FEW_OBJECTS:
        yield f"The test images show only {counted(contest.objects, 'object')}: AP changes much with each of them."
    training = contest.facts.get("splits", {}).get("train", {}).get("images")
    if training and training < FEW_TRAINING:
        yield f"Only {counted(training, 'training image')}: self-supervised pre-training usually needs thousands."
    names, positives = _positives(contest)
    none = [name for name, number in zip(names, positives, strict=True) if not number]
    untaught = _untaught(contest)
    few = [f"{name} ({number})" for name, number in zip(names, positives, strict=True) if 0 < number < FEW_POSITIVES]
    if untaught:
        yield f"No training image shows {listed(untaught)}: nothing can be learned of {_them(untaught)}."
    if none:
        yield f"No test image shows {listed(none)}: nothing is known about {_them(none)}."
    if few:
        yield (
            f"Few test images show {listed(few)}: a value that rests on fewer than {FEW_POSITIVES} images says little."
        )


def _untaught(contest: Contest) -> list[str]:
    """Classes or findings of which no training image is known to be an example."""
    counts = contest.facts.get("splits", {}).get("train", {}).get("counts", ())
    return [name for name, count in zip(contest.facts.get("classes", ()), counts, strict=False) if not count]


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _positives(contest: Contest) -> tuple[list[str], list[int]]:
    """Classes or findings and their test images, where the names are known."""
    names = list(contest.names)
    if contest.labels.ndim == 2:
        return names, (contest.labels == 1).sum(axis=0).tolist()
    return names, np.bincount(contest.labels, minlength=len(names)).tolist()[: len(names)]


def _about_guessing(contest: Contest) -> Iterable[str]:
    if not contest.methods:
        return
    best = max((contest.entrants[index] for index in contest.methods), key=lambda entrant: entrant.value)
    if contest.metric == AP:
        if (best.low if best.low is not None else best.value) < NO_DETECTOR:
            yield (
                f"Even the best value, {value_words(contest, best)}, may be that of a detector which finds next to "
                "nothing: it was trained too briefly, or on too few scenes, or the objects are too small in them."
            )
        return
    if contest.metric == AUROC:
        level, what = 50.0, "guessing"
    else:
        counts = np.unique(contest.labels, return_counts=True)[1]
        if len(counts) < 2:
            yield "All test images are of one class: the values say nothing about telling classes apart."
            return
        if contest.metric == TOP1:
            level, what = 100 * counts.max() / counts.sum(), "always naming the largest class"
        else:
            level, what = 100 / len(counts), "guessing"
    if (best.low if best.low is not None else best.value) <= level:
        yield (
            f"Even the best value, {value_words(contest, best)}, is not surely better than {what}, {level:.1f} %: the "
            "labels may not be visible in images of this size, or the training was too short."
        )

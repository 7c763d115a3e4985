"""What the verdict rests on: the methods that were tested on the same images, compared by their stored predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.metric import AP, AUROC, BALANCED_ACCURACY, TOP1, Metric
from bench.statistics.detection import average_precision_statistic
from bench.statistics.detection_frames import objects_in
from bench.statistics.paired import Comparison, compare
from bench.statistics.ranking import Units
from bench.statistics.weighted import Accuracy, Auroc, BalancedAccuracy, Statistic
from reports.measured import Measured, protocol_title
from reports.places import DETECTION, method_path
from reports.results import Record, Result, number, parsed, row_key

if TYPE_CHECKING:
    import pandas as pd

Loader = Callable[[str], "pd.DataFrame | None"]
"""Predictions by the identity of an evaluation; None where the store has none."""

MAIN = (DETECTION, "linear_probe", "multilabel_probe", "knn", "semi_supervised")
"""Protocols that a verdict may rest on; the first that the plan has for the images is taken."""
IMBALANCE = 3.0
"""Where the largest class has more than so many times the images of the smallest, all classes count alike."""
SEED = 20_001
MOST_WORK, RESAMPLES = 3 * 10**8, (200, 2000)
"""Detections of all methods times resamples at most; resamples at least and at most."""
PROBABILITY = "probability "
POINTS = Metric(key="difference", title="difference", unit="points", higher_is_better=None)


@dataclass(frozen=True, kw_only=True)
class Tested:
    """Predictions of one encoder for the test images, in the order of the samples.

    Attributes:
        samples: (n,) indices into the dataset.
        labels: (n,) classes, or (n, F) findings, or (n, K) whether a scene has an object of the class.
        patients: (n,) names, empty where unknown; None where the data know no patients.
        correct: (n,), of classes.
        scores: (n, F), of findings.
        scenes: what was found in each scene; see ``bench.statistics.detection_frames``.
        objects: that count, of all scenes.
        findings: names of the findings, or of the classes of objects.
    """

    samples: NDArray[np.int64]
    labels: NDArray[np.int64]
    patients: NDArray[np.str_] | None
    correct: NDArray[np.bool_] | None = None
    scores: NDArray[np.float64] | None = None
    scenes: pd.DataFrame | None = None
    objects: int | None = None
    findings: tuple[str, ...] = ()

    @property
    def tells_apart(self) -> bool:
        """Whether the test split has two patients at least, and images of both kinds, or objects."""
        if Units.of(len(self.labels), self.patients).count < 2:
            return False
        if self.objects is not None:
            return self.objects > 0
        if self.scores is None:
            return True
        return bool(((self.labels == 0).any(axis=0) & (self.labels == 1).any(axis=0)).any())

    def statistic(self, metric: Metric) -> Statistic:
        if self.scenes is not None:
            return average_precision_statistic(self.scenes, len(self.findings), metric_key=metric.key)
        if self.scores is not None:
            return Auroc(self.scores, self.labels)
        assert self.correct is not None
        return Accuracy(self.correct) if metric == TOP1 else BalancedAccuracy(self.correct, self.labels)


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One method in the contest.

    Attributes:
        value, low, high: the metric's mean over the seeds with its 95 % interval; no interval where nothing varies.
        baseline: it only shows what the others are to beat.
        learns_labels: its backbone was trained with all labels.
        imported: its weights come from a file.
    """

    name: str
    title: str
    href: str
    baseline: bool
    learns_labels: bool
    imported: bool = False
    epochs: int
    seeds: int
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Contest:
    """All methods under one protocol on the same test images.

    Attributes:
        data: title of the images.
        protocol: title of the protocol; ``protocol_key`` is its key.
        metric: what decides.
        entrants: those with values of every planned seed, in the order of the plan.
        absent: title of every other method, and why it cannot be compared.
        comparison: of the entrants, in their order; None with fewer than two.
        labels: (n,) classes or (n, F) findings of the test images, or (n, K) which classes of objects they show.
        objects: how many the test images show; None where there are no boxes.
        names: of the classes or findings; empty where nobody recorded them.
        patients: (n,) of the test images, or None.
        facts: of the images, as the evaluations recorded them; empty where none did.
        command: the first words of the command that runs the suite on these images.
    """

    data: str
    protocol_key: str
    protocol: str
    metric: Metric
    entrants: tuple[Entrant, ...]
    absent: tuple[tuple[str, str], ...]
    comparison: Comparison | None
    labels: NDArray[np.int64]
    patients: NDArray[np.str_] | None
    objects: int | None = None
    names: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    @cached_property
    def methods(self) -> tuple[int, ...]:
        """Indices of the entrants that are no baselines."""
        return tuple(index for index, entrant in enumerate(self.entrants) if not entrant.baseline)

    @property
    def seeds(self) -> int:
        """The fewest seeds of an entrant that is trained."""
        return min(entrant.seeds for entrant in self.entrants)

    @property
    def images(self) -> int:
        return len(self.labels)

    @property
    def clustered(self) -> bool:
        """Whether test images of one patient were counted together."""
        return self.comparison is not None and self.comparison.clusters < self.comparison.images

    @property
    def patient_count(self) -> int | None:
        """Patients of the test images; None unless all are known."""
        if self.patients is None or (self.patients == "").any():
            return None
        return len(set(self.patients.tolist()))


def value_words(contest: Contest, entrant: Entrant) -> str:
    """``81.2 % (76.0 to 85.9)``."""
    metric = contest.metric
    return f"{metric.format(entrant.value)} %{span_words(metric, entrant.low, entrant.high)}"


def span_words(metric: Metric, low: float | None, high: float | None) -> str:
    """`` (76.0 to 85.9)``, or nothing where there is no interval."""
    if low is None or high is None:
        return ""
    return f" ({metric.format(low)} to {metric.format(high)})".replace("-", "−")


def point_words(value: float) -> str:
    """A difference with a true minus sign."""
    return POINTS.format(value).replace("-", "−")


def contests(measured: Measured, predictions: Loader) -> tuple[Contest, ...]:
    """One contest for each set of test images whose methods can be compared, in the order of the plan."""
    by_data: dict[str, list[Result]] = {}
    for result in measured.results:
        by_data.setdefault(result.planned.spec.data.canonical_json(), []).append(result)
    found = (contest_of(measured, _main_results(results), predictions) for results in by_data.values())
    return tuple(contest for contest in found if contest is not None)


def contest_of(measured: Measured, chosen: Sequence[Result], predictions: Loader) -> Contest | None:
    """The contest of these results, which are of one protocol on one dataset; None without predictions."""
    if not chosen:
        return None
    absent: dict[str, str] = {}
    tested: dict[tuple[str, ...], list[Tested]] = {}
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in chosen:
        groups.setdefault(row_key(result.planned.spec), []).append(result)
    titles = _titles(measured, groups)
    for key, group in groups.items():
        seeds, reason = _all_tested(group, predictions)
        if seeds and tested and not _same_images(seeds[0], next(iter(tested.values()))[0]):
            seeds, reason = [], "its stored predictions are for other test images"
        if seeds:
            tested[key] = seeds
        else:
            absent[titles[key]] = reason
    first = next(iter(tested.values()))[0] if tested else None
    if first is None or not first.tells_apart:
        return None
    facts = _facts(chosen)
    metric = _metric(first, facts)
    comparison = compare(
        [[seed.statistic(metric) for seed in seeds] for seeds in tested.values()],
        images=len(first.labels),
        clusters=first.patients,
        generator=np.random.default_rng(SEED),
        resamples=resamples_for(seed.scenes for own in tested.values() for seed in own if seed.scenes is not None),
    )
    spec = chosen[0].planned.spec
    return Contest(
        data=measured.data_title(spec.data),
        protocol_key=spec.protocol,
        protocol=protocol_title(measured.protocols, spec.protocol, spec.variant),
        metric=metric,
        entrants=tuple(
            _entrant(measured, groups[key], titles[key], comparison, index, metric) for index, key in enumerate(tested)
        ),
        absent=tuple(absent.items()),
        comparison=comparison if len(tested) > 1 else None,
        labels=first.labels,
        patients=first.patients,
        objects=first.objects,
        names=first.findings or tuple(facts.get("classes", ())),
        facts=facts,
        command=chosen[0].planned.command.partition(" --methods ")[0],
    )


def resamples_for(frames: Iterable[pd.DataFrame]) -> int:
    """Fewer where detectors found so much in all of these scenes that a report would take minutes."""
    found = sum(sum(map(len, frame["found_scores"])) for frame in frames)
    return int(np.clip(MOST_WORK // max(1, found), *RESAMPLES))


def _main_results(results: Sequence[Result]) -> list[Result]:
    """Those of the protocol that decides: plain before a variant, more labels before fewer."""
    for protocol in MAIN:
        mine = [result for result in results if result.planned.spec.protocol == protocol]
        if mine:
            specs = {result.planned.spec.variant: result.planned.spec for result in mine}
            fraction = {variant: float(spec.protocol_params.get("fraction", 1.0)) for variant, spec in specs.items()}
            chosen = min(specs, key=lambda variant: (-fraction[variant], variant != ""))
            return [result for result in mine if result.planned.spec.variant == chosen]
    return []


def _titles(measured: Measured, groups: Mapping[tuple[str, ...], Sequence[Result]]) -> dict[tuple[str, ...], str]:
    """A title for each row; backbone, data and epochs are named where the method's name does not tell rows apart."""
    names = [key[0] for key in groups]
    titles = {}
    for key, group in groups.items():
        spec = group[0].planned.spec.pretrain
        title = measured.method_title(spec.name)
        if names.count(key[0]) > 1:
            title += f" ({measured.title(spec.backbone)}, {measured.data_title(spec.data)}, {key[3]} epochs)"
        titles[key] = title
    return titles


def _all_tested(group: Sequence[Result], predictions: Loader) -> tuple[list[Tested], str]:
    """Every planned seed's predictions, or nothing and the reason."""
    states = {result.planned.state for result in group} - {"fresh"}
    if states:
        words = {"failed": "it failed", "missing": "it was not run yet", "stale": "its values are stale"}
        return [], words[sorted(states)[0]] + (" for some seeds" if len(group) > 1 else "")
    found: list[Tested] = []
    for result in group:
        row = next(iter(result.metrics.values()), None)
        frame = predictions(str(row["identity"])) if row else None
        one = None if row is None or frame is None else _read(frame, parsed(row["details"]))
        if one is None:
            return [], "the store has no predictions of it"
        if found and not _same_images(one, found[0]):
            return [], "its seeds were tested on different images"
        found.append(one)
    return found, ""


def _read(frame: pd.DataFrame, details: Mapping[str, Any]) -> Tested | None:
    """Predictions of classes (``label``, ``top1``), of findings (``label f`` and ``probability f`` for each f), or of
    objects, whose classes ``details`` names."""
    ordered = frame.sort_values("sample", kind="stable")
    patients = ordered["patient"].to_numpy(dtype=str) if "patient" in ordered else None
    samples = ordered["sample"].to_numpy(dtype=np.int64)
    if {"label", "top1"} <= set(ordered.columns):
        labels = ordered["label"].to_numpy(dtype=np.int64)
        correct = ordered["top1"].to_numpy(dtype=np.int64) == labels
        return Tested(samples=samples, labels=labels, patients=patients, correct=correct)
    if "found_boxes" in ordered:
        return _read_scenes(ordered, samples, patients, tuple(map(str, details.get("classes", ()))))
    names = [name.removeprefix(PROBABILITY) for name in ordered.columns if name.startswith(PROBABILITY)]
    if not names or any(f"label {name}" not in ordered for name in names):
        return None
    return Tested(
        samples=samples,
        labels=ordered[[f"label {name}" for name in names]].to_numpy(dtype=np.int64),
        patients=patients,
        scores=ordered[[f"{PROBABILITY}{name}" for name in names]].to_numpy(dtype=np.float64),
        findings=tuple(names),
    )


def _read_scenes(
    frame: pd.DataFrame, samples: NDArray[np.int64], patients: NDArray[np.str_] | None, classes: tuple[str, ...]
) -> Tested | None:
    """What was found in scenes, beside their objects; None where nobody recorded the classes."""
    truth = objects_in(frame)
    counts = ~truth.crowd & ~truth.difficult
    labels = np.zeros((len(frame), len(classes)), dtype=np.int64)
    if not classes or (len(truth) and int(truth.labels.max()) >= len(classes)):
        return None
    labels[truth.scene[counts], truth.labels[counts]] = 1
    kept = frame.drop(columns="picture", errors="ignore").reset_index(drop=True)
    return Tested(
        samples=samples, labels=labels, patients=patients, scenes=kept, objects=int(counts.sum()), findings=classes
    )


def _same_images(one: Tested, other: Tested) -> bool:
    return np.array_equal(one.samples, other.samples) and np.array_equal(one.labels, other.labels)


def _facts(results: Sequence[Result]) -> dict[str, Any]:
    for result in results:
        for row in result.metrics.values():
            if found := parsed(row["details"]).get("data"):
                return dict(found)
    return {}


def _metric(tested: Tested, facts: Mapping[str, Any]) -> Metric:
    if tested.scenes is not None:
        return AP
    if tested.scores is not None:
        return AUROC
    counts = [np.unique(tested.labels, return_counts=True)[1].tolist()]
    counts += [split["counts"] for split in facts.get("splits", {}).values() if sum(split.get("counts", ()))]
    skewed = any(max(split) > IMBALANCE * min(count for count in split if count) for split in counts)
    return BALANCED_ACCURACY if skewed else TOP1


def _entrant(
    measured: Measured, group: Sequence[Result], title: str, comparison: Comparison, index: int, metric: Metric
) -> Entrant:
    spec = group[0].planned.spec.pretrain
    card = measured.methods.get(spec.name)
    span = comparison.intervals[index]
    low, high = (metric.clip(span[0]), metric.clip(span[1])) if span else (None, None)
    stored = group[0].metrics.get(metric.key)
    by_patient = comparison.clusters < comparison.images
    covered = stored is not None and by_patient == (stored["covers"] == "patients")
    if stored is not None and covered and len(group) == 1 and _agrees(stored, comparison.values[index]):
        low, high = number(stored["low"]), number(stored["high"])  # as in the tables
    return Entrant(
        name=spec.name,
        title=title,
        href=method_path(spec.name),
        baseline=measured.is_baseline(spec.name),
        learns_labels=card.uses_labels if card else False,
        imported=card.imported if card else False,
        epochs=spec.training.epochs if spec.training else 0,
        seeds=len(group),
        value=comparison.values[index],
        low=low,
        high=high,
    )


def _agrees(stored: Record, value: float) -> bool:
    """Whether the stored score has an interval and is that of the stored predictions."""
    return number(stored["low"]) is not None and math.isclose(number(stored["value"]) or 0.0, value, rel_tol=1e-6)

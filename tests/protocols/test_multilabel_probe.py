"""The probe for findings: right against scikit-learn, masked, chosen on validation, drawn by patient."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.data.dataset import UNCERTAIN, UNKNOWN
from bench.errors import DataError, DivergenceError, SpecError
from bench.metric import AUROC, AVERAGE_PRECISION
from protocols.multilabel_probe import MultilabelProbe, choose, labelled_by_patient

from .images import ReadLog, encoder_of, pixel_encoder

NAMES = ("nodule", "effusion", "fracture")
SIZES = (400, 120, 200)


def findings(*, unknown: float = 0.1) -> ReadLog:
    """Faint patterns that add up, four images a patient; uncertain and unknown labels in every split."""
    rng = np.random.default_rng(0)
    total = sum(SIZES)
    labels = (rng.random((total, 3)) < (0.5, 0.3, 0.1)).astype(np.int64)
    patterns = rng.uniform(-12, 12, (3, 64))
    pixels = 128 + labels @ patterns + rng.normal(0, 30, (total, 64))
    labels[rng.random(labels.shape) < unknown] = UNCERTAIN
    labels[rng.random(labels.shape) < unknown] = UNKNOWN
    ends = np.cumsum([0, *SIZES])
    return ReadLog(
        key="chests",
        title="Chests",
        images=pixels.clip(0, 255).astype(np.uint8).reshape(total, 8, 8, 1),
        labels=labels,
        class_names=NAMES,
        splits={name: np.arange(ends[i], ends[i + 1]) for i, name in enumerate(("train", "validation", "test"))},
        metadata={"patient": np.array([f"p{index // 4}" for index in range(total)])},
    )


def with_labels(data: ReadLog, split: str, labels: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> ReadLog:
    changed = data.labels.copy()
    changed[data.splits[split]] = labels
    return replace(data, labels=changed, reads=[])


def test_values_are_those_of_one_logistic_regression_per_finding() -> None:
    data = findings()
    outcome = MultilabelProbe(l2_range=(0.1, 0.1), l2_count=1).evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    train, test = data.split("train"), data.split("test")
    x, x_test = (pixel_encoder(data).features(part.images).numpy() for part in (train, test))
    mean, std = x.mean(axis=0), x.std(axis=0)
    areas, precisions = [], []
    for f in range(3):
        known, seen = train.labels[:, f] >= 0, test.labels[:, f] >= 0
        model = LogisticRegression(C=1 / (0.1 * int(known.sum())), max_iter=2000, tol=1e-8)
        model.fit((x[known] - mean) / std, train.labels[known, f])
        odds = model.decision_function((x_test[seen] - mean) / std)
        areas.append(100 * roc_auc_score(test.labels[seen, f], odds))
        precisions.append(100 * average_precision_score(test.labels[seen, f], odds))
    assert [score.metric for score in outcome.scores] == [AUROC, AVERAGE_PRECISION]
    assert outcome.scores[0].value == pytest.approx(float(np.mean(areas)), abs=0.05)
    assert outcome.scores[1].value == pytest.approx(float(np.mean(precisions)), abs=0.2)
    rows = outcome.details["measured"]["findings"]
    assert [row["auroc"] for row in rows] == pytest.approx(areas, abs=0.1)
    assert [row["finding"] for row in rows] == list(NAMES)
    assert [row["positive"] for row in rows] == (test.labels == 1).sum(axis=0).tolist()
    for row in rows:
        assert row["auroc_interval"][0] < row["auroc"] < row["auroc_interval"][1]
    for score in outcome.scores:
        assert score.low is not None and score.high is not None and score.low < score.value < score.high
        assert (score.n, score.covers, score.method) == (200, "patients", "bootstrap 95%")
    assert outcome.details["measured"]["resampled"] == "50 patients"


def test_predictions_carry_label_and_probability_of_every_finding() -> None:
    data = findings()
    predictions = MultilabelProbe().evaluate(pixel_encoder(data), data, seed=0, device="cpu").predictions
    assert list(predictions) == ["sample", *(f"{kind} {name}" for name in NAMES for kind in ("label", "probability"))]
    assert predictions["sample"].tolist() == data.splits["test"].tolist()
    assert (predictions[[f"label {name}" for name in NAMES]].to_numpy() == data.split("test").labels).all()
    assert predictions[[f"probability {name}" for name in NAMES]].stack().between(0, 1).all()


def test_the_validation_split_chooses_by_mean_area() -> None:
    data = findings()
    outcome = MultilabelProbe().evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    grid = outcome.details["grid"]
    assert len(grid) == 12 and outcome.details["converged"]
    best = max(grid, key=lambda row: row["validation_auroc"])
    assert (outcome.details["l2"], outcome.details["validation_auroc"]) == (best["l2"], best["validation_auroc"])
    flipped = np.where((v := data.split("validation").labels) >= 0, 1 - v, v)
    misled = MultilabelProbe().evaluate(
        pixel_encoder(data), with_labels(data, "validation", flipped), seed=0, device="cpu"
    )
    assert misled.details["l2"] != outcome.details["l2"]


def test_equal_areas_go_to_the_lower_loss_then_to_the_earlier() -> None:
    data = findings()
    labels = np.array([[1, 0], [0, 1]])
    right = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])  # (n, F)
    wrong = -right
    stacked = torch.stack([wrong, right, 3 * right, 3 * right], dim=1)  # (n, K, F)
    choice = choose(stacked, labels, data)
    assert choice.best == 2 and choice.areas == [0.0, 100.0, 100.0, 100.0]
    assert choice.losses[1] == pytest.approx(math.log1p(math.exp(-1)))


def test_test_labels_decide_nothing() -> None:
    data = findings()
    flipped = np.where((t := data.split("test").labels) >= 0, 1 - t, t)
    honest, other = (
        MultilabelProbe().evaluate(pixel_encoder(d), d, seed=0, device="cpu")
        for d in (data, with_labels(data, "test", flipped))
    )
    columns = [f"probability {name}" for name in NAMES]
    assert honest.predictions[columns].equals(other.predictions[columns])
    assert {**honest.details, "measured": 0} == {**other.details, "measured": 0}
    assert honest.scores[0].value + other.scores[0].value == pytest.approx(100.0)


@pytest.mark.parametrize("policy", ["ignore", "positive", "negative"])
def test_uncertain_findings_count_as_asked_in_training_only(policy: str) -> None:
    data = findings()
    labels = data.split("train").labels
    by_hand = np.where(labels == UNCERTAIN, {"ignore": UNKNOWN, "positive": 1, "negative": 0}[policy], labels)
    asked = MultilabelProbe(uncertain=policy).evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    written = MultilabelProbe().evaluate(pixel_encoder(data), with_labels(data, "train", by_hand), seed=0, device="cpu")
    assert asked.predictions.equals(written.predictions)
    counted = asked.details["measured"]["findings"][0]
    assert counted["positive"] + counted["negative"] == int((data.split("test").labels[:, 0] >= 0).sum()) < 200
    if policy != "ignore":
        plain = MultilabelProbe().evaluate(pixel_encoder(data), data, seed=0, device="cpu")
        assert not asked.predictions.equals(plain.predictions)


def test_a_finding_of_one_kind_is_left_out_and_named() -> None:
    data = findings()
    test = data.split("test").labels.copy()
    test[:, 2] = np.where(test[:, 2] == 1, 0, test[:, 2])
    train = data.split("train").labels.copy()
    train[:, 1] = 0
    changed = with_labels(with_labels(data, "test", test), "train", train)
    outcome = MultilabelProbe().evaluate(pixel_encoder(changed), changed, seed=0, device="cpu")
    measured = outcome.details["measured"]
    assert measured["not_in_test"] == ["fracture"] and outcome.details["not_learned"] == ["effusion"]
    rows = measured["findings"]
    assert rows[2]["auroc"] is None and rows[2]["auroc_interval"] is None and rows[2]["positive"] == 0
    assert rows[1]["auroc"] == 50.0
    assert outcome.scores[0].value == pytest.approx((rows[0]["auroc"] + 50.0) / 2)
    assert outcome.details["undefined"] == {}


def test_without_any_finding_of_both_kinds_in_the_test_split_the_metrics_are_undefined() -> None:
    data = findings()
    changed = with_labels(data, "test", np.zeros((200, 3), dtype=np.int64))
    outcome = MultilabelProbe().evaluate(pixel_encoder(changed), changed, seed=0, device="cpu")
    assert all(math.isnan(score.value) and score.low is None for score in outcome.scores)
    assert "both with and without" in outcome.details["undefined"]["auroc"]


def test_validation_without_both_kinds_is_an_error() -> None:
    data = findings()
    changed = with_labels(data, "validation", np.zeros((120, 3), dtype=np.int64))
    with pytest.raises(DataError, match="validation split of chests no finding"):
        MultilabelProbe().evaluate(pixel_encoder(changed), changed, seed=0, device="cpu")


def test_a_share_of_the_labels_is_drawn_by_patient_and_nested() -> None:
    train = findings().split("train")
    half, tenth = (labelled_by_patient(train, fraction) for fraction in (0.5, 0.1))
    assert len(half) == 200 and len(tenth) == 40
    for part in (half, tenth):
        taken = set(part.metadata["patient"].tolist())
        everything = np.isin(train.metadata["patient"], list(taken))
        assert part.samples.tolist() == train.samples[everything].tolist()
    assert set(tenth.samples.tolist()) < set(half.samples.tolist())
    assert labelled_by_patient(train, 1.0) is train


def test_images_without_a_patient_are_drawn_one_by_one() -> None:
    train = replace(findings(), metadata={}).split("train")
    assert len(labelled_by_patient(train, 0.1)) == 40
    with pytest.raises(DataError, match=r"0\.001 of 400 patients is none"):
        labelled_by_patient(train, 0.001)


def test_only_the_drawn_labels_are_used() -> None:
    data = findings()
    protocol = MultilabelProbe(fraction=0.25)
    outcome = protocol.evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    kept = outcome.details["labelled_samples"]
    assert outcome.details["labelled"] == len(kept) == 100
    labels = data.labels.copy()
    others = np.setdiff1d(data.splits["train"], kept)
    labels[others] = 1 - np.clip(labels[others], 0, 1)
    other = protocol.evaluate(pixel_encoder(data), replace(data, labels=labels, reads=[]), seed=0, device="cpu")
    assert other.predictions.equals(outcome.predictions)


def test_the_splits_are_read_in_order_and_test_once() -> None:
    data = findings()
    MultilabelProbe().evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert data.reads == ["train", "validation", "test"]


def test_features_that_are_not_finite_end_the_job_with_a_reason() -> None:
    data = findings()

    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) * math.nan

    with pytest.raises(DivergenceError, match="features of chests are not finite"):
        MultilabelProbe().evaluate(encoder_of(Broken(), data, feature_dim=64), data, seed=0, device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"uncertain": "maybe"}, "ignore, positive, negative"), ({"fraction": 0.0}, "fraction lies above 0")],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        MultilabelProbe(**settings)  # type: ignore[arg-type]


def test_work_counts_the_labelled_images_only() -> None:
    sizes = {"train": 1000, "validation": 100, "test": 200}
    work = MultilabelProbe(fraction=0.1).work(sizes, num_classes=14, feature_dim=64)
    assert work.forward == 400 and work.products == pytest.approx(2e-9 * 75 * 100 * 64 * 12 * 14)

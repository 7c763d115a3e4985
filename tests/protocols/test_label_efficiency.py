"""Accuracy against labels: which labels, what is chosen where, and what the curve and its mean are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import protocols.label_efficiency
from bench.check import check_protocol
from bench.data.splits import stratified_choice
from bench.errors import DataError, DivergenceError, SpecError
from bench.protocol import Outcome
from bench.registry import Entry, discover
from bench.statistics.budgets import log_mean
from protocols.label_efficiency import LabelEfficiency, _labelled

from .images import ReadLog, digits, pixel_encoder, small_encoder, with_test_labels

QUICK = {
    "budgets": (10, 60, 300),
    "draws": 2,
    "steps": 8,
    "epochs": 0,
    "backbone_lrs": (1e-3,),
    "head_steps": 40,
    "starts": ("fitted",),
}


def evaluate(data: ReadLog, *, seed: int = 0, **settings: object) -> Outcome:
    protocol = LabelEfficiency(**{**QUICK, **settings})  # type: ignore[arg-type]
    return protocol.evaluate(small_encoder(data), data, seed=seed, device="cpu")


def curve(outcome: Outcome) -> np.ndarray:
    return np.array(outcome.details["measured"]["curve"]["top1"])


def test_the_protocol_satisfies_the_contract(monkeypatch: pytest.MonkeyPatch) -> None:
    complete = Entry.complete
    quick = {"budgets": (6, 40, 600), "draws": 3, "epochs": 0, "head_steps": 40, "backbone_lrs": (3e-3,)}
    monkeypatch.setattr(Entry, "complete", lambda entry, given: complete(entry, {**quick, **given}))
    broken = [r.message for r in check_protocol(discover().protocols["label_efficiency"]) if not r.ok]
    assert broken == []


def test_the_curve_has_a_row_for_each_budget_and_rises_with_the_labels() -> None:
    outcome = evaluate(digits(), mode="linear", draws=3)
    assert outcome.details["measured"]["curve"]["budgets"] == [10, 60, 300]
    means = curve(outcome).mean(axis=1)
    assert curve(outcome).shape == (3, 3) and means[0] + 10 < means[1] and means[1] + 3 < means[2]


def test_validation_images_are_standardized_like_the_labelled_ones() -> None:
    data = digits()
    shifted = replace(pixel_encoder(data), mean=(100.0,))  # features far from 0: without it one class takes all
    protocol = LabelEfficiency(**{**QUICK, "mode": "linear", "budgets": (300,), "head_steps": 100})  # type: ignore[arg-type]
    (first, _) = protocol.evaluate(shifted, data, seed=0, device="cpu").details["chosen"]
    assert first["validation_top1"] > 75


def test_smaller_budgets_are_among_larger_ones_and_draws_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    data, seen = digits(), []

    def watched(labels: np.ndarray, count: int, *, seed: int, groups: None) -> np.ndarray:
        chosen = stratified_choice(labels, count, seed=seed)
        seen.append((count, seed, set(chosen.tolist())))
        return chosen

    monkeypatch.setattr(protocols.label_efficiency, "stratified_choice", watched)
    evaluate(data, mode="linear", seed=1)
    rows = {(count, seed): chosen for count, seed, chosen in seen}
    assert set(rows) == {(count, seed) for count in (10, 60, 300) for seed in (1000, 1001)}
    for seed in (1000, 1001):
        assert rows[10, seed] < rows[60, seed] < rows[300, seed]
    assert rows[60, 1000] != rows[60, 1001]


def test_few_labels_come_from_few_patients_where_they_are_known() -> None:
    data = digits()
    patients = np.array([f"p{index // 20}" for index in range(len(data.labels))])  # 20 images in a row
    known = replace(data, metadata={"patient": patients}, reads=[])
    train = known.split("train")
    counts = [len(set(patients[train.samples[_labelled(train, n, 0, 0)]])) for n in (60, 200, 600)]
    without = len(set(patients[train.samples[_labelled(data.split("train"), 60, 0, 0)]]))
    assert counts[0] < without and counts == sorted(counts)
    assert set(_labelled(train, 60, 0, 0)) < set(_labelled(train, 200, 0, 0))


def test_the_digests_tell_which_images_were_labelled() -> None:
    data = digits()
    digests = evaluate(data, mode="linear").details["labelled_digests"]
    other = evaluate(data, mode="linear", seed=1).details["labelled_digests"]
    assert len({digest for line in (*digests, *other) for digest in line}) == 12
    assert digests == evaluate(data).details["labelled_digests"]


@pytest.mark.parametrize("mode", ["linear", "finetune"])
def test_images_without_a_label_decide_nothing(mode: str) -> None:
    data = digits()
    before = evaluate(data, mode=mode, budgets=(30,), draws=1)
    labelled = data.splits["train"][stratified_choice(data.labels[data.splits["train"]], 30, seed=0)]
    images, labels = data.images.copy(), data.labels.copy()
    unused = np.setdiff1d(data.splits["train"], labelled)
    images[unused] = 255 - images[unused]
    after = LabelEfficiency(**{**QUICK, "mode": mode, "budgets": (30,), "draws": 1}).evaluate(  # type: ignore[arg-type]
        small_encoder(data), replace(data, images=images, labels=labels, reads=[]), seed=0, device="cpu"
    )
    assert before.predictions.equals(after.predictions)


def test_fine_tuning_moves_the_backbone_and_a_linear_head_does_not() -> None:
    data = digits()
    tuned = evaluate(data, budgets=(600,), draws=1, steps=120, backbone_lrs=(3e-3,), crop_scale=(0.9, 1.0))
    linear = evaluate(data, budgets=(600,), draws=1, mode="linear")
    assert tuned.details["mode"] == "finetune" and linear.details["mode"] == "linear"
    assert tuned.scores[0].value > linear.scores[0].value + 3


def test_the_predictions_are_those_of_the_first_draw_with_the_largest_budget() -> None:
    outcome = evaluate(digits(), mode="linear")
    hits = outcome.predictions["top1"].eq(outcome.predictions["label"]).mean()
    assert outcome.scores[1].value == pytest.approx(100 * hits) == pytest.approx(curve(outcome)[2, 0])
    assert curve(outcome)[2, 0] != curve(outcome)[2, 1]


def test_the_mean_over_budgets_is_that_of_the_curves_with_an_interval_over_draws() -> None:
    outcome = evaluate(digits(), mode="linear", draws=3)
    values = log_mean((10, 60, 300), curve(outcome))
    score = outcome.scores[0]
    assert score.value == pytest.approx(values.mean())
    half = 4.302653 * values.std(ddof=1) / np.sqrt(3)
    assert (score.low, score.high) == pytest.approx((values.mean() - half, values.mean() + half))
    assert score.covers == "label draws" and score.method == "t 95% over 3 draws"
    assert evaluate(digits(), mode="linear", draws=2).scores[0].low is None


def test_empty_budgets_take_the_default_ones() -> None:
    data = digits(train=60)
    assert evaluate(data, budgets=(), mode="linear").details["budgets"] == [10, 24, 60]


@pytest.mark.parametrize("budgets", [(5, 60), (10, 601)])
def test_budgets_that_the_data_do_not_allow_are_refused(budgets: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"leave the range from 10 labels, one for each class, to 600"):
        evaluate(digits(), budgets=budgets)


def test_a_class_without_a_training_image_is_refused() -> None:
    data = digits()
    labels = data.labels.copy()
    labels[data.splits["train"]] %= 9
    with pytest.raises(DataError, match="only 9 of 10 classes have a training image"):
        evaluate(replace(data, labels=labels, reads=[]))


def test_the_validation_images_are_as_few_as_the_labels_where_that_is_asked_for() -> None:
    data = digits()
    used = [row["validation_images"] for row in evaluate(data, draws=1, validation="budget").details["chosen"]]
    assert used == [10, 60, 200]
    generous = [row["validation_images"] for row in evaluate(data, draws=1).details["chosen"]]
    assert generous == [200, 200, 200]


def test_the_validation_images_choose_the_learning_rate() -> None:
    data = digits()
    options = {"budgets": (300,), "draws": 1, "steps": 120, "crop_scale": (0.9, 1.0)}
    single = {
        rate: evaluate(data, **options, backbone_lrs=(rate,)).details["chosen"][0]["validation_top1"]
        for rate in (1e-6, 3e-3)
    }
    (both,) = evaluate(data, **options, backbone_lrs=(1e-6, 3e-3)).details["chosen"]
    assert len(set(single.values())) == 2
    assert single[both["backbone_lr"]] == both["validation_top1"] == max(single.values())


def test_a_random_network_whose_running_statistics_are_off_is_trained_from_a_fresh_head() -> None:
    data = digits()
    encoder = small_encoder(data)
    options = {**QUICK, "budgets": (600,), "draws": 1, "steps": 150, "backbone_lrs": (3e-3,), "crop_scale": (0.9, 1.0)}
    norm = encoder.module.layers[1]  # type: ignore[index,union-attr]
    norm.running_var.fill_(1e6)  # type: ignore[operator,union-attr]

    def top1(*starts: str) -> tuple[float, str]:
        protocol = LabelEfficiency(**{**options, "starts": starts})  # type: ignore[arg-type]
        chosen = protocol.evaluate(encoder, data, seed=0, device="cpu").details["chosen"][0]
        return chosen["validation_top1"], chosen["start"]

    fitted, fresh, both = top1("fitted"), top1("fresh"), top1("fitted", "fresh")
    assert fresh[0] > fitted[0] + 5 and both == fresh == (fresh[0], "fresh")


def test_steps_follow_the_labels_where_they_are_many() -> None:
    outcome = evaluate(digits(), draws=1, steps=3, epochs=1, batch_size=32, budgets=(10, 300))
    assert [row["steps"] for row in outcome.details["chosen"]] == [3, 10]


@pytest.mark.parametrize("mode", ["linear", "finetune"])
def test_the_test_split_is_read_last_and_its_labels_change_no_prediction(mode: str) -> None:
    data = digits()
    shuffled = with_test_labels(data, np.roll(data.labels[data.splits["test"]], 1))
    honest, other = evaluate(data, mode=mode), evaluate(shuffled, mode=mode)
    assert data.reads == ["train", "validation", "test"]
    assert honest.predictions["top1"].equals(other.predictions["top1"])
    assert honest.details["chosen"] == other.details["chosen"]
    assert honest.details["measured"] != other.details["measured"]


def test_the_encoder_and_the_random_states_stay() -> None:
    data = digits()
    encoder = small_encoder(data)
    before = {name: tensor.clone() for name, tensor in encoder.module.state_dict().items()}
    state = torch.get_rng_state()
    LabelEfficiency(**QUICK).evaluate(encoder, data, seed=0, device="cpu")  # type: ignore[arg-type]
    assert all(torch.equal(tensor, before[name]) for name, tensor in encoder.module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_an_encoder_without_weights_still_gets_its_head_trained() -> None:
    data = digits()
    outcome = LabelEfficiency(**QUICK).evaluate(pixel_encoder(data), data, seed=0, device="cpu")  # type: ignore[arg-type]
    assert outcome.scores[1].value > 75


def test_rates_that_all_diverge_end_the_job_with_a_reason() -> None:
    with pytest.raises(DivergenceError, match=r"with 10 labels fine-tuning diverged at every learning rate .*1e\+30"):
        evaluate(digits(), backbone_lrs=(1e30,))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "both"}, "mode is 'finetune' or 'linear'"),
        ({"validation": "none"}, "validation 'all' or 'budget'"),
        ({"budgets": (30, 10)}, "that ascend"),
        ({"budgets": (0, 10)}, "that ascend"),
        ({"draws": 0}, "needs a draw"),
        ({"backbone_lrs": ()}, "a learning rate"),
        ({"starts": ("cold",)}, "'fitted', 'fresh' or both"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        LabelEfficiency(**settings)  # type: ignore[arg-type]


def test_the_work_counts_every_image_of_every_fit() -> None:
    sizes = {"train": 600, "validation": 200, "test": 300}
    protocol = LabelEfficiency(budgets=(10, 300), draws=2, steps=5, epochs=1, batch_size=30, backbone_lrs=(1e-3, 3e-3))
    work = protocol.work(sizes, num_classes=10, feature_dim=32)
    assert work.trained == 2 * 4 * 30 * (5 + 10)  # draws, two rates from two starts, batch, steps of both budgets
    assert work.forward == 600 + 200 + 4 * (4 * 200 + 300)  # features; each fit validates twice and is tested once
    linear = LabelEfficiency(budgets=(10, 300), draws=2, mode="linear").work(sizes, num_classes=10, feature_dim=32)
    assert linear.trained == 0 and linear.forward == 1100
    assert linear.products == work.products > 0

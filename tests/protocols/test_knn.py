"""Weighted nearest neighbors against scikit-learn and by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import protocols.knn
from bench.errors import DataError, DivergenceError, SpecError
from protocols.knn import KNN, neighbor_votes

from .images import digits, encoder_of, pixel_encoder, with_test_labels


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (50, 1.0)])
def test_votes_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    data = digits()
    train, test = data.split("train"), data.split("test")
    encoder = pixel_encoder(data)
    x, x_test = encoder.features(train.images).double(), encoder.features(test.images).double()
    reference = KNeighborsClassifier(
        n_neighbors=k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature), algorithm="brute"
    ).fit(x, train.labels)
    votes = neighbor_votes(x, torch.tensor(train.labels), x_test, num_classes=10, k=k, temperature=temperature)
    np.testing.assert_allclose(votes.exp(), reference.predict_proba(x_test), atol=1e-10)
    outcome = KNN(k=k, temperature=temperature).evaluate(encoder, data, seed=0, device="cpu")
    assert outcome.scores[0].value == pytest.approx(100 * reference.score(x_test, test.labels), abs=0.34)


def test_three_neighbors_worked_by_hand() -> None:
    memory = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]], dtype=torch.float64)
    query = torch.tensor([[5.0, 0.0]], dtype=torch.float64)  # cosines 1, 0, 1/√2, -1
    votes = neighbor_votes(memory, torch.tensor([0, 1, 1, 2]), query, num_classes=4, k=3, temperature=0.5).exp()
    weights = [math.exp(2.0), math.exp(0.0), math.exp(math.sqrt(2.0))]
    expected = [weights[0] / sum(weights), (weights[1] + weights[2]) / sum(weights), 0.0, 0.0]
    assert votes[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_blocks_do_not_change_the_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    memory, queries = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (40, 25))
    labels = torch.arange(40) % 5
    whole = neighbor_votes(memory, labels, queries, num_classes=5, k=7, temperature=0.1)
    monkeypatch.setattr(protocols.knn, "VALUES_PER_BLOCK", 40 * 3)
    blocks = neighbor_votes(memory, labels, queries, num_classes=5, k=7, temperature=0.1)
    torch.testing.assert_close(whole, blocks)


def test_each_training_image_is_its_own_nearest_neighbor() -> None:
    data = digits()
    same = replace(data, splits={**data.splits, "test": data.splits["train"]}, reads=[])
    assert KNN(k=1).evaluate(pixel_encoder(data), same, seed=0, device="cpu").scores[0].value == 100.0


def test_only_train_and_then_test_are_read_and_test_labels_change_no_prediction() -> None:
    data = digits()
    shuffled = with_test_labels(data, np.roll(data.labels[data.splits["test"]], 1))
    honest, other = (KNN().evaluate(pixel_encoder(data), d, seed=0, device="cpu") for d in (data, shuffled))
    assert data.reads == ["train", "test"]
    assert honest.predictions["top1"].equals(other.predictions["top1"])


def test_more_neighbors_than_images_are_refused() -> None:
    data = digits(train=50)
    with pytest.raises(DataError, match=r"k=51 .*digits.*has 50 images.*smaller k"):
        KNN(k=51).evaluate(pixel_encoder(data), data, seed=0, device="cpu")


def test_features_that_are_not_finite_end_the_job_with_a_reason() -> None:
    data = digits()

    class Broken(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1) / 0.0

    with pytest.raises(DivergenceError, match=r"a test.*NaN or infinite on digits"):
        KNN().evaluate(encoder_of(Broken(), data, feature_dim=64), data, seed=0, device="cpu")


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(SpecError, match="k=0"):
        KNN(k=0)
    with pytest.raises(SpecError, match="temperature=0"):
        KNN(temperature=0.0)


def test_top5_does_not_depend_on_how_the_classes_are_numbered() -> None:
    data = digits()
    numbers = np.random.default_rng(0).permutation(10)
    renumbered = replace(data, labels=numbers[data.labels], reads=[])
    protocol = KNN(k=3)
    ours, theirs = (protocol.evaluate(pixel_encoder(data), d, seed=0, device="cpu") for d in (data, renumbered))
    assert [score.value for score in ours.scores] == [score.value for score in theirs.scores]
    ranks = [f"top{rank}" for rank in range(1, 6)]
    assert (ours.predictions["top4"] == -1).all()  # three neighbors vote for three classes at most
    expected = ours.predictions[ranks].map(lambda c: c if c < 0 else numbers[c])
    assert (expected == theirs.predictions[ranks]).all(axis=None)


def test_the_departure_from_the_papers_number_of_neighbors_is_named() -> None:
    assert KNN().k == 20
    assert "k = 20 unless set, where the paper takes 200" in KNN.card.summary
    assert "The paper takes k = 200" in (protocols.knn.__doc__ or "")

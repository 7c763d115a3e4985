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
from protocols.knn import KNN, RECIPES, Neighbors, nearest, neighbor_votes

from .images import digits, encoder_of, pixel_encoder, with_test_labels


def weighted(k: int, *, temperature: float = 0.07) -> Neighbors:
    return Neighbors(k=k, vote="weighted", distance="cosine", temperature=temperature)


def majority(k: int) -> Neighbors:
    return Neighbors(k=k, vote="majority", distance="euclidean")


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (20, 0.07), (50, 1.0)])
def test_votes_are_those_of_scikit_learn(k: int, temperature: float) -> None:
    data = digits()
    train, test = data.split("train"), data.split("test")
    encoder = pixel_encoder(data)
    x, x_test = encoder.features(train.images).double(), encoder.features(test.images).double()
    reference = KNeighborsClassifier(
        n_neighbors=k, metric="cosine", weights=lambda d: np.exp((1 - d) / temperature), algorithm="brute"
    ).fit(x, train.labels)
    votes = neighbor_votes(
        x, torch.tensor(train.labels), x_test, num_classes=10, neighbors=weighted(k, temperature=temperature)
    )
    np.testing.assert_allclose(votes.exp(), reference.predict_proba(x_test), atol=1e-10)
    outcome = KNN(k=k, temperature=temperature).evaluate(encoder, data, seed=0, device="cpu")
    assert outcome.scores[0].value == pytest.approx(100 * reference.score(x_test, test.labels), abs=0.34)


def test_three_neighbors_worked_by_hand() -> None:
    memory = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [-1.0, 0.0]], dtype=torch.float64)
    query = torch.tensor([[5.0, 0.0]], dtype=torch.float64)  # cosines 1, 0, 1/√2, -1
    neighbors = weighted(3, temperature=0.5)
    votes = neighbor_votes(memory, torch.tensor([0, 1, 1, 2]), query, num_classes=4, neighbors=neighbors).exp()
    weights = [math.exp(2.0), math.exp(0.0), math.exp(math.sqrt(2.0))]
    expected = [weights[0] / sum(weights), (weights[1] + weights[2]) / sum(weights), 0.0, 0.0]
    assert votes[0].tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("values", [40, 100, 300])
def test_blocks_of_queries_and_of_memory_change_nothing(
    distance: str, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    memory, queries = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (400, 25))
    whole = nearest(memory, queries, k=7, distance=distance)
    shapes: list[tuple[int, ...]] = []
    merge = protocols.knn._merge

    def watched(closeness: torch.Tensor, index: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        shapes.append(tuple(closeness.shape))
        return merge(closeness, index, k)

    monkeypatch.setattr(protocols.knn, "VALUES_PER_BLOCK", values)  # all 25 * 400 similarities are 25 times as many
    monkeypatch.setattr(protocols.knn, "_merge", watched)
    blocks = nearest(memory, queries, k=7, distance=distance)
    torch.testing.assert_close(whole, blocks, rtol=1e-12, atol=1e-12)
    assert len(shapes) > 25 and max(rows * columns for rows, columns in shapes) <= values


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
    assert KNN().neighbors == weighted(20)
    assert "k = 20 unless set, where the paper takes 200" in KNN.card.summary
    assert "The paper takes k = 200" in (protocols.knn.__doc__ or "")


def test_the_recipes_are_the_published_ones_and_can_be_changed() -> None:
    assert KNN(recipe="instdisc").neighbors == weighted(200)
    assert KNN(recipe="wmse").neighbors == majority(5)
    assert KNN(recipe="wmse", k=7).neighbors == majority(7)
    assert set(RECIPES) == {"common", "instdisc", "wmse"}
    data = digits()
    details = KNN(recipe="wmse").evaluate(pixel_encoder(data), data, seed=0, device="cpu").details
    assert (details["recipe"], details["neighbors"]["k"], details["neighbors"]["distance"]) == ("wmse", 5, "euclidean")


@pytest.mark.parametrize("k", [1, 5, 20])
def test_a_majority_of_euclidean_neighbors_is_that_of_scikit_learn(k: int) -> None:
    data = digits()
    train, test = data.split("train"), data.split("test")
    encoder = pixel_encoder(data)
    x, x_test = encoder.features(train.images), encoder.features(test.images)
    reference = KNeighborsClassifier(n_neighbors=k, algorithm="brute").fit(x.double(), train.labels)
    votes = neighbor_votes(x, torch.tensor(train.labels), x_test, num_classes=10, neighbors=majority(k))
    np.testing.assert_allclose(votes.exp(), reference.predict_proba(x_test.double()), atol=1e-6)
    # Of classes with as many votes both take the first.
    outcome = KNN(recipe="wmse", k=k).evaluate(encoder, data, seed=0, device="cpu")
    assert outcome.predictions["top1"].tolist() == reference.predict(x_test.double()).tolist()


def test_euclidean_neighbors_are_not_those_of_the_cosine() -> None:
    memory = torch.tensor([[10.0, 0.0], [1.0, 1.0]])
    query = torch.tensor([[1.0, 0.0]])
    assert nearest(memory, query, k=1, distance="cosine")[1].tolist() == [[0]]
    closeness, index = nearest(memory, query, k=1, distance="euclidean")
    assert index.tolist() == [[1]] and closeness.tolist() == [[-1.0]]


def test_small_distances_between_large_features_survive() -> None:
    generator = torch.Generator().manual_seed(0)
    memory = 1000 + 0.01 * torch.randn(300, 16, generator=generator)  # float32: |m|² is 1.6e7, distances are 0.003
    queries = 1000 + 0.01 * torch.randn(20, 16, generator=generator)
    expected = (queries.double()[:, None] - memory.double()).square().sum(dim=2)
    closeness, index = nearest(memory, queries, k=5, distance="euclidean")
    reference = expected.sort(dim=1, stable=True)
    assert torch.equal(index.sort(dim=1).values, reference.indices[:, :5].sort(dim=1).values)
    torch.testing.assert_close(-closeness.double(), expected.gather(1, index), rtol=1e-5, atol=0)


@pytest.mark.parametrize("values", [2**25, 60])
def test_of_equally_near_images_the_first_are_taken(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols.knn, "VALUES_PER_BLOCK", values)
    memory = torch.tensor([3.0, 1.0, -1.0, 1.0, 0.0, -1.0] * 20)[:, None]  # from 0: 20 at 0, then 60 at 1
    found = nearest(memory, torch.zeros(2, 1), k=23, distance="euclidean")[1]
    nought = list(range(4, 120, 6))
    assert found.tolist() == [sorted([1, 2, 3, *nought])] * 2


def test_settings_that_do_not_go_together_are_refused() -> None:
    for settings, message in (
        ({"recipe": "wmsee"}, "no recipe 'wmsee'"),
        ({"vote": "borda"}, "vote is weighted or majority"),
        ({"distance": "manhattan"}, "cosine or euclidean"),
        ({"distance": "euclidean"}, "a weighted vote needs similarities"),
    ):
        with pytest.raises(SpecError, match=message):
            KNN(**settings)  # type: ignore[arg-type]

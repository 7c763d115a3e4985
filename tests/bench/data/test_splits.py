from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.data.dataset import SPLITS, ImageDataset
from bench.data.splits import (
    grouped_splits,
    stratified_choice,
    stratified_splits,
    stratified_subset,
    train_and_validation,
)
from bench.errors import DataError

Labels = NDArray[np.int64]


def counts(labels: Labels, classes: int) -> list[int]:
    return np.bincount(labels, minlength=classes).tolist()


def digest(dataset: ImageDataset) -> str:
    parts = [np.ascontiguousarray(dataset.splits[name], dtype="<i8").tobytes() for name in SPLITS]
    return hashlib.sha256(b"|".join(parts)).hexdigest()


@st.composite
def labels_and_count(draw: st.DrawFn) -> tuple[Labels, int]:
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=8))
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return labels[order], draw(st.integers(len(sizes), len(labels)))


@given(labels_and_count(), st.integers(0, 5))
def test_a_choice_has_the_size_asked_for_and_every_class_keeps_its_share(case: tuple[Labels, int], seed: int) -> None:
    labels, count = case
    chosen = stratified_choice(labels, count, seed=seed)
    assert len(chosen) == count == len(set(chosen.tolist()))
    assert chosen.tolist() == sorted(chosen.tolist())
    sizes, shares = np.bincount(labels), np.bincount(labels[chosen], minlength=labels.max() + 1)
    exact = sizes * count / len(labels)
    assert (shares >= 1).all()
    assert (shares <= sizes).all()
    assert (shares <= np.maximum(1, np.ceil(exact))).all()
    lifted = int(np.maximum(0, 1 - np.floor(exact)).sum())  # samples that small classes got beyond their share
    assert (shares >= np.floor(exact) - lifted).all()


def test_equal_classes_get_equal_parts() -> None:
    labels = np.tile(np.arange(10), 50)
    assert counts(labels[stratified_choice(labels, 100, seed=0)], 10) == [10] * 10


def test_a_remainder_goes_to_the_class_that_lost_most_by_rounding() -> None:
    labels = np.repeat([0, 1, 2], [10, 14, 16])  # of 5: 1.25, 1.75, 2.0
    assert counts(labels[stratified_choice(labels, 5, seed=0)], 3) == [1, 2, 2]


def test_a_class_too_small_for_a_share_still_gets_one_sample() -> None:
    labels = np.repeat([0, 1, 2], [96, 2, 2])
    assert counts(labels[stratified_choice(labels, 10, seed=0)], 3) == [8, 1, 1]


def test_a_choice_follows_the_published_order_of_hashes() -> None:
    """The order is part of the format: by SHA-256 of ``seed:index`` within a class."""
    labels = np.zeros(20, dtype=np.int64)
    by_hash = sorted(range(20), key=lambda index: hashlib.sha256(f"3:{index}".encode()).hexdigest())
    assert stratified_choice(labels, 6, seed=3).tolist() == sorted(by_hash[:6])


def test_another_seed_chooses_other_samples() -> None:
    labels = np.tile(np.arange(4), 100)
    first, same, other = (stratified_choice(labels, 100, seed=seed) for seed in (0, 0, 1))
    assert first.tolist() == same.tolist()
    assert len(np.intersect1d(first, other)) < 50


def test_splits_are_disjoint_and_complete_and_keep_the_class_shares() -> None:
    labels = np.repeat([0, 1, 2], [100, 200, 300])
    splits = stratified_splits(labels, validation=60, test=120)
    assert np.sort(np.concatenate(list(splits.values()))).tolist() == list(range(600))
    found = {name: counts(labels[index], 3) for name, index in splits.items()}
    assert found == {"train": [70, 140, 210], "validation": [10, 20, 30], "test": [20, 40, 60]}


def test_validation_is_taken_from_the_candidates_only() -> None:
    labels = np.tile(np.arange(2), 30)
    candidates = np.arange(20, 60)
    splits = train_and_validation(labels, candidates, validation=10)
    assert np.sort(np.concatenate([splits["train"], splits["validation"]])).tolist() == candidates.tolist()
    assert counts(labels[splits["validation"]], 2) == [5, 5]


def test_a_class_that_validation_and_test_use_up_is_an_error() -> None:
    labels = np.repeat([0, 1], [50, 2])
    with pytest.raises(DataError, match=r"No training image is left of class 1 .* at least 3 images"):
        stratified_splits(labels, validation=5, test=5)
    with pytest.raises(DataError, match=r"No training image is left of class 1"):
        stratified_splits(np.repeat([0, 1], [50, 1]), validation=5, test=5)


def test_the_splits_of_digits_are_fixed_forever(digits: ImageDataset) -> None:
    assert {name: len(index) for name, index in digits.splits.items()} == {
        "train": 1257,
        "validation": 180,
        "test": 360,
    }
    assert digest(digits) == "09bb3aebe71f4caecc421f11ecf2e6131a1a12adad698a59617e3a09e1e6aee2"


def test_the_splits_of_mnist5k_are_fixed_forever(mnist5k: ImageDataset) -> None:
    sizes = {name: counts(mnist5k.labels[index], 10) for name, index in mnist5k.splits.items()}
    assert sizes == {"train": [350] * 10, "validation": [50] * 10, "test": [100] * 10}
    assert digest(mnist5k) == "365f49d5776b1373c4c38ede03b4c3094cf3f5f24936668f908702cdc6293085"


@pytest.mark.parametrize(("fraction", "size"), [(0.01, 35), (0.1, 350), (1.0, 3500)])
def test_a_label_budget_has_the_fraction_asked_for(mnist5k: ImageDataset, fraction: float, size: int) -> None:
    labels = mnist5k.split("train").labels
    chosen = stratified_subset(labels, fraction, 0)
    assert len(chosen) == size
    assert set(labels[chosen].tolist()) == set(range(10))
    assert max(counts(labels[chosen], 10)) - min(counts(labels[chosen], 10)) <= 1


def test_a_label_budget_depends_on_the_seed_alone(mnist5k: ImageDataset) -> None:
    labels = mnist5k.split("train").labels
    first, same, other = (stratified_subset(labels, 0.1, seed) for seed in (0, 0, 1))
    assert first.tolist() == same.tolist()
    assert len(np.intersect1d(first, other)) < len(first) / 2


def test_the_small_budget_is_a_part_of_the_large_one(mnist5k: ImageDataset) -> None:
    labels = mnist5k.split("train").labels
    assert set(stratified_subset(labels, 0.01, 4).tolist()) < set(stratified_subset(labels, 0.1, 4).tolist())


def test_a_budget_below_one_label_per_class_is_an_error() -> None:
    labels = np.tile(np.arange(10), 50)
    message = (
        r"0.01 of 500 training images are 5 labels, fewer than the 10 classes. Take a label fraction of at least 0.02"
    )
    with pytest.raises(DataError, match=message):
        stratified_subset(labels, 0.01, 0)
    assert counts(labels[stratified_subset(labels, 0.02, 0)], 10) == [1] * 10


def test_a_budget_for_a_class_without_images_is_an_error() -> None:
    with pytest.raises(DataError, match=r"Only 2 of 3 classes have a training image"):
        stratified_subset(np.array([0, 1] * 10), 0.5, 0, num_classes=3)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, 10])
def test_a_fraction_outside_zero_to_one_is_an_error(fraction: float) -> None:
    with pytest.raises(DataError, match=r"lies above 0 and is at most 1, got .* Write 0.01 for 1 %"):
        stratified_subset(np.array([0, 1] * 10), fraction, 0)


def test_more_samples_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match=r"Cannot choose 7 of 6 images .* Ask for 2 to 6 images"):
        stratified_choice(np.array([0, 1] * 3), 7, seed=0)


SHARES = {"train": 0.7, "validation": 0.1, "test": 0.2}


@st.composite
def patients(draw: st.DrawFn) -> tuple[Labels, list[str]]:
    sizes = draw(st.lists(st.integers(1, 9), min_size=3, max_size=60))
    groups = [f"patient {number}" for number, size in enumerate(sizes) for _ in range(size)]
    return np.random.default_rng(draw(st.integers(0, 99))).integers(0, 3, len(groups)), groups


@given(patients(), st.booleans())
def test_no_patient_is_on_two_sides_and_no_image_is_lost(case: tuple[Labels, list[str]], multilabel: bool) -> None:
    classes, groups = case
    labels = (classes[:, None] == np.arange(3)).astype(np.int64) if multilabel else classes
    splits = grouped_splits(labels, groups, SHARES)
    assert list(splits) == list(SHARES)
    assert np.sort(np.concatenate(list(splits.values()))).tolist() == list(range(len(groups)))
    sides = [{groups[row] for row in rows} for rows in splits.values()]
    assert sum(map(len, sides)) == len(set(groups)) and all(sides)


def test_patient_splits_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 4, 300), np.array([f"p{n}" for n in rng.integers(0, 80, 300)])
    order = rng.permutation(300)
    plain, mixed = grouped_splits(labels, groups, SHARES), grouped_splits(labels[order], groups[order], SHARES)
    for name in SHARES:
        assert sorted(order[mixed[name]].tolist()) == plain[name].tolist()
    other = grouped_splits(labels, groups, SHARES, seed=1)
    assert other["test"].tolist() != plain["test"].tolist()


def test_patient_splits_keep_the_shares_of_classes_and_of_images() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(200), rng.integers(1, 8, 200)).astype(str)
    labels = rng.choice(4, len(groups), p=[0.6, 0.25, 0.1, 0.05])
    splits = grouped_splits(labels, groups, SHARES)
    for name, share in SHARES.items():
        assert abs(len(splits[name]) - share * len(labels)) <= 1
        assert np.abs(np.bincount(labels[splits[name]]) - share * np.bincount(labels)).max() <= 3


def test_findings_keep_their_shares_too() -> None:
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(300), rng.integers(1, 6, 300)).astype(str)
    findings = (rng.random((len(groups), 5)) < [0.4, 0.2, 0.1, 0.05, 0.02]).astype(np.int64)
    findings[rng.random(findings.shape) < 0.1] = -2
    splits = grouped_splits(findings, groups, SHARES)
    total = (findings == 1).sum(axis=0)
    for name, share in SHARES.items():
        assert np.abs((findings[splits[name]] == 1).sum(axis=0) - share * total).max() <= 1


def test_a_rare_class_reaches_every_split_that_its_patients_allow() -> None:
    labels = np.array([0] * 60 + [1] * 3)
    groups = [f"p{n}" for n in range(63)]
    splits = grouped_splits(labels, groups, SHARES)
    assert [int((labels[splits[name]] == 1).sum()) for name in SHARES] == [1, 1, 1]


def test_fewer_patients_than_splits_are_an_error() -> None:
    with pytest.raises(DataError, match=r"2 patients cannot be cut into 3 splits\. Give images of more patients"):
        grouped_splits(np.arange(6) % 2, list("aaabbb"), SHARES)

"""Positive pairs by metadata."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bench.data.dataset import UNCERTAIN, UNKNOWN
from bench.errors import DataError
from bench.spec import PairingSpec, PretrainSpec
from bench.training.pairing import Pairing
from bench.training.randomness import stream


def columns(*rows: tuple[str, str, str]) -> dict[str, NDArray[np.str_]]:
    """Patient, study and view of each image."""
    patient, study, view = (np.array(column) for column in zip(*rows, strict=True))
    return {"patient": patient, "study": study, "view": view}


# One patient with two studies of a frontal and a lateral image each, one image more in the first; another patient
# whose single study has the number of the first one's; a third whose name ends like the first's.
COHORT = columns(
    ("p1", "1", "AP"),
    ("p1", "1", "lateral"),
    ("p1", "1", "PA"),
    ("p1", "10", "AP"),
    ("p1", "10", "Lateral"),
    ("p2", "1", "PA"),
    ("xp1", "1", "PA"),
)

RULES = {
    ("all", "all"): [0, 1, 2, 3, 4],
    ("all", "same"): [0, 2, 3],
    ("all", "distinct"): [1, 4],
    ("same", "all"): [0, 1, 2],
    ("same", "same"): [0, 2],
    ("same", "distinct"): [1],
    ("distinct", "all"): [3, 4],
    ("distinct", "same"): [3],
    ("distinct", "distinct"): [4],
}


@pytest.mark.parametrize(("criterion", "expected"), RULES.items(), ids=["-".join(rule) for rule in RULES])
def test_each_of_the_nine_criteria_has_its_own_candidates(criterion: tuple[str, str], expected: list[int]) -> None:
    study, laterality = criterion
    pairing = Pairing(PairingSpec.model_validate({"study": study, "laterality": laterality}), COHORT)
    assert pairing.of(0).tolist() == expected


def test_a_study_belongs_to_its_patient_and_study_1_is_not_study_10() -> None:
    pairing = Pairing(PairingSpec(study="same"), COHORT)
    assert pairing.of(0).tolist() == [0, 1, 2]
    assert pairing.of(3).tolist() == [3, 4]
    assert pairing.of(5).tolist() == [5]
    assert pairing.of(6).tolist() == [6]


def test_another_image_is_forced_where_there_is_one_and_an_image_alone_is_paired_with_itself() -> None:
    pairing = Pairing(PairingSpec(study="same", other_image=True), COHORT)
    assert pairing.of(0).tolist() == [1, 2]
    assert pairing.of(5).tolist() == []
    partners = pairing.draw(torch.tensor([5, 6, 0]), stream("test", 0))
    assert partners[:2].tolist() == [5, 6] and partners[2] in (1, 2)


def test_what_is_unknown_equals_nothing_and_differs_from_nothing() -> None:
    unknown = columns(("p1", "", "AP"), ("p1", "", "PA"), ("p1", "1", ""), ("p1", "2", "lateral"), ("", "1", "AP"))
    assert Pairing(PairingSpec(study="same"), unknown).counts.tolist() == [0, 0, 1, 1, 0]
    assert Pairing(PairingSpec(study="distinct"), unknown).counts.tolist() == [0, 0, 1, 1, 0]
    sides = Pairing(PairingSpec(study="all", laterality="distinct"), unknown)
    assert [sides.of(i).tolist() for i in range(5)] == [[3], [3], [], [0, 1], []]


@pytest.mark.parametrize(
    ("rule", "missing", "said"),
    [
        (PairingSpec(study="all"), "patient", "within a patient need a column `patient`"),
        (PairingSpec(study="same"), "study", "pairs of study: same need a column `study`"),
        (PairingSpec(study="all", laterality="same"), "view", "laterality: same need a column `laterality` or `view`"),
    ],
)
def test_a_missing_column_is_named_with_what_to_do(rule: PairingSpec, missing: str, said: str) -> None:
    known = {name: column for name, column in COHORT.items() if name != missing}
    with pytest.raises(DataError, match=f"{said}.*Map a column"):
        Pairing(rule, known)
    empty = {**COHORT, missing: np.full(7, "")}
    with pytest.raises(DataError, match=said):
        Pairing(rule, empty)


def test_every_candidate_is_drawn_equally_often() -> None:
    pairing = Pairing(PairingSpec(study="same"), COHORT)
    drawn = pairing.draw(torch.zeros(30_000, dtype=torch.int64), stream("test", 1))
    shares = torch.bincount(drawn, minlength=7) / 30_000
    torch.testing.assert_close(shares[:3], torch.full((3,), 1 / 3), atol=0.015, rtol=0)
    assert shares[3:].sum() == 0


def test_the_facts_are_the_expectations_of_the_draws() -> None:
    labels = np.array([0, 1, 0, 0, 0, 1, 1])
    facts = Pairing(PairingSpec(study="same", other_image=True), COHORT).facts(labels)
    # Images 0, 1, 2 have two candidates each, 3 and 4 one, 5 and 6 none.
    assert facts.empty == pytest.approx(2 / 7)
    assert facts.same_image == pytest.approx(2 / 7)
    assert facts.candidates == pytest.approx(8 / 7)
    assert facts.discordant == pytest.approx((1 / 2 + 1 + 1 / 2) / 7)  # 0-1, 1-0, 1-2, 2-1
    assert (facts.images, facts.patients, facts.largest_patient) == (7, 3, pytest.approx(5 / 7))
    assert Pairing(PairingSpec(study="same"), COHORT).facts().same_image == pytest.approx((3 / 3 + 2 / 2 + 2) / 7)


def test_findings_differ_where_one_that_is_known_of_both_differs() -> None:
    pair = columns(("p1", "1", "AP"), ("p1", "1", "PA"))
    rule = PairingSpec(study="same", other_image=True)

    def discordant(*findings: list[int]) -> float | None:
        return Pairing(rule, pair).facts(np.array(findings)).discordant

    assert discordant([1, 0], [1, 0]) == 0
    assert discordant([1, 0], [1, 1]) == 1
    assert discordant([1, UNCERTAIN], [1, 1]) == 0
    assert discordant([UNKNOWN, 0], [1, UNKNOWN]) is None


def test_no_patient_dominates_an_epoch_and_all_images_have_their_turn() -> None:
    patients = ["many"] * 66 + ["few", "few", ""]
    metadata = {"patient": np.array(patients), "study": np.array([str(i) for i in range(69)])}
    pairing = Pairing(PairingSpec(study="all", most_per_patient=4), metadata)
    assert pairing.per_epoch == 7
    seen: set[int] = set()
    for epoch in range(80):
        order = pairing.order(epoch, seed=0)
        assert sum(patients[i] == "many" for i in order) == 4 and {66, 67, 68} <= set(order.tolist())
        seen |= set(order.tolist())
    assert seen == set(range(69))
    assert pairing.facts().largest_patient == pytest.approx(4 / 7)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc "), st.sampled_from("12"), st.sampled_from(["AP", "lateral"])), min_size=2
    ),
    study=st.sampled_from(["all", "same", "distinct"]),
    laterality=st.sampled_from(["all", "same", "distinct"]),
)
def test_a_partner_is_always_of_the_same_patient(rows: list[tuple[str, str, str]], study: str, laterality: str) -> None:
    metadata = columns(("a", "1", "AP"), *((p.strip(), s, v) for p, s, v in rows))
    pairing = Pairing(PairingSpec.model_validate({"study": study, "laterality": laterality}), metadata)
    every = torch.arange(len(pairing))
    partners = pairing.draw(every, stream("test", 2)).numpy()
    moved = partners != every.numpy()
    assert (metadata["patient"][partners] == metadata["patient"]).all()
    assert (metadata["patient"][moved] != "").all()
    for image in np.flatnonzero(moved):
        assert partners[image] in pairing.of(image)


def test_a_spec_without_pairs_keeps_its_digest_and_one_with_pairs_has_its_own() -> None:
    plain = PretrainSpec.model_validate({"method": "byol", "backbone": "convnet", "data": {"key": "digits"}})
    assert "pairing" not in plain.canonical_json()
    paired = plain.model_copy(update={"pairing": PairingSpec(study="all")})
    assert paired.digest() != plain.digest()
    assert PretrainSpec.from_json(paired.canonical_json()) == paired

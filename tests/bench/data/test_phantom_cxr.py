from __future__ import annotations

import ast
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.data import phantom_shapes
from bench.data.dataset import SPLITS, UNCERTAIN, UNKNOWN, ImageDataset
from bench.data.phantom_cxr import LATERALITY, SMALLEST_SIDE, patient_name, phantom_cxr, radiograph
from bench.data.phantom_patients import FINDINGS, SIDES, Anatomy, Lesion, Study, anatomy_of, studies_of
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.spec import DataSpec, PairingSpec
from bench.training.pairing import Pairing

MANY = 3000
EXACT = {
    *("abs", "arange", "array", "broadcast_to", "clip", "floor", "maximum", "minimum", "pad", "sqrt", "stack", "zeros"),
    *("zeros_like", "float64", "int64", "uint8", "bool_", "random"),
}
"""What NumPy computes element by element with one correctly rounded operation, or only moves about."""


@pytest.fixture(scope="module")
def cohort() -> ImageDataset:
    return phantom_cxr()


@pytest.fixture(scope="module")
def plans() -> list[list[Study]]:
    """The studies of many patients; nothing is drawn."""
    return [studies_of(0, patient) for patient in range(MANY)]


def studies(data: ImageDataset) -> np.ndarray:
    return np.char.add(np.char.add(data.metadata["patient"], "/"), data.metadata["study"])


# --- the cohort ---------------------------------------------------------------------------------------------------


def test_the_bits_are_the_same_on_every_machine(cohort: ImageDataset) -> None:
    """As recorded when the generator was written; with other bits, stored results are of other radiographs."""
    assert hashlib.sha256(cohort.images.tobytes()).hexdigest()[:16] == "8ab861d964f34247"
    assert cohort.fingerprint[:16] == "fc9b06a3103b20b8"


def test_pixels_come_from_correctly_rounded_operations_alone() -> None:
    for file in sorted(Path(phantom_shapes.__file__).parent.glob("phantom_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            assert not isinstance(node, ast.Pow | ast.MatMult), f"{file.name}: ** or @"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("sum", "mean", "std", "dot", "prod"), f"{file.name}: {node.attr}"
                if isinstance(node.value, ast.Name) and node.value.id == "np":
                    assert node.attr in EXACT, f"{file.name}: np.{node.attr}"


def test_images_are_gray_and_every_row_has_its_metadata(cohort: ImageDataset) -> None:
    n = len(cohort.labels)
    assert cohort.images.shape == (n, 64, 64, 1) and cohort.images.dtype == np.uint8
    assert cohort.class_names == tuple(FINDINGS) and cohort.multilabel
    assert {name: len(column) for name, column in cohort.metadata.items()} == dict.fromkeys(
        ("patient", "study", "laterality", "view"), n
    )
    assert set(cohort.metadata["view"]) == {"PA", "AP", "LATERAL"}
    assert [LATERALITY[view] for view in cohort.metadata["view"]] == cohort.metadata["laterality"].tolist()
    contrast = np.asarray(cohort.images).reshape(n, -1).std(axis=1)
    assert contrast.min() > 20 and len(np.unique(cohort.images, axis=0)) == n


def test_the_cohort_is_as_uneven_as_real_ones(cohort: ImageDataset) -> None:
    patients, counts = np.unique(cohort.metadata["patient"], return_counts=True)
    assert len(patients) == 250 and 15 <= (counts == 1).sum() <= 60
    assert counts.max() >= 5 * counts.mean()
    for name in patients:
        numbers = sorted({int(s) for s in cohort.metadata["study"][cohort.metadata["patient"] == name]})
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) <= 6 or int(name[0]) - 1 + 3 * int(name[1:]) in range(7, 250, 50)
    assert "10" in cohort.metadata["study"]
    views: dict[str, set[str]] = {}
    for study, side in zip(studies(cohort), cohort.metadata["laterality"], strict=True):
        views.setdefault(study, set()).add(side)
    assert all("frontal" in sides for sides in views.values())
    assert 0.4 < np.mean([len(sides) == 2 for sides in views.values()]) < 0.65


def test_patient_names_are_unique_and_share_their_endings() -> None:
    names = [patient_name(number) for number in range(900)]
    assert len(set(names)) == 900 and len({name[-5:] for name in names}) == 300
    assert {len(name) for name in names} == {6}


def test_no_patient_is_in_two_splits_and_shares_are_those_asked_for(cohort: ImageDataset) -> None:
    sides = {name: set(cohort.metadata["patient"][rows]) for name, rows in cohort.splits.items()}
    assert tuple(sides) == SPLITS and sum(map(len, sides.values())) == 250 == len(set.union(*sides.values()))
    n = len(cohort.labels)
    assert [round(len(cohort.splits[name]) / n, 2) for name in SPLITS] == [0.55, 0.15, 0.30]
    for rows in cohort.splits.values():
        assert all(set(column) >= {0, 1} for column in cohort.labels[rows].T)


def test_labels_are_equal_for_all_images_of_a_study_and_change_between_studies(cohort: ImageDataset) -> None:
    seen: dict[str, list[int]] = {}
    for study, row in zip(studies(cohort), cohort.labels.tolist(), strict=True):
        assert seen.setdefault(study, row) == row
    patients = {study.split("/")[0] for study in seen}
    assert len({(study.split("/")[0], tuple(row)) for study, row in seen.items()}) > 1.5 * len(patients)


def test_a_patient_depends_on_seed_and_number_alone(cohort: ImageDataset) -> None:
    fewer = phantom_cxr(patients=9)
    rows = len(fewer.labels)
    assert (fewer.images == cohort.images[:rows]).all() and (fewer.labels == cohort.labels[:rows]).all()
    assert (fewer.metadata["patient"] == cohort.metadata["patient"][:rows]).all()
    larger = phantom_cxr(patients=9, side=128)
    assert (larger.labels == fewer.labels).all() and larger.images.shape[1:3] == (128, 128)
    halved = np.asarray(larger.images).reshape(rows, 64, 2, 64, 2).mean(axis=(2, 4))
    likeness = [
        np.corrcoef(small.ravel(), large.ravel())[0, 1]
        for small, large in zip(np.asarray(fewer.images)[..., 0], halved, strict=True)
    ]
    assert np.median(likeness) > 0.97  # markers and electrodes aside, the same picture
    other = phantom_cxr(patients=9, seed=1)
    assert len(other.labels) != rows or (other.images != fewer.images).any(axis=(1, 2, 3)).all()


# --- findings and reports -----------------------------------------------------------------------------------------


def test_findings_are_as_frequent_as_declared_in_first_and_later_studies(plans: list[list[Study]]) -> None:
    for name, finding in FINDINGS.items():
        for chosen in ([p[0] for p in plans], [s for p in plans for s in p[1:]]):
            share = np.mean([name in study.present for study in chosen])
            # Studies of one patient are alike: allow for as many independent ones as there are patients.
            spread = np.sqrt(finding.prevalence * (1 - finding.prevalence) / (MANY / 3))
            assert abs(share - finding.prevalence) < 3 * spread, name
    assert all(0.08 <= finding.prevalence <= 0.45 for finding in FINDINGS.values())


def test_findings_persist_by_their_inertia_with_the_same_lesion(plans: list[list[Study]]) -> None:
    for name, finding in FINDINGS.items():
        pairs = [(p[i], p[i + 1]) for p in plans for i in range(len(p) - 1) if name in p[i].present]
        kept = [(before.present[name], after.present[name]) for before, after in pairs if name in after.present]
        wanted = finding.inertia + (1 - finding.inertia) * finding.prevalence
        assert abs(len(kept) / len(pairs) - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / len(pairs)), name
        for before, after in kept:
            assert replace(after, strength=before.strength) == before
            assert abs(after.strength - before.strength) <= 0.25
        assert {lesion.side for pair in kept for lesion in pair} == set(SIDES.get(name, (-1, 1)))


def test_findings_know_nothing_of_each_other_nor_of_the_view(plans: list[list[Study]]) -> None:
    first = [p[0] for p in plans]
    table = np.array([[name in s.present for name in FINDINGS] + [s.views[0] == "AP"] for s in first])
    related = np.corrcoef(table.T) - np.eye(len(FINDINGS) + 1)
    assert abs(related).max() < 4.5 / np.sqrt(MANY)


def test_reports_leave_entries_open_at_the_declared_rates_whatever_is_there(plans: list[list[Study]]) -> None:
    every = [study for p in plans for study in p]
    reports = np.stack([study.report for study in every])
    for column, (name, finding) in enumerate(FINDINGS.items()):
        there = np.array([name in study.present for study in every])
        for chosen in (there, ~there):
            for value, rate in ((UNCERTAIN, finding.uncertain), (UNKNOWN, finding.unmentioned)):
                share = (reports[chosen, column] == value).mean()
                assert abs(share - rate) < 4 * np.sqrt(rate * (1 - rate) / chosen.sum()), (name, value)
        told = reports[:, column] >= 0
        assert (reports[told, column] == there[told]).all()


# --- pixels -------------------------------------------------------------------------------------------------------

MARGIN = 0.08
"""Position jitter of an image and two pixels of blur, in halves of its side."""


def shown(present: dict[str, Lesion], view: str, *, patient: int = 3, place: int = 0) -> np.ndarray:
    """An image (64, 64) of a patient in the middle of the field, with these findings alone."""
    study = replace(
        studies_of(0, patient)[0], views=(view,) * 2, present=present, shift=(0.0, 0.0), turn=0.0, zoom=1.0, breath=0.0
    )
    return radiograph(0, patient, anatomy_of(0, patient), study, place, side=64).astype(int)


def lesion_of(side: int, **given: float) -> Lesion:
    values = {"outward": 0.55, "down": 0.4, "back": 0.6, "size": 0.5, "strength": 0.5, **given}
    return Lesion(side=side, texture=np.zeros((9, 9)), **values)


def within(name: str, a: Anatomy, lesion: Lesion, view: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(64, 64) where a finding may change pixels, told with less detail than it is drawn."""
    frontal = view != "LATERAL"
    on_side = (lesion.side * x > -MARGIN) | (lesion.side == 0) | (not frontal)
    chest = (abs(x) < (a.width if frontal else a.depth + 0.35) + MARGIN) & (y > a.apex - MARGIN)
    if name == "effusion":
        return on_side & chest & (y > a.floor - 0.5) & (y < a.floor + 2 * a.curvature + 0.25 + MARGIN)
    if name == "pneumothorax":
        return on_side & chest & (y < a.apex + 0.25 + 0.9 + 0.4 + MARGIN)
    if name == "edema":
        away = abs(x) if frontal else abs(x - 0.05)
        return chest & (away < 0.75 + MARGIN) & (abs(y - (a.floor + a.apex) / 2 - 0.09) < 0.62 + MARGIN)
    if name == "cardiomegaly":
        center = (0.1, 0.2) if frontal else (-0.2, 0.2)
        return (x - center[0]) ** 2 + (y - center[1]) ** 2 < (2.2 * a.heart) ** 2
    at_x = lesion.side * (0.2 + (a.width - 0.3) * lesion.outward) if frontal else a.depth * (1.6 * lesion.back - 0.75)
    at_y = a.apex + (a.floor - a.apex) * lesion.down
    radius = (0.11 if name == "nodule" else 0.34 * 1.25) + MARGIN
    return on_side & ((x - at_x) ** 2 + (y - at_y) ** 2 < radius**2)


@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
@pytest.mark.parametrize("name", list(FINDINGS))
def test_a_finding_changes_pixels_where_it_lies_and_nowhere_else(name: str, view: str) -> None:
    centers = (2 * np.arange(64) + 1) / 64 - 1
    x, y = np.broadcast_to(centers, (64, 64)), np.broadcast_to(centers[:, None], (64, 64))
    for patient in (3, 4, 5, 6):
        for side in SIDES.get(name, (-1, 1)):
            lesion = lesion_of(side)
            change = shown({name: lesion}, view, patient=patient) - shown({}, view, patient=patient)
            allowed = within(name, anatomy_of(0, patient), lesion, view, x, y)
            assert not change[~allowed].any()
            assert (change != 0).sum() >= 8
            if name == "pneumothorax":
                assert change.min() < -4 < 4 < change.max()  # air, and the pleura's line
            else:
                assert change.max() >= 8
                assert change.min() >= (-8 if name == "cardiomegaly" else -1)  # the larger heart lies higher


@pytest.mark.parametrize("name", ["effusion", "edema", "consolidation", "nodule", "cardiomegaly"])
@pytest.mark.parametrize("view", ["PA", "LATERAL"])
def test_a_stronger_finding_is_lighter(name: str, view: str) -> None:
    side = SIDES.get(name, (1,))[0]
    levels = [shown({name: lesion_of(side, strength=strength)}, view).sum() for strength in (0.0, 0.5, 1.0)]
    assert shown({}, view).sum() < levels[0] < levels[1] < levels[2]


@pytest.mark.parametrize("side", [-1, 1])
def test_findings_stand_as_high_in_both_views_and_the_right_lung_is_on_the_left(side: int) -> None:
    for down in (0.25, 0.6):
        rows = []
        for view in ("PA", "LATERAL"):
            change = shown({"nodule": lesion_of(side, down=down, size=1.0)}, view) - shown({}, view)
            lighter = np.nonzero(change > change.max() / 2)
            rows.append(lighter[0].mean())
            if view == "PA":
                assert (lighter[1].mean() - 31.5) * side > 5
        assert abs(rows[0] - rows[1]) <= 2


def test_images_of_one_study_share_the_patient_but_not_the_exposure() -> None:
    two = [shown({}, "PA", place=place) for place in (0, 1)]
    other = shown({}, "PA", patient=8)
    assert (two[0] != two[1]).mean() > 0.5
    assert np.corrcoef(two[0].ravel(), two[1].ravel())[0, 1] > np.corrcoef(two[0].ravel(), other.ravel())[0, 1]
    means = [shown({}, "PA", patient=patient, place=place).mean() for patient in range(8) for place in (0, 1)]
    assert np.std(means) > 4


# --- use ----------------------------------------------------------------------------------------------------------


def test_the_cache_returns_the_same_cohort(embedded: DataSource) -> None:
    spec = DataSpec(key="phantom_cxr", params={"patients": 6, "side": 32})
    fresh = embedded.load(spec)
    cached = DataSource(embedded.datasets, root=None, cache=embedded.cache).load(spec)
    assert cached.fingerprint == fresh.fingerprint == phantom_cxr(patients=6, side=32).fingerprint
    assert embedded.offers(spec) == ("multilabel", "metadata")


@pytest.mark.parametrize(
    "wrong", [{"patients": 2}, {"side": SMALLEST_SIDE - 1}, {"seed": -1}], ids=["patients", "side", "seed"]
)
def test_unfit_parameters_are_refused(embedded: DataSource, wrong: dict[str, int]) -> None:
    with pytest.raises(DataError, match=f"phantom_cxr needs .*got .*{next(iter(wrong.values()))}"):
        embedded.load(DataSpec(key="phantom_cxr", params=wrong))


def test_shares_that_leave_no_training_images_are_refused() -> None:
    with pytest.raises(DataError, match="shares"):
        phantom_cxr(validation=0.5, test=0.5)


def test_a_small_cohort_may_lack_a_rare_finding_and_still_loads() -> None:
    data = phantom_cxr(patients=3, side=SMALLEST_SIDE)
    assert all(len(data.splits[name]) for name in SPLITS)
    assert not (data.labels[:, list(FINDINGS).index("pneumothorax")] == 1).any()


def test_pairs_are_within_patients_whose_studies_agree_and_whose_visits_differ(cohort: ImageDataset) -> None:
    train = cohort.split("train")
    patients, study, side = (train.metadata[name] for name in ("patient", "study", "laterality"))
    same = Pairing(PairingSpec(study="same", laterality="distinct"), train.metadata)
    for image in range(len(train)):
        partners = np.flatnonzero((patients == patients[image]) & (study == study[image]) & (side != side[image]))
        assert same.of(image).tolist() == partners.tolist()
    facts = same.facts(train.labels)
    assert facts.discordant == 0.0 and 0.2 < facts.empty < 0.5 and facts.same_image == facts.empty
    distinct = Pairing(PairingSpec(study="distinct"), train.metadata).facts(train.labels)
    assert distinct.discordant is not None and distinct.discordant > 0.2 and distinct.empty > 0.05
    every = Pairing(PairingSpec(study="all", other_image=True), train.metadata).facts(train.labels)
    alone = np.mean([(patients == name).sum() == 1 for name in patients])
    assert every.empty == pytest.approx(alone) and alone > 0

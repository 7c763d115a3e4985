"""Who is in the phantom cohort: anatomy, studies, findings and what the reports say of them, before anything is drawn.

Every draw belongs to a stream of its own, named by seed, kind, patient and study, so that nothing depends on anything
else: a patient has the same images in a cohort of any size, and removing a finding changes no other draw. Lengths are
in halves of the image's side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bench.data.dataset import UNCERTAIN, UNKNOWN
from bench.data.draws import Draws
from bench.data.phantom_shapes import STEPS, chance, uniform


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How often a finding is there, and how often a report leaves it open; shares are of studies.

    Attributes:
        prevalence: of studies with it.
        inertia: chance that a study takes it over from the one before, present or absent; otherwise it is drawn anew
            by its prevalence, which is thereby the same in every study.
        uncertain, unmentioned: of studies whose report says so, whether it is there or not.
    """

    prevalence: float
    inertia: float
    uncertain: float
    unmentioned: float


FINDINGS = {
    "effusion": Finding(prevalence=0.40, inertia=0.60, uncertain=0.08, unmentioned=0.10),
    "cardiomegaly": Finding(prevalence=0.30, inertia=0.90, uncertain=0.08, unmentioned=0.10),
    "edema": Finding(prevalence=0.25, inertia=0.50, uncertain=0.10, unmentioned=0.10),
    "consolidation": Finding(prevalence=0.20, inertia=0.50, uncertain=0.12, unmentioned=0.15),
    "nodule": Finding(prevalence=0.15, inertia=0.85, uncertain=0.05, unmentioned=0.15),
    "pneumothorax": Finding(prevalence=0.10, inertia=0.30, uncertain=0.03, unmentioned=0.15),
}

STUDIES = (1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 5, 6)
"""Numbers of studies of a patient, each as likely."""
FOLLOWED = 50
"""One of so many patients, from the eighth on, is followed closely."""
MANY_STUDIES = (10, 16)
PORTABLE = 0.35
"""Share of studies with an AP view of a patient in bed in place of a PA view."""
LATERALS = {"PA": 0.75, "AP": 0.15}
"""Share of studies with a lateral view, by the frontal one."""
REPEATED = 0.12
"""Share of studies whose frontal view was taken twice."""
VESSELS = 7
CELLS = 9

KINDS = ("anatomy", "studies", "findings", "reports", "views")


def stream(seed: int, kind: str, *place: int) -> Draws:
    """The draws of one patient, study, finding or image."""
    return Draws(np.random.PCG64([seed, KINDS.index(kind), *place]))


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """What all images of a patient share.

    Attributes:
        width, depth: half the width of the ribcage, and half its depth.
        apex, floor: height of the lungs' upper end and of the left dome, down from the middle.
        raised: how much higher the right dome is.
        curvature: how far the domes fall to their sides.
        wall: thickness of the chest wall.
        stout: how much the body absorbs, 1 on average.
        breast: radius of the breasts; 0 without.
        heart: half its width; ``lean`` is how much it points to the left.
        aorta: radius of its arch.
        mediastinum: half its width.
        bend: of the spine, to the side; ``hunch`` is its bend to the back.
        vertebra: height of a vertebra with its disc.
        rib: distance of the ribs; ``rib_start`` is where they begin, ``slope`` is how steep they are, ``bone`` is how
            dense they are.
        clavicle: slope of the clavicles.
        lung: how clear the lungs are, 1 on average.
        texture: (n, n) values of the lungs' fine structure.
        vessels: ends of vessels as (side, outward, down), each in shares of the lung.
    """

    width: float
    depth: float
    apex: float
    floor: float
    raised: float
    curvature: float
    wall: float
    stout: float
    breast: float
    heart: float
    lean: float
    aorta: float
    mediastinum: float
    bend: float
    hunch: float
    vertebra: float
    rib: float
    rib_start: float
    slope: float
    bone: float
    clavicle: float
    lung: float
    texture: NDArray[np.float64]
    vessels: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A finding as long as it persists: where, how large, how dense.

    Attributes:
        side: -1 the patient's right lung, which is on the left of the image; 1 the left one; 0 both, as edema always
            is and an effusion may be.
        outward, down, back: its place in shares of the lung: from the mediastinum, the apex, the sternum.
        size: 0 the smallest, 1 the largest.
        strength: 0 the faintest, 1 the strongest.
        texture: (n, n) values of its fine structure.
    """

    side: int
    outward: float
    down: float
    back: float
    size: float
    strength: float
    texture: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Study:
    """One visit.

    Attributes:
        number: 1 … n within the patient.
        views: of its images, in their order: ``PA``, ``AP``, ``LATERAL``.
        shift, turn, zoom: position of the patient.
        breath: how much lower than usual the diaphragm stands.
        gas: radius of the gas in the stomach.
        present: the findings that are there.
        report: (F,) labels of every image of the study.
    """

    number: int
    views: tuple[str, ...]
    shift: tuple[float, float]
    turn: float
    zoom: float
    breath: float
    gas: float
    present: Mapping[str, Lesion]
    report: NDArray[np.int64]

    def lesion(self, name: str, side: int) -> Lesion | None:
        """The finding, where it is in the lung of this side."""
        found = self.present.get(name)
        return found if found is not None and found.side in (0, side) else None


def anatomy_of(seed: int, patient: int) -> Anatomy:
    """The anatomy of the patient with this number."""
    draws = stream(seed, "anatomy", patient)
    woman = chance(draws, 0.5)
    width = uniform(draws, 0.68, 0.78) if woman else uniform(draws, 0.72, 0.82)
    return Anatomy(
        width=width,
        depth=uniform(draws, 0.50, 0.64),
        apex=uniform(draws, -0.82, -0.72),
        floor=uniform(draws, 0.42, 0.56),
        raised=uniform(draws, 0.02, 0.09),
        curvature=uniform(draws, 0.10, 0.20),
        wall=uniform(draws, 0.06, 0.18),
        stout=uniform(draws, 0.85, 1.2),
        breast=uniform(draws, 0.28, 0.42) if woman else 0.0,
        heart=width * uniform(draws, 0.40, 0.48),
        lean=uniform(draws, 0.2, 0.45),
        aorta=uniform(draws, 0.09, 0.14),
        mediastinum=uniform(draws, 0.11, 0.16),
        bend=uniform(draws, -0.05, 0.05),
        hunch=uniform(draws, 0.10, 0.24),
        vertebra=uniform(draws, 0.13, 0.16),
        rib=uniform(draws, 0.165, 0.20),
        rib_start=uniform(draws, 0.0, 1.0),
        slope=uniform(draws, 0.10, 0.22),
        bone=uniform(draws, 0.7, 1.3),
        clavicle=uniform(draws, 0.08, 0.22),
        lung=uniform(draws, 0.9, 1.1),
        texture=_values(draws),
        vessels=tuple(
            (side, uniform(draws, 0.35, 0.9), uniform(draws, 0.15 + 0.1 * branch, 0.28 + 0.1 * branch))
            for side in (-1, 1)
            for branch in range(VESSELS)
        ),
    )


def studies_of(seed: int, patient: int) -> list[Study]:
    """The studies of the patient with this number, in their order."""
    draws = stream(seed, "studies", patient)
    count = STUDIES[draws.between(0, len(STUDIES) - 1)]
    if patient % FOLLOWED == 7:
        count = draws.between(*MANY_STUDIES)
    courses = {name: _course(seed, patient, name, count) for name in FINDINGS}
    studies = []
    for number in range(1, count + 1):
        visit = stream(seed, "studies", patient, number)
        present = {name: lesion for name, course in courses.items() if (lesion := course[number - 1]) is not None}
        views = _views(visit)
        studies.append(
            Study(
                number=number,
                views=views,
                shift=(uniform(visit, -0.05, 0.05), uniform(visit, -0.05, 0.05)),
                turn=uniform(visit, -0.03, 0.03),
                zoom=uniform(visit, 0.95, 1.05),
                breath=uniform(visit, -0.07, 0.05) - (0.05 if views[0] == "AP" else 0.0),
                gas=uniform(visit, 0.0, 0.14),
                present=present,
                report=_report(stream(seed, "reports", patient, number), present),
            )
        )
    return studies


def _views(draws: Draws) -> tuple[str, ...]:
    frontal = "AP" if chance(draws, PORTABLE) else "PA"
    lateral = chance(draws, LATERALS[frontal])
    return (frontal,) * (2 if chance(draws, REPEATED) else 1) + (("LATERAL",) if lateral else ())


def _course(seed: int, patient: int, name: str, count: int) -> list[Lesion | None]:
    """A finding in one study after the other; as long as it persists it stays the same lesion, weaker or stronger."""
    finding, course = FINDINGS[name], []
    lesion: Lesion | None = None
    for number in range(count):
        draws = stream(seed, "findings", patient, list(FINDINGS).index(name), number)
        drawn_anew, present = not chance(draws, finding.inertia), chance(draws, finding.prevalence)
        fresh = _lesion(draws, name)
        if number and not drawn_anew:
            present = lesion is not None
        strength = min(1.0, max(0.0, lesion.strength + uniform(draws, -0.25, 0.25))) if lesion else fresh.strength
        lesion = replace(lesion or fresh, strength=strength) if present else None
        course.append(lesion)
    return course


SIDES = {"edema": (0,), "cardiomegaly": (0,), "effusion": (-1, -1, -1, 1, 1, 1, 0, 0)}
"""What the side of a finding is drawn from; one lung for those that are not named."""


def _lesion(draws: Draws, name: str) -> Lesion:
    sides = SIDES.get(name, (-1, 1))
    return Lesion(
        side=sides[draws.between(0, len(sides) - 1)],
        outward=uniform(draws, 0.3, 0.85),
        down=uniform(draws, 0.2, 0.85),
        back=uniform(draws, 0.2, 0.8),
        size=uniform(draws, 0.0, 1.0),
        strength=uniform(draws, 0.0, 1.0),
        texture=_values(draws),
    )


def _report(draws: Draws, present: Mapping[str, Lesion]) -> NDArray[np.int64]:
    """(F,) what the report says: the truth, but for entries that are left open by a draw that knows nothing of it."""
    labels = []
    for name, finding in FINDINGS.items():
        at = draws.between(0, STEPS - 1) / STEPS
        open_ = finding.uncertain + finding.unmentioned
        labels.append(UNCERTAIN if at < finding.uncertain else UNKNOWN if at < open_ else int(name in present))
    return np.array(labels, dtype=np.int64)


def _values(draws: Draws) -> NDArray[np.float64]:
    """(n, n) numbers of -1 … 1."""
    return draws.levels(CELLS, CELLS, 1000) / 1000.0

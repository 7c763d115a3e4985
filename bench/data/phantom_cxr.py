"""Phantom chest radiographs: a cohort that is drawn, not read, to try medical protocols without any patient's image.

Generator 1, in the order in which it works:

1. Patients (:mod:`bench.data.phantom_patients`). Each has an anatomy that all of his images share: ribcage, domes of
   the diaphragm, chest wall, heart, aorta, spine, ribs, clavicles, vessels. He has 1 to 6 studies; one of ``FOLLOWED``
   patients has ``MANY_STUDIES``, hence by far the most images, and a study 1 beside a study 10.
2. Studies. Each has its own position, breath and gas in the stomach; a frontal view, PA or (``PORTABLE``) AP, at times
   taken twice (``REPEATED``); and often a lateral one (``LATERALS``). About every seventh patient has one image only.
3. Findings (``FINDINGS``), which all images of a study share. In the first study a finding is present by its
   prevalence; each later study takes it over from the one before (``inertia``) or draws it anew by the same prevalence,
   so that the prevalence is the same in every study. As long as it persists it keeps its place and size and becomes
   somewhat weaker or stronger. The six know nothing of each other, of the view or of the scanner:

   - effusion: fluid in place of air at the base of one lung or both, up to a surface that rises along the wall;
   - cardiomegaly: a heart 10 to 24 % larger, among hearts that differ by 20 % (and in AP views appear 8 % larger);
   - edema: haze with a coarse net around both hila;
   - consolidation: an uneven patch in one lung;
   - nodule: a round spot in one lung;
   - pneumothorax: air without lung markings below the wall at the apex of one side, behind a thin white line.

4. Views (:mod:`bench.data.phantom_frontal`, :mod:`bench.data.phantom_lateral`). Absorption is summed along the rays,
   with heights that both views share.
5. Scanner (:mod:`bench.data.phantom_scanner`), of every image by itself: one of four machines with its window, curve,
   blur and noise, an exposure and a contrast, collimation, a lead letter, electrodes in some AP views. Nothing is
   adapted to what the image shows: a finding changes the pixels that it covers, and their neighbors by blur.
6. Reports. The labels of a study are the truth, but for each finding ``uncertain`` of the studies say -1 and
   ``unmentioned`` say nothing (-2, unknown). A draw decides, which knows neither the image nor the truth.

Splits are by patient and balance the findings as far as patients allow; the rare pneumothorax may lack positives in a
small cohort's split. Patients are named so that three at a time end in the same five digits, and studies 1 … n within
each patient.

Everything has the same bits on every machine: draws are the raw output of PCG64, which NumPy promises never to change,
and pixels come from arithmetic that IEEE 754 rounds correctly (:mod:`bench.data.phantom_shapes`). An image depends on
``seed``, ``side`` and its place in the cohort alone: fewer patients are the first of more, though splits change.

The figures were chosen by looking at the images, and for the prevalences that are declared. No method, not even an
untrained one, was run on any image to choose them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.card import DatasetCard
from bench.data.dataset import ImageDataset
from bench.data.files import depends_on
from bench.data.phantom_frontal import frontal
from bench.data.phantom_lateral import lateral
from bench.data.phantom_patients import FINDINGS, Anatomy, Study, anatomy_of, stream, studies_of
from bench.data.phantom_scanner import exposed
from bench.data.phantom_shapes import frame, uniform
from bench.data.splits import check_shares, grouped_splits
from bench.errors import DataError
from bench.registry import register_dataset

SITES = 3
FEWEST_PATIENTS, MOST_PATIENTS = 3, 300_000
SMALLEST_SIDE = 32
LATERALITY = {"PA": "frontal", "AP": "frontal", "LATERAL": "lateral"}


@register_dataset(
    "phantom_cxr",
    card=DatasetCard(
        title="Phantom radiographs",
        summary="Drawn chest radiographs of 250 patients, 1 to 16 studies each, frontal and lateral, with six findings "
        "and uncertain labels; splits by patient.",
        license="that of this package; no patient's image is in it",
        source="drawn by this package",
        capabilities=("multilabel", "metadata"),
        embedded=True,
    ),
)
@depends_on()
def phantom_cxr(
    *, patients: int = 250, side: int = 64, seed: int = 0, validation: float = 0.15, test: float = 0.3
) -> ImageDataset:
    """Draw the cohort.

    Args:
        patients: how many.
        side: height and width of an image in pixels.
        seed: another seed draws other patients.
        validation, test: shares of the images for these splits, cut by patient.

    Raises:
        DataError: too few or too many patients, too small a side, a negative seed, or shares that leave nothing.
    """
    check_shares(validation, test)
    if not FEWEST_PATIENTS <= patients <= MOST_PATIENTS or side < SMALLEST_SIDE or seed < 0:
        raise DataError(
            f"phantom_cxr needs {FEWEST_PATIENTS} to {MOST_PATIENTS} patients, a side of {SMALLEST_SIDE} pixels or "
            f"more and a seed of 0 or more, got {patients}, {side} and {seed}. Change them."
        )
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int64]] = []
    rows: list[tuple[str, str, str, str]] = []
    for patient in range(patients):
        anatomy = anatomy_of(seed, patient)
        for study in studies_of(seed, patient):
            for place, view in enumerate(study.views):
                images.append(radiograph(seed, patient, anatomy, study, place, side=side))
                labels.append(study.report)
                rows.append((patient_name(patient), str(study.number), LATERALITY[view], view))
    columns = zip(("patient", "study", "laterality", "view"), np.array(rows).T, strict=True)
    metadata = {name: np.array(column) for name, column in columns}
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    return ImageDataset(
        key="phantom_cxr",
        title="Phantom radiographs",
        images=np.stack(images)[..., None],
        labels=np.stack(labels),
        class_names=tuple(FINDINGS),
        splits=grouped_splits(np.stack(labels), metadata["patient"].tolist(), shares),
        metadata=metadata,
    )


def patient_name(patient: int) -> str:
    """Six digits: the site, and a number that every site begins anew, so that names end alike."""
    return f"{1 + patient % SITES}{patient // SITES:05d}"


def radiograph(seed: int, patient: int, anatomy: Anatomy, study: Study, place: int, *, side: int) -> NDArray[np.uint8]:
    """One image (S, S).

    Args:
        seed: of the cohort.
        patient: his number.
        anatomy, study: whose image it is.
        place: of the image within the study.
        side: S in pixels.
    """
    draws = stream(seed, "views", patient, study.number, place)
    view = study.views[place]
    pixels = frame(
        side,
        shift=(study.shift[0] + uniform(draws, -0.02, 0.02), study.shift[1] + uniform(draws, -0.02, 0.02)),
        turn=study.turn + uniform(draws, -0.01, 0.01),
        zoom=study.zoom,
    )
    absorption = lateral(anatomy, study, pixels) if view == "LATERAL" else frontal(anatomy, study, view, pixels)
    return exposed(absorption, draws, view)

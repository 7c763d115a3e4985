"""Which images make a positive pair: rules over metadata.

MedAug (Vu et al. 2021, arXiv:2102.10663, section 3.2) lets another image of the same patient stand for a view:

    T⁺(x) = { t(x') : t in T, x' in S_c(x) }   where S_c(x) is not empty, else T(x)

with transforms T and the set S_c(x) of candidates that meet a criterion c over studies and lateralities. Every
candidate is equally likely. A rule knows metadata only; labels enter an audit, and decide nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import DataError
from bench.spec import PairingSpec
from bench.training.randomness import stream

FRONTAL, LATERAL = "frontal", "lateral"
LATERALITIES = {
    "frontal": FRONTAL, "ap": FRONTAL, "pa": FRONTAL, "ap supine": FRONTAL, "ap erect": FRONTAL, "f": FRONTAL,
    "lateral": LATERAL, "l": LATERAL, "lat": LATERAL, "ll": LATERAL, "rl": LATERAL,
}  # fmt: skip
"""Frontal or lateral, by what tables of radiographs write. MedAug calls the two the lateralities of a radiograph."""


@dataclass(frozen=True, kw_only=True)
class PairingFacts:
    """What a rule makes of a set of images, as exact expectations over the draws of partners.

    Attributes:
        images: of the set.
        patients: that are known.
        empty: share of images without any candidate, which are paired with themselves.
        same_image: expected share of pairs of an image with itself, those of empty sets included.
        discordant: expected share of pairs whose labels differ, among pairs whose labels can be compared; None where
            nothing is labelled. Two images with findings differ where any finding is known of both and differs.
        candidates: mean number of candidates of an image.
        largest_patient: share of the images of an epoch that belong to the patient with the most.
    """

    images: int
    patients: int
    empty: float
    same_image: float
    discordant: float | None
    candidates: float
    largest_patient: float


class Pairing:
    """Candidates of every image of a set, and draws among them.

    An image of an unknown patient has no candidate but itself. A criterion on studies or lateralities is met only by
    images of which both are known: what is unknown equals nothing, and differs from nothing.

    Args:
        rule: the criterion.
        metadata: columns of n strings: ``patient``; ``study`` where the rule asks for it, whose names need to be unique
            only within a patient; ``laterality``, or ``view``, from which it follows. Empty strings are unknown.

    Raises:
        DataError: a column that the rule needs is missing or empty.
    """

    def __init__(self, rule: PairingSpec, metadata: Mapping[str, NDArray[np.str_]]) -> None:
        self.rule = rule
        patients = _column(metadata, "patient", "positive pairs within a patient")
        study = _column(metadata, "study", f"pairs of study: {rule.study}") if rule.study != "all" else None
        side = lateralities(metadata, f"pairs of laterality: {rule.laterality}") if rule.laterality != "all" else None
        self.patients = patients
        self.offsets, self.candidates = _candidate_lists(rule, patients, study, side)

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def counts(self) -> NDArray[np.int64]:
        """(n,) candidates of each image, |S_c(x)|."""
        return np.diff(self.offsets)

    def of(self, image: int) -> NDArray[np.int64]:
        """The candidates of one image, ascending."""
        return self.candidates[self.offsets[image] : self.offsets[image + 1]]

    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """A partner for each of ``images`` (B,): one of its candidates, all equally likely, or itself without any."""
        rows = images.cpu().numpy()
        counts = self.counts[rows]
        shares = torch.rand(len(rows), dtype=torch.float64, generator=generator).numpy()
        chosen = np.minimum((shares * counts).astype(np.int64), np.maximum(counts - 1, 0))
        places = np.minimum(self.offsets[rows] + chosen, max(len(self.candidates) - 1, 0))
        partners = np.where(counts > 0, self.candidates[places] if len(self.candidates) else rows, rows)
        return torch.from_numpy(partners).to(images.device)

    def order(self, epoch: int, seed: int) -> Tensor:
        """All images in the order of an epoch; with ``most_per_patient`` as many of each patient at most, others in
        every epoch."""
        order = torch.randperm(len(self), generator=stream("order", seed, epoch))
        if not self.rule.most_per_patient:
            return order
        names = self.patients[order.numpy()]
        return order[torch.from_numpy((names == "") | (_occurrence(names) < self.rule.most_per_patient))]

    @property
    def per_epoch(self) -> int:
        """Images of an epoch."""
        return int(self._per_patient().sum())

    def _per_patient(self) -> NDArray[np.int64]:
        """Images of an epoch by patient; each image of an unknown patient counts alone."""
        known = self.patients[self.patients != ""]
        counts = np.unique(known, return_counts=True)[1] if len(known) else np.empty(0, dtype=np.int64)
        if self.rule.most_per_patient:
            counts = np.minimum(counts, self.rule.most_per_patient)
        return np.concatenate([counts, np.ones(len(self.patients) - len(known), dtype=np.int64)])

    def facts(self, labels: NDArray[np.int64] | None = None) -> PairingFacts:
        """Shares for the record; ``labels`` (n,) or (n, F) serve the audit alone."""
        counts = self.counts
        owner = np.repeat(np.arange(len(self)), counts)
        weight = 1.0 / counts[owner]  # of each candidate among those of its image
        itself = np.bincount(owner, weights=weight * (self.candidates == owner), minlength=len(self))
        itself[counts == 0] = 1.0
        per_patient = self._per_patient()
        return PairingFacts(
            images=len(self),
            patients=len(set(self.patients.tolist()) - {""}),
            empty=float((counts == 0).mean()),
            same_image=float(itself.mean()),
            discordant=None if labels is None else _discordant(labels, owner, self.candidates, weight, counts == 0),
            candidates=float(counts.mean()),
            largest_patient=float(per_patient.max() / per_patient.sum()),
        )


def lateralities(metadata: Mapping[str, NDArray[np.str_]], purpose: str) -> NDArray[np.str_]:
    """``frontal``, ``lateral``, another laterality as it is written, or an empty string, of each image.

    Raises:
        DataError: neither a laterality nor a view is known of any image.
    """
    for name in ("laterality", "view"):
        column = metadata.get(name)
        if column is not None and (column != "").any():
            return np.array([LATERALITIES.get(text.strip().lower(), text.strip()) for text in column.tolist()])
    raise DataError(
        f"{purpose} need a column `laterality` or `view` (AP, PA, lateral …), and the images have none. Map a column "
        "of your table to it, or take laterality: all."
    )


def laterality_codes(metadata: Mapping[str, NDArray[np.str_]], images: int) -> NDArray[np.int64]:
    """(n,) one number for each laterality, -1 where it is unknown; all -1 where the images have no such column."""
    if not any((metadata[name] != "").any() for name in ("laterality", "view") if name in metadata):
        return np.full(images, -1, dtype=np.int64)
    sides = lateralities(metadata, "Lateralities")
    names = sorted(set(sides.tolist()) - {""})
    return np.array([names.index(side) if side else -1 for side in sides.tolist()], dtype=np.int64)


def _column(metadata: Mapping[str, NDArray[np.str_]], name: str, purpose: str) -> NDArray[np.str_]:
    column = metadata.get(name)
    if column is None or not (column != "").any():
        raise DataError(
            f"{purpose} need a column `{name}`, and the images have none. Map a column of your table to it, or choose "
            "another rule."
        )
    return column


def _candidate_lists(
    rule: PairingSpec,
    patients: NDArray[np.str_],
    study: NDArray[np.str_] | None,
    side: NDArray[np.str_] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets (n + 1,) and candidates of all images, one after the other."""
    lists: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * len(patients)
    order = np.argsort(patients, kind="stable")
    ends = np.flatnonzero(np.append(patients[order][1:] != patients[order][:-1], True)) + 1
    for members in np.split(order, ends[:-1]):
        if patients[members[0]] == "":
            continue  # nobody knows whose they are
        allowed = np.ones((len(members), len(members)), dtype=np.bool_)
        for wanted, values in ((rule.study, study), (rule.laterality, side)):
            if values is not None:
                allowed &= _meets(wanted, values[members])
        if rule.other_image:
            np.fill_diagonal(allowed, False)
        for row, image in enumerate(members):
            lists[image] = np.sort(members[allowed[row]])
    offsets = np.concatenate([[0], np.cumsum([len(found) for found in lists])]).astype(np.int64)
    return offsets, np.concatenate([np.empty(0, dtype=np.int64), *lists])


def _meets(wanted: str, values: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(m, m): whether two images meet the criterion ``same`` or ``distinct``; both values have to be known."""
    known = values != ""
    equal = values[:, None] == values[None, :]
    met: NDArray[np.bool_] = (equal if wanted == "same" else ~equal) & known[:, None] & known[None, :]
    return met


def _occurrence(names: NDArray[np.str_]) -> NDArray[np.int64]:
    """How often each name came before, at its place."""
    _, codes = np.unique(names, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], codes[order])
    found = np.empty(len(names), dtype=np.int64)
    found[order] = np.arange(len(names)) - starts
    return found


def _discordant(
    labels: NDArray[np.int64],
    owner: NDArray[np.int64],
    partner: NDArray[np.int64],
    weight: NDArray[np.float64],
    alone: NDArray[np.bool_],
) -> float | None:
    """Expected share of pairs with different labels among those that can be compared; an image equals itself."""
    table = labels if labels.ndim == 2 else labels[:, None]
    known = (table[owner] >= 0) & (table[partner] >= 0)  # (pairs, F)
    differ = (known & (table[owner] != table[partner])).any(axis=1)
    comparable = known.any(axis=1)
    total = float(weight[comparable].sum()) + float((table[alone] >= 0).any(axis=1).sum())
    return float(weight[comparable & differ].sum()) / total if total else None


def partners_of_views(
    pairing: Pairing, images: Tensor, *, views: int, seed: int, epoch: int, step: int
) -> Sequence[Tensor]:
    """For each view the images that it shows: the first those of the batch, every other one partners of its own."""
    draws = (stream("pairs", seed, epoch, step, number) for number in range(1, views))
    return [images, *(pairing.draw(images, generator) for generator in draws)]

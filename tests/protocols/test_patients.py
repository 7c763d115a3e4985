"""Images of one patient are no independent tests: every protocol of classes has its intervals over patients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bench.protocol import Protocol
from protocols.knn import KNN
from protocols.label_efficiency import LabelEfficiency
from protocols.linear_probe import LinearProbe
from protocols.semi_supervised import SemiSupervised

from .images import digits, small_encoder


@pytest.mark.parametrize(
    "protocol",
    [
        KNN(),
        LabelEfficiency(budgets=(10, 200), draws=1, mode="linear", head_steps=20),
        LinearProbe(epochs=2),
        SemiSupervised(fraction=0.1, steps=4, copies=1, backbone_lrs=(1e-3,)),
    ],
    ids=lambda protocol: type(protocol).__name__,
)
def test_intervals_of_accuracy_are_over_patients_where_they_are_known(protocol: Protocol) -> None:
    data = digits()
    patients = np.char.add("patient ", data.labels.astype(str))  # all images of a class are alike
    known = replace(data, metadata={"patient": patients}, reads=[])
    encoder = small_encoder(data)
    plain, clustered = (
        {score.metric.key: score for score in protocol.evaluate(encoder, d, seed=0, device="cpu").scores}["top1"]
        for d in (data, known)
    )
    assert (plain.covers, clustered.covers) == ("test images", "patients")
    assert (plain.low, plain.high) != (clustered.low, clustered.high)

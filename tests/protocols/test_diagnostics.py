"""The diagnostics protocol: against the pure functions, on pairs of its own, with and without a projector."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import protocols.diagnostics
from bench.check import check_protocol
from bench.errors import DivergenceError, SpecError
from bench.protocol import Outcome
from bench.registry import discover
from bench.statistics.collapse import Ranks, covariance_spectrum, direction_std, uniformity
from protocols.diagnostics import Diagnostics

from .images import ReadLog, digits, encoder_of, pixel_encoder, small_encoder

WHOLE = Diagnostics(crop_scale=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0)
SMALL = Diagnostics(crop_scale=(0.5, 1.0), flip=0.0, rotation=10.0)


def values(outcome: Outcome) -> dict[str, float]:
    return {score.metric.key: score.value for score in outcome.scores}


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.linspace(0.2, 1.0, 16).expand(len(images), 16)


def with_projector(data: ReadLog) -> object:
    torch.manual_seed(1)
    return replace(pixel_encoder(data), projector=nn.Linear(64, 5))


def test_it_keeps_the_contract_of_protocols() -> None:
    broken = [f"{r.name}\n    {r.message}" for r in check_protocol(discover().protocols["diagnostics"]) if not r.ok]
    assert not broken, "\n".join(broken)


def test_representation_and_embedding_are_measured_apart() -> None:
    data = digits()
    encoder = with_projector(data)
    outcome = SMALL.evaluate(encoder, data, seed=0, device="cpu")
    x = encoder.features(data.split("test").images)
    z = encoder.embeddings(x)
    found = values(outcome)
    for kind, vectors in (("representation", x), ("embedding", z)):
        ranks = Ranks.of(vectors)
        assert found[f"{kind}_std"] == pytest.approx(direction_std(vectors))
        assert found[f"{kind}_rankme"] == pytest.approx(ranks.rankme)
        assert found[f"{kind}_rankme_centered"] == pytest.approx(ranks.rankme_centered)
        assert found[f"{kind}_participation_ratio"] == pytest.approx(ranks.participation_ratio)
        assert found[f"{kind}_uniformity"] == pytest.approx(uniformity(vectors))
        assert outcome.details["spectra"][kind] == pytest.approx(covariance_spectrum(vectors).tolist(), rel=1e-5)
        assert outcome.details["d"][kind] == vectors.shape[1]
        assert 0 < found[f"{kind}_alignment"] < 4
    assert outcome.details["n"] == 300 == outcome.scores[0].n
    assert found["embedding_rankme"] <= 5.01 < found["representation_rankme"]
    assert outcome.details["undefined"] == {} == outcome.details["rank_limit"]
    json.dumps(outcome.details, allow_nan=False)


def test_without_projector_the_embedding_is_undefined_with_a_reason() -> None:
    data = digits()
    outcome = SMALL.evaluate(small_encoder(data), data, seed=0, device="cpu")
    embedding = [score for score in outcome.scores if score.metric.key.startswith("embedding")]
    assert len(embedding) == 6 and all(math.isnan(score.value) and score.low is None for score in embedding)
    assert set(outcome.details["undefined"]) == {score.metric.key for score in embedding}
    assert "no projector" in outcome.details["undefined"]["embedding_std"]
    assert outcome.predictions["embedding_distance"].isna().all()
    assert set(outcome.details["spectra"]) == {"representation"}


def test_no_value_counts_as_better_than_another() -> None:
    assert {metric.higher_is_better for metric in Diagnostics.card.metrics} == {None}


def test_alignment_is_the_mean_of_the_predictions_with_a_normal_interval() -> None:
    data = digits()
    outcome = SMALL.evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    score = next(s for s in outcome.scores if s.metric.key == "representation_alignment")
    distances = outcome.predictions["representation_distance"]
    half = 1.959964 * distances.std() / 300**0.5
    assert score.value == pytest.approx(distances.mean())
    assert (score.low, score.high) == pytest.approx((score.value - half, score.value + half), rel=1e-6)
    assert (score.method, score.covers) == ("normal 95%", "test images")
    assert all(s.low is None for s in outcome.scores if not s.metric.key.endswith("alignment"))


def test_views_that_change_nothing_align_perfectly_and_others_do_not() -> None:
    data = digits()
    encoder = pixel_encoder(data)
    still, moved = (values(p.evaluate(encoder, data, seed=0, device="cpu")) for p in (WHOLE, SMALL))
    assert still["representation_alignment"] == pytest.approx(0.0, abs=1e-12)
    assert moved["representation_alignment"] > 0.05
    assert still["representation_uniformity"] == moved["representation_uniformity"]


def test_an_images_views_depend_on_seed_and_index_and_not_on_the_other_images() -> None:
    data = digits()
    fewer = replace(data, splits={**data.splits, "test": data.splits["test"][::3]}, reads=[])
    encoder = small_encoder(data)
    whole, part = (
        SMALL.evaluate(encoder, d, seed=0, device="cpu").predictions.set_index("sample") for d in (data, fewer)
    )
    np.testing.assert_allclose(
        part["representation_distance"], whole.loc[part.index, "representation_distance"], rtol=1e-4, atol=1e-6
    )
    other = SMALL.evaluate(encoder, data, seed=1, device="cpu").predictions["representation_distance"]
    assert not np.allclose(other, whole["representation_distance"], rtol=0.01)


def test_blocks_of_images_do_not_change_the_views(monkeypatch: pytest.MonkeyPatch) -> None:
    data = digits()
    whole = values(SMALL.evaluate(pixel_encoder(data), data, seed=0, device="cpu"))
    monkeypatch.setattr(protocols.diagnostics, "BLOCK", 7)
    assert values(SMALL.evaluate(pixel_encoder(data), data, seed=0, device="cpu")) == pytest.approx(whole, nan_ok=True)


def test_a_collapsed_encoder_is_seen() -> None:
    data = digits()
    encoder = replace(encoder_of(Constant(), data, feature_dim=16), projector=nn.Identity())
    found = values(SMALL.evaluate(encoder, data, seed=0, device="cpu"))
    for kind in ("representation", "embedding"):
        assert found[f"{kind}_std"] == pytest.approx(0, abs=1e-6)
        assert found[f"{kind}_rankme"] == pytest.approx(1, abs=1e-3)
        assert found[f"{kind}_rankme_centered"] == found[f"{kind}_participation_ratio"] == 0
        assert found[f"{kind}_alignment"] == pytest.approx(0, abs=1e-9)
        assert found[f"{kind}_uniformity"] == pytest.approx(0, abs=1e-9)


def test_few_images_are_named_as_the_limit_of_every_rank() -> None:
    data = digits(test=40)
    outcome = SMALL.evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert outcome.details["rank_limit"] == {
        "representation": "N = 40 is not above D = 64: no rank can exceed N, and all are pulled down"
    }


def test_of_many_images_a_random_choice_by_seed_is_used() -> None:
    data = digits()
    few = Diagnostics(max_samples=50, flip=0.0)
    outcome = few.evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    samples = outcome.predictions["sample"].to_numpy()
    assert len(samples) == 50 == outcome.scores[0].n == outcome.details["n"]
    assert (np.diff(samples) > 0).all() and set(samples) <= set(data.splits["test"])
    assert samples[-1] - samples[0] > 100  # not the first ones: a split may be sorted by class
    again = few.evaluate(pixel_encoder(data), data, seed=0, device="cpu").predictions["sample"]
    other = few.evaluate(pixel_encoder(data), data, seed=1, device="cpu").predictions["sample"]
    assert again.tolist() == samples.tolist() != other.tolist()


def test_only_the_test_split_is_read_and_its_labels_do_not_matter() -> None:
    data = digits()
    outcome = SMALL.evaluate(pixel_encoder(data), data, seed=0, device="cpu")
    assert data.reads == ["test"]
    relabelled = replace(data, labels=np.zeros_like(data.labels), reads=[])
    assert values(SMALL.evaluate(pixel_encoder(data), relabelled, seed=0, device="cpu")) == pytest.approx(
        values(outcome), nan_ok=True
    )


def test_features_that_are_not_finite_end_the_job_with_a_reason() -> None:
    data = digits()
    encoder = replace(pixel_encoder(data), projector=nn.Linear(64, 3))
    nn.init.constant_(encoder.projector.weight, math.inf)
    with pytest.raises(DivergenceError, match=r"a test.*NaN or infinite on digits"):
        SMALL.evaluate(encoder, data, seed=0, device="cpu")


def test_settings_without_meaning_are_refused() -> None:
    with pytest.raises(SpecError, match=r"max_samples must be 2 or more, got 1"):
        Diagnostics(max_samples=1)
    with pytest.raises(SpecError, match=r"diagnostics: the views .*flip.*got 2\.0"):
        Diagnostics(flip=2.0)

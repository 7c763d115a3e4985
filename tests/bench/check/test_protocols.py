"""The protocol battery passes what is sound and names each breach."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.check import check_protocol
from bench.registry import discover

from .plugins import PROTOCOL, broken_source, protocol_results


@pytest.mark.parametrize("key", [entry.key for entry in discover().protocols])
def test_every_built_in_protocol_keeps_the_contract(key: str) -> None:
    results = check_protocol(discover().protocols[key])
    assert [result for result in results if not result.ok] == []
    assert len(results) == (11 if discover().protocols[key].card.compares_images else 12)  # type: ignore[union-attr]


def test_a_sound_plugin_passes_and_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = protocol_results(tmp_path, PROTOCOL)
    assert [result for result in results if not result.ok] == []
    assert len({result.name for result in results}) == len(results) == 12
    assert capsys.readouterr() == ("", "")


BREACHES = {
    "no metrics": ("metrics=(TOP1, TOP5)", "metrics=()", "at least one metric", "lacks a title, a summary or metrics"),
    "metrics in another order": (
        "metrics=(TOP1, TOP5)",
        "metrics=(TOP5, TOP1)",
        "in order",
        r"returned the metrics \['top1', 'top5'\], the card promises \['top5', 'top1'\]",
    ),
    "no outcome": ("return Outcome(", "return dict(", "Outcome", "evaluate returned dict"),
    "a score over fewer images": (
        "scores = top_k_scores(predictions,",
        "scores = top_k_scores(predictions[:50],",
        "counts the test images",
        "n=50; the test split has 60",
    ),
    "an interval beside its value": (
        "        details =",
        "        from dataclasses import replace\n"
        "        scores = (replace(scores[0], low=-2.0, high=-1.0), scores[1])\n        details =",
        "interval",
        r"outside \[-2.0, -1.0\]",
    ),
    "an interval that says nothing": (
        "        details =",
        '        from dataclasses import replace\n        scores = (replace(scores[0], covers=""), scores[1])\n'
        "        details =",
        "says what it covers",
        "`covers` or `method` is empty",
    ),
    "NaN without a reason": (
        "        details =",
        "        from dataclasses import replace\n"
        "        scores = (scores[0], replace(scores[1], value=float('nan')))\n        details =",
        "interval",
        "'top5' is NaN. Say why",
    ),
    "predictions without samples": (
        "predictions=predictions,",
        'predictions=predictions.drop(columns="sample"),',
        "every test sample",
        "no column 'sample'",
    ),
    "predictions of half the samples": (
        "predictions=predictions,",
        "predictions=predictions[::2],",
        "every test sample",
        "not those of the test split",
    ),
    "predictions that lack a rank": (
        "predictions=predictions,",
        'predictions=predictions.drop(columns="top4"),',
        "follow from the predictions",
        r"lack \['top4'\]",
    ),
    "predictions that disagree with the score": (
        "predictions=predictions,",
        "predictions=predictions.assign(top1=predictions['label']),",
        "follow from the predictions",
        "the predictions give 100.0",
    ),
    "details that are no JSON": (
        '{"validation_images": len(validation)}',
        '{"labels": test.labels * 0}',
        "details are JSON",
        "the details are not JSON",
    ),
    "no times": (
        'seconds = {"all": time.perf_counter() - started}',
        "seconds = {}",
        "times by phase",
        "seconds are {}",
    ),
    "a test split that is read first": (
        "        train, validation = data",
        '        data.split("test")\n        train, validation = data',
        "read once",
        r"\['test', 'train', 'validation', 'test'\]",
    ),
    "a choice on the test labels": (
        "        details =",
        '        details = {"best": float(scores[0].value)}\n        _ =',
        "change neither",
        "the details differ",
    ),
    "a fit on the test labels": (
        "        distances = torch",
        "        x_test, y_test = encoder.features(test.images), torch.as_tensor(test.labels)\n"
        "        means = torch.stack([x_test[y_test == c].mean(dim=0) for c in range(data.num_classes)])\n"
        "        distances = torch",
        "change neither",
        "the predicted classes differ",
    ),
    "statistics of the test split": (
        "        distances = torch.cdist(encoder.features(test.images), means)",
        "        x_test = encoder.features(test.images)\n"
        "        distances = torch.cdist((x_test - x_test.mean(0)) / x_test.std(0), (means - x.mean(0)) / x.std(0))",
        "does not depend on which others",
        "with half of the test images, .* of the others changes",
    ),
    "a draw that no seed decides": (
        "        means = torch.lerp",
        "        free = torch.Generator()\n        free.seed()\n"
        "        means = means + torch.randn(means.shape, generator=free)\n        means = torch.lerp",
        "same seed",
        "two evaluations with one seed",
    ),
    "an encoder that is trained": (
        "        details =",
        "        with torch.no_grad():\n            next(encoder.module.parameters()).add_(1)\n        details =",
        "encoder's weights",
        "blocks.0.weight of the encoder was changed. Train encoder.clone",
    ),
}


def test_a_protocol_that_compares_images_says_so_and_is_not_asked_to_judge_each_alone(tmp_path: Path) -> None:
    source = broken_source(PROTOCOL, *BREACHES["statistics of the test split"][:2])
    results = protocol_results(tmp_path, broken_source(source, "metrics=(T", "compares_images=True, metrics=(T"))
    assert [result for result in results if not result.ok] == []
    assert len(results) == 11


def test_only_the_details_called_measured_may_follow_the_test_labels(tmp_path: Path) -> None:
    measured = broken_source(
        PROTOCOL, "        details =", '        details = {"measured": {"best": float(scores[0].value)}}\n        _ ='
    )
    assert [result for result in protocol_results(tmp_path, measured) if not result.ok] == []


@pytest.mark.parametrize("breach", BREACHES)
def test_a_breach_is_found(breach: str, tmp_path: Path) -> None:
    old, new, name, message = BREACHES[breach]
    failures = [r for r in protocol_results(tmp_path, broken_source(PROTOCOL, old, new)) if not r.ok]
    found = [result for result in failures if name in result.name]
    assert found, failures
    assert found[0].message.startswith(str(tmp_path))
    assert re.search(message, found[0].message), found[0].message

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.spec import DataSpec, PretrainSpec, RunSpec, TrainingSpec, ViewSpec

LITERALS = st.one_of(st.integers(-9, 9), st.floats(-1e3, 1e3), st.booleans(), st.text(max_size=5))
PARAMETERS = st.dictionaries(st.text(min_size=1, max_size=6), LITERALS, max_size=4)


def run_spec(params: dict[str, object]) -> RunSpec:
    pretrain = PretrainSpec(
        method="vicreg",
        method_params=params,
        backbone="convnet",
        data=DataSpec(key="digits"),
        views=(ViewSpec(blur=0.5),),
        training=TrainingSpec(epochs=3, warmup_epochs=0.5),
    )
    return RunSpec(pretrain=pretrain, protocol="knn", protocol_params=params, data=DataSpec(key="digits"))


@given(PARAMETERS)
def test_a_spec_survives_its_json(params: dict[str, object]) -> None:
    spec = run_spec(params)
    again = RunSpec.from_json(spec.canonical_json())
    assert again == spec and again.digest() == spec.digest()


@given(PARAMETERS)
def test_the_order_of_parameters_does_not_count(params: dict[str, object]) -> None:
    backwards = dict(reversed(list(params.items())))
    assert run_spec(params).digest() == run_spec(backwards).digest()


@given(PARAMETERS, PARAMETERS)
def test_different_questions_have_different_digests(a: dict[str, object], b: dict[str, object]) -> None:
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)
    assert (run_spec(a).digest() == run_spec(b).digest()) == same


def test_the_digest_is_the_same_on_every_machine_and_in_every_version() -> None:
    assert DataSpec(key="digits").canonical_json() == '{"key":"digits","params":{}}'
    assert DataSpec(key="digits").digest() == "802f7ec8a4b3b962b82c96418e83982a10bd08b0956ee453cc36f3cb2c04c1ed"


def test_a_spec_is_frozen_and_knows_its_fields() -> None:
    spec = DataSpec(key="digits")
    with pytest.raises(ValidationError, match="frozen"):
        spec.key = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        DataSpec(key="digits", size=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"lr": -1}, "greater than 0"),
        ({"epochs": 3, "warmup_epochs": 3}, r"warmup_epochs \(3.0\) must be smaller than epochs \(3\)"),
        ({"optimizer": "adagrad"}, "'sgd', 'adam', 'adamw' or 'lars'"),
        ({"lars_eta": 0.0}, "greater than 0"),
        ({"milestones": [3]}, "milestones belong to schedule: steps"),
        ({"schedule": "steps"}, r"needs milestones that ascend and are smaller than epochs \(20\), got \[\]"),
        ({"schedule": "steps", "milestones": [9, 9]}, r"ascend .* got \[9, 9\]"),
        ({"schedule": "steps", "milestones": [9, 5]}, r"ascend .* got \[9, 5\]"),
        ({"schedule": "steps", "milestones": [9, 20]}, r"smaller than epochs \(20\), got \[9, 20\]"),
        ({"schedule": "steps", "milestones": [0]}, "greater than or equal to 1"),
        ({"schedule": "steps", "milestones": [2], "warmup_epochs": 2.5}, "milestone 2 lies in the warm-up of 2.5"),
        ({"schedule": "steps", "milestones": [9], "decay": 1.0}, "less than 1"),
        ({"schedule": "steps", "milestones": [9], "decay": 0.0}, "greater than 0"),
        (
            {"schedule": "steps", "milestones": [9], "final_lr_fraction": 0.1},
            "final_lr_fraction belongs to schedule: cosine",
        ),
    ],
)
def test_a_recipe_out_of_range_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSpec.model_validate(values)


def test_a_recipe_with_steps_survives_its_json_and_differs_from_a_cosine() -> None:
    steps = TrainingSpec(schedule="steps", milestones=(1, 19), decay=0.2)
    assert TrainingSpec.from_json(steps.canonical_json()) == steps
    others = (TrainingSpec(), steps.model_copy(update={"decay": 0.1}), steps.model_copy(update={"milestones": (2, 19)}))
    assert len({spec.digest() for spec in (steps, *others)}) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop_scale": (0.9, 0.1)}, r"crop_scale must be \(low, high\)"),
        ({"crop_scale": (0.9, 1.1)}, "ends at 1"),
        ({"flip": 1.5}, "less than or equal to 1"),
    ],
)
def test_a_view_out_of_range_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ViewSpec.model_validate(values)

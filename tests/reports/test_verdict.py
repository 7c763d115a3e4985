"""The verdict names no winner without separation, and says what its words rest on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.statistics.utility import Bound, Utility
from reports.cautions import advice, warnings
from reports.forest import forest
from reports.label_efficiency import VERDICTS, Worth
from reports.verdict import Verdict, verdicts, worth_words

from .predicted import (
    FACTS,
    IMAGES,
    SHARES,
    contest_of_classes,
    findings_request,
    measured_of,
    predictions_of,
    with_facts,
)
from .synthetic import make_plan, make_rows

PATIENTS = [f"p{index // 10}" for index in range(IMAGES)]


def verdict(*, seeds: int = 1, facts: Any = FACTS, **options: Any) -> Verdict:
    plan = make_plan(seeds=seeds, states={})
    (found,) = verdicts(measured_of(plan, with_facts(make_rows(plan), facts)), predictions_of(plan, **options))
    return found


def answer(found: Verdict, question: str) -> str:
    (sentences,) = [item.sentences for item in found.answers if question in item.question]
    return " ".join(sentences)


def test_methods_that_cannot_be_told_apart_lead_together_and_the_worse_is_named() -> None:
    found = verdict()
    assert found.headline == "SimCLR and BYOL lead and cannot be told apart."
    words = answer(found, "leads")
    assert "SimCLR has the highest accuracy" in words and "no proof that they are equal" in words
    assert "VICReg is worse than SimCLR by " in words and "points (" in words


def test_a_method_leads_alone_only_where_every_other_is_significantly_worse() -> None:
    found = verdict(shares=SHARES | {"byol": 0.7})
    assert found.headline == "SimCLR leads: it is better than every other self-supervised method."


def test_no_winner_is_named_where_nothing_is_separated() -> None:
    found = verdict(shares=SHARES | {"vicreg": 0.85})
    assert found.headline.startswith("No winner can be named: ")
    assert found.headline.endswith(" cannot be told apart.")
    assert all(name in found.headline for name in ("SimCLR", "BYOL", "VICReg"))
    assert "leads" not in found.headline


def test_baselines_say_whether_pre_training_is_worth_it() -> None:
    words = answer(verdict(), "worth it at all")
    assert words.startswith("Yes. Better than the same network without any training (Random init,")
    assert "Worse than the same network trained on all labels of the training images (Supervised," in words
    some = answer(verdict(shares=SHARES | {"vicreg": 0.40}), "worth it at all")
    assert some.startswith("Yes, with SimCLR and BYOL.")
    assert answer(verdict(shares=SHARES | {"random_init": 0.99}), "worth it at all").startswith("No. Worse than ")
    alike = answer(verdict(shares=dict.fromkeys(SHARES, 0.97)), "worth it at all")
    assert alike.startswith("These values do not show it.")
    assert alike.count("No self-supervised method can be told apart from") == 2


def test_the_grounds_name_images_patients_seeds_metric_and_what_intervals_cover() -> None:
    words = answer(verdict(patients=PATIENTS), "rest on")
    assert "400 test images of 40 patients" in words and "paired bootstrap of patients" in words
    assert "Linear evaluation: A linear classifier." in words and "named correctly" in words
    assert "trained only once (one seed)" in words and "10 pairs" in words
    several = answer(verdict(seeds=3), "rest on")
    assert "3 times (seeds)" in several and "chance in the training" in several
    exact = answer(verdict(), "rest on")
    assert "McNemar's exact test" in exact and "patients" not in exact


def test_every_pair_can_be_downloaded_with_interval_and_corrected_p() -> None:
    pairs = verdict().pairs
    assert pairs is not None and len(pairs.rows) == 10
    top = pairs.rows[0]
    assert top.title == "Supervised over Random init"
    difference, p, told = top.cells
    assert difference.value is not None and difference.low is not None and 40 < difference.value < 70
    assert p.value is not None and p.value < 0.001 and told.text == "told apart"
    tie = next(row for row in pairs.rows if row.title in ("SimCLR over BYOL", "BYOL over SimCLR"))
    assert tie.cells[2].text == "not told apart" and not tie.cells[0].best


def test_one_seed_asks_for_three_with_the_command_and_three_ask_for_none() -> None:
    first = next(item for item in advice(contest_of_classes()) if item.command)
    assert first.command == "jointbench run synthetic --seeds 3"
    assert not [item for item in advice(contest_of_classes(seeds=3)) if item.command]


def test_a_tie_says_what_would_separate_it_or_that_nothing_will() -> None:
    texts = [item.text for item in advice(contest_of_classes(shares=SHARES | {"byol": 0.83}))]
    (words,) = [text for text in texts if text.startswith("To tell")]
    assert "SimCLR from BYOL" in words and f"in place of {IMAGES}" in words
    contest = contest_of_classes()
    assert contest.comparison is not None
    tiny = tuple(
        replace(item, value=0.01, p=0.9, adjusted=1.0) if (item.first, item.second) == (0, 1) else item
        for item in contest.comparison.differences
    )
    hopeless = replace(contest, comparison=replace(contest.comparison, differences=tiny))
    (words,) = [item.text for item in advice(hopeless) if "SimCLR and BYOL" in item.text]
    assert "more than 20 times the test images" in words and "equal" not in words


def said(contest: Any, *collapsed: str) -> str:
    return " ".join(warnings(contest, collapsed))


def test_sound_data_give_no_warning() -> None:
    assert said(contest_of_classes(patients=PATIENTS)) == ""
    assert said(contest_of_classes(facts={**FACTS, "dataset": "mnist5k"})) == ""  # digits have no patients


def test_the_worth_of_labels_is_told_per_method_and_its_outcomes_together() -> None:
    bound = Bound(value=200.0, kind="exact")
    utility = Utility(n=100.0, worth=bound)

    def item(title: str, verdict: str) -> Worth:
        sentence = f"100 labels with {title} are worth 200."
        return Worth(name=title, title=title, sentence=sentence, verdict=VERDICTS[verdict], because="", utility=utility)

    told = worth_words([item("A", "cannot be told"), item("B", "no gain"), item("C", "cannot be told")])
    assert told == (
        "100 labels with A are worth 200.",
        "100 labels with B are worth 200.",
        "100 labels with C are worth 200.",
        "No gain (B).",
        "Whether that is a lasting gain, one that ends, or none cannot be told for A and C.",
    )
    assert worth_words([]) == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "Patients are unknown"),
        ({"patients": [*PATIENTS[:-3], "", "", ""]}, "patient of 3 test images is unknown"),
        ({"patients": PATIENTS, "facts": {**FACTS, "shared_patients": 2}}, "2 patients have images in more than one"),
        ({"patients": [f"p{index // 20}" for index in range(IMAGES)]}, "small: 400 images of 20 patients"),
        ({"labels": np.arange(60) % 2}, "The test split is small: 60 images."),
        ({"labels": (np.arange(IMAGES) < 4).astype(int)}, "Few test images show pneumonia (4)"),
        ({"labels": np.zeros(IMAGES, dtype=int)}, "No test image shows pneumonia"),
        ({"labels": np.zeros(IMAGES, dtype=int)}, "All test images are of one class"),
        ({"shares": dict.fromkeys(SHARES, 0.0)}, "is not surely better than always naming the largest class, 50.0 %"),
        ({"states": {("byol", "linear_probe"): "missing"}}, "BYOL takes no part in the comparison: it was not run yet"),
    ],
)
def test_what_may_make_the_verdict_wrong_is_said(options: dict[str, Any], words: str) -> None:
    contest = contest_of_classes(**options)
    assert words in said(contest)


def test_a_class_without_training_images_is_said() -> None:
    train = {**FACTS["splits"]["train"], "counts": [700, 0]}
    facts = {**FACTS, "splits": {**FACTS["splits"], "train": train}}
    assert "No training image shows pneumonia: nothing can be learned of it." in said(contest_of_classes(facts=facts))


def test_few_training_images_and_collapsed_trainings_are_said() -> None:
    few = {**FACTS, "splits": {**FACTS["splits"], "train": {**FACTS["splits"]["train"], "images": 60}}}
    assert "Only 60 training images" in said(contest_of_classes(facts=few))
    assert said(contest_of_classes(), "BYOL", "BYOL").count("BYOL collapsed in training") == 1


def test_findings_are_explained_and_rare_ones_named() -> None:
    plan, rows, predictions = findings_request(few=True)
    (found,) = verdicts(measured_of(plan, rows), predictions)
    assert "AUROC is the probability that an image with a finding" in answer(found, "rest on")
    assert any("Hernia (4)" in text for text in found.warnings)
    few = answer(found, "few labels")
    assert few.startswith("With the labels of 10 % of the training images only, ")
    assert " has the highest value, " in few and "best" not in few
    assert "better than the same network without any training" in few and "guessing" not in few
    plan, rows, predictions = findings_request(few=True, not_learned=("Hernia",))
    (found,) = verdicts(measured_of(plan, rows), predictions)
    assert "1 finding of 2 could not be learned" in answer(found, "few labels")


def test_equal_inputs_give_an_equal_verdict() -> None:
    assert verdict() == verdict()


def test_the_figure_orders_methods_before_baselines_and_tells_its_values_in_words() -> None:
    svg = forest(contest_of_classes())
    order = [svg.index(f">{title}<") for title in ("SimCLR", "BYOL", "VICReg", "Supervised", "Random init")]
    assert order == sorted(order)
    assert svg.count('<circle class="lead"') == 2 and svg.count('<circle class="trail"') == 1
    assert svg.count('class="base"') == 2
    assert "SimCLR 8" in svg.partition("aria-label=")[2].partition(">")[0]

"""Recipes of linear evaluation: the published values, each with a source, and departures in words."""

from __future__ import annotations

from dataclasses import fields

import pytest

from bench.errors import SpecError, UnknownNameError
from bench.training.probe_recipes import PROBE_RECIPES, find_recipe

PUBLISHED = {
    # optimizer, peak rates at the recipe's own batch, weight decays, epochs, batch, milestones, Nesterov
    "vicreg": ("sgd", (0.02,), (1e-6,), 100, 256, (), False),
    "barlow_twins": ("sgd", (0.3,), (1e-6,), 100, 256, (), False),
    "byol": ("sgd", (1.6, 1.2, 0.8, 0.4, 0.2), (0.0,), 80, 1024, (), True),
    "moco": ("sgd", (30.0,), (0.0,), 100, 256, (60, 80), False),
    "simsiam": ("lars", (1.6,), (0.0,), 90, 4096, (), False),
    "simclr": ("sgd", (1.6,), (0.0,), 90, 4096, (), True),
}


@pytest.mark.parametrize("key", PUBLISHED)
def test_a_recipe_has_its_published_values(key: str) -> None:
    recipe = find_recipe(key)
    rates = pytest.approx(PUBLISHED[key][1])
    found = (recipe.optimizer, recipe.weight_decays, recipe.epochs, recipe.batch_size, recipe.milestones)
    assert found == (PUBLISHED[key][0], *PUBLISHED[key][2:6])
    assert recipe.rates(recipe.batch_size) == rates
    assert recipe.nesterov is PUBLISHED[key][6]
    assert (recipe.momentum, recipe.crop_scale, recipe.flip, recipe.standardize) == (0.9, (0.08, 1.0), 0.5, False)


@pytest.mark.parametrize("key", PROBE_RECIPES)
def test_every_value_of_a_recipe_has_a_source(key: str) -> None:
    recipe = PROBE_RECIPES[key]
    assert set(recipe.sources) == {item.name for item in fields(recipe)} - {"key", "sources", "conflicts"}
    assert all(source.strip() for source in recipe.sources.values())
    recipe.check()


def test_conflicts_between_sources_name_the_value_that_they_are_about() -> None:
    for recipe in PROBE_RECIPES.values():
        for conflict in recipe.conflicts:
            assert conflict.split(":")[0] in recipe.sources
    assert {key for key, recipe in PROBE_RECIPES.items() if recipe.conflicts} == {"vicreg", "byol", "simsiam", "simclr"}


def test_rates_follow_the_batch_only_where_the_recipe_says_so() -> None:
    assert find_recipe("simclr").rates(128) == pytest.approx((0.05,))
    assert find_recipe("moco").rates(32) == (30.0,)


def test_other_values_are_recorded_as_departures_and_milestones_move_with_the_epochs() -> None:
    recipe, departures = find_recipe("moco").changed(epochs=10, batch_size=256, lrs=[1.0, 3.0], flip=None)
    assert departures == ("epochs 10 instead of 100", "lrs (1.0, 3.0) instead of (30.0,)")
    assert (recipe.epochs, recipe.milestones, recipe.lrs, recipe.flip) == (10, (6, 8), (1.0, 3.0), 0.5)
    same, none = find_recipe("moco").changed(epochs=100)
    assert same == find_recipe("moco") and none == ()


def test_an_unknown_recipe_is_named_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'barlow'. Did you mean 'barlow_twins'.*simsiam"):
        find_recipe("barlow")


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"epochs": 2.5}, {"batch_size": True}, {"lrs": ()}, {"lrs": ["a"]}])
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=next(iter(wrong))):
        find_recipe("moco").changed(**wrong)

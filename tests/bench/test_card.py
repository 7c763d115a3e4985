from __future__ import annotations

import pytest

from bench.card import MethodCard
from bench.errors import SpecError


def card(views: int | str) -> MethodCard:
    return MethodCard(title="Mine", family="contrastive", summary="S.", views=views)


@pytest.mark.parametrize(("views", "count"), [(2, 2), (0, 0), ("positives", 4), ("2 + support", 10), ("support+2", 10)])
def test_views_are_a_number_a_parameter_or_a_sum_of_both(views: int | str, count: int) -> None:
    assert card(views).view_count({"positives": 4, "support": 8}) == count


@pytest.mark.parametrize("value", [None, 2.0, True, -1])
def test_a_parameter_that_is_no_number_of_views_is_named(value: object) -> None:
    params = {} if value is None else {"support": value}
    with pytest.raises(SpecError, match=rf"Mine: views '2 \+ support' needs a whole number in 'support', got {value}"):
        card("2 + support").view_count(params)

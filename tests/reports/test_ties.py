from __future__ import annotations

from bench.metric import TOP1, TRAINING_LOSS
from bench.table import Cell, Column, Row, Table
from reports.ties import Contender, best_group, mark_best


def contender(row: int, value: float, half: float) -> Contender:
    return Contender(row=row, value=value, low=value - half, high=value + half)


def test_the_best_group_is_what_overlaps_the_best_interval() -> None:
    group = best_group([contender(0, 90, 1), contender(1, 91.5, 1), contender(2, 88, 1)], TOP1)
    assert group is not None
    assert (group.best, group.rows) == (1, frozenset({0, 1}))


def test_overlap_is_judged_against_the_best_and_not_in_a_chain() -> None:
    group = best_group([contender(0, 92, 1), contender(1, 90.5, 1), contender(2, 89, 1)], TOP1)
    assert group is not None
    assert group.rows == frozenset({0, 1})  # row 2 overlaps row 1 but not row 0


def test_direction_comes_from_the_metric() -> None:
    group = best_group([contender(0, 3, 0.1), contender(1, 1, 0.1)], TRAINING_LOSS)
    assert group is not None
    assert (group.best, group.rows) == (1, frozenset({1}))


def test_a_single_value_is_no_best_group() -> None:
    assert best_group([contender(0, 90, 1)], TOP1) is None


def table(values: list[float]) -> Table:
    return Table(
        key="t",
        title="T",
        caption="C",
        columns=(Column(title="data"), Column(title="top-1", groups=("Linear",), metric=TOP1)),
        rows=tuple(
            Row(title=name, cells=(Cell(text="x"), Cell(state="measured", metric=TOP1, value=value)))
            for name, value in zip("ABC", values, strict=True)
        ),
    )


def test_a_tie_is_said_in_words_with_the_best_method_named() -> None:
    marked = mark_best(table([90, 91, 80]), [(), [contender(0, 90, 1), contender(1, 91, 1), contender(2, 80, 1)]])
    assert [row.cells[1].best for row in marked.rows] == [True, True, False]
    words = "By top-1 (linear), the 95 % interval of A overlaps that of B, the best of the competing values."
    assert marked.notes == (words,)


def test_a_clear_winner_is_marked_without_a_sentence() -> None:
    marked = mark_best(table([90, 95, 80]), [(), [contender(0, 90, 1), contender(1, 95, 1), contender(2, 80, 1)]])
    assert [row.cells[1].best for row in marked.rows] == [False, True, False]
    assert marked.notes == ()

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from bench.errors import DataError
from bench.job import Bundle
from bench.plan import Plan, address_of, make_plan, require_data, spec_changes
from bench.registry import Catalog, discover
from bench.runner import bundles_of
from bench.spec import DataSpec, RunSpec
from bench.store import SCHEMA, _to_frame
from bench.suite import expand, find_suite


class Source:
    """Gives every dataset the same fingerprint."""

    def __init__(self, fingerprint: str = "f" * 64) -> None:
        self.value = fingerprint

    def fingerprint(self, spec: DataSpec) -> str:
        return self.value


class Nothing(Source):
    """Has no file of any dataset."""

    def __init__(self, published: object) -> None:
        self.sizes = published

    def fingerprint(self, spec: DataSpec) -> str:
        raise DataError(f"No {spec.key} below /nowhere.")

    def published(self, spec: DataSpec) -> object:
        return self.sizes


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover()


def plan_of(catalog: Catalog, rows: pd.DataFrame, *, source: Source | None = None, **changes: Any) -> Plan:
    _, suite = find_suite("smoke", catalog)
    suite = suite.model_copy(update={"protocols": OF_ALL_METHODS, **changes})
    specs = expand(suite, catalog, methods=("vicreg", "random_init"))
    return make_plan("smoke", suite, specs, catalog, source or Source(), rows, words=["smoke"])  # type: ignore[arg-type]


OF_ALL_METHODS = tuple(item for item in find_suite("smoke", discover())[1].protocols if not item.methods)
PER_METHOD = len(OF_ALL_METHODS)
"""Cells of each method in the suite of the plans here."""


def nothing() -> pd.DataFrame:
    return _to_frame(SCHEMA.empty_table())


def rows_of(plan: Plan, **changes: Any) -> pd.DataFrame:
    """What the store holds after the plan has run."""
    import json

    records = [
        {
            "kind": "evaluation",
            "status": "ok",
            "identity": cell.identity.digest,
            "suite": plan.suite,
            "cell": cell.address,
            "metric": "top1",
            "spec_hash": cell.identity.spec,
            "code_hash": cell.identity.code,
            "data_hash": cell.identity.data,
            "spec": cell.spec.canonical_json(),
            "code": json.dumps(cell.identity.manifest),
            "finished_at": "2026-01-02T03:04:05",
            "error_type": "",
            "error_message": "",
            **changes,
        }
        for cell in plan.cells
    ]
    return pd.DataFrame(records)


def test_everything_is_missing_at_first_and_fresh_when_computed(catalog: Catalog) -> None:
    first = plan_of(catalog, nothing())
    assert first.counts() == {"missing": 2 * PER_METHOD} and len(first.to_run) == 2 * PER_METHOD
    second = plan_of(catalog, rows_of(first))
    assert second.counts() == {"fresh": 2 * PER_METHOD} and not second.to_run


def test_an_address_is_readable_and_unique(catalog: Catalog) -> None:
    cells = plan_of(catalog, nothing()).cells
    assert "digits/convnet/vicreg/semi_supervised[1%]/digits/seed0" in {cell.address for cell in cells}
    assert len({cell.address for cell in cells}) == len(cells)


def test_a_changed_recipe_makes_the_trained_cells_stale_by_spec_and_names_the_field(catalog: Catalog) -> None:
    rows = rows_of(plan_of(catalog, nothing()))
    _, suite = find_suite("smoke", catalog)
    longer = suite.training.model_copy(update={"epochs": 3})
    plan = plan_of(catalog, rows, training=longer)
    assert plan.counts() == {"fresh": PER_METHOD, "stale": PER_METHOD}
    stale = plan.to_run[0]
    assert stale.stale == ("spec",) and stale.changes == ("pretrain.training.epochs: 2 -> 3",)
    assert stale.reason == "spec changed since 2026-01-02T03:04" and stale.stored


def test_changed_data_make_every_cell_stale_by_data(catalog: Catalog) -> None:
    rows = rows_of(plan_of(catalog, nothing()))
    plan = plan_of(catalog, rows, source=Source("e" * 64))
    assert {cell.stale for cell in plan.cells} == {("data",)}
    assert "content or splits" in plan.cells[0].changes[0]


def test_changed_code_is_named(catalog: Catalog) -> None:
    first = plan_of(catalog, nothing())
    rows = rows_of(first)
    vicreg = rows["cell"].str.contains("vicreg")
    rows.loc[vicreg, "code_hash"] = "0" * 64
    rows.loc[vicreg, "identity"] = "0" * 64
    rows.loc[vicreg, "code"] = rows.loc[vicreg, "code"].str.replace('"variance": "', '"variance": "x', regex=False)
    plan = plan_of(catalog, rows)
    assert {cell.spec.pretrain.method for cell in plan.to_run} == {"vicreg"}
    assert plan.to_run[0].stale == ("code",)
    assert plan.to_run[0].changes == ("methods.vicreg: variance changed",)


def test_a_failure_shows_its_reason_and_is_tried_again(catalog: Catalog) -> None:
    first = plan_of(catalog, nothing())
    rows = rows_of(first, status="failed", metric="", error_type="DivergenceError", error_message="loss is NaN")
    plan = plan_of(catalog, rows)
    assert plan.counts() == {"failed": 2 * PER_METHOD} and len(plan.to_run) == 2 * PER_METHOD
    assert plan.cells[0].reason == "DivergenceError: loss is NaN"


def test_an_answer_of_another_suite_is_fresh_when_the_question_is_the_same(catalog: Catalog) -> None:
    rows = rows_of(plan_of(catalog, nothing()), suite="other")
    assert plan_of(catalog, rows).counts() == {"fresh": 2 * PER_METHOD}


def test_another_suites_recipe_does_not_make_a_cell_stale(catalog: Catalog) -> None:
    rows = rows_of(plan_of(catalog, nothing(), source=Source("e" * 64)), suite="other")
    assert plan_of(catalog, rows).counts() == {"missing": 2 * PER_METHOD}


def test_the_command_of_a_cell_names_the_cell_alone(catalog: Catalog) -> None:
    cell = next(c for c in plan_of(catalog, nothing()).cells if "vicreg/semi_supervised[1%]" in c.address)
    assert cell.command == "jointbench run smoke --methods vicreg --protocols 'semi_supervised[1%]' --force"


def test_cells_of_one_encoder_form_one_bundle_and_trained_ones_come_first(catalog: Catalog) -> None:
    bundles = bundles_of("smoke", plan_of(catalog, nothing()).cells)
    assert [bundle.spec.method for bundle in bundles] == ["vicreg", "random_init"]
    assert [len(bundle.cells) for bundle in bundles] == [PER_METHOD, PER_METHOD]
    assert all(isinstance(bundle, Bundle) for bundle in bundles)


def test_spec_changes_name_the_path_of_each_field() -> None:
    old = {"a": {"b": 1, "c": [1]}, "d": None}
    new = {"a": {"b": 2, "c": [1]}, "d": {"e": 1}}
    assert spec_changes(old, new) == ["a.b: 1 -> 2", 'd: null -> {"e": 1}']


def test_the_seed_is_part_of_the_address(catalog: Catalog) -> None:
    spec: RunSpec = plan_of(catalog, nothing()).cells[0].spec
    other = spec.model_copy(update={"pretrain": spec.pretrain.model_copy(update={"seed": 3})})
    assert address_of(other) == address_of(spec).replace("seed0", "seed3")


def test_cells_of_a_published_set_are_planned_without_its_files_and_without_a_hash_of_them(catalog: Catalog) -> None:
    absent, present = plan_of(catalog, nothing(), source=Nothing("published")), plan_of(catalog, nothing())
    assert absent.counts() == {"missing": 2 * PER_METHOD} == {"missing": len(absent.to_run)}
    for cell, other in zip(absent.cells, present.cells, strict=True):
        assert cell.reason == "the data are not here: No digits below /nowhere."
        assert cell.absent == {"digits": "No digits below /nowhere."} and not other.absent
        assert (cell.fingerprint, cell.identity.data, cell.pretraining.data) == ("", "", "")
        assert (cell.identity.code, cell.identity.spec) == (other.identity.code, other.identity.spec)
    require_data(present.cells)
    with pytest.raises(DataError, match=r"^No digits below /nowhere\.$"):
        require_data(absent.cells)


def test_without_the_data_a_stored_answer_is_shown_but_not_vouched_for(catalog: Catalog) -> None:
    rows = rows_of(plan_of(catalog, nothing()))
    plan = plan_of(catalog, rows, source=Nothing("published"))
    assert plan.counts() == {"stale": 2 * PER_METHOD}
    assert {cell.stale for cell in plan.cells} == {("data",)} and plan.cells[0].stored == rows["identity"].iloc[0]
    assert plan.cells[0].reason.startswith("the data are not here: No digits")
    assert plan.cells[0].changes == ("digits: nothing here tells whether they are those of the stored result",)
    # nor is a row answered that somebody stored under no data at all
    forged = rows_of(plan_of(catalog, nothing(), source=Nothing("published")))
    assert plan_of(catalog, forged, source=Nothing("published")).counts() == {"stale": 2 * PER_METHOD}


def test_images_of_the_users_own_that_are_not_there_are_an_error(catalog: Catalog) -> None:
    with pytest.raises(DataError, match="No digits below /nowhere"):
        plan_of(catalog, nothing(), source=Nothing(None))

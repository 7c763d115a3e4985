"""The plan: every cell of a suite with its state in the store, and the reason.

A cell is *fresh* when the store answers its exact question with the present code and data, *stale* when it answers an
earlier form of it, *failed* when the last attempt at exactly this failed, and *missing* otherwise. Where the files of a
published dataset are not there, its cells are planned all the same: stale if the store has an answer, else missing.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from bench.data.sources import DataSource
from bench.errors import DataError
from bench.identity import Identity, evaluation_identity, manifest_changes, pretraining_identity
from bench.registry import Catalog
from bench.spec import DataSpec, PretrainSpec, RunSpec
from bench.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

State = Literal["fresh", "stale", "missing", "failed"]
Hash = Literal["code", "data", "spec"]


@dataclass(frozen=True, kw_only=True)
class PlannedCell:
    """One cell: its address, its question, its identity and its state.

    Attributes:
        address: readable and stable, ``data/backbone/method[variant]/protocol[variant]/data/seedN``.
        fingerprint: of the evaluation data; empty where these or the images of the pre-training are not here, and then
            ``identity`` and ``pretraining`` have no hash of the data either and answer to no stored result.
        absent: why they are not here, by the label of the dataset.
        stale: which of the hashes differ from the newest stored answer.
        reason: one sentence.
        changes: what differs, one line each (for ``why``).
    """

    address: str
    spec: RunSpec
    identity: Identity
    pretraining: Identity
    fingerprint: str
    state: State
    reason: str
    absent: Mapping[str, str] = field(default_factory=dict)
    stale: tuple[Hash, ...] = ()
    changes: tuple[str, ...] = ()
    stored: str = ""
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All cells of one request."""

    suite: str
    content: Suite
    cells: tuple[PlannedCell, ...]

    def counts(self) -> dict[str, int]:
        """Number of cells in each state, states without cells left out."""
        return dict(sorted(Counter(cell.state for cell in self.cells).items()))

    @property
    def to_run(self) -> tuple[PlannedCell, ...]:
        return tuple(cell for cell in self.cells if cell.state != "fresh")


def address_of(spec: RunSpec) -> str:
    """The cell's readable address: what a table's row and column say."""
    pretrain = spec.pretrain
    data, seed = pretrain.trained_on, f"seed{pretrain.seed}"
    return "/".join((data, pretrain.backbone, pretrain.name, spec.protocol_name, spec.data.label, seed))


def training_address_of(spec: PretrainSpec) -> str:
    """The pre-training's readable address: the cell's without the evaluation."""
    return "/".join((spec.trained_on, spec.backbone, spec.name, f"seed{spec.seed}"))


def require_data(cells: Iterable[PlannedCell]) -> None:
    """Refuse to compute cells whose data are not here.

    Raises:
        DataError: with the reason of each dataset.
    """
    absent = {label: reason for cell in cells for label, reason in cell.absent.items()}
    if absent:
        raise DataError(" ".join(dict.fromkeys(absent.values())))


class _Data:
    """Fingerprints of the datasets of a plan, each asked for once."""

    def __init__(self, source: DataSource) -> None:
        self.source = source
        self.found: dict[str, tuple[str, str]] = {}

    def fingerprint(self, spec: DataSpec) -> str:
        """Empty where the files of a published set are not here."""
        return self._ask(spec)[0]

    def absence(self, spec: DataSpec) -> str:
        """Why they are not; empty where they are."""
        return self._ask(spec)[1]

    def _ask(self, spec: DataSpec) -> tuple[str, str]:
        key = spec.canonical_json()
        if key not in self.found:
            try:
                self.found[key] = self.source.fingerprint(spec), ""
            except DataError as error:
                if self.source.published(spec) is None:
                    raise
                self.found[key] = "", str(error)
        return self.found[key]


def make_plan(
    suite_key: str,
    suite: Suite,
    specs: Sequence[RunSpec],
    catalog: Catalog,
    source: DataSource,
    rows: pd.DataFrame,
    *,
    words: Sequence[str],
) -> Plan:
    """Compare every spec with the stored rows.

    Args:
        rows: the store's frame.
        words: what the recomputing command must repeat: the suite as typed, ``--store``, ``--plugin`` …
    """
    known = _Data(source)
    encoders: dict[str, Identity] = {}
    answers = _Answers(rows)
    cells = []
    for spec in specs:
        used = (spec.pretrain.data, spec.data)
        absent = {data.label: reason for data in used if (reason := known.absence(data))}
        trained_on, evaluated_on = map(known.fingerprint, used)
        key = spec.pretrain.canonical_json()
        if key not in encoders:
            encoders[key] = pretraining_identity(spec.pretrain, catalog, fingerprint=trained_on)
        identity = evaluation_identity(spec, catalog, encoders[key], fingerprint=evaluated_on)
        cell = PlannedCell(
            address=address_of(spec),
            spec=spec,
            identity=replace(identity, data="") if absent else identity,
            pretraining=encoders[key],
            fingerprint="" if absent else evaluated_on,
            absent=absent,
            state="missing",
            reason="never computed",
            command=_command(spec, words),
        )
        cells.append(answers.judge(suite_key, cell))
    return Plan(suite=suite_key, content=suite, cells=tuple(cells))


def _command(spec: RunSpec, words: Sequence[str]) -> str:
    choice = ["--methods", spec.pretrain.name, "--protocols", spec.protocol_name]
    if spec.pretrain.seed:
        choice += ["--seeds", str(spec.pretrain.seed + 1)]
    return shlex.join(["jointbench", "run", *words, *choice, "--force"])


class _Answers:
    """The stored evaluations, looked up by identity and by address."""

    def __init__(self, rows: pd.DataFrame) -> None:
        stored = rows[rows["kind"] == "evaluation"].drop_duplicates("identity")
        self.by_identity: dict[str, dict[str, Any]] = {}
        self.by_address: dict[tuple[str, str], dict[str, Any]] = {}
        for record in stored.sort_values("finished_at", kind="stable").to_dict("records"):
            row = {str(name): value for name, value in record.items()}
            self.by_identity[row["identity"]] = row
            if row["status"] == "ok":
                self.by_address[(row["suite"], row["cell"])] = row

    def judge(self, suite: str, cell: PlannedCell) -> PlannedCell:
        """The cell with its state, the reason, and the stored answer that it stands for."""
        identity = cell.identity.digest
        exact = None if cell.absent else self.by_identity.get(identity)
        earlier = self.by_address.get((suite, cell.address))
        if exact is not None and exact["status"] == "ok":
            reason = "spec, code and data are those of the stored result"
            return replace(cell, state="fresh", reason=reason, stored=identity)
        if earlier is not None:
            stale, changes = _compare(earlier, cell.spec, cell.identity)
            reason = f"{' and '.join(stale)} changed since {str(earlier['finished_at'])[:16]}"
            stored = str(earlier["identity"])
            cell = replace(cell, state="stale", stale=stale, changes=changes, reason=reason, stored=stored)
        if cell.absent:
            cell = replace(cell, reason=f"the data are not here: {' '.join(dict.fromkeys(cell.absent.values()))}")
        if exact is not None:
            cell = replace(cell, state="failed", reason=f"{exact['error_type']}: {exact['error_message']}")
        return cell


def _compare(row: dict[str, Any], spec: RunSpec, identity: Identity) -> tuple[tuple[Hash, ...], tuple[str, ...]]:
    stale: list[Hash] = []
    changes: list[str] = []
    if row["code_hash"] != identity.code:
        stale.append("code")
        changes += manifest_changes(json.loads(row["code"]), identity.manifest)
    if row["data_hash"] != identity.data:
        stale.append("data")
        labels = " or ".join(dict.fromkeys((spec.pretrain.data.label, spec.data.label)))
        what = "content or splits are not those" if identity.data else "nothing here tells whether they are those"
        changes.append(f"{labels}: {what} of the stored result")
    if row["spec_hash"] != identity.spec:
        stale.append("spec")
        changes += spec_changes(json.loads(row["spec"]), json.loads(spec.canonical_json()))
    return tuple(stale), tuple(changes)


def spec_changes(old: Any, new: Any, path: str = "") -> list[str]:
    """One line for each field that differs, for example ``pretrain.training.epochs: 10 -> 20``."""
    if isinstance(old, dict) and isinstance(new, dict):
        lines = []
        for key in sorted({*old, *new}):
            lines += spec_changes(old.get(key), new.get(key), f"{path}.{key}" if path else key)
        return lines
    return [] if old == new else [f"{path}: {json.dumps(old)} -> {json.dumps(new)}"]

"""What the page of detection is about: each setting of the protocol with its methods, and their values by class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.metric import AP
from reports.measured import Measured, protocol_title
from reports.places import DETECTION, method_path
from reports.results import Result, parsed, row_key, summarize
from reports.words import counted, listed

IN_FRONT = 3
"""So many of the best methods are told apart in figures, with the baselines; others are gray."""
BASELINES_IN_FRONT = 2


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One method under one setting.

    Attributes:
        results: one per seed.
        ap: mean over the seeds; None unless all have a value.
    """

    title: str
    href: str
    baseline: bool
    results: tuple[Result, ...]
    ap: float | None

    @cached_property
    def details(self) -> tuple[dict[str, Any], ...]:
        """What each seed's evaluation recorded; empty for one without a value."""
        return tuple(
            parsed(next(iter(result.metrics.values()))["details"]) if result.metrics else {} for result in self.results
        )


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The protocol with one set of parameters on one dataset.

    Attributes:
        key: part of ids and of file names.
        entries: in the order of the plan, baselines last.
        classes: names of the objects; empty before anything ran.
    """

    key: str
    title: str
    data: str
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]

    @property
    def ran(self) -> bool:
        """Whether a method has a value of every seed."""
        return any(entry.ap is not None for entry in self.entries)

    @cached_property
    def front(self) -> tuple[Entry, ...]:
        """The entries that figures tell apart, in the order of the plan."""
        valued = [entry for entry in self.entries if entry.ap is not None]
        methods = sorted((entry for entry in valued if not entry.baseline), key=lambda entry: -(entry.ap or 0.0))
        baselines = [entry for entry in valued if entry.baseline][:BASELINES_IN_FRONT]
        chosen = {id(entry) for entry in (*methods[:IN_FRONT], *baselines)}
        return tuple(entry for entry in valued if id(entry) in chosen)


def settings(measured: Measured) -> tuple[Setting, ...]:
    """Every setting of the protocol that the plan has, in its order."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in measured.results:
        spec = result.planned.spec
        if spec.protocol == DETECTION:
            groups.setdefault((spec.data.canonical_json(), spec.variant), []).append(result)
    return tuple(_setting(measured, group, number) for number, group in enumerate(groups.values(), start=1))


def _setting(measured: Measured, group: Sequence[Result], number: int) -> Setting:
    spec = group[0].planned.spec
    rows: dict[tuple[str, ...], list[Result]] = {}
    for result in group:
        rows.setdefault(row_key(result.planned.spec), []).append(result)
    names = [key[0] for key in rows]
    entries = tuple(_entry(measured, key, results, names) for key, results in rows.items())
    recorded = (details.get("classes") for entry in entries for details in entry.details)
    return Setting(
        key=f"detection-{number}",
        title=protocol_title(measured.protocols, DETECTION, spec.variant),
        data=measured.data_title(spec.data),
        entries=entries,
        classes=next((tuple(map(str, names)) for names in recorded if names), ()),
    )


def _entry(measured: Measured, key: tuple[str, ...], results: Sequence[Result], names: Sequence[str]) -> Entry:
    title = measured.method_title(key[0])
    if names.count(key[0]) > 1:
        title += f" ({measured.title(key[2])}, {key[3]} epochs)"
    return Entry(
        title=title,
        href=method_path(key[0]),
        baseline=measured.is_baseline(key[0]),
        results=tuple(results),
        ap=summarize(results, AP).value,
    )


def sentences(setting: Setting) -> Iterable[str]:
    """What was tested, and who lacks a value."""
    facts = next((found for entry in setting.entries for d in entry.details if (found := d.get("measured"))), None)
    if facts and "scenes" in facts:
        objects = sum(int(item["objects"]) for item in facts.get("classes", ()))
        empty = f", {facts['empty']} of them empty" if facts.get("empty") else ""
        kinds = f"{len(setting.classes)} {'class' if len(setting.classes) == 1 else 'classes'}"
        yield f"{counted(int(facts['scenes']), 'test scene')}{empty}, with {counted(objects, 'object')} of {kinds}."
    tried = any(row.get(AP.key) is not None for e in setting.entries for d in e.details for row in d.get("curve") or ())
    if setting.ran and not tried:
        yield "Nothing shows AP against iterations: detectors were not tried on validation scenes on the way."
    lacking = [entry.title for entry in setting.entries if entry.ap is None]
    if lacking and setting.ran:
        yield f"Without a value: {listed(lacking)}. The overview says why."
    elif lacking:
        yield "No detector has a value yet. What a run would do stands below."

"""Provenance panels: everything that stands behind one cell of a table."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.card import ProtocolCard
from bench.published import CONFIDENCE_WORDS, load_papers
from bench.table import STATES, CellState
from reports.detection_facts import ELSEWHERE, TOLD, detector_pairs
from reports.measured import Measured, protocol_title
from reports.places import DETECTION
from reports.published_rows import PublishedRow, lacks_epochs, published_panel_id, short_name
from reports.results import Record, Result, metric_of, number, panel_id, parsed, row_key, summarize, whole
from reports.table2_published import BASELINES, Printed, printed_title

STATE_OF: dict[str, CellState] = {"fresh": "measured", "stale": "stale", "failed": "failed", "missing": "missing"}
LONGEST_LIST = 12


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One line of a panel; ``code`` sets the value in a fixed-width face."""

    label: str
    value: str
    href: str = ""
    code: bool = False


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled group of facts, with an optional verbatim block."""

    title: str
    facts: tuple[Fact, ...] = ()
    verbatim: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One seed's part of a measured panel."""

    title: str
    state: str
    sections: tuple[Section, ...]
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What a cell links to.

    Attributes:
        id: fragment of the link.
        title: what the cell shows.
        runs: one per seed; a published value has one.
        summary: what the table shows for all seeds together; empty when there is one.
    """

    id: str
    title: str
    runs: tuple[Run, ...]
    summary: tuple[Fact, ...] = ()


# --- measured ---------------------------------------------------------------------------------------------------


def measured_panels(measured: Measured, *, method: str | None = None) -> tuple[Panel, ...]:
    """One panel for each table row and protocol, with a part for every seed."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in measured.results:
        spec = result.planned.spec
        if method is None or spec.pretrain.name == method:
            groups.setdefault((*row_key(spec), spec.protocol, spec.variant), []).append(result)
    return tuple(_measured_panel(measured, group) for group in groups.values())


def _measured_panel(measured: Measured, group: Sequence[Result]) -> Panel:
    spec = group[0].planned.spec
    title = protocol_title(measured.protocols, spec.protocol, spec.variant)
    return Panel(
        id=panel_id(spec),
        title=f"{measured.method_title(spec.pretrain.name)}: {title} on {measured.data_title(spec.data)}",
        runs=tuple(_run(result, measured.protocols.get(spec.protocol)) for result in group),
        summary=tuple(_summary(measured, group)) if len(group) > 1 else (),
    )


def _summary(measured: Measured, group: Sequence[Result]) -> Iterable[Fact]:
    """The mean of each metric as the table shows it, or why there is none."""
    card = measured.protocols.get(group[0].planned.spec.protocol)
    stored = sorted({key for result in group for key in result.metrics})
    for metric in card.metrics if card else map(metric_of, stored):
        cell = summarize(group, metric)
        if cell.value is None:
            yield Fact(label=metric.title, value=f"no mean: {cell.reason}")
            continue
        text = f"mean of {cell.seeds} seeds {cell.value:.4f} {metric.unit}".strip()
        span = "" if cell.low is None or cell.high is None else f": {cell.low:.2f} to {cell.high:.2f}"
        yield Fact(label=metric.title, value=f"{text}, {cell.interval}{span}")


def _run(result: Result, card: ProtocolCard | None) -> Run:
    planned = result.planned
    mark = STATES[STATE_OF[planned.state]]
    shown = next(iter(result.metrics.values()), result.failure)
    sections = [
        Section(title="Result", facts=(*_value_facts(result, card), *_state_facts(result))),
        _identity_section(result, shown),
    ]
    if shown:
        sections += [*_environment_sections(shown), _cost_section(shown, result.pretraining)]
        sections += _details_section(shown)
    sections.append(_spec_section(result, shown))
    return Run(
        title=f"Seed {result.seed}",
        state=f"{mark.glyph} {mark.word or 'measured, fresh'}".strip(),
        sections=tuple(section for section in sections if section.facts or section.verbatim),
        command=planned.command,
    )


def _value_facts(result: Result, card: ProtocolCard | None) -> Iterable[Fact]:
    order = [metric.key for metric in card.metrics] if card else []
    for key in sorted(result.metrics, key=lambda key: (order.index(key) if key in order else len(order), key)):
        row = result.metrics[key]
        metric = metric_of(key, card.metrics if card else ())
        low, high = number(row["low"]), number(row["high"])
        value = number(row["value"])
        if value is None:
            yield Fact(label=metric.title, value="undefined here (see the details)")
            continue
        text = f"{value:.4f}".rstrip("0").rstrip(".") + (f" {metric.unit}" if metric.unit else "")
        if low is not None and high is not None:
            text += f", {row['interval']}: {low:.2f} to {high:.2f} (covers {row['covers'] or 'not stated'})"
        count = whole(row["n"])
        yield Fact(label=metric.title, value=text + (f", n = {count}" if count else ""))
    if card and card.compares_images and result.metrics:
        yield Fact(label="images", value="compared with each other: the values belong to the set of images as a whole")


def _state_facts(result: Result) -> Iterable[Fact]:
    planned = result.planned
    reason = "" if result.failure else planned.reason
    yield Fact(label="state", value=f"{planned.state}: {reason}" if reason else planned.state)
    for change in planned.changes:
        yield Fact(label="changed", value=change, code=True)
    if result.failure:
        yield Fact(label="error", value=str(result.failure["error_type"]))
        yield Fact(label="message", value=str(result.failure["error_message"]))
        yield Fact(label="log", value=str(result.failure["log"] or "none"), code=True)
    yield Fact(label="cell", value=planned.address, code=True)


def _identity_section(result: Result, shown: Record | None) -> Section:
    planned = result.planned
    if shown:
        pairs = [(name, shown[f"{name}_hash"]) for name in ("spec", "code", "data")]
        pairs += [("job", shown["identity"]), ("pre-training", shown["pretrain_identity"])]
    else:
        identity = planned.identity
        pairs = [("spec", identity.spec), ("code", identity.code), ("data", identity.data)]
        if identity.data:  # without the data there is no job yet
            pairs += [("job", identity.digest), ("pre-training", planned.pretraining.digest)]
    facts = tuple(Fact(label=name, value=str(value), code=True) for name, value in pairs if value)
    return Section(title="Identity (SHA-256)", facts=facts)


def _environment_sections(row: Record) -> list[Section]:
    found = parsed(row["provenance"])
    commit = found.get("git_commit")
    dirty = " with uncommitted changes" if found.get("git_dirty") else ", clean"
    libraries = found.get("libraries") or {}
    software = [
        ("jointbench", found.get("jointbench")),
        ("git commit", f"{commit}{dirty}" if commit else "not a git checkout"),
        ("Python", found.get("python")),
        ("libraries", ", ".join(f"{name} {version}" for name, version in sorted(libraries.items()) if version)),
    ]
    hardware = [
        ("system", found.get("system")),
        ("processor", found.get("processor")),
        ("cores", found.get("cores")),
        ("memory", f"{found['memory_gib']} GiB" if found.get("memory_gib") else None),
        ("device", found.get("device")),
        ("accelerator", found.get("accelerator")),
        ("threads", found.get("threads")),
    ]
    return [_section("Software", software), _section("Hardware", hardware)]


def _section(title: str, pairs: Iterable[tuple[str, Any]]) -> Section:
    facts = (Fact(label=label, value=str(value)) for label, value in pairs if value not in (None, ""))
    return Section(title=title, facts=tuple(facts))


def _cost_section(row: Record, pretraining: Record | None) -> Section:
    pairs = [
        ("started", _moment(row["started_at"])),
        ("finished", _moment(row["finished_at"])),
        ("evaluation", _seconds(row["seconds_evaluation"])),
        ("peak memory", _megabytes(row["peak_memory_mb"])),
    ]
    if pretraining:
        speed = number(pretraining["images_per_second"])
        pairs += [
            ("pre-training", _seconds(pretraining["seconds_total"])),
            ("of that, waiting for data", _seconds(pretraining["seconds_data"])),
            ("of that, computing", _seconds(pretraining["seconds_compute"])),
            ("speed", f"{speed:.0f} images/s" if speed else None),
            ("peak memory, pre-training", _megabytes(pretraining["peak_memory_mb"])),
        ]
    return _section("Cost", pairs)


def _moment(value: Any) -> str | None:
    return f"{value[:19].replace('T', ' ')} UTC" if isinstance(value, str) and value else None


def _seconds(value: Any) -> str | None:
    seconds = number(value)
    return None if seconds is None else f"{seconds:.2f} s"


def _megabytes(value: Any) -> str | None:
    size = number(value)
    return None if size is None else f"{size:.0f} MB"


def _details_section(row: Record) -> list[Section]:
    details = parsed(row["details"])
    if not details:
        return []
    elsewhere = {"data"}  # the images have a page of their own
    sections = []
    if row.get("protocol") == DETECTION:
        sections.append(_section("Detector", detector_pairs(details)))
        elsewhere |= {*TOLD, *ELSEWHERE}
    facts = tuple(
        Fact(label=str(name), value=_compact(value))
        for name, value in sorted(details.items())
        if value not in ({}, []) and name not in elsewhere
    )
    return [*sections, Section(title="Chosen and recorded by the protocol", facts=facts)]


def _compact(value: Any) -> str:
    """A recorded value on one line; a long list by its length."""
    if isinstance(value, list) and len(value) > LONGEST_LIST:
        return f"{len(value)} entries, in the store"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_compact(value[name])}" for name in sorted(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _spec_section(result: Result, shown: Record | None) -> Section:
    text = str(shown["spec"]) if shown and shown["spec"] else result.planned.spec.canonical_json()
    return Section(title="Full spec", verbatim=json.dumps(json.loads(text), indent=1, sort_keys=True))


# --- published --------------------------------------------------------------------------------------------------


def published_panels(rows: Iterable[PublishedRow]) -> tuple[Panel, ...]:
    """One panel for each printed value."""
    return tuple(_published_panel(row, record) for row in rows for record in row.values.values())


def _published_panel(row: PublishedRow, record: Mapping[str, Any]) -> Panel:
    papers = load_papers()
    paper = papers[str(record["paper"])]
    quoted = "quoted: this source took the value from elsewhere" if record["quoted"] else "the source's own result"
    fraction = number(record["label_fraction"])
    epochs = f"{row.epochs or 'unknown'} epochs"
    if row.epochs and lacks_epochs(record):
        epochs += " (not printed in this source, taken from others)"
    pairs = [
        ("value", f"{record['value']:g} {record['unit']}".strip()),
        ("origin", quoted),
        ("table", record["source_table"]),
        ("also printed in", record.get("also")),
        ("confidence", f"{record['confidence']}: {CONFIDENCE_WORDS[str(record['confidence'])]}"),
        ("protocol", record["protocol"]),
        ("label fraction", f"{fraction:g}" if fraction is not None else None),
        ("pre-training", f"{record['pretrain_data']}, {record['backbone']}, {epochs}"),
        ("variant in the source", record["variant"]),
        ("notes", record["notes"]),
    ]
    source = Fact(label="source", value=f"{short_name(paper.key)}. {paper.title}", href=paper.link)
    facts = (source, *_section("", pairs).facts)
    state = "† quoted" if record["quoted"] else "published"
    metric = metric_of(str(record["metric"]))
    return Panel(
        id=published_panel_id(record),
        title=f"{row.title}: {metric.title}, {_setting(record)}",
        runs=(Run(title="Published value", state=state, sections=(Section(title="Source", facts=facts),)),),
    )


def printed_panels(items: Iterable[Printed]) -> tuple[Panel, ...]:
    """One panel for what one source prints for one configuration under one setting of detection."""
    return tuple(_printed_panel(item) for item in items)


def _printed_panel(item: Printed) -> Panel:
    paper, first = load_papers()[item.paper], next(iter(item.records.values()))
    values = [f"{name} {record['value']:g}" for name, record in item.values.items()]
    confidences = dict.fromkeys(str(record["confidence"]) for record in item.records.values())
    notes = dict.fromkeys(str(record["notes"]) for record in item.records.values() if record["notes"])
    pairs = [
        ("values", f"{', '.join(values)} (%)"),
        ("origin", "quoted: this source took the values from elsewhere" if item.quoted else "the source's own result"),
        ("table", item.table),
        ("also printed in", "; ".join(item.also)),
        ("confidence", "; ".join(f"{name}: {CONFIDENCE_WORDS[name]}" for name in confidences)),
        ("setting", f"{item.setting.title}; in the source's words: {first['protocol']}, {first['eval_data']}"),
        ("pre-training", f"{first['pretrain_data']}, {first['backbone']}, {_printed_epochs(item)}".rstrip(", ")),
        ("variant in the source", first["variant"]),
        ("notes", "; ".join(notes)),
    ]
    source = Fact(label="source", value=f"{short_name(paper.key)}. {paper.title}", href=paper.link)
    state = "† quoted" if item.quoted else "published"
    sections = (Section(title="Source", facts=(source, *_section("", pairs).facts)),)
    return Panel(
        id=item.panel,
        title=f"{printed_title(item.title, item.variant)}: {item.setting.title}",
        runs=(Run(title="Published values", state=state, sections=sections),),
    )


def _printed_epochs(item: Printed) -> str:
    if item.epochs:
        return f"{item.epochs} epochs"
    return "" if item.method in BASELINES else "epochs not printed here"


def _setting(record: Mapping[str, Any]) -> str:
    fraction = number(record["label_fraction"]) or 1.0
    return "all labels" if fraction == 1 else f"{fraction * 100:g} % of labels"

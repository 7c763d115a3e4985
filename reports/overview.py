"""What the first page says: what ran, on what, what is missing and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.table import STATES, Cell, Column, Row, Table
from reports.measured import Measured, protocol_title
from reports.panels import STATE_OF
from reports.places import method_path
from reports.results import Result, number, panel_id, parsed, written
from reports.words import counted

if TYPE_CHECKING:
    from bench.spec import PretrainSpec, TrainingSpec, ViewSpec


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many cells are in one state."""

    state: str
    glyph: str
    word: str
    meaning: str
    number: int


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A cell without a fresh value."""

    title: str
    address: str
    state: str
    tag: str
    reason: str
    changes: tuple[str, ...]
    command: str
    anchor: str


def counts(measured: Measured) -> tuple[Count, ...]:
    """Cells by state, in a fixed order, zeros included."""
    found = Counter(result.planned.state for result in measured.results)
    meanings = {"fresh": "measured with the present code, data and settings"}
    return tuple(
        Count(
            state=state,
            glyph=STATES[STATE_OF[state]].glyph or "●",
            word=STATES[STATE_OF[state]].word or "fresh",
            meaning=meanings.get(state, STATES[STATE_OF[state]].meaning),
            number=found[state],  # type: ignore[index]
        )
        for state in STATE_OF
    )


def gaps(measured: Measured) -> tuple[Gap, ...]:
    """Every cell without a fresh value: failed ones first, then stale, then missing."""
    order = ("failed", "stale", "missing")
    lacking = [result for result in measured.results if result.planned.state != "fresh"]
    lacking.sort(key=lambda result: order.index(result.planned.state))
    return tuple(_gap(measured, result) for result in lacking)


def _gap(measured: Measured, result: Result) -> Gap:
    planned, spec = result.planned, result.planned.spec
    mark = STATES[STATE_OF[planned.state]]
    protocol = protocol_title(measured.protocols, spec.protocol, spec.variant)
    return Gap(
        title=f"{measured.method_title(spec.pretrain.name)}: {protocol}, seed {spec.pretrain.seed}",
        address=planned.address,
        state=STATE_OF[planned.state],
        tag=f"{mark.glyph} {mark.word}",
        reason=planned.reason[:1].upper() + planned.reason[1:],
        changes=planned.changes,
        command=planned.command,
        anchor=panel_id(spec),
    )


def headline(measured: Measured) -> str:
    """One sentence: how many cells, of what, on what."""
    specs = [result.planned.spec for result in measured.results]
    methods = {spec.pretrain.name for spec in specs}
    protocols = {(spec.protocol, spec.variant) for spec in specs}
    data = {spec.data.canonical_json(): measured.data_title(spec.data) for spec in specs}
    backbones = dict.fromkeys(measured.title(spec.pretrain.backbone) for spec in specs)
    seeds = {spec.pretrain.seed for spec in specs}
    return (
        f"{counted(len(specs), 'cell')}: {counted(len(methods), 'method')} "
        f"under {counted(len(protocols), 'evaluation')} on {', '.join(data.values())}, "
        f"backbone {', '.join(backbones)}, {counted(len(seeds), 'seed')}."
    )


def environments(measured: Measured) -> tuple[str, ...]:
    """The distinct machines and versions behind the values shown, with the number of cells of each."""
    found: Counter[str] = Counter()
    for result in measured.results:
        shown = next(iter(result.metrics.values()), None)
        if shown:
            found[_environment(parsed(shown["provenance"]))] += 1
    return tuple(f"{counted(count, 'cell')}: {text}" for text, count in sorted(found.items()))


def _environment(facts: dict[str, object]) -> str:
    libraries = facts.get("libraries")
    torch = libraries.get("torch") if isinstance(libraries, dict) else None
    commit = str(facts.get("git_commit") or "")[:12]
    dirty = " with uncommitted changes" if facts.get("git_dirty") else ""
    parts = [
        facts.get("processor") or facts.get("system"),
        counted(int(str(facts["cores"])), "core") if facts.get("cores") else None,
        counted(int(str(facts["threads"])), "thread") if facts.get("threads") else None,
        facts.get("accelerator") or facts.get("device"),
        f"jointbench {facts['jointbench']}" if facts.get("jointbench") else None,
        f"torch {torch}" if torch else None,
        f"commit {commit}{dirty}" if commit else None,
    ]
    return ", ".join(str(part) for part in parts if part) or "not recorded"


def compute_seconds(measured: Measured) -> float:
    """Wall time of all evaluations and pre-trainings behind the values shown; each pre-training counts once."""
    trainings: dict[str, float] = {}
    evaluations = 0.0
    for result in measured.results:
        shown = next(iter(result.metrics.values()), None)
        if shown:
            evaluations += number(shown["seconds_evaluation"]) or 0.0
        if result.pretraining:
            trainings[str(result.pretraining["identity"])] = number(result.pretraining["seconds_total"]) or 0.0
    return evaluations + sum(trainings.values())


def recipe_table(measured: Measured) -> Table:
    """How each method was pre-trained."""
    titles = ("optimizer", "learning rate", "weight decay", "batch size", "epochs", "warm-up", "views", "settings")
    seen: dict[str, Row] = {}
    for result in measured.results:
        pretrain = result.planned.spec.pretrain
        words = (*_training_words(pretrain), _settings_words(pretrain.method_params))
        seen.setdefault(
            pretrain.name,
            Row(
                title=measured.method_title(pretrain.name),
                key=pretrain.name,
                href=method_path(pretrain.name),
                cells=tuple(Cell(text=word) for word in words),
            ),
        )
    return Table(
        key="recipes",
        title="Recipes",
        caption="How each encoder was pre-trained. Learning rates are peak values of a cosine, unless they fall in "
        "steps; views list their random transforms, settings all parameters of the method.",
        columns=tuple(Column(title=title) for title in titles),
        rows=tuple(seen.values()),
    )


def _training_words(pretrain: PretrainSpec) -> tuple[str, ...]:
    training, views = pretrain.training, pretrain.views
    if pretrain.imported:
        return ("imported from a file", "", "", "", "unknown", "", "")
    if training is None:
        return ("not trained", "", "", "", "0", "", "")
    factor = {"none": 1.0, "linear": training.batch_size / 256, "sqrt": (training.batch_size / 256) ** 0.5}
    kinds = dict.fromkeys(_view_words(view) for view in views)
    return (
        _optimizer_words(training),
        f"{training.lr * factor[training.lr_scaling]:.4g}{_schedule_words(training)}",
        f"{training.weight_decay:.4g}",
        str(training.batch_size),
        str(training.epochs),
        f"{training.warmup_epochs:g}",
        f"{len(views)} × {'; '.join(kinds)}" if len(kinds) == 1 else "; ".join(kinds),
    )


def _settings_words(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {written(value)}" for name, value in params.items())


def _optimizer_words(training: TrainingSpec) -> str:
    name = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "lars": "LARS"}[training.optimizer]
    return f"{name}, η {training.lars_eta:g}" if training.optimizer == "lars" else name


def _schedule_words(training: TrainingSpec) -> str:
    """Nothing for the usual cosine."""
    if training.schedule == "cosine":
        return ""
    return f", × {training.decay:g} at epoch {', '.join(map(str, training.milestones))}"


def _view_words(view: ViewSpec) -> str:
    parts = [f"crop {view.crop_scale[0]:g}–{view.crop_scale[1]:g}"]
    jitter = view.jitter and (view.brightness or view.contrast or view.saturation or view.hue)
    parts += [
        word
        for word, used in (
            (f"flip {view.flip:g}", view.flip),
            (f"rotation {view.rotation:g}°", view.rotation),
            (f"jitter {view.jitter:g}", jitter),
            (f"gray {view.grayscale:g}", view.grayscale),
            (f"blur {view.blur:g}", view.blur),
            (f"solarize {view.solarize:g}", view.solarize),
        )
        if used
    ]
    return ", ".join(parts)

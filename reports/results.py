"""What the store holds for each planned cell, and how several seeds become one table cell."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.card import MethodCard
from bench.metric import METRICS, Metric
from bench.table import Cell

if TYPE_CHECKING:
    import pandas as pd

    from bench.plan import Plan, PlannedCell
    from bench.spec import RunSpec

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A planned cell with what the store says about it.

    Attributes:
        planned: the cell of the plan.
        metrics: stored row of each metric; empty when there is no value to show.
        failure: the row of the failed attempt, when the state is ``failed``.
        pretraining: the row of the pre-training behind the values or the failure, when it is stored.
    """

    planned: PlannedCell
    metrics: Mapping[str, Record]
    failure: Record | None
    pretraining: Record | None

    @property
    def seed(self) -> int:
        return self.planned.spec.pretrain.seed


def collect(
    plan: Plan, rows: pd.DataFrame, methods: Mapping[str, MethodCard] = MappingProxyType({})
) -> tuple[Result, ...]:
    """The stored rows of every planned cell, whatever the order of ``rows``.

    The results keep the order of the plan, with the baselines of ``methods`` after all other methods.
    """
    by_identity: dict[str, list[Record]] = {}
    order = [name for name in ("identity", "metric", "finished_at") if name in rows]
    for record in rows.sort_values(order, kind="stable").to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        by_identity.setdefault(str(row["identity"]), []).append(row)
    baselines = {key for key, card in methods.items() if card.family == "baseline"}
    cells = sorted(plan.cells, key=lambda cell: cell.spec.pretrain.name in baselines)
    return tuple(_result(cell, by_identity) for cell in cells)


def _result(cell: PlannedCell, rows: Mapping[str, list[Record]]) -> Result:
    metrics: dict[str, Record] = {}
    failure = None
    if cell.state in ("fresh", "stale"):
        stored = rows.get(cell.stored or cell.identity.digest, [])
        metrics = {str(row["metric"]): row for row in stored if row["status"] == "ok" and row["kind"] == "evaluation"}
    elif cell.state == "failed":
        failed = [row for row in rows.get(cell.identity.digest, []) if row["status"] == "failed"]
        failure = failed[-1] if failed else None
    shown = next(iter(metrics.values()), failure)
    encoder = str(shown["pretrain_identity"]) if shown else cell.pretraining.digest
    trained = [row for row in rows.get(encoder, []) if row["kind"] == "pretraining"]
    return Result(planned=cell, metrics=metrics, failure=failure, pretraining=trained[-1] if trained else None)


def number(value: Any) -> float | None:
    """A stored number, or None where the store has none."""
    if value is None:
        return None
    try:
        plain = float(value)
    except (TypeError, ValueError):  # pandas.NA
        return None
    return None if math.isnan(plain) else plain


def whole(value: Any) -> int | None:
    """A stored whole number, or None where the store has none."""
    plain = number(value)
    return None if plain is None else int(plain)


def metric_of(key: str, known: Iterable[Metric] = ()) -> Metric:
    """The metric with this key: of the protocol's card, else of the built-in ones, else one of this name."""
    for metric in known:
        if metric.key == key:
            return metric
    return METRICS.get(key, Metric(key=key, title=key, decimals=2))


def parsed(text: Any) -> dict[str, Any]:
    """A JSON column's content; empty where the store has none."""
    if not isinstance(text, str) or not text:
        return {}
    content = json.loads(text)
    return content if isinstance(content, dict) else {"value": content}


def written(value: Any) -> str:
    """A parameter's value as tables write it: ``512-64`` for widths, ``on`` for true, the beginning of a digest."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value):
        return value[:12]
    if isinstance(value, (list, tuple)) and any(isinstance(item, float) for item in value):
        return " ".join(f"{item:g}" for item in value)
    if isinstance(value, (list, tuple)):
        return "-".join(map(str, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "none"


def row_key(spec: RunSpec) -> tuple[str, ...]:
    """What a row of a measured table stands for: everything but protocol, metric and seed."""
    training = spec.pretrain.training
    return (
        spec.pretrain.name,
        spec.pretrain.data.canonical_json(),
        spec.pretrain.backbone,
        str(training.epochs if training else 0),
        spec.data.canonical_json(),
    )


def panel_id(spec: RunSpec) -> str:
    """Id of the provenance panel of a table cell, the same for all of its seeds."""
    names = (*row_key(spec), spec.protocol, spec.variant)
    words = (spec.pretrain.name, spec.protocol, spec.variant.replace("%", ""), spec.data.key)
    slug = "-".join("".join(sign if sign.isalnum() else "-" for sign in word) for word in words if word)
    return f"cell-{slug}-{hashlib.sha256(json.dumps(names).encode()).hexdigest()[:8]}"


def summarize(results: Sequence[Result], metric: Metric) -> Cell:
    """One table cell for all seeds of one row, protocol and metric.

    A mean is formed only when every planned seed has a value. Its interval is Student's t over at least three seeds,
    the range of two, and the stored interval of a single one; seeds that agree have none.
    """
    if not results:
        return Cell(state="unplanned", metric=metric, reason="not part of this suite")
    anchor = panel_id(results[0].planned.spec)
    undefined = _undefined(results, metric)
    if undefined:
        return Cell(state="undefined", metric=metric, reason=undefined, anchor=anchor)
    present = [result for result in results if metric.key in result.metrics]
    if len(present) < len(results):
        return _without_value(results, len(present), metric, anchor)
    stale = [result for result in results if result.planned.state == "stale"]
    values = [float(result.metrics[metric.key]["value"]) for result in results]
    stored = [result.metrics[metric.key] for result in results]
    low, high, interval, covers = _interval(values, stored, metric)
    counts = {whole(row["n"]) for row in stored}
    return Cell(
        state="stale" if stale else "measured",
        metric=metric,
        value=math.fsum(values) / len(values),
        low=low,
        high=high,
        interval=interval,
        covers=covers,
        n=counts.pop() if len(counts) == 1 else None,
        seeds=len(values),
        reason=_joined(stale, of=len(results)),
        anchor=anchor,
    )


def _undefined(results: Sequence[Result], metric: Metric) -> str:
    """Why the protocol could not define the metric on its data, as it recorded in every present result; else empty."""
    reasons = {
        str(parsed(next(iter(result.metrics.values()))["details"]).get("undefined", {}).get(metric.key, ""))
        for result in results
        if result.metrics
    }
    return reasons.pop() if len(reasons) == 1 else ""


def _without_value(results: Sequence[Result], present: int, metric: Metric, anchor: str) -> Cell:
    lacking = [result for result in results if metric.key not in result.metrics]
    failed = any(result.planned.state == "failed" for result in lacking)
    reason = _joined(lacking, of=len(results))
    if present:
        counted = f"{present} of {len(results)} seeds have a value. {reason}"
        return Cell(state="partial", metric=metric, reason=counted, seeds=present, anchor=anchor)
    return Cell(state="failed" if failed else "missing", metric=metric, reason=reason, anchor=anchor)


def _joined(results: Sequence[Result], *, of: int) -> str:
    """The reasons of some of ``of`` seeds as one sentence each, equal ones only once."""
    reasons: dict[str, list[int]] = {}
    for result in results:
        reasons.setdefault(_reason(result), []).append(result.seed)
    if of == 1 or (len(reasons) == 1 and len(results) == of):
        return " ".join(f"{reason}." for reason in reasons)
    parts = []
    for reason, seeds in reasons.items():
        who = "Seed" if len(seeds) == 1 else "Seeds"
        parts.append(f"{who} {', '.join(map(str, seeds))}: {reason}.")
    return " ".join(parts)


def _reason(result: Result) -> str:
    if result.planned.state in ("fresh", "stale") and result.metrics:
        text = result.planned.reason
    elif result.planned.state in ("fresh", "stale"):
        text = "the store has no value of this metric"
    else:
        text = result.planned.reason
    text = text.strip().rstrip(".")
    return text[:1].upper() + text[1:]


def _interval(
    values: Sequence[float], stored: Sequence[Record], metric: Metric
) -> tuple[float | None, float | None, str, str]:
    """Low, high, how it was computed and what it covers."""
    if len(values) == 1:
        row = stored[0]
        return number(row["low"]), number(row["high"]), str(row["interval"] or ""), str(row["covers"] or "")
    n = len(values)
    if min(values) == max(values):  # an interval of no width would claim a certainty that nobody measured
        return None, None, f"no spread between {n} seeds", ""
    if n == 2:
        return min(values), max(values), "range of 2 seeds", "seeds"
    from scipy.special import stdtrit  # imported late: only tables with several seeds need it

    mean = math.fsum(values) / n
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
    return metric.clip(mean - half), metric.clip(mean + half), f"t 95% over {n} seeds", "seeds"


def image_interval(results: Sequence[Result], metric: Metric) -> tuple[float, float] | None:
    """Mean low and high end of the seeds' own intervals: the variance from test images alone."""
    stored = [result.metrics[metric.key] for result in results if metric.key in result.metrics]
    ends = [(number(row["low"]), number(row["high"])) for row in stored]
    known = [(low, high) for low, high in ends if low is not None and high is not None]
    if not known or len(known) < len(results):
        return None
    return (
        math.fsum(low for low, _ in known) / len(known),
        math.fsum(high for _, high in known) / len(known),
    )

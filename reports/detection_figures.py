"""Curves of detection before they are drawn: precision against recall, AP against iterations, losses of a detector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.metric import AP
from reports.curves import Figure, Series
from reports.detection_page import Entry, Setting, settings
from reports.detection_seen import Curves
from reports.measured import Measured
from reports.places import slug
from reports.results import number
from reports.words import listed

MOST_NAMED = 10
"""With more lines than this the gray ones have no names at their ends."""
Points = Mapping[float, Sequence[float]]
"""One value of each seed by iteration."""


def recall_figure(setting: Setting, curves: Curves) -> Figure:
    """Precision against recall at one overlap; names stand in the order of the mean precision, which is the AP."""
    means = {title: math.fsum(line) / len(line) for title, line in curves.precision.items()}
    ranked = sorted(means, key=lambda title: -means[title])
    values = ", ".join(f"{title} {AP.format(means[title])}" for title in ranked)
    series = [
        _series(setting, title, place, len(means), curves.recall, curves.precision[title], at=means[title])
        for place, title in enumerate(means)
    ]
    overlap = f"{100 * curves.iou:.0f} %"
    return Figure(
        key=f"{setting.key}-recall-{round(100 * curves.iou)}",
        title=f"Precision against recall, overlap of {overlap} or more",
        x_label="recall, % of the objects found",
        y_label="precision, % of the boxes right",
        series=tuple(series),
        summary=f"Mean over the classes, on the test scenes of {setting.data}. The area below a line is the AP at this "
        f"overlap, and names stand in its order: {values}.{_gray_words(setting, list(means))}",
    )


def iteration_figure(setting: Setting) -> Figure | None:
    """AP on validation against iterations, mean over the seeds; None where no method was tried on the way."""
    lines = {entry.title: points for entry in setting.entries if (points := _tried(entry))}
    if not lines:
        return None
    series = [
        _series(setting, title, place, len(lines), tuple(points), [_mean(own) for own in points.values()], seeds=points)
        for place, (title, points) in enumerate(lines.items())
    ]
    ends = ", ".join(f"{title} {AP.format(_mean(list(points.values())[-1]))}" for title, points in lines.items())
    last = max(at for points in lines.values() for at in points)
    seeds = max(len(own) for points in lines.values() for own in points.values())
    spread = f" Lines are means of {seeds} seeds, bands their range." if seeds > 1 else ""
    return Figure(
        key=f"{setting.key}-iterations",
        title="AP against iterations",
        x_label="iterations of the detector",
        y_label="AP on validation, %",
        series=tuple(series),
        summary=f"On the validation scenes, not the test scenes of the tables. At the end, after {last:g} iterations: "
        f"{ends}.{spread}{_gray_words(setting, list(lines))}",
    )


def loss_figures(measured: Measured, method: str) -> tuple[Figure, ...]:
    """Losses of one method's detectors, the first seed that has them: a figure for each setting."""
    figures = []
    for setting in settings(measured):
        mine = [entry for entry in setting.entries if entry.results[0].planned.spec.pretrain.name == method]
        for place, entry in enumerate(mine):
            rows: Sequence[Mapping[str, Any]] = next(
                (details["curve"] for details in entry.details if details.get("curve")), []
            )
            if figure := _losses(rows, key=f"{slug(method)}-{setting.key}-losses{place or ''}", setting=setting):
                figures.append(figure)
    return tuple(figures)


def _losses(rows: Sequence[Mapping[str, Any]], *, key: str, setting: Setting) -> Figure | None:
    lines: dict[str, dict[float, float]] = {}
    for row in rows:
        terms = {str(name): value for name, value in (row.get("losses") or {}).items()}
        for name, value in (*terms.items(), *([("total", row.get("total"))] if len(terms) != 1 else [])):
            if (plain := number(value)) is not None:
                lines.setdefault(name.replace("_", " "), {})[float(row["iteration"])] = plain
    if not lines:
        return None
    ends = []
    for name, line in lines.items():
        first, *_, last = (*line.values(), *line.values())
        ends.append(f"{name} from {first:.3g} to {last:.3g}")
    return Figure(
        key=key,
        title=f"Losses of the detector, {setting.title} on {setting.data}",
        x_label="iterations of the detector",
        y_label="loss",
        series=tuple(
            Series(
                name=name,
                slot=slot,
                seed=0,
                epochs=tuple(line),
                values=tuple(line.values()),
                form="total" if name == "total" else "line",
            )
            for slot, (name, line) in enumerate(lines.items())
        ),
        summary=f"On the training scenes, by term: {'; '.join(ends)}.",
    )


def _tried(entry: Entry) -> dict[float, list[float]]:
    """AP of each seed by the iteration of the trial; only trials that all seeds have."""
    found: dict[float, list[float]] = {}
    for details in entry.details:
        for row in details.get("curve") or ():
            if (value := number(row.get(AP.key))) is not None:
                found.setdefault(float(row["iteration"]), []).append(value)
    return {at: own for at, own in sorted(found.items()) if len(own) == len(entry.details)}


def _series(
    setting: Setting,
    title: str,
    place: int,
    of: int,
    xs: Sequence[float],
    ys: Sequence[float],
    *,
    at: float | None = None,
    seeds: Points | None = None,
) -> Series:
    """A line in the method's color, or a gray one; ``place`` tells its name from those of ``of`` others."""
    front = [entry.title for entry in setting.front]
    gray = title not in front
    spread = seeds is not None and max(map(len, seeds.values())) > 1
    bands = list(seeds.values()) if seeds is not None and spread and not gray else []
    return Series(
        name="" if gray and of > MOST_NAMED else title if at is None else f"{title} {AP.format(at)}",
        slot=len(front) + place if gray else front.index(title),
        seed=0,
        epochs=tuple(map(float, xs)),
        values=tuple(map(float, ys)),
        form="faint" if gray else "line",
        low=tuple(min(own) for own in bands),
        high=tuple(max(own) for own in bands),
        named_at=at,
    )


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _gray_words(setting: Setting, shown: Iterable[str]) -> str:
    front = {entry.title for entry in setting.front}
    others = [title for title in shown if title not in front]
    return f" Gray: {listed(others)}." if others else ""

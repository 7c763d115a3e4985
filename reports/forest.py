"""Every method's value with its interval on one scale, drawn as in a meta-analysis."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reports.contest import Contest, Entrant
from reports.drawing import LARGE, SMALL, Box, Drawing, text_width

WIDTH, LEFT, RIGHT, STEP = 500.0, 4.0, 92.0, 24.0
LONGEST_TITLE = 190.0
STEPS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 50.0)


def forest(contest: Contest) -> str:
    """An ``<svg>`` element: the leading group filled, other methods outlined, baselines as squares below them."""
    leaders = set(contest.comparison.leaders(contest.methods)) if contest.comparison and contest.methods else set()
    everyone = contest.entrants
    order = sorted(range(len(everyone)), key=lambda i: (everyone[i].baseline, -everyone[i].value))
    entrants = [everyone[index] for index in order]
    low, high, step = _scale(entrants, contest)
    start = LEFT + min(LONGEST_TITLE, max(text_width(item.title, LARGE) for item in entrants)) + 18
    drawing = Drawing(WIDTH)

    def x(value: float) -> float:
        return start + (WIDTH - RIGHT - start) * (value - low) / (high - low)

    rows = [16 + STEP * place + (10 if item.baseline else 0) for place, item in enumerate(entrants)]
    bottom = rows[-1] + 16
    for tick in range(round((high - low) / step) + 1):
        value = low + tick * step
        drawing.line((x(value), 4), (x(value), bottom), css="grid")
        drawing.text((x(value), bottom + 13), f"{value:g}", anchor="middle", css="label")
    middle = (start + WIDTH - RIGHT) / 2
    drawing.text((middle, bottom + 29), f"{contest.metric.title} in %", anchor="middle", css="label")
    for index, item, y in zip(order, entrants, rows, strict=True):
        css = "base" if item.baseline else "lead" if index in leaders else "trail"
        drawing.text((LEFT, y + 4), _short(item.title), size=LARGE)
        if item.low is not None and item.high is not None:
            drawing.line((x(item.low), y), (x(item.high), y), css=f"span {css}")
        if item.baseline:
            drawing.box(Box(x(item.value), y, 8, 8), (), css="base", corner=0)
        else:
            drawing.circle((x(item.value), y), 4.5, css=css)
        span = f" ({item.low:.0f}–{item.high:.0f})" if item.low is not None and item.high is not None else ""
        drawing.text((WIDTH - RIGHT + 14, y + 4), contest.metric.format(item.value) + span, size=SMALL)
    return drawing.render(_summary(contest, entrants))


def _scale(entrants: Sequence[Entrant], contest: Contest) -> tuple[float, float, float]:
    """Round ends of the axis that hold all intervals, and the step between its labels."""
    lows = [item.value if item.low is None else item.low for item in entrants]
    highs = [item.value if item.high is None else item.high for item in entrants]
    step = next((step for step in STEPS if (max(highs) - min(lows)) / step <= 6), STEPS[-1])
    low, high = math.floor(min(lows) / step) * step, math.ceil(max(highs) / step) * step
    return contest.metric.clip(low), contest.metric.clip(high if high > low else low + step), step


def _short(title: str) -> str:
    while text_width(title, LARGE) > LONGEST_TITLE:
        title = title[:-2].rstrip() + "…"
    return title


def _summary(contest: Contest, entrants: Sequence[Entrant]) -> str:
    values = (
        f"{item.title} {contest.metric.format(item.value)}"
        + ("" if item.low is None or item.high is None else f" ({item.low:.1f} to {item.high:.1f})")
        for item in entrants
    )
    return f"{contest.metric.title} in % on {contest.data}, with 95 % intervals: {', '.join(values)}."

"""Covariance spectra as a figure: the recorded eigenvalues, thinned for drawing and summed up in words."""

from __future__ import annotations

from collections.abc import Sequence

from reports.curves import Figure, Series
from reports.diagnostics import KINDS, groups_of
from reports.measured import Measured
from reports.places import DIAGNOSTICS, slug
from reports.results import Result, parsed

FLOOR = 1e-9
"""Eigenvalues under this share of the largest are rounding of float32 features: not drawn."""

POINTS = 200
MOST_OF_IT = 0.9


def spectrum_figures(measured: Measured, method: str) -> tuple[Figure, ...]:
    """A figure for each dataset and setting of the protocol, with both kinds of vectors and all seeds."""
    groups = groups_of(measured, DIAGNOSTICS, method=method)
    figures = [_figure(group, key=f"{slug(method)}-spectrum-{number}") for number, group in enumerate(groups)]
    return tuple(figure for figure in figures if figure is not None)


def _figure(group: Sequence[Result], *, key: str) -> Figure | None:
    series, words = [], []
    several = len(group) > 1
    count = 0
    for result in group:
        details = parsed(next(iter(result.metrics.values()))["details"]) if result.metrics else {}
        for slot, kind in enumerate(reversed(KINDS)):  # the color of the embeddings is that of the training's curves
            values = details.get("spectra", {}).get(kind, [])
            if not values or values[0] <= 0:
                continue
            count = details["n"]
            places = [place for place in _thinned(len(values)) if values[place] > FLOOR * values[0]]
            series.append(
                Series(
                    name=f"{kind}s",
                    slot=slot,
                    seed=result.seed,
                    epochs=tuple(float(place + 1) for place in places),
                    values=tuple(float(values[place]) for place in places),
                )
            )
            seed = f" (seed {result.seed})" if several else ""
            words.append(f"{kind}{seed}, {_words(values, details['d'][kind])}")
    if not series:
        return None
    series.sort(key=lambda item: (item.slot, item.seed))
    return Figure(
        key=key,
        title="Covariance spectra",
        x_label="eigenvalue, largest first",
        y_label="variance of directions",
        series=tuple(series),
        summary=f"Eigenvalues of the covariance of the unit-length vectors of N = {count} test images: "
        f"{'; '.join(words)}. A fall to nothing before the last dimension is dimensional collapse.",
        y_scale="log",
    )


def _thinned(count: int) -> list[int]:
    """At most ``POINTS`` of the places 0 … count - 1, evenly spaced, with both ends."""
    if count <= POINTS:
        return list(range(count))
    return sorted({round(step * (count - 1) / (POINTS - 1)) for step in range(POINTS)})


def _words(values: Sequence[float], dimensions: int) -> str:
    total, held, needed = sum(values), 0.0, 0
    while held < MOST_OF_IT * total and needed < len(values):
        held += values[needed]
        needed += 1
    alive = sum(value > FLOOR * values[0] for value in values)
    return (
        f"{alive} of {dimensions} eigenvalues above a billionth of the largest, the first {needed} hold "
        f"{MOST_OF_IT:.0%} of the variance"
    )

"""Training curves: the history frame as series that a figure only has to draw."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import pandas as pd

RANKS = {"rankme": "RankMe", "rankme_centered": "centered RankMe", "participation_ratio": "participation ratio"}


def _both(quantity: str) -> dict[str, str]:
    return {f"{kind}_{quantity}": f"{kind}s" for kind in ("embedding", "representation")}


DIAGNOSTICS: tuple[tuple[str, str, str, Mapping[str, str]], ...] = (
    ("spread", "Spread of directions", "std × √D", _both("std")),
    ("scale", "Spread of the vectors", "std, not normalized", _both("scale")),
    ("embedding-ranks", "Ranks of the embeddings", "dimensions", {f"embedding_{k}": v for k, v in RANKS.items()}),
    (
        "representation-ranks",
        "Ranks of the representations",
        "dimensions",
        {f"representation_{k}": v for k, v in RANKS.items()},
    ),
    ("alignment", "Alignment of two views", "mean squared distance", _both("alignment")),
    ("uniformity", "Uniformity within a view", "log mean exp(−2 distance²)", _both("uniformity")),
)
"""Key, title, axis and the lines' names by term of each figure."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: a quantity of one seed over the epochs.

    Attributes:
        name: quantity.
        slot: position of the quantity in its figure, which decides color and dash.
        form: an ``area`` is stacked on those before it; a ``total`` is a line in the color of the text; a ``faint``
            one is gray and stands behind the others.
        low, high: ends of the values' intervals, drawn as a band; empty where there are none.
        named_at: height of the name at the right edge; without it the name stands where the line ends.
    """

    name: str
    slot: int
    seed: int
    epochs: tuple[float, ...]
    values: tuple[float, ...]
    form: Literal["line", "area", "total", "faint"] = "line"
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    named_at: float | None = None


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """A horizontal arrow with a few words above it, in the figure's coordinates."""

    start: float
    end: float
    height: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure before it is drawn.

    Attributes:
        summary: what the figure shows and where its lines end, in words.
        equal_axes: the axes have the same place and size in all such figures, which then stand side by side.
        ticks: places on a logarithmic horizontal axis that are labelled; a linear one finds its own.
        arrows: distances to point out.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    summary: str
    equal_axes: bool = False
    y_scale: Literal["linear", "log"] = "linear"
    ticks: tuple[float, ...] = ()
    arrows: tuple[Arrow, ...] = ()


def training_figures(history: pd.DataFrame, identities: Mapping[str, int], *, method: str) -> tuple[Figure, ...]:
    """The diagnostics of one method's training; its loss terms are those of ``reports.breakdown``.

    Args:
        history: the store's history frame.
        identities: seed by pre-training identity; other pre-trainings are left out.
        method: registry key, for the figures' ids.
    """
    if history.empty:
        return ()
    mine = history[history["pretrain_identity"].isin(list(identities)) & (history["kind"] == "diagnostic")]
    figures = [
        _figure(mine, identities, key=f"{method}-{key}", title=title, y_label=y_label, names=names)
        for key, title, y_label, names in DIAGNOSTICS
    ]
    return tuple(figure for figure in figures if figure is not None)


def _figure(
    mine: pd.DataFrame, identities: Mapping[str, int], *, key: str, title: str, y_label: str, names: Mapping[str, str]
) -> Figure | None:
    """The series of one figure in the order of the names; a name keeps its slot where another one is absent."""
    slots = {term: slot for slot, term in enumerate(names)}
    part = mine[mine["term"].isin(list(names))]
    if part.empty:
        return None
    series = []
    for (identity, term), line in part.groupby(["pretrain_identity", "term"], sort=False):
        line = line.sort_values("epoch", kind="stable")
        series.append(
            Series(
                name=names[str(term)],
                slot=slots[str(term)],
                seed=identities[str(identity)],
                epochs=tuple(map(float, line["epoch"])),
                values=tuple(map(float, line["value"])),
            )
        )
    series.sort(key=lambda item: (item.slot, item.seed))
    summary = " ".join(filter(None, (_summary(title, series), _basis(mine, dict.fromkeys(part["term"])))))
    return Figure(key=key, title=title, x_label="epoch", y_label=y_label, series=tuple(series), summary=summary)


def _basis(mine: pd.DataFrame, terms: Iterable[str]) -> str:
    """How many vectors stand behind each value, and of how many dimensions."""
    found = []
    for kind in dict.fromkeys(str(term).partition("_")[0] for term in terms):
        counts = [mine.loc[mine["term"] == f"{kind}_{count}", "value"] for count in ("samples", "dimensions")]
        if all(len(values) for values in counts):
            n, d = (f"{values.iloc[-1]:.0f}" for values in counts)
            found.append(f"N = {n} {kind}s of {d} dimensions")
    return f"On the last batch of each epoch: {', '.join(found)}." if found else ""


def _summary(title: str, series: list[Series]) -> str:
    ends = []
    for item in series:
        seed = f" (seed {item.seed})" if len({other.seed for other in series}) > 1 else ""
        ends.append(f"{item.name}{seed} from {item.values[0]:.3g} to {item.values[-1]:.3g}")
    last = max(item.epochs[-1] for item in series)
    return f"{title} up to epoch {last:g}: {'; '.join(ends)}."

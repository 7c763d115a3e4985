"""Training curves: the history frame as series that a figure only has to draw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

DIAGNOSTICS = {
    "embedding_std": "embeddings",
    "representation_std": "representations",
}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line: a quantity of one seed over the epochs.

    Attributes:
        name: quantity.
        slot: position of the quantity in its figure, which decides color and dash.
    """

    name: str
    slot: int
    seed: int
    epochs: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure before it is drawn.

    Attributes:
        summary: what the figure shows and where its lines end, in words.
    """

    key: str
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    summary: str


def training_figures(history: pd.DataFrame, identities: Mapping[str, int], *, method: str) -> tuple[Figure, ...]:
    """Loss terms and spread diagnostics of one method.

    Args:
        history: the store's history frame.
        identities: seed by pre-training identity; other pre-trainings are left out.
        method: registry key, for the figures' ids.
    """
    if history.empty:
        return ()
    mine = history[history["pretrain_identity"].isin(list(identities))]
    figures = [
        _figure(
            mine[mine["kind"] == "term"],
            identities,
            key=f"{method}-loss",
            title="Loss terms",
            y_label="weighted term, mean over the epoch",
            names={},
        ),
        _figure(
            mine[(mine["kind"] == "diagnostic") & mine["term"].isin(list(DIAGNOSTICS))],
            identities,
            key=f"{method}-spread",
            title="Spread over dimensions",
            y_label="mean standard deviation",
            names=DIAGNOSTICS,
        ),
    ]
    return tuple(figure for figure in figures if figure is not None)


def _figure(
    part: pd.DataFrame, identities: Mapping[str, int], *, key: str, title: str, y_label: str, names: Mapping[str, str]
) -> Figure | None:
    """The series of one figure: the total first, then the named terms, then the others in the paper's order."""
    if part.empty:
        return None
    order = ["total", *names]
    terms = sorted(dict.fromkeys(part["term"]), key=lambda term: order.index(term) if term in order else len(order))
    slots = {term: slot for slot, term in enumerate(terms)}
    series = []
    for (identity, term), line in part.groupby(["pretrain_identity", "term"], sort=False):
        line = line.sort_values("epoch", kind="stable")
        series.append(
            Series(
                name=names.get(str(term), str(term)).replace("_", " "),
                slot=slots[str(term)],
                seed=identities[str(identity)],
                epochs=tuple(map(float, line["epoch"])),
                values=tuple(map(float, line["value"])),
            )
        )
    series.sort(key=lambda item: (item.slot, item.seed))
    return Figure(
        key=key, title=title, x_label="epoch", y_label=y_label, series=tuple(series), summary=_summary(title, series)
    )


def _summary(title: str, series: list[Series]) -> str:
    ends = []
    for item in series:
        seed = f" (seed {item.seed})" if len({other.seed for other in series}) > 1 else ""
        ends.append(f"{item.name}{seed} from {item.values[0]:.3g} to {item.values[-1]:.3g}")
    last = max(item.epochs[-1] for item in series)
    return f"{title} up to epoch {last:g}: {'; '.join(ends)}."

"""What pre-training gains in detection: AP of every encoder minus that of the untrained one, on the same scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.metric import AP, Metric
from bench.spec import IMPORTED
from bench.statistics.paired import Difference, compare, holm
from bench.statistics.weighted import Statistic
from bench.table import Cell, Column, Row, Table
from reports.contest import SEED, Loader, point_words, resamples_for
from reports.measured import Measured
from reports.places import method_path
from reports.results import Result, parsed
from reports.table2_measured import Transfer, encoder_key, encoders_of, transfers
from reports.words import listed

if TYPE_CHECKING:
    import pandas as pd

REFERENCE = "random_init"
GAIN = Metric(key="gain", title="AP over random init", unit="points", higher_is_better=None)
P_VALUE = Metric(key="p", title="p, corrected", higher_is_better=None, decimals=3)
WORDS = {
    "test": "its detections are not in the store",
    "scenes": "it was tested on other scenes than the untrained encoder",
    "reference": "the untrained encoder of the same backbone has no fresh value here",
    "state": "it has no fresh value of every seed",
}
RULE = (
    "Both encoders are scored on the same resamples of the test scenes (paired bootstrap), so that what makes a scene "
    "hard for all cancels. An interval is that of its own pair; several seeds widen it by their spread. Bold: the "
    "interval lies above 0. p is corrected for the methods of one column (Holm)."
)


@dataclass(frozen=True, kw_only=True)
class Gain:
    """One encoder against the untrained one under one setting.

    Attributes:
        row: key of the encoder.
        difference: in points of AP; None where there is none to tell.
        reason: then why.
        seeds: of the encoder.
    """

    row: tuple[str, ...]
    title: str
    baseline: bool
    difference: Difference | None
    reason: str = ""
    seeds: int = 1

    @property
    def side(self) -> str:
        """``above``, ``below``, or ``open`` where the interval holds 0."""
        item = self.difference
        if item is None or item.low is None or item.high is None:
            return "open"
        return "above" if item.low > 0 else "below" if item.high < 0 else "open"


Gained = Sequence[tuple[Transfer, Sequence[Gain]]]
"""Every setting with the gains of its encoders."""


def gains(measured: Measured, predictions: Loader | None) -> tuple[tuple[Transfer, tuple[Gain, ...]], ...]:
    """Every setting with a gain for each of its encoders; none where nobody has the untrained encoder."""
    found = transfers(measured)
    told = ((transfer, _gains(measured, transfer, predictions)) for transfer in found if predictions)
    return tuple((transfer, items) for transfer, items in told if any(item.difference for item in items))


def _gains(measured: Measured, transfer: Transfer, predictions: Loader | None) -> tuple[Gain, ...]:
    keys = list(dict.fromkeys(encoder_key(result.planned.spec) for result in transfer.results))
    frames = {key: _frames(transfer.of(key), predictions) for key in keys}
    rivals: dict[tuple[str, ...] | None, list[tuple[str, ...]]] = {}
    for key in (key for key in keys if key[0] != REFERENCE):
        rivals.setdefault(_reference(key, keys), []).append(key)
    items: dict[tuple[str, ...], Gain] = {}
    for reference, members in rivals.items():
        items |= _against(measured, transfer, reference, members, frames)
    titles = _titles(measured, keys)
    return tuple(replace(items[key], title=titles[key]) for key in keys if key in items)


def _reference(key: tuple[str, ...], keys: Sequence[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The untrained encoder of the same backbone and images; what an imported one was trained on is not known."""
    alike = [other for other in keys if other[0] == REFERENCE and other[2] == key[2]]
    return next((other for other in alike if other[1] == key[1] or key[1] == IMPORTED), None)


def _frames(results: Sequence[Result], predictions: Loader | None) -> list[pd.DataFrame] | str:
    """The stored detections of every seed by sample, or which of ``WORDS`` says why there are none."""
    if any(result.planned.state != "fresh" or AP.key not in result.metrics for result in results) or not results:
        return "state"
    frames = []
    for result in results:
        frame = predictions(str(result.metrics[AP.key]["identity"])) if predictions else None
        if frame is None:
            return "test"
        frames.append(frame.sort_values("sample", kind="stable").reset_index(drop=True))
    return frames


def _against(
    measured: Measured,
    transfer: Transfer,
    reference: tuple[str, ...] | None,
    rivals: Sequence[tuple[str, ...]],
    frames: dict[tuple[str, ...], list[pd.DataFrame] | str],
) -> dict[tuple[str, ...], Gain]:
    """The gain of each rival; p-values are corrected for all of them together."""
    base = frames[reference] if reference else "reference"
    if reference is None or isinstance(base, str) or len(base[0]) < 2:
        return {key: _lacking(measured, key, "reference") for key in rivals}
    lacking: dict[tuple[str, ...], Gain] = {}
    tested: dict[tuple[str, ...], list[pd.DataFrame]] = {reference: base}
    for key in rivals:
        own = frames[key]
        if isinstance(own, str):
            lacking[key] = _lacking(measured, key, own)
        elif not all(frame["sample"].equals(base[0]["sample"]) for frame in (*own, *base)):
            lacking[key] = _lacking(measured, key, "scenes")
        else:
            tested[key] = own
    if len(tested) < 2:
        return lacking
    comparison = compare(
        [_statistics(transfer.of(key), own) for key, own in tested.items()],
        images=len(base[0]),
        clusters=base[0]["patient"].to_numpy(dtype=str) if "patient" in base[0] else None,
        generator=np.random.default_rng(SEED),
        # As many as behind the verdict: both print the same interval where they compare the same encoders.
        resamples=resamples_for(frame for own in tested.values() for frame in own),
    )
    pairs = [comparison.between(index, 0) for index in range(1, len(tested))]
    adjusted = holm([pair.p for pair in pairs])
    for key, pair, p in zip(list(tested)[1:], pairs, adjusted, strict=True):
        lacking[key] = replace(
            _lacking(measured, key, ""), difference=replace(pair, adjusted=p), seeds=len(tested[key])
        )
    return lacking


def _lacking(measured: Measured, key: tuple[str, ...], why: str) -> Gain:
    title = measured.method_title(key[0])
    reason = WORDS.get(why, "")
    return Gain(row=key, title=title, baseline=measured.is_baseline(key[0]), difference=None, reason=reason)


def _statistics(results: Sequence[Result], frames: Sequence[pd.DataFrame]) -> list[Statistic]:
    from bench.statistics.detection import average_precision_statistic  # late: it needs pandas

    found: list[Statistic] = []
    for result, frame in zip(results, frames, strict=True):
        classes = len(parsed(result.metrics[AP.key]["details"])["classes"])
        found.append(average_precision_statistic(frame, classes, metric_key=AP.key))
    return found


# --- what it says -----------------------------------------------------------------------------------------------


def gain_sentences(found: Gained) -> tuple[str, ...]:
    """For each setting: which methods beat the untrained encoder by more than the interval, and which do not."""
    told = []
    for transfer, items in found:
        where = f"{transfer.data} ({transfer.how}): " if len(found) > 1 else ""
        methods = [item for item in items if item.difference and not item.baseline]
        ranked = sorted(methods, key=lambda item: -item.difference.value if item.difference else 0.0)
        sides = {side: [item for item in ranked if item.side == side] for side in ("above", "open", "below")}
        if not ranked:
            continue
        words = [_beaten(sides["above"], len(ranked))]
        if sides["open"]:
            words.append(f"Not told apart from random init: {listed([_named(item) for item in sides['open']])}.")
        if sides["below"]:
            words.append(f"Below random init: {listed([_named(item) for item in sides['below']])}.")
        words += [
            f"{item.title}, for comparison: {_gap(item)} points." for item in items if item.baseline and _gap(item)
        ]
        told.append(where + " ".join(words))
    return tuple(told)


def _beaten(above: Sequence[Gain], of: int) -> str:
    if not above:
        return "In AP, no self-supervised method beats random init by more than the 95 % interval."
    if len(above) == of:
        who = "every self-supervised method beats" if of > 1 else "the one self-supervised method beats"
    else:
        who = f"{len(above)} of {of} self-supervised methods {'beats' if len(above) == 1 else 'beat'}"
    names = listed([_named(item) for item in above])
    return f"In AP, {who} random init by more than the 95 % interval: {names}."


def _named(item: Gain) -> str:
    return f"{item.title} ({_gap(item)})"


def _gap(item: Gain) -> str:
    """``+3.1, 0.4 to 5.8``."""
    if item.difference is None:
        return ""
    value = point_words(item.difference.value)
    signed = value if value.startswith("−") else f"+{value}"
    if item.difference.low is None or item.difference.high is None:
        return signed
    return f"{signed}, {point_words(item.difference.low)} to {point_words(item.difference.high)}"


def gain_table(measured: Measured, found: Gained) -> Table | None:
    """The differences in numbers; None where there are none."""
    if not found:
        return None
    columns = [
        Column(title=metric.title, groups=(transfer.data, transfer.how), metric=metric)
        for transfer, _ in found
        for metric in (GAIN, P_VALUE)
    ]
    by_row = [{item.row: item for item in items} for _, items in found]
    keys = [key for key in encoders_of([transfer for transfer, _ in found]) if any(key in items for items in by_row)]
    titles = _titles(measured, keys)
    rows = [
        Row(
            title=titles[key],
            key=key[0],
            href=method_path(key[0]),
            cells=tuple(cell for items in by_row for cell in _cells(items.get(key))),
        )
        for key in keys
    ]
    return Table(
        key="table2-gain",
        title="What pre-training gains in detection",
        caption="AP minus that of the same network with random weights, under the same detector and training, in "
        "points, with 95 % intervals.",
        columns=tuple(columns),
        rows=tuple(rows),
        notes=gain_sentences(found),
        rules=(RULE,),
    )


def _titles(measured: Measured, keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Backbone and epochs are named where the method's name does not tell rows apart."""
    names = [key[0] for key in keys]
    return {
        key: measured.method_title(key[0])
        + (f" ({measured.title(key[2])}, {key[3]} epochs)" if names.count(key[0]) > 1 else "")
        for key in keys
    }


def _cells(item: Gain | None) -> tuple[Cell, Cell]:
    if item is None:
        return Cell(state="unplanned", metric=GAIN), Cell(state="unplanned", metric=P_VALUE)
    found = item.difference
    if found is None:
        return (
            Cell(state="missing", metric=GAIN, reason=f"{item.reason[:1].upper()}{item.reason[1:]}."),
            Cell(state="missing", metric=P_VALUE),
        )
    gain = Cell(
        state="measured",
        metric=GAIN,
        value=found.value,
        low=found.low,
        high=found.high,
        interval="paired bootstrap 95%",
        covers="test scenes and seeds" if item.seeds > 1 else "test scenes",
        seeds=item.seeds,
        best=item.side == "above",
    )
    return gain, Cell(state="measured", metric=P_VALUE, value=found.adjusted)

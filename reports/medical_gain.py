"""What MedAug's 14 % is: a relative gain in one setting, taken apart into what metadata and what pre-training give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.metric import Metric
from bench.table import Cell, Column, Row, Table
from reports.medical_layouts import MEDAUG, MOCO_CXR, PROTOCOLS, Record, initialization
from reports.medical_tables import AUROC, SPREAD, spread_of, table_panel_id, value_cell

GAIN = Metric(key="auroc_gain", title="gain", decimals=3)
RELATIVE = Metric(key="relative_gain", title="gain, %", decimals=1)
SHARE = Metric(key="share_of_headline", title="share, %", higher_is_better=None, decimals=0)

WHOLE = "end to end"
IMAGENET = "ImageNet baseline (supervised init)"
PLAIN = "MoCo v2 (MoCo-CXR baseline, no metadata)"
CROPPED = "MoCo v2 (no metadata + random crop scale .95-1)"
HEADLINE = "same study (all lateralities)"
BEST = "same study + random crop scale"
STEPS = (IMAGENET, PLAIN, CROPPED, HEADLINE, BEST)
"""Rows of MedAug's Table 1: the reference, the same method without metadata, then with them."""


@dataclass(frozen=True, kw_only=True)
class Effusion:
    """MedAug's Table 1.

    Attributes:
        records: by initialization and protocol.
        test_width: width of MoCo-CXR's interval over test images for the linear probe at 1 % of the labels.
    """

    records: Mapping[tuple[str, str], Record]
    test_width: float

    @classmethod
    def of(cls, records: Sequence[Record]) -> Effusion:
        """From the published values of medical imaging."""
        printed = [r for r in records if r["paper"] == MEDAUG and r["source_table"] == "Table 1"]
        (test,) = (
            r
            for r in records
            if (r["paper"], r["source_table"], r["method_title"]) == (MOCO_CXR, "App. Table 1", "MoCo-CXR")
            and (r["backbone"], r["label_fraction"], r["protocol"]) == ("ResNet-18", 0.01, "linear probe")
        )
        found = {(initialization(r), PROTOCOLS[str(r["protocol"])]): r for r in printed}
        return cls(records=found, test_width=float(test["high"]) - float(test["low"]))

    def value(self, step: str, protocol: str = "linear") -> float:
        return float(self.records[step, protocol]["value"])

    def spread(self, step: str, protocol: str = "linear") -> float:
        return spread_of(self.records[step, protocol]) or 0.0

    def gain(self, step: str, protocol: str = "linear", *, over: str = IMAGENET) -> float:
        return self.value(step, protocol) - self.value(over, protocol)

    def relative(self, step: str, protocol: str = "linear", *, over: str = IMAGENET) -> float:
        """In percent of what it is compared with."""
        return 100 * self.gain(step, protocol, over=over) / self.value(over, protocol)


def gain_table(found: Effusion) -> Table:
    """The steps from ImageNet to MedAug, each with its gain over ImageNet, absolute and relative."""
    columns = [Column(title=m.title, groups=("linear",), metric=m) for m in (AUROC, SPREAD, GAIN, RELATIVE, SHARE)]
    columns += [Column(title=m.title, groups=("end to end",), metric=m) for m in (AUROC, SPREAD, GAIN, RELATIVE)]
    return Table(
        key="medical-fourteen-percent",
        title="The 14 %, taken apart",
        caption="AUROC of pleural effusion on CheXpert, ResNet-18, 1 % of the labels, and gains computed from it.",
        stub="Initialization",
        columns=tuple(columns),
        rows=tuple(
            Row(
                title=step if step.startswith(("MoCo", "ImageNet")) else f"MedAug, {step}",
                cells=(*_cells(found, step, "linear"), *_cells(found, step, "end to end")),
            )
            for step in STEPS
        ),
        notes=(
            "Gains are over ImageNet, absolute and relative; the share is of the gain that the 14 % stand for. std is "
            "the standard deviation over five draws of the labels; it belongs to the AUROC, not to the gain.",
        ),
        rules=("AUROC and std are those of MedAug's Table 1; gains and shares are computed from them.",),
        citations=(MEDAUG,),
    )


def _cells(found: Effusion, step: str, protocol: str) -> tuple[Cell, ...]:
    record = found.records[step, protocol]
    anchor = table_panel_id(record)
    std = Cell(state="published", metric=SPREAD, value=spread_of(record), anchor=anchor)
    computed = {GAIN: found.gain(step, protocol), RELATIVE: found.relative(step, protocol)}
    if protocol == "linear":
        computed[SHARE] = 100 * found.gain(step) / found.gain(HEADLINE)
    reference = step == IMAGENET
    gains = (
        Cell(text="reference") if reference and metric is GAIN
        else Cell() if reference
        else Cell(state="published", metric=metric, value=value, anchor=anchor)
        for metric, value in computed.items()
    )  # fmt: skip
    return (value_cell(record, AUROC), std, *gains)


def gain_sentences(found: Effusion) -> tuple[str, ...]:
    """What a reader of the headline must know, from the printed values."""
    metadata, cropped = found.gain(HEADLINE, over=PLAIN), found.gain(BEST, over=CROPPED)
    part = 100 * found.gain(PLAIN) / found.gain(HEADLINE)
    ends = [found.gain(step, WHOLE, over=over) for step, over in ((HEADLINE, PLAIN), (BEST, CROPPED))]
    return (
        f"It is relative and one setting: {found.value(IMAGENET):.3f} becomes {found.value(HEADLINE):.3f} "
        f"(+{found.gain(HEADLINE):.3f}, or {found.relative(HEADLINE):.1f} %) for pleural effusion, with a linear probe "
        "on 1 % of the labels. It is no mean over findings.",
        f"Most of it needs no metadata: MoCo v2 alone gains {found.gain(PLAIN):.3f}, {part:.0f} % of it. Pairs by "
        f"metadata add {metadata:.3f} ({found.relative(HEADLINE, over=PLAIN):.1f} %) with a linear probe and "
        f"{ends[0]:.3f} ({found.relative(HEADLINE, WHOLE, over=PLAIN):.1f} %) end to end.",
        f"Against the baseline with the same crops they add {cropped:.3f} and, end to end, {ends[1]:.3f}, where that "
        f"baseline alone varies with a standard deviation of {found.spread(CROPPED, WHOLE):.3f} over draws of the "
        "labels.",
        "The choice of test images matters more: MoCo-CXR's 95 % interval for this probe is "
        f"{found.test_width:.3f} wide, {found.test_width / cropped:.0f} times the effect of metadata with equal crops.",
        f"After fine-tuning end to end the whole way from ImageNet to the best pairs is "
        f"{found.value(IMAGENET, WHOLE):.3f} to {found.value(BEST, WHOLE):.3f} (+{found.relative(BEST, WHOLE):.1f} %).",
    )

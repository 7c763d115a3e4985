"""Which published values of medical imaging stand in one table, and where: MedAug's and MoCo-CXR's tables, complete."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from reports.table2_published import printed_title

Record = Mapping[str, Any]
MEDAUG, MOCO_CXR = "vu2021medaug", "sowrirajan2021mococxr"

SPLITS_NOTE = (
    "std: standard deviation over five random draws of 1 % of the labels, which is neither an interval nor a statement "
    "about the test images: 500 studies, the same for all draws."
)
BOOTSTRAP_NOTE = (
    "In small type: 95 % intervals from 500 resamples of the test set. They cover the choice of test images and "
    "nothing of the pre-training or the draw of labels."
)
PAIRED_NOTE = (
    "Differences are bootstrapped in pairs as the source prints them; they differ from the difference of two printed "
    "means by up to 0.003."
)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a record stands in a table: its row, the headings above its column and the column."""

    row: str
    column: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One table of the page.

    Attributes:
        paper: citation key.
        tables: of the source, as the file of values calls them.
        place: row and column of a record.
        wanted: whether a record of these tables belongs here.
        spread: each value is followed by its standard deviation over draws of the labels.
        order: of the rows; equal ones keep the order of the file.
    """

    key: str
    title: str
    caption: str
    paper: str
    tables: tuple[str, ...]
    place: Callable[[Record], Place]
    wanted: Callable[[Record], bool] = lambda record: True
    spread: bool = False
    stub: str = "Initialization"
    order: Callable[[Record], int] = lambda record: 0
    notes: tuple[str, ...] = ()


PROTOCOLS = {
    "linear probe": "linear",
    "end-to-end fine-tune": "end to end",
    "MoCo linear vs ImageNet end-to-end": "MoCo-CXR linear − ImageNet end to end",
}


def share(record: Record) -> str:
    """``1 % of labels``."""
    fraction = float(record["label_fraction"])
    return "all labels" if fraction == 1 else f"{100 * fraction:g} % of labels"


def finding(record: Record) -> str:
    """``pleural effusion``: what the AUROC is of."""
    return str(record["metric"]).removeprefix("delta ").removeprefix("AUROC ")


def initialization(record: Record) -> str:
    """``MoCo v2 (no metadata)``; the pairs alone for MedAug."""
    variant, method = str(record["variant"]), str(record["method_title"])
    if method == "MedAug":
        return variant.removeprefix("same patient, ")
    if method.startswith("MoCo-CXR"):
        return method if variant in ("difference", "MoCo v2, no metadata") else f"{method} ({variant[9:]})"
    return printed_title(method, variant)


def compared(record: Record) -> str:
    """What is subtracted from what, with the backbone."""
    protocol = PROTOCOLS[str(record["protocol"])]
    words = protocol if "−" in protocol else f"MoCo-CXR − ImageNet, {protocol}"
    return f"{record['backbone']}: {words}"


def is_difference(record: Record) -> bool:
    """Whether the value is the difference of two initializations."""
    return str(record["metric"]).startswith("delta ")


def _by_protocol(record: Record) -> Place:
    return Place(row=initialization(record), column=(PROTOCOLS[str(record["protocol"])],))


def _by_table_and_protocol(record: Record) -> Place:
    place = _by_protocol(record)
    return Place(row=f"{record['source_table']}: {place.row}", column=place.column)


def _by_negatives(record: Record) -> Place:
    words = initialization(record).removeprefix("same study; ").removeprefix("negatives: ")
    return Place(row=words.removesuffix(" negatives"), column=_by_protocol(record).column)


def _by_finding(record: Record) -> Place:
    return Place(row=initialization(record), column=(finding(record),))


def _by_share(record: Record) -> Place:
    row = f"{record['backbone']}: {initialization(record)}"
    return Place(row=row, column=(PROTOCOLS[str(record["protocol"])], share(record)))


def _difference_by_share(record: Record) -> Place:
    return Place(row=compared(record), column=(share(record),))


def _comparison_order(record: Record) -> int:
    protocol = list(PROTOCOLS).index(str(record["protocol"]))
    return protocol if record["backbone"] == "ResNet-18" else len(PROTOCOLS) + protocol


def _finding_by_share(record: Record) -> Place:
    subtracted = is_difference(record)
    title = "difference" if subtracted else initialization(record)
    return Place(row=f"{finding(record)}: {title}", column=(share(record),))


LAYOUTS = (
    Layout(
        key="medaug-1",
        title="MedAug, Table 1: pairs by metadata",
        caption="AUROC of pleural effusion, CheXpert, ResNet-18, 1 % of the labels.",
        paper=MEDAUG,
        tables=("Table 1",),
        place=_by_protocol,
        spread=True,
        notes=(SPLITS_NOTE, "Rows without a method: MedAug with these pairs of one patient."),
    ),
    Layout(
        key="medaug-2-to-5",
        title="MedAug, Tables 2 to 5: what makes a pair good",
        caption="The same task with pairs by label (an oracle), with another image forced, and with sets of candidates "
        "of equal size.",
        paper=MEDAUG,
        tables=("Table 2", "Table 3", "Table 4", "Table 5"),
        place=_by_table_and_protocol,
        spread=True,
        stub="Pairs",
        notes=(
            SPLITS_NOTE,
            "The authors read this so: pairs across studies lose because their labels differ, since the oracle, which "
            "keeps only pairs with the same label, wins the loss back; more candidates help; and whether both are "
            "frontal makes no difference where the sets have the same size.",
        ),
    ),
    Layout(
        key="medaug-6",
        title="MedAug, Table 6: negatives",
        caption="Linear probe, pairs of the same study, five choices of negatives.",
        paper=MEDAUG,
        tables=("Table 6",),
        place=_by_negatives,
        spread=True,
        stub="Negatives",
        notes=(SPLITS_NOTE, "None of the choices gains anything over the default."),
    ),
    Layout(
        key="medaug-7",
        title="MedAug, Table 7: other findings",
        caption="AUROC, linear probe, 1 % of the labels. No spread is printed.",
        paper=MEDAUG,
        tables=("Table 7 (App. A)",),
        place=_by_finding,
        notes=(
            "Both baselines marked † equal those of MoCo-CXR in every cell, so they were not run again; the baseline "
            "for effusion in Table 1 was.",
            "Which pairs are best depends on the finding: across studies for consolidation, within one elsewhere.",
        ),
    ),
    Layout(
        key="mococxr-effusion",
        title="MoCo-CXR, appendix Table 1: pleural effusion",
        caption="AUROC on CheXpert's test set by share of the labels.",
        paper=MOCO_CXR,
        tables=("App. Table 1",),
        place=_by_share,
        notes=(
            BOOTSTRAP_NOTE,
            "Appendix Table 5 prints other intervals for ImageNet at 1 % and MoCo-CXR at all labels, end to end: these "
            "are misprints.",
        ),
    ),
    Layout(
        key="mococxr-effusion-differences",
        title="MoCo-CXR, Table 1 and appendix Tables 4 and 5: differences for pleural effusion",
        caption="Difference of AUROC between two initializations.",
        paper=MOCO_CXR,
        tables=("Table 1", "App. Table 4", "App. Table 5"),
        place=_difference_by_share,
        order=_comparison_order,
        wanted=lambda record: is_difference(record) and finding(record) == "pleural effusion",
        stub="Compared",
        notes=(
            BOOTSTRAP_NOTE,
            PAIRED_NOTE,
            "Above 0.1 % of the labels the estimates put a linear probe on MoCo-CXR below fine-tuning from ImageNet; "
            "with ResNet-18 at 1 % the interval holds 0.",
        ),
    ),
    Layout(
        key="mococxr-findings-linear",
        title="MoCo-CXR, appendix Table 4: other findings, linear",
        caption="AUROC on CheXpert's test set, ResNet-18, linear probe, by share of the labels.",
        paper=MOCO_CXR,
        tables=("App. Table 4",),
        place=_finding_by_share,
        wanted=lambda record: finding(record) != "pleural effusion",
        stub="Finding",
        notes=(BOOTSTRAP_NOTE, PAIRED_NOTE),
    ),
    Layout(
        key="mococxr-findings-fine-tuned",
        title="MoCo-CXR, appendix Table 5: other findings, end to end",
        caption="AUROC on CheXpert's test set, ResNet-18, fine-tuned end to end, by share of the labels.",
        paper=MOCO_CXR,
        tables=("App. Table 5",),
        place=_finding_by_share,
        wanted=lambda record: finding(record) != "pleural effusion",
        stub="Finding",
        notes=(BOOTSTRAP_NOTE, PAIRED_NOTE),
    ),
    Layout(
        key="mococxr-tuberculosis",
        title="MoCo-CXR, appendix Table 2: tuberculosis",
        caption="AUROC on the Shenzhen set (662 radiographs) after pre-training on CheXpert, by share of the labels.",
        paper=MOCO_CXR,
        tables=("App. Table 2",),
        place=_by_share,
        notes=(BOOTSTRAP_NOTE,),
    ),
    Layout(
        key="mococxr-tuberculosis-differences",
        title="MoCo-CXR, appendix Table 3: differences for tuberculosis",
        caption="Difference of AUROC between two initializations on the Shenzhen set.",
        paper=MOCO_CXR,
        tables=("App. Table 3",),
        place=_difference_by_share,
        order=_comparison_order,
        stub="Compared",
        notes=(BOOTSTRAP_NOTE, PAIRED_NOTE),
    ),
    Layout(
        key="mococxr-learning-rates",
        title="MoCo-CXR, Table 2: learning rate of pre-training",
        caption="AUROC of tuberculosis on the Shenzhen set, ResNet-18, all labels.",
        paper=MOCO_CXR,
        tables=("Table 2",),
        place=_by_protocol,
        notes=(
            BOOTSTRAP_NOTE,
            "The source does not say that these are linear probes; the value at 1e-4 is that of the linear probe in "
            "appendix Table 2.",
        ),
    ),
)

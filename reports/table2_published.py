"""The published half of Table 2: which printed values of detection stand in it, under which setting, from where.

Two values are comparable only when detector, training scenes and schedule are the same: each such setting has columns
of its own. Rows are configurations of ImageNet-1k, ResNet-50: method, variant and epochs as sources tell them apart. A
value that several sources print stands once, under the source that measured it. No value is converted or averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

from bench.metric import AP, AP50, AP75, MASK_AP, MASK_AP50, MASK_AP75, VOC_AP, VOC_AP50, VOC_AP75, Metric
from reports.published_rows import PublishedRow, published_panel_id, short_name
from reports.results import number, whole
from reports.words import listed

if TYPE_CHECKING:
    import pandas as pd

BACKBONE = "ResNet-50"
PRETRAINED_ON = ("ImageNet-1k", "ImageNet-1k (labels)", "none")
BASELINES = ("random_init", "supervised")
VOC07, COCO = "VOC07 trainval -> VOC07 test", ("COCO 2017 det", "COCO 2017 seg")

VOC_METRICS = {"AP": VOC_AP, "AP50": VOC_AP50, "AP75": VOC_AP75}
COCO_METRICS = {
    "AP": AP, "AP50": AP50, "AP75": AP75, "AP_mask": MASK_AP, "AP50_mask": MASK_AP50, "AP75_mask": MASK_AP75
}  # fmt: skip
"""Metric by its name in the file of published values."""

PAPERS = (
    "he2020moco", "chen2020mocov2", "grill2020byol", "caron2020swav", "tian2020infomin", "chen2021simsiam",
    "zbontar2021barlow", "bardes2022vicreg", "msr_manuscript",
)  # fmt: skip
"""Sources in the order of their appearance: of several that print the same baseline, the first is cited."""

METHODS = (
    *BASELINES, "moco_v1", "moco_v2", "pirl", "infomin", "simclr", "byol", "swav", "simsiam", "obow", "barlow_twins",
    "vicreg",
)  # fmt: skip
"""Order of the rows."""

SAME_VARIANT = {("zbontar2021barlow", "swav", ""): "multi-crop"}
"""Variants that a source leaves unnamed: Barlow Twins' AP50 of SwAV is that which VICReg prints for multi-crop."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One experiment of transfer: what is under it may be compared, and with nothing else.

    Attributes:
        part: the table that shows it.
        heading: above its columns.
        protocol, data: as the file of published values calls them.
        metrics: those of its columns, by their printed name.
    """

    key: str
    part: Literal["voc", "coco_c4", "coco_fpn"]
    heading: str
    protocol: str
    data: tuple[str, ...] = COCO
    metrics: Mapping[str, Metric] = field(default_factory=lambda: COCO_METRICS)

    @property
    def title(self) -> str:
        """In full, for panels and notes."""
        detector = {"voc": "VOC, Faster R-CNN R50-C4", "coco_c4": "COCO, Mask R-CNN", "coco_fpn": "COCO, Mask R-CNN"}
        return f"{detector[self.part]}, {self.heading}"


SETTINGS = (
    Setting(
        key="voc0712",
        part="voc",
        heading="trainval 07+12, 24k iterations",
        protocol="finetune Faster R-CNN R50-C4 24k it",
        data=("VOC07+12 -> VOC07 test",),
        metrics=VOC_METRICS,
    ),
    Setting(
        key="voc07_9k",
        part="voc",
        heading="trainval 07, 9k iterations (MoCo)",
        protocol="finetune Faster R-CNN R50-C4 9k it",
        data=(VOC07,),
        metrics=VOC_METRICS,
    ),
    Setting(
        key="voc07",
        part="voc",
        heading="trainval 07 (SimSiam)",
        protocol="finetune Faster R-CNN R50-C4",
        data=(VOC07,),
        metrics=VOC_METRICS,
    ),
    Setting(
        key="voc07_byol",
        part="voc",
        heading="trainval 07 (BYOL)",
        protocol="Faster R-CNN R50-C4 (BYOL setup, appendix D.5 says frozen representation)",
        data=(VOC07,),
        metrics={"AP50": VOC_AP50},
    ),
    Setting(key="c4_1x", part="coco_c4", heading="C4, 1×", protocol="finetune Mask R-CNN R50-C4 1x"),
    Setting(key="c4_2x", part="coco_c4", heading="C4, 2×", protocol="finetune Mask R-CNN R50-C4 2x"),
    Setting(key="fpn_1x", part="coco_fpn", heading="FPN, 1×", protocol="finetune Mask R-CNN R50-FPN 1x"),
    Setting(key="fpn_2x", part="coco_fpn", heading="FPN, 2×", protocol="finetune Mask R-CNN R50-FPN 2x"),
)
BY_KEY = {setting.key: setting for setting in SETTINGS}


@dataclass(frozen=True, kw_only=True)
class Printed:
    """What one table of one source prints for one configuration under one setting.

    Attributes:
        records: of each metric, by its key.
        also: other places that print the same values.
    """

    setting: Setting
    method: str
    title: str
    variant: str
    epochs: int | None
    paper: str
    table: str
    quoted: bool
    records: Mapping[str, Mapping[str, Any]]
    also: tuple[str, ...] = ()

    @property
    def directness(self) -> tuple[bool, int, int]:
        """Own results before quoted ones, more values before fewer, earlier sources before later ones."""
        order = PAPERS.index(self.paper) if self.paper in PAPERS else len(PAPERS)
        return self.quoted, -len(self.records), order

    def repeats(self, other: Printed) -> bool:
        """Whether all values stand in ``other``, which is nearer to who measured them."""
        same = (self.method == other.method and other.directness < self.directness) and (
            self.epochs is None or other.epochs is None or self.epochs == other.epochs
        )
        # A quotation may stand under another setting of the same scenes than the values that it repeats.
        here = self.setting == other.setting or (self.quoted and self.setting.data == other.setting.data == (VOC07,))
        if not (same and here and (self.quoted or self.method in BASELINES)):
            return False
        return all(
            key in other.records and other.records[key]["value"] == record["value"]
            for key, record in self.records.items()
        )

    @property
    def values(self) -> dict[str, Mapping[str, Any]]:
        """The records by the name of the metric as it is printed, in the order of the columns."""
        return {name: self.records[m.key] for name, m in self.setting.metrics.items() if m.key in self.records}

    @property
    def panel(self) -> str:
        """Id of the panel that tells where these values come from."""
        return published_panel_id(next(iter(self.records.values())))

    @property
    def where(self) -> str:
        return f"{short_name(self.paper)}, {self.table}{' (quoted)' if self.quoted else ''}"


def printed_detectors(published: pd.DataFrame) -> tuple[Printed, ...]:
    """Every printed configuration under every setting, each value once."""
    everything = _all_printed(published)
    own: list[Printed] = []
    repeated: dict[int, list[str]] = {}
    for item in everything:
        originals = [other for other in everything if item.repeats(other)]
        if originals:
            repeated.setdefault(id(min(originals, key=lambda other: other.directness)), []).append(item.where)
        else:
            own.append(item)
    found = [replace(item, also=tuple(repeated.get(id(item), ()))) for item in own]
    return tuple(sorted(found, key=_order))


def _order(item: Printed) -> tuple[Any, ...]:
    place = METHODS.index(item.method) if item.method in METHODS else len(METHODS)
    return place, item.method, item.variant, item.epochs or 0, item.directness[2], SETTINGS.index(item.setting)


def _all_printed(published: pd.DataFrame) -> list[Printed]:
    here = published[
        (published["benchmark"] == "detection_transfer")
        & (published["backbone"] == BACKBONE)
        & published["confidence"].isin(["read", "secondary"])
        & published["pretrain_data"].isin(PRETRAINED_ON)
        & ~published["variant"].str.startswith("ablation")
    ]
    found = []
    for setting in SETTINGS:
        mine = here[(here["protocol"] == setting.protocol) & here["eval_data"].isin(setting.data)]
        mine = mine[mine["metric"].isin(list(setting.metrics))]
        keys = ["method", "variant", "pretrain_epochs", "paper", "source_table"]
        for _, part in mine.groupby(keys, sort=False, dropna=False):
            found.append(_printed(setting, [_plain(record) for record in part.to_dict("records")]))
    return found


def _printed(setting: Setting, records: Sequence[Mapping[str, Any]]) -> Printed:
    first = records[0]
    method, paper, variant = (str(first[name]) for name in ("method", "paper", "variant"))
    return Printed(
        setting=setting,
        method=method,
        title=str(first["method_title"]),
        variant=SAME_VARIANT.get((paper, method, variant), variant),
        epochs=first["pretrain_epochs"],
        paper=paper,
        table=str(first["source_table"]),
        quoted=bool(first["quoted"]),
        records={setting.metrics[str(record["metric"])].key: record for record in records},
    )


def _plain(record: Mapping[Any, Any]) -> dict[str, Any]:
    """The record with None for every missing number."""
    plain = {str(name): value for name, value in record.items()}
    numbers = {name: number(plain[name]) for name in ("value", "low", "high", "label_fraction")}
    return plain | numbers | {"pretrain_epochs": whole(plain["pretrain_epochs"])}


# --- rows -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class DetectionRow:
    """One configuration in one table.

    Attributes:
        method: registry key.
        title: printed name, with the variant, and with source or epochs where two rows would have the same.
        epochs: of pre-training; None where the sources of these values do not print them.
        printed: by the key of the setting.
    """

    method: str
    title: str
    epochs: int | None
    printed: Mapping[str, Printed]

    def as_published(self) -> PublishedRow:
        """The same values in the form that sources and citations are made from."""
        values = {(key, 1.0, name): r for key, item in self.printed.items() for name, r in item.records.items()}
        return PublishedRow(method=self.method, title=self.title, variant="", epochs=self.epochs, values=values)


def detection_rows(items: Iterable[Printed], part: str) -> tuple[DetectionRow, ...]:
    """The rows of one table. Sources that print the same configuration under one setting have a row each."""
    rows: list[DetectionRow] = []
    mine = [item for item in items if item.setting.part == part]
    for (method, variant, epochs), group in groupby(mine, key=lambda item: (item.method, item.variant, item.epochs)):
        layers: list[dict[str, Printed]] = []
        for _, of_paper in groupby(group, key=lambda item: item.paper):
            new = {item.setting.key: item for item in of_paper}
            free = next((layer for layer in layers if not layer.keys() & new.keys()), None)
            if free is None:
                layers.append(new)
            else:
                free.update(new)
        for layer in layers:
            first = next(iter(layer.values()))
            title = printed_title(first.title, variant)
            title += f", in {short_name(first.paper)}" if len(layers) > 1 else ""
            rows.append(DetectionRow(method=method, title=title, epochs=epochs, printed=layer))
    titles = [row.title for row in rows]
    return tuple(
        replace(row, title=f"{row.title}, {_epoch_words(row.epochs)}") if titles.count(row.title) > 1 else row
        for row in rows
    )


def _epoch_words(epochs: int | None) -> str:
    return f"{epochs} epochs" if epochs else "epochs not printed"


def printed_title(title: str, variant: str) -> str:
    """``SwAV (multi-crop)``, ``SimSiam (optimal, lr 0.5, wd 1e-5)``; ``InfoMin Aug`` stands alone."""
    if not variant or variant.startswith(title):
        return variant or title
    return f"{title} ({variant.replace(' (', ', ').rstrip(')')})"


def disagreements(items: Sequence[Printed], part: str) -> tuple[str, ...]:
    """One sentence for each configuration and setting of which sources print different values."""
    told = []
    for setting in (setting for setting in SETTINGS if setting.part == part):
        mine = [item for item in items if item.setting == setting]
        for (_, variant), group in groupby(mine, key=lambda item: (item.method, item.variant)):
            alike = list(group)
            for metric in setting.metrics.values():
                values = [(item, item.records[metric.key]["value"]) for item in alike if metric.key in item.records]
                if _differ(values):
                    words = [f"{metric.format(value)} in {_source(item)}" for item, value in values]
                    title = printed_title(alike[0].title, variant)
                    told.append(f"{setting.heading}: the {_called(metric)} of {title} is {listed(words)}.")
                    break
    return tuple(told)


def _differ(values: Sequence[tuple[Printed, float]]) -> bool:
    """Whether two of the values contradict each other: they differ, and their epochs may be the same."""
    return any(
        one != other and (a.epochs is None or b.epochs is None or a.epochs == b.epochs)
        for index, (a, one) in enumerate(values)
        for b, other in values[:index]
    )


def _source(item: Printed) -> str:
    epochs = f", {item.epochs} epochs" if item.epochs else ""
    return f"{short_name(item.paper)}{epochs}{' (quoted there)' if item.quoted else ''}"


def _called(metric: Metric) -> str:
    return metric.title if metric.title.startswith(("mask", "VOC")) else f"box {metric.title}"

"""A short calibration: how fast this machine is at what pre-trainings and evaluations are made of."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bench.card import MethodCard, PublishedSizes
from bench.data.dataset import UNLABELLED, ImageDataset
from bench.data.sources import DataSource
from bench.data.views import make_view
from bench.encoders.build import build_backbone, initial_encoder
from bench.errors import DataError
from bench.identity import digest, pretraining_identity
from bench.provenance import hardware, software
from bench.registry import Catalog
from bench.spec import DataSpec, PretrainSpec, RunSpec, ViewSpec
from bench.storage import replace_file
from bench.training.layout import channels_last, to_channels_last
from bench.training.pretraining import build_method

IMAGES = (8, 32, 128)
"""Batches that are tried, as long as the one before took less than ``SHORT`` seconds."""
SHORT = 0.1
REPEATS = 2
PRODUCT = 1024
"""Rows and columns of the matrices whose product is timed."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What an estimate needs to know of a dataset.

    Attributes:
        sizes: images of each split.
        kind: the dataset, or a single blank image that has its size, channels and classes.
    """

    sizes: Mapping[str, int]
    kind: ImageDataset

    def trained_on(self, card: MethodCard) -> int:
        """Images that a pre-training sees."""
        return self.sizes["train"] + (0 if card.uses_labels else self.sizes.get(UNLABELLED, 0))


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Seconds for one image of one size: through the backbone, forward and backward, and for one view of it."""

    forward: float
    trained: float
    view: float


class Calibration:
    """Estimates of seconds on this machine; what was measured is kept in ``cache`` under all that it depends on.

    Args:
        catalog, source: what is registered, and the images.
        cache: folder for what was measured.
        device: ``cpu`` or ``cuda``.
        threads: of each worker.
    """

    def __init__(self, catalog: Catalog, source: DataSource, *, cache: Path, device: str, threads: int) -> None:
        self.catalog, self.source, self.cache, self.device, self.threads = catalog, source, cache, device, threads
        self._products: float | None = None
        self._widths: dict[str, int] = {}

    def __call__(self, spec: PretrainSpec | RunSpec) -> float | None:
        """Seconds of a pre-training, or of an evaluation without its pre-training; None where nobody says."""
        return self.training(spec) if isinstance(spec, PretrainSpec) else self.evaluation(spec)

    def training(self, spec: PretrainSpec) -> float:
        """Seconds of a pre-training: every pass of a view through the backbone and the heads, and making the views."""
        assert spec.training is not None
        card = self.catalog.methods[spec.method].card
        assert isinstance(card, MethodCard)
        extent = self.extent(spec.data)
        data, images = extent.kind, extent.trained_on(card)
        speed = self.speed(spec, data)
        seen = spec.training.epochs * (images // spec.training.batch_size) * spec.training.batch_size
        views = card.view_count(spec.method_params)
        trained = views if card.gradient_views == "all" else len(card.gradient_views)
        forward = views - trained + (trained if card.branches == "momentum" and card.symmetric else 0)
        heads = self._head_products(spec, data) * (3 * trained + forward)
        passes = trained * speed.trained + forward * speed.forward + views * speed.view
        return seen * (passes + heads * self.seconds_per_product())

    def evaluation(self, spec: RunSpec) -> float | None:
        """Seconds of an evaluation, by what the protocol says it computes."""
        protocol = self.catalog.protocols[spec.protocol].load()(**spec.protocol_params)
        extent = self.extent(spec.data)
        data = extent.kind
        width = self._width(spec.pretrain, data)
        work = protocol.work(extent.sizes, num_classes=data.num_classes, feature_dim=width)
        if work is None:
            return None
        speed = self.speed(spec.pretrain, data)
        pixels = math.prod(data.image_size) if work.pixels is None else work.pixels
        scale = pixels / math.prod(data.image_size)
        passes = scale * (work.forward * speed.forward + work.trained * (speed.trained + speed.view))
        products = work.products + work.products_by_pixel * pixels
        return float(passes + products * self.seconds_per_product())

    def extent(self, spec: DataSpec) -> Extent:
        """Of the images, or of a published set as it is published where its files are not here."""
        try:
            data = self.source.load(spec)
        except DataError:
            published = self.source.published(spec)
            if published is None:
                raise
            return _published_extent(spec, published, title=self.catalog.datasets[spec.key].card.title)
        return Extent(sizes={name: len(rows) for name, rows in data.splits.items()}, kind=data)

    def speed(self, spec: PretrainSpec, data: ImageDataset) -> Speed:
        """How fast the spec's backbone is on images of the data's size, and its views are made."""
        entry = self.catalog.backbones[spec.backbone]
        view = spec.views[0] if spec.views else ViewSpec()
        question = {
            "backbone": [entry.key, spec.backbone_params],
            "code": pretraining_identity(spec.model_copy(update={"training": None}), self.catalog, fingerprint="").code,
            "images": [data.channels, *data.image_size],
            "view": view.model_dump(mode="json"),
        }
        kept = self._kept("speed", question, lambda: asdict(self._measure(self._backbone(spec, data), data, view)))
        return Speed(**kept)

    def seconds_per_product(self) -> float:
        """Seconds for 1e9 multiplications and additions in matrix products."""
        if self._products is None:
            self._products = self._kept("products", {}, lambda: {"seconds": self._measure_products()})["seconds"]
        return self._products

    def _backbone(self, spec: PretrainSpec, data: ImageDataset) -> nn.Module:
        entry = self.catalog.backbones[spec.backbone]
        return build_backbone(entry, spec.backbone_params, channels=data.channels, seed=0)

    def _width(self, spec: PretrainSpec, data: ImageDataset) -> int:
        """Of the backbone's features; every cell of a suite asks."""
        question = digest([spec.backbone, spec.backbone_params, data.channels])
        if question not in self._widths:
            self._widths[question] = int(self._backbone(spec, data).feature_dim)  # type: ignore[arg-type]
        return self._widths[question]

    def _head_products(self, spec: PretrainSpec, data: ImageDataset) -> float:
        """1e9 products of one image's forward pass through the method's heads."""
        encoder = initial_encoder(self.catalog.backbones[spec.backbone], spec, data, identity="")
        method, _ = build_method(encoder, self.catalog.methods[spec.method].load(), spec, data)
        inside = {id(parameter) for parameter in encoder.module.parameters()}
        own = [p for p in method.parameters() if id(p) not in inside and p.ndim == 2 and p.requires_grad]
        return sum(parameter.numel() for parameter in own) / 1e9

    def _kept(
        self, kind: str, question: Mapping[str, object], measure: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        """What was measured here before, else what ``measure`` says now."""
        machine = [hardware(), software()["libraries"], self.device, self.threads]
        path = self.cache / f"{kind}-{digest([question, machine])[:32]}.json"
        try:
            kept: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            kept = measure()
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, json.dumps(kept).encode())
        return kept

    def _measure(self, backbone: nn.Module, data: ImageDataset, view: ViewSpec) -> Speed:
        backbone.to(self.device)
        to_channels_last(backbone)
        generator = torch.Generator().manual_seed(0)
        forward = trained = made = 0.0
        for count in IMAGES:
            pixels = torch.rand(count, data.channels, *data.image_size, generator=generator).to(self.device)
            inputs = channels_last(pixels)
            forward = self._seconds(partial(_forward, backbone, inputs)) / count
            trained = self._seconds(partial(_train, backbone, inputs)) / count
            made = self._seconds(partial(make_view, pixels, view, generator)) / count
            if trained * count > SHORT:
                break
        return Speed(forward=forward, trained=trained, view=made)

    def _measure_products(self) -> float:
        a = torch.rand(PRODUCT, PRODUCT, device=self.device)
        return self._seconds(lambda: a @ a) / (PRODUCT**3 / 1e9)

    def _seconds(self, work: Callable[[], object]) -> float:
        """The shortest of a few times, after one that is not counted, with as many threads as a worker has."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            times = []
            for _ in range(1 + REPEATS):
                started = time.perf_counter()
                work()
                if self.device == "cuda":
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - started)
            return min(times[1:])
        finally:
            torch.set_num_threads(threads)


def _published_extent(spec: DataSpec, published: PublishedSizes, *, title: str) -> Extent:
    side = int(spec.params.get("image_size") or published.image_size)
    none = np.empty(0, dtype=np.int64)
    kind = ImageDataset(
        key=spec.key,
        title=title,
        images=np.zeros((1, side, side, published.channels), dtype=np.uint8),
        labels=np.zeros(1, dtype=np.int64),
        class_names=tuple(map(str, range(published.classes))),
        splits={"train": np.zeros(1, dtype=np.int64), "validation": none, "test": none},
    )
    sizes = {name: int(getattr(published, name)) for name in (*kind.splits, UNLABELLED)}
    if "validation" in spec.params:  # a share of the training images
        both = published.train + published.validation
        sizes["validation"] = round(float(spec.params["validation"]) * both)
        sizes["train"] = both - sizes["validation"]
    return Extent(sizes=sizes, kind=kind)


@torch.inference_mode()
def _forward(backbone: nn.Module, inputs: Tensor) -> Tensor:
    features: Tensor = backbone.eval()(inputs)
    return features


def _train(backbone: nn.Module, inputs: Tensor) -> None:
    backbone.train()(inputs).sum().backward()
    backbone.zero_grad(set_to_none=True)

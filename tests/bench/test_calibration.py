from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench import calibration
from bench.calibration import Calibration, Speed
from bench.cost import plan_costs
from bench.data.sources import DataSource
from bench.errors import DataError
from bench.protocol import Protocol, Work
from bench.registry import Catalog, discover
from bench.request import Request
from bench.spec import DataSpec, PretrainSpec, RunSpec, TrainingSpec, ViewSpec

from .tiny import write_suite

SPEED = Speed(forward=1e-3, trained=1e-2, view=1e-4)
PRODUCTS = 0.5  # seconds for 1e9


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return discover()


def calibrated(catalog: Catalog, cache: Path) -> Calibration:
    return Calibration(
        catalog, DataSource(catalog.datasets, root=None, cache=cache), cache=cache, device="cpu", threads=1
    )


@pytest.fixture
def steady(catalog: Catalog, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Calibration:
    """A machine of known speed."""
    monkeypatch.setattr(Calibration, "speed", lambda *_: SPEED)
    monkeypatch.setattr(Calibration, "seconds_per_product", lambda _: PRODUCTS)
    return calibrated(catalog, shared_cache)


def spec_of(catalog: Catalog, method: str, views: int, **params: object) -> PretrainSpec:
    return PretrainSpec(
        method=method,
        method_params=catalog.methods[method].complete(params),
        backbone="convnet",
        backbone_params={"width": 4},
        data=DataSpec(key="digits"),
        views=(ViewSpec(),) * views,
        training=TrainingSpec(epochs=3, batch_size=100, warmup_epochs=0),
    )


@pytest.mark.parametrize(
    ("method", "views", "params", "trained", "forward", "head"),
    [
        ("simclr", 2, {"projector": (8, 4)}, 2, 0, 16 * 8 + 8 * 4),
        ("byol", 2, {"projector": (8, 4), "predictor": (8, 4)}, 2, 2, 16 * 8 + 8 * 4 + 4 * 8 + 8 * 4),
        ("moco_v2", 2, {"projector": (8, 4), "queue_size": 100, "bn_groups": 1}, 1, 1, 16 * 8 + 8 * 4),
        ("moco_fnc", 5, {"projector": (8, 4), "queue_size": 100, "bn_groups": 1, "support_views": 3}, 1, 4, 160),
        ("wmse", 4, {"projector": (8, 4), "positives": 4, "sub_batch": 20}, 4, 0, 16 * 8 + 8 * 4),
        ("supervised", 1, {}, 1, 0, 16 * 10),
    ],
)
def test_a_training_costs_its_passes_heads_and_views(
    catalog: Catalog,
    steady: Calibration,
    method: str,
    views: int,
    params: dict[str, object],
    trained: int,
    forward: int,
    head: int,
) -> None:
    spec = spec_of(catalog, method, views, **params)
    images = 3 * (len(steady.source.load(spec.data).split("train")) // 100) * 100
    passes = trained * SPEED.trained + forward * SPEED.forward + views * SPEED.view
    heads = head * 1e-9 * (3 * trained + forward) * PRODUCTS
    assert steady(spec) == pytest.approx(images * (passes + heads), rel=1e-9)


def evaluation_of(catalog: Catalog, protocol: str) -> RunSpec:
    pretrain = spec_of(catalog, "random_init", 0).model_copy(update={"training": None})
    params = catalog.protocols[protocol].complete({})
    return RunSpec(pretrain=pretrain, protocol=protocol, protocol_params=params, data=DataSpec(key="digits"))


def test_an_evaluation_costs_what_its_protocol_says(
    catalog: Catalog, steady: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = catalog.protocols["knn"].load()
    seen = []

    def work(self: Protocol, sizes: dict[str, int], *, num_classes: int, feature_dim: int) -> Work:
        seen.append((sum(sizes.values()), num_classes, feature_dim))
        return Work(forward=10, trained=3, products=2)

    monkeypatch.setattr(kind, "work", work)
    expected = 10 * SPEED.forward + 3 * (SPEED.trained + SPEED.view) + 2 * PRODUCTS
    assert steady(evaluation_of(catalog, "knn")) == pytest.approx(expected, rel=1e-12)
    assert seen == [(1797, 10, 16)]
    monkeypatch.setattr(kind, "work", lambda *_, **__: None)
    assert steady(evaluation_of(catalog, "knn")) is None


def test_every_protocol_says_what_it_computes(catalog: Catalog) -> None:
    sizes = {"train": 1000, "validation": 100, "test": 200}
    for entry in catalog.protocols:
        work = entry.load()(**entry.complete({})).work(sizes, num_classes=10, feature_dim=64)
        assert work is not None and work.forward + work.trained >= 200, entry.key


def test_a_published_set_is_estimated_by_its_published_sizes_where_its_files_are_not(
    catalog: Catalog, steady: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(catalog, "simclr", 2, projector=(8, 4))
    spec = spec.model_copy(update={"data": DataSpec(key="stl10", params={"unlabelled": True})})
    passes = 2 * SPEED.trained + 2 * SPEED.view + 3 * 2 * 160e-9 * PRODUCTS
    assert steady(spec) == pytest.approx(3 * (104_500 // 100) * 100 * passes, rel=1e-9)  # unlabelled images, too
    supervised = spec_of(catalog, "supervised", 1).model_copy(update={"data": spec.data})
    passes = SPEED.trained + SPEED.view + 3 * 160e-9 * PRODUCTS
    assert steady(supervised) == pytest.approx(3 * 4_500 * passes, rel=1e-9)
    seen = {}

    def work(self: Protocol, sizes: dict[str, int], *, num_classes: int, feature_dim: int) -> Work:
        seen.update(sizes, classes=num_classes)
        return Work(forward=1, pixels=4 * 96 * 96)

    monkeypatch.setattr(catalog.protocols["knn"].load(), "work", work)
    cell = evaluation_of(catalog, "knn")
    cell = cell.model_copy(update={"data": spec.data})
    assert steady(cell) == pytest.approx(4 * SPEED.forward)
    assert seen == {"train": 4500, "validation": 500, "test": 8000, "unlabelled": 100_000, "classes": 10}
    with pytest.raises(DataError, match="Dataset 'folder' needs your folder of data"):
        steady(spec.model_copy(update={"data": DataSpec(key="folder")}))


def test_the_images_of_an_absent_set_have_the_size_that_the_suite_asks_for(
    catalog: Catalog, steady: Calibration
) -> None:
    whole = steady.extent(DataSpec(key="imagenet", params=catalog.datasets["imagenet"].complete({})))
    assert (whole.kind.image_size, whole.kind.channels, whole.kind.num_classes) == ((224, 224), 3, 1000)
    assert whole.sizes["train"] + whole.sizes["validation"] == 1_281_167 and whole.sizes["test"] == 50_000
    fewer = steady.extent(DataSpec(key="imagenet", params={"validation": 0.5})).sizes
    assert fewer["validation"] == 640_584 and fewer["train"] == 640_583
    assert steady.extent(DataSpec(key="imagenet", params={"image_size": 64})).kind.image_size == (64, 64)
    assert steady.extent(DataSpec(key="fashion_mnist")).kind.channels == 1


def test_what_was_measured_is_kept_and_another_machine_measures_anew(
    catalog: Catalog, tmp_path: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = DataSource(catalog.datasets, root=None, cache=shared_cache)
    spec = spec_of(catalog, "simclr", 2)
    first = Calibration(catalog, source, cache=tmp_path, device="cpu", threads=1)
    threads = torch.get_num_threads()
    seconds = first(spec)
    assert seconds is not None and seconds > 0 and torch.get_num_threads() == threads
    measured: list[object] = []

    def measure(self: Calibration, *arguments: object) -> Speed:
        measured.append(arguments)
        return SPEED

    monkeypatch.setattr(Calibration, "_measure", measure)
    again = Calibration(catalog, source, cache=tmp_path, device="cpu", threads=1)
    assert again(spec) == seconds and measured == []
    monkeypatch.setattr(calibration, "hardware", lambda: {"processor": "another"})
    again.speed(spec, source.load(spec.data))
    assert len(measured) == 1


def test_a_backbone_that_computes_more_is_measured_slower(catalog: Catalog, tmp_path: Path, shared_cache: Path) -> None:
    machine = Calibration(
        catalog, DataSource(catalog.datasets, root=None, cache=shared_cache), cache=tmp_path, device="cpu", threads=1
    )
    small = spec_of(catalog, "simclr", 2)
    large = small.model_copy(update={"backbone_params": {"width": 96}})
    data = machine.source.load(small.data)
    slow, fast = machine.speed(large, data), machine.speed(small, data)
    assert slow.forward > fast.forward and slow.trained > slow.forward and fast.trained > fast.forward


def test_a_request_estimates_its_own_plan(tmp_path: Path, shared_cache: Path) -> None:
    request = Request(suite=str(write_suite(tmp_path)), store=str(tmp_path / "store"))
    plan, estimate = request.plan(request.results.frame()), request.calibration()
    trained = [cell.spec.pretrain for cell in plan.cells if cell.spec.pretrain.training]
    assert trained and all((estimate(spec) or 0) > 0 for spec in trained)
    costs = plan_costs(plan, request.results.frame(), estimate)
    assert costs.seconds > 0 and {item.source for item in costs.trainings.values()} == {"calibration"}

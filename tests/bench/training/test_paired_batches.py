"""Batches whose views show different images of a patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.card import MethodCard
from bench.data.dataset import ImageDataset, Images
from bench.data.reading import Streamed
from bench.encoders.encoder import Encoder
from bench.errors import SpecError
from bench.spec import PairingSpec, PretrainSpec, ViewSpec
from bench.training.batches import Batches
from bench.training.history import TrainingResult
from bench.training.loop import pretrain
from bench.training.pairing import Pairing
from bench.training.pretraining import train_encoder

from ..data.lazy import write_images
from .ranks import in_group
from .toys import Contrast, make, toy_images, toy_spec

WHOLE = ViewSpec(
    crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0
)  # fmt: skip
CPU = torch.device("cpu")
METADATA = {
    "patient": np.array([f"p{i // 5}" for i in range(50)]),
    "study": np.array([str(i % 5 // 3) for i in range(50)]),
    "laterality": np.array(["frontal", "lateral"] * 25),
}
RULE = PairingSpec(study="same", other_image=True)


def numbered() -> NDArray[np.uint8]:
    """Image i is i everywhere."""
    return np.tile(np.arange(50, dtype=np.uint8)[:, None, None, None], (1, 8, 8, 1))


def batches(
    images: Images, *, views: int = 2, rule: PairingSpec = RULE, sides: NDArray[np.int64] | None = None
) -> Batches:
    spec = toy_spec(views=(WHOLE,))
    pairing = Pairing(rule, METADATA)
    return Batches(
        spec, images, None, views=views, mean=(0.0,), std=(1 / 255,), device=CPU, pairing=pairing, sides=sides
    )  # fmt: skip


def shown(views: Sequence[Tensor]) -> list[list[int]]:
    return [view[:, 0, 0, 0].round().int().tolist() for view in views]


def test_the_first_view_shows_the_image_and_every_other_one_a_partner_of_its_own() -> None:
    pairing = Pairing(RULE, METADATA)
    with batches(numbered(), views=3) as paired:
        differ = 0
        for epoch in range(3):
            paired.start_epoch(epoch)
            for step in range(len(paired)):
                query, first, second = shown(paired.load(epoch, step)[0])
                assert query == paired.order[16 * step :][:16].tolist()
                for partners in (first, second):
                    assert all(p in pairing.of(i) for i, p in zip(query, partners, strict=True))
                differ += first != second
        assert differ == 9


def test_the_lateralities_are_those_of_the_images_that_are_shown() -> None:
    sides = np.arange(50, dtype=np.int64)
    with batches(numbered(), sides=sides) as paired:
        paired.start_epoch(0)
        views, found = paired.load(0, 1)
        assert found is not None and found.T.tolist() == shown(views)


def test_streamed_pairs_are_those_in_memory(tmp_path: Path) -> None:
    images = write_images(tmp_path, toy_images())
    with batches(Streamed(images, 1)) as streamed, batches(toy_images()) as kept:
        for epoch, step in ((0, 0), (0, 1), (1, 2), (2, 0)):
            for each in (streamed, kept):
                each.start_epoch(epoch)
            for found, expected in zip(streamed.load(epoch, step)[0], kept.load(epoch, step)[0], strict=True):
                assert torch.equal(found, expected)


def test_an_epoch_with_few_images_of_each_patient_has_fewer_steps() -> None:
    rule = PairingSpec(study="all", most_per_patient=2)
    with batches(numbered(), rule=rule) as paired:
        assert len(paired) == 20 // 16
    with pytest.raises(SpecError, match="batch_size 16 is larger than the 10 images of an epoch"):
        batches(numbered(), rule=PairingSpec(study="all", most_per_patient=1))


def two_rows() -> list[list[int]]:
    """In each process: the images of one step, and those of all processes."""
    from bench.training.distributed import gather

    with batches(numbered()) as paired:
        paired.start_epoch(0)
        views, _ = paired.load(0, 0)
    return [gather(torch.tensor(rows)).tolist() for rows in shown(views)]


def test_two_processes_show_the_pairs_of_one() -> None:
    with batches(numbered()) as alone:
        alone.start_epoch(0)
        assert in_group(2, two_rows) == shown(alone.load(0, 0)[0])


def dataset(metadata: dict[str, NDArray[np.str_]]) -> ImageDataset:
    rows = np.arange(50)
    return ImageDataset(
        key="toys",
        title="Toys",
        images=toy_images(),
        labels=rows % 3,
        class_names=("a", "b", "c"),
        splits={"train": rows[:40], "validation": rows[40:45], "test": rows[45:]},
        metadata=metadata,
    )


class Sided(Contrast):
    """Notes the lateralities that it gets."""

    card = MethodCard(
        title="Sided", family="medical", summary="toy", complete_collapse="negatives", uses_laterality=True
    )
    seen: list[Tensor]

    def forward(self, views: Sequence[Tensor], laterality: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        self.seen = [*getattr(self, "seen", []), laterality]
        return super().forward(views)


def trained(method: Contrast, spec: PretrainSpec, metadata: dict[str, NDArray[np.str_]]) -> TrainingResult:
    encoder = Encoder(
        module=method.backbone,
        feature_dim=16,
        channels=1,
        image_size=(8, 8),
        mean=(0.5,),
        std=(0.25,),
        origin="toy",
        identity="",
    )
    return train_encoder(encoder, method, spec, dataset(metadata), device="cpu")


def test_a_training_with_pairs_records_what_the_pairs_are() -> None:
    spec = toy_spec(epochs=1, warmup_epochs=0.0).model_copy(update={"pairing": RULE})
    result = trained(make(Contrast), spec, METADATA)
    assert result.pairing is not None
    assert (result.pairing["images"], result.pairing["patients"], result.pairing["empty"]) == (40, 8, 0.0)
    assert 0 < result.pairing["discordant"] <= 1
    assert trained(make(Contrast), toy_spec(epochs=1, warmup_epochs=0.0), METADATA).pairing is None


def test_a_method_that_asks_for_lateralities_gets_them_and_unknown_ones_where_there_are_none() -> None:
    spec = toy_spec(epochs=1, warmup_epochs=0.0).model_copy(update={"pairing": RULE})
    sided = make(Sided)
    trained(sided, spec, METADATA)
    assert {tuple(seen.shape) for seen in sided.seen} == {(16, 2)}
    assert set(torch.cat(sided.seen).flatten().tolist()) == {0, 1}
    blind = make(Sided)
    trained(blind, spec, {name: METADATA[name] for name in ("patient", "study")})
    assert set(torch.cat(blind.seen).flatten().tolist()) == {-1}


def test_pairs_change_the_training() -> None:
    losses = []
    for pairing in (None, Pairing(RULE, METADATA)):
        method: nn.Module = make(Contrast)
        result = pretrain(
            method, toy_spec(epochs=1, warmup_epochs=0.0), toy_images(), None, mean=(0.5,), std=(0.25,), pairing=pairing
        )  # type: ignore[arg-type]
        losses.append(result.final_loss)
    assert losses[0] != losses[1]

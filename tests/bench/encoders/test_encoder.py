"""The input contract of an encoder: how images become features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.data.pixels import planes, unit
from bench.encoders.convnet import convnet
from bench.encoders.encoder import Encoder
from bench.spec import DataSpec, PretrainSpec, TrainingSpec, ViewSpec
from bench.training.batches import Batches

MEAN, STD = (0.1307, 0.5, 0.9), (0.3081, 0.25, 0.07)
IMAGES = np.random.default_rng(0).integers(0, 256, size=(37, 8, 8, 3), dtype=np.uint8)


def encoder_of(module: nn.Module) -> Encoder:
    return Encoder(
        module=module, feature_dim=16, channels=3, image_size=(8, 8), mean=MEAN, std=STD, origin="a test", identity=""
    )


def trained_encoder() -> Encoder:
    """With running statistics that differ from those of any batch, and dropout."""
    torch.manual_seed(0)
    network = convnet(3, width=4)
    network(torch.randn(64, 3, 8, 8))
    return encoder_of(nn.Sequential(network, nn.Dropout(0.5)))


def test_images_are_divided_by_255_then_shifted_and_scaled_by_channel() -> None:
    normalized = encoder_of(nn.Identity()).normalize(unit(planes(IMAGES)))
    expected = (IMAGES.transpose(0, 3, 1, 2) / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    assert normalized.dtype == torch.float32 and normalized.shape == (37, 3, 8, 8)
    np.testing.assert_allclose(normalized, expected, rtol=1e-5, atol=1e-6)


def test_features_are_those_of_evaluation_mode_and_leave_the_statistics() -> None:
    encoder = trained_encoder()
    encoder.module.train()
    statistics = encoder.module.get_buffer("0.blocks.1.running_mean").clone()
    features = encoder.features(IMAGES)
    encoder.module.eval()
    with torch.no_grad():
        expected = encoder.module(encoder.normalize(unit(planes(IMAGES))))
    assert features.dtype == torch.float32 and features.shape == (37, 16)
    torch.testing.assert_close(features, expected)
    assert torch.equal(encoder.module.get_buffer("0.blocks.1.running_mean"), statistics)


def test_the_batch_size_changes_no_feature() -> None:
    encoder = trained_encoder()
    torch.testing.assert_close(encoder.features(IMAGES, batch_size=5), encoder.features(IMAGES))


def test_features_are_computed_without_tf32_which_is_restored() -> None:
    seen: list[bool] = []

    class Watching(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return images.flatten(1)

    assert torch.backends.cudnn.allow_tf32  # torch's default
    encoder_of(Watching()).features(IMAGES)
    assert seen == [False] and torch.backends.cudnn.allow_tf32


def test_a_clone_shares_nothing_with_the_original() -> None:
    encoder = trained_encoder()
    before = encoder.features(IMAGES)
    clone = encoder.clone()
    assert torch.equal(clone.features(IMAGES), before)
    with torch.no_grad():
        for tensor in (*clone.module.parameters(), *clone.module.buffers()):
            tensor.zero_()
    assert torch.equal(encoder.features(IMAGES), before)


def test_training_and_evaluation_normalize_bit_for_bit_alike() -> None:
    nothing = ViewSpec(crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, grayscale=0)
    spec = PretrainSpec(
        method="m", backbone="b", data=DataSpec(key="d"), views=(nothing,), training=TrainingSpec(batch_size=37)
    )
    batches = Batches(spec, IMAGES, None, views=1, mean=MEAN, std=STD, device=torch.device("cpu"))
    batches.start_epoch(0)
    (view,), _ = batches.load(0, 0)
    assert torch.equal(view, encoder_of(nn.Identity()).normalize(unit(planes(IMAGES[batches.order]))))


def test_embeddings_are_what_the_projector_makes_of_the_features_in_evaluation_mode() -> None:
    encoder = trained_encoder()
    projector = nn.Sequential(nn.Linear(encoder.feature_dim, 5), nn.BatchNorm1d(5)).double().train()
    whole = dataclasses.replace(encoder, projector=projector)
    features = whole.features(IMAGES)
    embeddings = whole.embeddings(features, batch_size=10)
    assert embeddings is not None and embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings, projector.eval()(features.double()).float())
    assert encoder.embeddings(features) is None


def test_the_networks_that_are_kept_have_names_of_their_own() -> None:
    encoder = trained_encoder()
    assert {name.split(".")[0] for name in encoder.networks.state_dict()} == {"backbone"}
    whole = dataclasses.replace(encoder, projector=nn.Linear(encoder.feature_dim, 5))
    assert {name.split(".")[0] for name in whole.networks.state_dict()} == {"backbone", "projector"}
    assert whole.clone().projector is not whole.projector


def test_gray_images_reach_an_encoder_of_color_images_in_every_channel() -> None:
    gray = IMAGES[..., :1]
    expected = encoder_of(nn.Identity()).normalize(unit(planes(np.repeat(gray, 3, axis=3))))
    assert torch.equal(encoder_of(nn.Identity()).normalize(unit(planes(gray))), expected)


def test_images_of_another_size_are_resized_to_the_encoders() -> None:
    large = np.full((2, 24, 12, 3), 128, dtype=np.uint8)
    large[:, :12] = 0  # the upper half is black
    seen = encoder_of(nn.Identity()).normalize(unit(planes(large)))
    assert seen.shape == (2, 3, 8, 8)
    black, gray = ((np.array([0, 128 / 255])[:, None] - MEAN) / STD)[:, 0]
    assert seen[0, 0, 0, 0].item() == pytest.approx(black, abs=1e-5)
    assert seen[0, 0, -1, -1].item() == pytest.approx(gray, abs=1e-5)


def test_a_smaller_image_is_averaged_and_not_sampled() -> None:
    board = np.zeros((1, 32, 32, 3), dtype=np.uint8)
    board[:, 1::4] = 255  # one line in four, finer than the encoder's pixels
    seen = encoder_of(nn.Identity()).normalize(unit(planes(board)))
    middle = ((np.full(3, 0.25) - MEAN) / STD).reshape(3, 1, 1)
    np.testing.assert_allclose(seen[0, :, 1:-1], np.broadcast_to(middle, (3, 6, 8)), atol=0.02)


def test_sixteen_bit_images_are_divided_by_65535() -> None:
    deep = (IMAGES.astype(np.uint16) * 257).astype(np.uint16)  # 255 * 257 is 65535
    network = encoder_of(nn.Flatten())
    torch.testing.assert_close(network.features(deep), network.features(IMAGES))

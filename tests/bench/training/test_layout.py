"""Channels last for images and their convolutions; everything else stays as it is."""

from __future__ import annotations

import torch
from torch import nn

from bench.training.layout import channels_last, to_channels_last


def test_only_four_dimensions_change_their_layout_and_no_value_changes() -> None:
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)):
        tensor = torch.rand(shape)
        moved = channels_last(tensor)
        assert torch.equal(moved, tensor)
        assert (moved.stride() != tensor.stride()) == (len(shape) == 4)


def test_a_module_is_laid_out_as_torch_does_it_and_volumes_are_left() -> None:
    ours, theirs = (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)) for _ in range(2))
    to_channels_last(ours)
    theirs.to(memory_format=torch.channels_last)
    assert [p.stride() for p in ours.parameters()] == [p.stride() for p in theirs.parameters()]
    volumes = nn.Conv3d(2, 4, 3)
    before = volumes.weight.stride()
    to_channels_last(volumes)
    assert volumes.weight.stride() == before

"""A ResNet encoder in Detectron2's names, and the proof that a model got the whole of it.

Detectron2 leaves a tensor that it does not recognize where it was, with a line in a log. Here every tensor must arrive,
every tensor of the model's backbone must be filled, and the feature maps must be the encoder's. The functions work on
names and tensors alone and need no Detectron2.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.resnet import BasicBlock

from bench.detection.detectron2_config import ChannelOrder
from bench.encoders.dense import DenseBackbone
from bench.encoders.encoder import Encoder
from bench.encoders.exports import detectron2_name
from bench.errors import CheckpointError, JobError, SpecError

TOLERANCE = 1e-5
"""Largest difference between feature maps, as a share of the map's largest value."""

STAGES = ("res2", "res3", "res4", "res5")

_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (True, (2, 2, 2, 2)): 18,
    (True, (3, 4, 6, 3)): 34,
    (False, (3, 4, 6, 3)): 50,
    (False, (3, 4, 23, 3)): 101,
    (False, (3, 8, 36, 3)): 152,
}
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a model keeps the parts of a ResNet.

    Attributes:
        trunk: prefix of the stem and of all stages that are not in ``head``, such as ``backbone.bottom_up.``.
        head: prefix of res5 where it belongs to the regions' head, such as ``roi_heads.res5.``; else None.
        blocks: number of residual blocks of res5; what follows them in the head is the detector's own.
    """

    trunk: str
    head: str | None
    blocks: int

    def target(self, name: str) -> str:
        """The model's name of a tensor that Detectron2's ResNet calls ``name``."""
        if self.head is not None and name.startswith("res5."):
            return f"{self.head}{name.removeprefix('res5.')}"
        return f"{self.trunk}{name}"

    def holds(self, target: str) -> bool:
        """Whether a tensor of the model is one of the ResNet's."""
        if self.head is not None and target.startswith(self.head):
            block = target.removeprefix(self.head).split(".", 1)[0]
            return block.isdigit() and int(block) < self.blocks
        stage = target.removeprefix(self.trunk).split(".", 1)[0]
        return target.startswith(self.trunk) and stage in ("stem", *STAGES)


def resnet_depth(encoder: Encoder) -> int:
    """18, 34, 50, 101 or 152.

    Raises:
        SpecError: Detectron2 has no such backbone; the message says why.
    """
    net = encoder.module
    advice = "Choose engine: torchvision, or an encoder with the backbone resnet18, resnet34 or resnet50"
    if not isinstance(net, ResNet):
        raise SpecError(
            f"detection: engine detectron2 needs a ResNet, and this encoder is a {type(net).__name__}. {advice}."
        )
    layers = [net.layer1, net.layer2, net.layer3, net.layer4]
    depth = _DEPTHS.get((isinstance(net.layer1[0], BasicBlock), tuple(len(layer) for layer in layers)))
    if depth is None or net.groups != 1 or net.base_width != 64:
        raise SpecError(f"detection: Detectron2 has no ResNet of this encoder's widths and blocks. {advice}.")
    if net.conv1.kernel_size != (7, 7) or net.conv1.stride != (2, 2) or isinstance(net.maxpool, nn.Identity):
        raise SpecError(
            "detection: the encoder has a stem for small images (3x3 convolution, no max-pooling), and Detectron2 has "
            f"no such stem: its ResNets begin with a 7x7 convolution of stride 2. {advice} and the parameter "
            "stem: imagenet."
        )
    return depth


def converted(state: Mapping[str, Tensor], *, order: ChannelOrder = "RGB") -> dict[str, Tensor]:
    """The tensors of torchvision's ResNet under Detectron2's names; a stem of BGR takes blue first."""
    names = {name: detectron2_name(name) for name in state if not name.startswith("fc.")}
    flipped = {name: state[name].flip(1) for name in names if name == "conv1.weight" and order == "BGR"}
    return {new: flipped.get(old, state[old]) for old, new in names.items()}


@torch.no_grad()
def load_backbone(model: nn.Module, tensors: Mapping[str, Tensor], place: Placement) -> dict[str, Any]:
    """Copy an encoder's tensors into a model, all of them and to all places.

    Args:
        model: a detector; nothing is copied unless all fits.
        tensors: of the encoder, under Detectron2's names (:func:`converted`).
        place: where the model has its ResNet.

    Returns:
        What was copied, JSON-serializable: ``tensors``, ``values``, and ``left_out``.

    Raises:
        CheckpointError: with the names of tensors that found no place, places that found no tensor, and shapes that
            differ.
    """
    own = {name: tensor for name, tensor in model.state_dict().items() if place.holds(name) and _COUNTER not in name}
    given = {place.target(name): tensor for name, tensor in tensors.items() if _COUNTER not in name}
    problems = [
        *_listed("the encoder lacks", [f"{name} ({_origin(name, place)})" for name in own.keys() - given.keys()]),
        *_listed("the detector has no place for", list(given.keys() - own.keys())),
        *_listed(
            "of another shape",
            [
                f"{name} is {tuple(given[name].shape)}, the detector's {tuple(own[name].shape)}"
                for name in own.keys() & given.keys()
                if own[name].shape != given[name].shape
            ],
        ),
    ]
    if problems:
        raise CheckpointError(
            f"detection: the encoder does not fill the detector's backbone: {'; '.join(problems)}. Nothing was loaded. "
            "Give the whole backbone: import the checkpoint again, or choose the backbone that it was made with."
        )
    for name, tensor in own.items():
        tensor.copy_(given[name])
    counters = sum(_COUNTER in name for name in tensors)
    return {
        "tensors": len(own),
        "values": sum(tensor.numel() for tensor in own.values()),
        "left_out": f"{counters} counters of batches ({_COUNTER}), which evaluation does not use",
    }


def _origin(target: str, place: Placement) -> str:
    """Torchvision's name of a tensor, for a message."""
    at_head = place.head is not None and target.startswith(place.head)
    name = f"res5.{target.removeprefix(str(place.head))}" if at_head else target.removeprefix(place.trunk)
    first, rest = name.split(".", 1)
    rest = rest.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    for number in "123":
        rest = rest.replace(f"conv{number}.norm.", f"bn{number}.")
    return rest if first == "stem" else f"layer{int(first.removeprefix('res')) - 1}.{rest}"


def _listed(what: str, names: Sequence[str]) -> list[str]:
    return [f"{what} {', '.join(sorted(names))}"] if names else []


def sample_scene(channels: int) -> Tensor:
    """Pixels (1, C, 96, 160) in [0, 1] on which feature maps are compared: no symmetry of theirs hides a mistake."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(1, channels, 96, 160, generator=generator)


@torch.no_grad()
def check_features(encoder: Encoder, maps: Callable[[Tensor], Mapping[str, Tensor]]) -> dict[str, float]:
    """Compare a model's feature maps with the encoder's, in evaluation mode on the CPU.

    Args:
        encoder: its module is copied, and stays where it is.
        maps: takes pixels (1, C, H, W) in [0, 1]; returns the maps of res2 to res5, or of the last ones.

    Returns:
        The largest difference of each stage, as a share of the stage's largest value.

    Raises:
        JobError: a stage differs by more than :data:`TOLERANCE`; the message lists all stages.
    """
    pixels = sample_scene(encoder.channels)
    own = copy.deepcopy(encoder.module).cpu().eval()
    expected = dict(
        zip(STAGES, DenseBackbone(own, channels=encoder.channels)(encoder.standardize(pixels)), strict=True)
    )
    found = maps(pixels)
    differences = {name: _difference(found[name], expected[name]) for name in STAGES if name in found}
    if not differences or not all(value <= TOLERANCE for value in differences.values()):
        listing = ", ".join(f"{name} by {value:.2g}" for name, value in differences.items())
        raise JobError(
            f"detection: the converted backbone computes other features than the encoder: they differ in "
            f"{listing or 'all stages'} of the largest value, where {TOLERANCE:g} is allowed. Its tensors are in "
            "place, so its layers are others: look at stem, strides, channel order and normalization of the images, "
            "or choose engine: torchvision."
        )
    return differences


def _difference(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    scale = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float((found - expected).abs().max() / scale)

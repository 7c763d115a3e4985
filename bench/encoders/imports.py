"""Somebody else's checkpoint as an encoder: every tensor of the backbone covered, or an error that lists the rest.

The file is read by :mod:`bench.encoders.checkpoints`, its names are told by :mod:`bench.encoders.layouts`; here they
are matched with the backbone that they describe.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bench.encoders.build import build_backbone, weights_to_bytes
from bench.encoders.checkpoints import Checkpoint, read_checkpoint
from bench.encoders.layouts import (
    IMAGENET,
    Network,
    Recognized,
    find_roots,
    looks_like_backbone,
    place_of,
    recognize,
    torchvision_names,
)
from bench.errors import CheckpointError
from bench.registry import Registry

ChannelOrder = Literal["auto", "rgb", "bgr"]

ARCHITECTURES: Mapping[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
}
"""Backbones by the kind of their blocks and the number in each stage."""
DETECTORS = ("roi_heads.", "proposal_generator.", "sem_seg_head.", "head.cls_subnet.")
MOST_LISTED = 40
"""Names of each kind that an error lists; their number is always told."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user says about a file; the rest is read from it.

    Attributes:
        layout: a key of :data:`bench.encoders.layouts.LAYOUTS`, or ``auto``.
        network: which of two networks to take.
        mean, std: of the images, on the [0, 1] scale, in the order red, green, blue; empty for the layout's.
        channel_order: in which the network takes color images; ``auto`` is RGB unless the file says otherwise.
    """

    layout: str = "auto"
    network: Network = "online"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channel_order: ChannelOrder = "auto"


@dataclass(frozen=True, kw_only=True)
class ImportedEncoder:
    """A checkpoint, converted.

    Attributes:
        file: SHA-256 of the file.
        layout, network: what the file's names were read as.
        backbone, backbone_params: key and parameters of the registered backbone.
        channels: that the backbone takes; red comes first.
        mean, std: of the images, on the [0, 1] scale.
        image_size: side in pixels that the images are resized to; 0 leaves them as they are.
        module: the backbone, on the CPU in float32.
        notes: what was decided and why, one sentence each.
    """

    file: str
    layout: str
    network: str
    backbone: str
    backbone_params: Mapping[str, Any]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    module: nn.Module
    notes: tuple[str, ...]

    def weights(self) -> bytes:
        """The encoder as the store keeps it; equal weights give equal bytes."""
        return weights_to_bytes(nn.ModuleDict({"backbone": self.module}))

    def method_params(self, *, image_size: int = 0) -> dict[str, Any]:
        """Parameters of the method ``imported``: all that decides what is evaluated.

        Args:
            image_size: instead of the file's own, where it is not 0.
        """
        return {
            "file": self.file,
            "weights": hashlib.sha256(self.weights()).hexdigest(),
            "layout": self.layout,
            "network": self.network,
            "channels": self.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "image_size": image_size or self.image_size,
        }


def import_encoder(path: Path, backbones: Registry, wish: Wish | None = None) -> ImportedEncoder:
    """Read a checkpoint and build the backbone that it describes.

    Args:
        path: safetensors, a file of PyTorch's, or a pickle of arrays as Detectron2 writes.
        backbones: the registered backbones.
        wish: what is not to be read from the file.

    Raises:
        CheckpointError: the file cannot be read safely, its layout is unknown or ambiguous, or its tensors are not
            exactly those of a known backbone; the message lists which.
    """
    wish = wish or Wish()
    checkpoint = read_checkpoint(path)
    try:
        if "backbone" in checkpoint.metadata and wish.layout == "auto":
            return _own(checkpoint, backbones, wish)
        return _foreign(checkpoint, backbones, wish)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _own(checkpoint: Checkpoint, backbones: Registry, wish: Wish) -> ImportedEncoder:
    """A file that jointbench has exported: it describes itself."""
    known = checkpoint.metadata
    entry, params, channels = backbones[str(known["backbone"])], dict(known["backbone_params"]), int(known["channels"])
    with torch.device("meta"):
        module = build_backbone(entry, params, channels=channels, seed=0)
    shapes = _shapes(checkpoint.tensors)
    names = {name: name for name in shapes}
    if any(root.spelling == "detectron2" for root in find_roots(shapes)):
        names = torchvision_names(shapes, recognize(shapes, layout="detectron2").root)
    tensors, notes = _covered(module, names, checkpoint.tensors, every_key=True)
    order = wish.channel_order if wish.channel_order != "auto" else known.get("channel_order", "rgb")
    mean, std = wish.mean or tuple(known["mean"]), wish.std or tuple(known["std"])
    return _encoder(
        checkpoint,
        module,
        _ordered(tensors, order),
        layout="jointbench",
        network="online",
        backbone=entry.key,
        backbone_params=params,
        channels=channels,
        mean=_statistics(mean, channels, "--mean"),
        std=_statistics(std, channels, "--std"),
        image_size=int(known.get("image_size", 0)),
        notes=(f"jointbench's own export: {known.get('origin', 'of unknown origin')}", *notes),
    )


def _foreign(checkpoint: Checkpoint, backbones: Registry, wish: Wish) -> ImportedEncoder:
    shapes = _shapes(checkpoint.tensors)
    found = recognize(shapes, layout=wish.layout, network=wish.network)
    names = torchvision_names(shapes, found.root)
    backbone = _architecture(names)
    channels, stem = _stem(names, shapes, found)
    with torch.device("meta"):
        module = build_backbone(backbones[backbone], {"stem": stem}, channels=channels, seed=0)
    tensors, notes = _covered(module, names, checkpoint.tensors)
    order = _channel_order(found, checkpoint, wish)
    mean, std, said = _normalization(found, stem, channels, order, wish)
    return _encoder(
        checkpoint,
        module,
        _ordered(tensors, order),
        layout=found.name,
        network=found.network,
        backbone=backbone,
        backbone_params={"stem": stem},
        channels=channels,
        mean=mean,
        std=std,
        image_size=0,
        notes=(
            f"layout {found.name}: {found.why or f'one network, {found.root.words}'}",
            f"backbone {backbone}, stem {stem}, {channels} channel{'s' if channels > 1 else ''} "
            f"(as {'BGR' if order == 'bgr' else 'RGB'}){_stem_note(stem)}",
            said,
            *notes,
        ),
    )


def _encoder(checkpoint: Checkpoint, module: nn.Module, tensors: dict[str, Tensor], **facts: Any) -> ImportedEncoder:
    module.load_state_dict(tensors, assign=True)
    module.requires_grad_(True).eval()
    return ImportedEncoder(file=checkpoint.file, module=module, **facts)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


# --- which network ----------------------------------------------------------------------------------------------


def _architecture(names: Mapping[str, str]) -> str:
    """The backbone's key by its blocks."""
    if odd := sorted(name for name in names if re.match(r"(conv1\.\d|stem)\.", name)):
        raise CheckpointError(
            f"its stem has several convolutions ({', '.join(odd[:4])} …), as in ResNet-C and -D; torchvision's ResNet "
            "has one. Such a network cannot be evaluated here."
        )
    blocks = {(int(m[1]), int(m[2])) for name in names if (m := re.match(r"layer(\d+)\.(\d+)\.", name))}
    stages = Counter({stage: 0 for stage, _ in blocks})
    for stage, block in blocks:
        stages[stage] = max(stages[stage], block + 1)
    counts = tuple(stages[stage] for stage in sorted(stages))
    kind = "bottleneck" if any(re.match(r"layer\d+\.\d+\.conv3\.", name) for name in names) else "basic"
    if (kind, counts) not in ARCHITECTURES:
        known = "; ".join(f"{key} has {'-'.join(map(str, of[1]))} {of[0]}" for of, key in ARCHITECTURES.items())
        raise CheckpointError(
            f"it has {'-'.join(map(str, counts))} {kind} blocks in {len(counts)} stages, and no backbone is built so "
            f"({known}). A network of another depth, or a file of which blocks were left out, cannot be evaluated."
        )
    return ARCHITECTURES[kind, counts]


def _stem(names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], found: Recognized) -> tuple[int, str]:
    """Input channels and the kind of stem, by the first convolution."""
    if "conv1.weight" not in names:
        near = found.root.prefix + ("stem.conv1.weight" if found.root.spelling == "detectron2" else "conv1.weight")
        raise CheckpointError(f"the first convolution is missing: {near}. Give the whole backbone.")
    shape = shapes[names["conv1.weight"]]
    if len(shape) != 4 or shape[2:] not in ((7, 7), (3, 3)):
        raise CheckpointError(
            f"the first convolution {names['conv1.weight']} has shape {shape}; known stems have 64 filters of 7x7 "
            "(ImageNet) or 3x3 (CIFAR)."
        )
    return shape[1], "imagenet" if shape[2] == 7 else found.layout.cifar_stem


def _stem_note(stem: str) -> str:
    """What a file of weights cannot tell of a small stem."""
    if stem == "imagenet":
        return ""
    padding = 2 if stem == "solo-learn" else 1
    return f"; taken as stride 1, padding {padding} and no max-pooling, which no file of weights tells"


def _channel_order(found: Recognized, checkpoint: Checkpoint, wish: Wish) -> str:
    if wish.channel_order != "auto":
        return wish.channel_order
    if found.layout.key == "detectron2" and any(key.startswith(DETECTORS) for key in _inner(checkpoint)):
        raise CheckpointError(
            "it is a whole detector, and only its configuration knows how the backbone takes images. Say so with "
            "--channel-order: rgb or bgr (INPUT.FORMAT), and give PIXEL_MEAN and PIXEL_STD as --mean and --std if they "
            "are not ImageNet's. RESNETS.STRIDE_IN_1X1 must be False, as it is not in models that began from MSRA's."
        )
    return "rgb"


def _inner(checkpoint: Checkpoint) -> set[str]:
    return {key.removeprefix("model.") for key in checkpoint.tensors}


def _ordered(tensors: dict[str, Tensor], order: str) -> dict[str, Tensor]:
    """The tensors of a network that takes RGB: the first convolution's filters are turned where it took BGR."""
    if order == "rgb":
        return tensors
    weight = tensors["conv1.weight"]
    if weight.shape[1] != 3:
        raise CheckpointError(f"BGR images have 3 channels, its first convolution takes {weight.shape[1]}.")
    return {**tensors, "conv1.weight": weight.flip(1)}


def _normalization(
    found: Recognized, stem: str, channels: int, order: str, wish: Wish
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Mean, standard deviation, and a sentence that says where they come from."""
    known = None
    if channels == 3:
        known = IMAGENET if stem == "imagenet" else found.layout.cifar
    if known and order == "bgr":
        known = (known[0], (1 / 255,) * 3)  # Caffe's models subtract the mean from 0 … 255 and divide by nothing
    if known is None and not (wish.mean and wish.std):
        raise CheckpointError(
            f"how images were normalized for a network with stem {stem} and {channels} channel(s) is not known for the "
            f"layout {found.name}. Give --mean and --std, {channels} value(s) each on the [0, 1] scale."
        )
    mean, std = wish.mean or (known or ((), ()))[0], wish.std or (known or ((), ()))[1]
    given = " and ".join(word for word, value in (("mean", wish.mean), ("std", wish.std)) if value)
    source = f"{given} as given" if given else f"the usual one of {'ImageNet' if known == IMAGENET else found.name}"
    mean, std = _statistics(mean, channels, "--mean"), _statistics(std, channels, "--std")
    return mean, std, f"normalization: mean {_written(mean)}, std {_written(std)} ({source})"


def _statistics(values: Sequence[float], channels: int, option: str) -> tuple[float, ...]:
    if len(values) != channels:
        raise CheckpointError(f"{option} has {len(values)} value(s), but the network takes {channels} channel(s).")
    if not all(math.isfinite(value) for value in values) or (option == "--std" and min(values) <= 0):
        raise CheckpointError(f"{option} must be finite{' and above 0' if option == '--std' else ''}, got {values}.")
    return tuple(map(float, values))


def _written(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


# --- every tensor -----------------------------------------------------------------------------------------------


def _covered(
    module: nn.Module, names: Mapping[str, str], tensors: Mapping[str, Tensor], *, every_key: bool = False
) -> tuple[dict[str, Tensor], list[str]]:
    """The backbone's tensors in float32 by its own names, and what was passed over or filled in.

    Args:
        names: keys of the file by the backbone's names.
        every_key: a key that the backbone has no name for is an error, and no head.
    """
    own = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    absent = [name for name in counters if name not in names]
    missing = sorted(own.keys() - names.keys() - set(absent))
    spare = sorted(names.keys() - own.keys())
    strange = [names[name] for name in spare if every_key or looks_like_backbone(name)]
    wrong = [
        f"{names[name]} is {tuple(tensors[names[name]].shape)}, expected {own[name]}"
        for name in sorted(own.keys() & names.keys())
        if tuple(tensors[names[name]].shape) != own[name]
    ]
    problems = [_listing("missing", missing), _listing("unexpected", strange), _listing("of another shape", wrong)]
    if any(problems):
        raise CheckpointError(
            f"its tensors are not exactly those of the backbone: {'; '.join(filter(None, problems))}. "
            f"Nothing was loaded. {_hint(names, tensors)}"
        )
    values = {name: _value(names[name], tensors[names[name]]) for name in own if name in names}
    values |= {name: torch.zeros((), dtype=torch.int64) for name in absent}
    notes = [f"{len(absent)} of {len(counters)} counters num_batches_tracked are absent and set to 0"] if absent else []
    heads = Counter(re.split(r"[.\d]", name)[0] for name in spare)
    elsewhere = Counter(place_of(key).split(".")[0] for key in tensors.keys() - set(names.values()))
    ignored = [f"{head} ({count})" for head, count in sorted(heads.items())]
    ignored += [f"{head} ({count})" for head, count in sorted(elsewhere.items())]
    notes += [f"ignored, because they are not of this backbone: {', '.join(ignored)}"] if ignored else []
    return values, notes


def _listing(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"{len(names)} {what}: {', '.join(names[:MOST_LISTED])}{more}"


def _hint(names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """What kind of network a known difference speaks of."""
    shape = tuple(tensors[names["layer1.0.conv2.weight"]].shape) if "layer1.0.conv2.weight" in names else ()
    if "layer1.0.conv3.weight" in names and shape[1:] != (64, 3, 3):
        return "This is a wide or grouped network (Wide ResNet, ResNeXt); only the plain one can be evaluated."
    if any(".downsample.2." in name for name in names):
        return "Its shortcuts average before they convolve (ResNet-D); only the plain network can be evaluated."
    return "Give the whole file, or name another --layout if it was read as the wrong one."


def _value(key: str, tensor: Tensor) -> Tensor:
    if key.endswith("num_batches_tracked"):
        return tensor.to(torch.int64)
    if not tensor.is_floating_point():
        raise CheckpointError(f"{key} is of type {tensor.dtype}, not of floating point. Give the unquantized weights.")
    value = tensor.detach().to(torch.float32).contiguous()
    if not bool(torch.isfinite(value).all()):
        raise CheckpointError(f"{key} holds NaN or infinite values: the training that made this file diverged.")
    return value

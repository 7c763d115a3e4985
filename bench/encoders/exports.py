"""An encoder's backbone as a file that other libraries load."""

from __future__ import annotations

import io
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from bench.encoders.build import weights_to_bytes
from bench.encoders.checkpoints import METADATA
from bench.encoders.imports import ARCHITECTURES
from bench.errors import CheckpointError, RequestError
from bench.storage import replace_file

ExportFormat = Literal["torchvision", "timm", "detectron2", "safetensors"]


@dataclass(frozen=True, kw_only=True)
class Export:
    """A backbone with its input contract, ready to be written.

    Attributes:
        module: the backbone, with the names of torchvision where it is a ResNet.
        backbone, backbone_params: key and parameters of the registered backbone.
        channels: that it takes; red comes first.
        mean, std: of the images, on the [0, 1] scale.
        image_size: side in pixels that images are resized to; 0 where it is not fixed.
        origin: where the weights come from, in words.
    """

    module: nn.Module
    backbone: str
    backbone_params: Mapping[str, Any]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    origin: str

    @property
    def stem(self) -> str:
        return str(self.backbone_params.get("stem", "imagenet"))


def write_export(export: Export, format: ExportFormat, out: Path, *, bgr: bool = False) -> str:
    """Write the backbone; returns how to load it, in words.

    Args:
        format: whose names and container the file has.
        out: a new file.
        bgr: for ``detectron2``: the file takes images in the order blue, green, red.

    Raises:
        RequestError: ``out`` exists or cannot be written, or ``bgr`` does not go with the format or the channels.
        CheckpointError: the format cannot express the backbone.
    """
    if out.exists():
        raise RequestError(f"{out} exists. Choose another --out, or remove it.")
    if bgr and (format != "detectron2" or export.channels != 3):
        raise RequestError("Only detectron2 files of 3 channels come in BGR. Leave --bgr out.")
    _check_expressible(export, format)
    content, words = _CONTENT[format](export, bgr)
    try:
        replace_file(out, content)
    except OSError as error:
        raise RequestError(f"{out}: cannot be written ({error.strerror}). Choose another --out.") from error
    return words.replace("FILE", repr(str(out)))


def _check_expressible(export: Export, format: ExportFormat) -> None:
    if format == "safetensors":
        return
    if export.backbone not in ARCHITECTURES.values():
        raise CheckpointError(
            f"the backbone {export.backbone} is no ResNet, and {format} has no network of this kind. "
            "Use --format safetensors."
        )
    if format != "torchvision" and export.stem != "imagenet":
        raise CheckpointError(
            f"{format} has no ResNet with the stem for small images ({export.stem}: 3x3, no max-pooling). "
            "Use --format torchvision or safetensors."
        )


def described(export: Export, **more: Any) -> dict[str, Any]:
    """What a file says of its encoder, so that it can be imported again without a word."""
    facts = {name: value for name, value in vars(export).items() if name != "module"}
    return {**facts, "backbone_params": dict(export.backbone_params), **more}


def detectron2_name(name: str) -> str:
    """Detectron2's name of a tensor of torchvision's ResNet."""
    stage = re.match(r"layer(\d)\.", name)
    name = f"res{int(stage[1]) + 1}.{name[stage.end() :]}" if stage else f"stem.{name}"
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    return name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")


# --- contents ---------------------------------------------------------------------------------------------------


def _state(export: Export) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in export.module.state_dict().items()}


def _saved(state: Mapping[str, Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def _safetensors(export: Export, bgr: bool) -> tuple[bytes, str]:  # noqa: FBT001 (the writers share one signature)
    content = weights_to_bytes(export.module, metadata=described(export))
    return content, (
        "Load it with jointbench evaluate --weights FILE, or with safetensors.torch.load_file(FILE).\n"
        + _normalization(export)
    )


def _torchvision(export: Export, bgr: bool) -> tuple[bytes, str]:  # noqa: FBT001
    lines = [f"net = torchvision.models.{export.backbone}(); net.fc = torch.nn.Identity()"]
    if export.stem != "imagenet":
        padding = 2 if export.stem == "solo-learn" else 1
        lines.append(f"net.conv1 = torch.nn.Conv2d({export.channels}, 64, 3, padding={padding}, bias=False)")
        lines.append("net.maxpool = torch.nn.Identity()")
    elif export.channels != 3:
        lines.append(f"net.conv1 = torch.nn.Conv2d({export.channels}, 64, 7, stride=2, padding=3, bias=False)")
    lines.append("net.load_state_dict(torch.load(FILE))")
    return _saved(_state(export)), "\n".join([*lines, _normalization(export)])


def _timm(export: Export, bgr: bool) -> tuple[bytes, str]:  # noqa: FBT001
    channels = "" if export.channels == 3 else f"in_chans={export.channels}, "
    call = f"timm.create_model({export.backbone!r}, {channels}num_classes=0, checkpoint_path=FILE)"
    return _saved(_state(export)), f"net = {call}\n{_normalization(export)}"


def _detectron2(export: Export, bgr: bool) -> tuple[bytes, str]:  # noqa: FBT001
    state = _state(export)
    order = "bgr" if bgr else "rgb"
    mean, std = export.mean, export.std
    if bgr:
        state["conv1.weight"] = state["conv1.weight"].flip(1)
        mean, std = mean[::-1], std[::-1]
    content = {
        "model": {detectron2_name(name): tensor.numpy() for name, tensor in state.items()},
        "__author__": "jointbench",
        "matching_heuristics": True,
        METADATA: json.dumps(described(export, channel_order=order), sort_keys=True),
    }
    lines = (
        "Detectron2 loads it with",
        "MODEL.WEIGHTS: FILE",
        f"MODEL.PIXEL_MEAN: {[round(255 * value, 3) for value in mean]}",
        f"MODEL.PIXEL_STD: {[round(255 * value, 3) for value in std]}",
        f"MODEL.RESNETS.DEPTH: {export.backbone.removeprefix('resnet')}",
        "MODEL.RESNETS.STRIDE_IN_1X1: False",
        f"INPUT.FORMAT: {order.upper() if export.channels == 3 else 'of its own'}",
    )
    return pickle.dumps(content, protocol=4), "\n".join(lines)


def _normalization(export: Export) -> str:
    mean, std = (", ".join(f"{value:.6g}" for value in values) for values in (export.mean, export.std))
    size = f", resized to {export.image_size} pixels" if export.image_size else ""
    return f"Images: on the [0, 1] scale{size}, minus ({mean}), divided by ({std})."


_CONTENT = {
    "safetensors": _safetensors,
    "torchvision": _torchvision,
    "timm": _timm,
    "detectron2": _detectron2,
}
assert set(_CONTENT) == set(get_args(ExportFormat))

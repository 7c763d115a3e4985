"""Backbones from registry entries, and their weights as bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from bench.data.dataset import ImageDataset
from bench.encoders.encoder import Encoder
from bench.errors import CorruptPartError, RegistrationError, SpecError, StoreError, UnknownNameError
from bench.registry import Entry, discover
from bench.spec import PretrainSpec
from bench.training.randomness import isolated_rng


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a backbone was built from: its ``architecture`` attribute."""

    entry: Entry
    params: Mapping[str, Any]
    channels: int

    def __deepcopy__(self, memo: dict[int, Any]) -> Architecture:
        return self  # a value: copies of the backbone, such as a momentum encoder, need no copy of the registry's entry


def build_backbone(entry: Entry, params: Mapping[str, Any], *, channels: int, seed: int) -> nn.Module:
    """A freshly initialized backbone; the same seed gives the same weights, and global random states stay.

    Args:
        entry: of a backbone.
        params: keyword arguments of the entry's function; the rest keep their defaults.
        channels: of the input images.
        seed: seeds the initialization alone, so that all methods start from the same backbone.

    Raises:
        RegistrationError: the function does not return a module with a whole number ``feature_dim``.
        UnknownNameError, SpecError: a parameter is unknown or unfit.
    """
    with isolated_rng(seed, "backbone"):
        return _build(Architecture(entry=entry, params=dict(params), channels=channels))


def another_backbone(backbone: nn.Module, key: str = "") -> nn.Module:
    """A further backbone for the same images, its initial weights drawn from torch's global generator.

    Args:
        backbone: made by :func:`build_backbone`.
        key: of a registered backbone; empty for the same architecture. It takes the parameters of ``backbone`` that it
            knows too (such as a stem for small images) and keeps its defaults for the rest. Built-in backbones can be
            named, those of installed packages, and those of the plug-in file that ``backbone`` comes from.

    Raises:
        SpecError: ``backbone`` was not made by :func:`build_backbone`.
        UnknownNameError: there is no backbone ``key``.
    """
    first = getattr(backbone, "architecture", None)
    if not isinstance(first, Architecture):
        raise SpecError(
            f"{type(backbone).__name__} does not say how it was built, so no second backbone can be built to go with "
            "it. Use a registered backbone (`jointbench list backbones`)."
        )
    if key in ("", first.entry.key):
        return _build(first)
    known = discover([first.entry.file] if first.entry.plugin else []).backbones
    if key not in known:
        hint = "Take a built-in one, one of an installed package, or one in the same plug-in file as the first."
        raise UnknownNameError("second backbone", key, known.entries, hint=hint)
    entry = known[key]
    shared = {name: value for name, value in first.params.items() if name in entry.parameters}
    return _build(Architecture(entry=entry, params=shared, channels=first.channels))


def _build(architecture: Architecture) -> nn.Module:
    """Draws from torch's global generator; raises what :func:`build_backbone` does."""
    entry = architecture.entry
    module = entry.load()(architecture.channels, **entry.complete(architecture.params))
    if not isinstance(module, nn.Module) or not isinstance(getattr(module, "feature_dim", None), int):
        raise RegistrationError(
            f"{entry.where}: backbone {entry.key!r} must return a torch module with the attribute feature_dim, "
            f"the width of its pooled features. It returned {type(module).__name__}."
        )
    module.architecture = architecture  # type: ignore[assignment]
    return module


def make_encoder(
    backbone: nn.Module,
    *,
    channels: int,
    image_size: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    origin: str,
    identity: str,
) -> Encoder:
    """Wrap a backbone with its input contract; the arguments are the attributes of :class:`Encoder`."""
    return Encoder(
        module=backbone,
        feature_dim=int(backbone.feature_dim),  # type: ignore[arg-type]
        channels=channels,
        image_size=image_size,
        mean=tuple(mean),
        std=tuple(std),
        origin=origin,
        identity=identity,
    )


def initial_encoder(entry: Entry, spec: PretrainSpec, data: ImageDataset, *, identity: str) -> Encoder:
    """An encoder for the images of ``data`` with the initial weights of the spec's seed.

    Args:
        entry: of the spec's backbone.
        data: its channels, size and channel statistics become the encoder's input contract, unless the weights come
            from a file: then the method's parameters tell it.
        identity: digest of the pre-training.
    """
    if spec.imported:
        return _imported_encoder(entry, spec, data, identity=identity)
    mean, std = data.channel_statistics
    return make_encoder(
        build_backbone(entry, spec.backbone_params, channels=data.channels, seed=spec.seed),
        channels=data.channels,
        image_size=data.image_size,
        mean=mean,
        std=std,
        origin=f"{spec.name} on {data.title}, seed {spec.seed}",
        identity=identity,
    )


def _imported_encoder(entry: Entry, spec: PretrainSpec, data: ImageDataset, *, identity: str) -> Encoder:
    given = spec.method_params
    side, channels = int(given["image_size"]), int(given["channels"])
    return make_encoder(
        build_backbone(entry, spec.backbone_params, channels=channels, seed=spec.seed),
        channels=channels,
        image_size=(side, side) if side else data.image_size,
        mean=given["mean"],
        std=given["std"],
        origin=f"{spec.variant}, imported from a file ({given['layout']})",
        identity=identity,
    )


def weights_to_bytes(module: nn.Module, *, metadata: Mapping[str, str] | None = None) -> bytes:
    """Every parameter and persistent buffer of ``module`` in the safetensors format; equal weights give equal bytes."""
    tensors = {name: _plain(tensor) for name, tensor in module.state_dict().items()}
    # safetensors writes metadata in the order of a hash map: one entry has only one order
    packed = {"jointbench": json.dumps(dict(metadata), sort_keys=True)} if metadata else None
    data: bytes = safetensors.torch.save(tensors, packed)
    return data


def _plain(tensor: Tensor) -> Tensor:
    """An own copy on the CPU in the default layout, whatever the training used."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def load_weights(module: nn.Module, data: bytes, *, where: str = "these weights") -> None:
    """Fill ``module`` with what :func:`weights_to_bytes` made; every tensor must be there, and no other.

    Args:
        module: a backbone of the same architecture; its data type is kept.
        data: safetensors bytes.
        where: names the source in error messages.

    Raises:
        CorruptPartError: the bytes are not safetensors.
        StoreError: tensors are missing, unexpected or of another shape; the message lists them. Nothing is loaded.
    """
    try:
        tensors = safetensors.torch.load(data)
    except SafetensorError as error:
        raise CorruptPartError(
            f"{where}: not readable as safetensors ({error}). Compute or download it again."
        ) from error
    own = module.state_dict()
    problems = [f"missing: {', '.join(sorted(own.keys() - tensors.keys()))}"] if own.keys() - tensors.keys() else []
    if unexpected := sorted(tensors.keys() - own.keys()):
        problems.append(f"unexpected: {', '.join(unexpected)}")
    shapes = [
        f"{name} is {tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
        for name in sorted(own.keys() & tensors.keys())
        if tensors[name].shape != own[name].shape
    ]
    if shapes:
        problems.append(f"shapes: {'; '.join(shapes)}")
    if problems:
        raise StoreError(
            f"{where} do not fit {type(module).__name__}: {'; '.join(problems)}. Choose the backbone, its parameters "
            "and the image channels that the weights were made with."
        )
    module.load_state_dict(tensors)

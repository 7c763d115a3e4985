"""State dictionaries with the key names of public code, made from the names alone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


def under(prefix: str, state: State) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def heads(*names: str) -> dict[str, Tensor]:
    return {name: torch.ones(3, 3) if name.endswith("weight") else torch.ones(3) for name in names}


def hollow(state: State, value: float = 1.0) -> dict[str, Tensor]:
    """The same names and shapes with one value throughout: as a file it takes no room."""
    return {name: torch.full((), value, dtype=tensor.dtype).expand(tensor.shape) for name, tensor in state.items()}


def indexed(state: State, stem: tuple[int, int], first_stage: int) -> dict[str, Tensor]:
    """Names of a Sequential over the children: where the stem's two layers and the first stage stand."""
    names = {"conv1": str(stem[0]), "bn1": str(stem[1])}
    names |= {f"layer{number}": str(first_stage + number - 1) for number in range(1, 5)}
    split = {name: name.split(".", 1) for name in state}
    return {f"{names[first]}.{rest}": state[name] for name, (first, rest) in split.items()}


def shortcuts(state: State) -> dict[str, Tensor]:
    return {name.replace(".downsample.", ".shortcut."): tensor for name, tensor in state.items()}


def detectron2(state: State) -> dict[str, Tensor]:
    """Names of Detectron2's ResNet; its frozen normalization counts no batches."""
    renamed = {}
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        new = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
        new = new if new.startswith("res") else f"stem.{new}"
        new = re.sub(r"bn(\d)\.", r"conv\1.norm.", new)
        renamed[new.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")] = tensor
    return renamed


FC = heads("fc.weight", "fc.bias")


def moco_v2(state: State) -> Any:
    query = {**state, **heads("fc.0.weight", "fc.0.bias", "fc.2.weight", "fc.2.bias")}
    keys = {**under("module.encoder_q.", query), **under("module.encoder_k.", hollow(query))}
    return {"epoch": 200, "arch": "resnet18", "state_dict": {**keys, **heads("module.queue", "module.queue_ptr")}}


def moco_v3(state: State) -> Any:
    base = {**state, **heads("fc.0.weight", "fc.1.running_mean")}
    keys = {**under("module.base_encoder.", base), **under("module.momentum_encoder.", hollow(base))}
    return {"state_dict": {**keys, **heads("module.predictor.0.weight")}}


def moco_demo(state: State) -> Any:
    query = {**indexed(state, (0, 1), 3), **heads("9.weight", "9.bias")}
    return {"state_dict": {**under("encoder_q.net.", query), **under("encoder_k.net.", hollow(query))}}


def simsiam(state: State) -> Any:
    encoder = {**state, **heads("fc.0.weight", "fc.6.bias", "fc.7.running_mean")}
    return {"state_dict": {**under("module.encoder.", encoder), **heads("module.predictor.0.weight")}}


def vicreg(state: State) -> Any:
    return {"epoch": 9, "model": {**under("module.backbone.", state), **heads("module.projector.0.weight")}}


def barlow_twins(state: State) -> Any:
    more = heads("module.projector.0.weight", "module.bn.running_mean")
    return {
        "epoch": 9,
        "model": {**under("module.backbone.", state), **more},
        "optimizer": {"state": {0: torch.ones(2)}},
    }


def byol_bolts(state: State) -> Any:
    arms = {"encoder.": state, "projector.model.": heads("0.weight"), "predictor.model.": heads("0.weight")}
    arm = {key: value for prefix, part in arms.items() for key, value in under(prefix, part).items()}
    return {"state_dict": {**under("online_network.", arm), **under("target_network.", hollow(arm))}}


def byol_sequential(state: State) -> Any:
    arm = {**under("encoder.", indexed(state, (0, 1), 4)), **heads("projetion.net.0.weight")}
    return {"online_network_state_dict": arm, "target_network_state_dict": hollow(arm)}


def byol_wrapped(state: State) -> Any:
    net = {**state, **FC}
    online = {**under("net.", net), **heads("projector.0.weight")}
    return {**under("net.", net), **under("online_encoder.", online), **under("target_encoder.", hollow(online))}


def swav(state: State) -> Any:
    return under("module.", {**state, **heads("projection_head.0.weight", "prototypes.weight")})


def solo_learn(state: State) -> Any:
    more = heads("classifier.weight", "classifier.bias", "projector.0.weight", "momentum_projector.0.weight")
    keys = {**under("backbone.", state), **under("momentum_backbone.", hollow(state)), **more}
    return {"epoch": 1, "state_dict": keys, "hyper_parameters": {"method": "byol"}}


def solo_learn_old(state: State) -> Any:
    more = heads("classifier.weight", "projector.0.weight")
    return {"state_dict": {**under("encoder.", state), **under("momentum_encoder.", hollow(state)), **more}}


def lightly(state: State) -> Any:
    return {"state_dict": {**under("backbone.", indexed(state, (0, 1), 4)), **heads("projection_head.layers.0.weight")}}


def lightly_moco(state: State) -> Any:
    more = heads("projection_head.layers.0.weight", "query_projection_head.layers.0.weight")
    return {"state_dict": {**under("backbone.", hollow(state)), **under("query_backbone.", state), **more}}


def lightly_cifar(state: State) -> Any:
    backbone = indexed(shortcuts(state), (0, 1), 2)
    return {"state_dict": {**under("backbone.", backbone), **heads("projection_head.layers.0.weight")}}


def vissl(state: State) -> Any:
    trunk = under("_feature_blocks.", state)
    return {"classy_state_dict": {"base_model": {"model": {"trunk": trunk, "heads": heads("0.clf.weight")}}}}


def mmselfsup(state: State) -> Any:
    keys = {**under("backbone.", state), **heads("neck.fc0.weight", "head.weight")}
    return {"meta": {"epoch": 3}, "state_dict": {**keys, **under("target_net.module.0.", hollow(state))}}


def open_selfsup(state: State) -> Any:
    online = under("online_net.0.", state)
    return {"state_dict": {**under("backbone.", state), **online, **heads("online_net.1.fc0.weight", "head.weight")}}


def detectron2_backbone(state: State) -> Any:
    return {"model": detectron2(state), "matching_heuristics": True}


LAYOUTS: Mapping[str, tuple[str, Callable[[State], Any]]] = {
    "torchvision": ("torchvision or timm", lambda state: {**state, **FC}),
    "bare vicreg or barlow_twins": ("torchvision or timm", dict),
    "moco v2": ("moco", moco_v2),
    "moco v3": ("moco", moco_v3),
    "simsiam": ("simsiam", simsiam),
    "vicreg": ("vicreg", vicreg),
    "barlow_twins": ("barlow_twins", barlow_twins),
    "byol of lightning-bolts": ("byol", byol_bolts),
    "byol over a sequential": ("byol", byol_sequential),
    "byol wrapper": ("byol", byol_wrapped),
    "swav": ("swav", swav),
    "solo-learn": ("solo-learn", solo_learn),
    "solo-learn before 1.0": ("solo-learn", solo_learn_old),
    "lightly": ("lightly", lightly),
    "lightly moco": ("lightly", lightly_moco),
    "vissl": ("vissl", vissl),
    "mmselfsup": ("mmselfsup", mmselfsup),
    "mmselfsup before 1.0": ("mmselfsup", open_selfsup),
    "detectron2": ("detectron2", detectron2_backbone),
}
"""The layout that is to be recognized, and what makes its file from torchvision's names, by what it is."""


def random_network(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network with weights and running statistics that no two tensors share, in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(7)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 2.0, generator=generator)
        elif tensor.ndim == 1:
            tensor.uniform_(-0.5, 1.0, generator=generator)
        else:
            tensor.normal_(0.0, (2.0 / tensor[0].numel()) ** 0.5, generator=generator)
    return network.eval()

"""How public code names the tensors of a ResNet, and how such names become torchvision's.

A layout says under which prefixes a code base keeps the backbone of its online and of its momentum network, how it
spells the layers, and how it normalizes images. Everything here works on names and shapes alone, so that a file can
be judged before any of its tensors is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.errors import CheckpointError, UnknownNameError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
Network = Literal["online", "momentum"]
Spelling = Literal["named", "indexed", "detectron2"]

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CIFAR10: Statistics = ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR10_MOCO: Statistics = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))

WRAPPERS = frozenset(
    {"module", "_orig_mod", "state_dict", "model", "model_state_dict", "classy_state_dict", "base_model", "trunk"}
)
"""Steps on the way to a tensor that only wrap it: containers of a checkpoint, parallel and compiled modules."""

_BLOCK_PART = r"(?:conv\d|bn\d|downsample|shortcut)\."
_ROOTS: dict[Spelling, re.Pattern[str]] = {
    "named": re.compile(r"^(?P<root>(?:.*\.)?)layer\d+\.\d+\."),
    "indexed": re.compile(rf"^(?P<root>(?:.*\.)?)\d+\.\d+\.{_BLOCK_PART}"),
    "detectron2": re.compile(r"^(?P<root>(?:.*\.)?)res\d+\.\d+\."),
}
_SEVERAL_BLOCKS = 4
"""A root has at least as many tensors of blocks; fewer are somebody's head."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One code base's way to keep a backbone.

    Attributes:
        key: what ``--layout`` calls it.
        online, momentum: prefixes of the two networks' backbones without :data:`WRAPPERS`, the preferred one first.
        marks: alternatives, each a set of beginnings of other keys that must all occur; without any, the prefix alone
            decides.
        spellings: of the layers.
        evaluates: which network the paper or the code base evaluates, where there are two.
        cifar: normalization of the images where the first convolution is 3x3; None when it is not known.
        cifar_stem: the backbone's ``stem`` then.
    """

    key: str
    online: tuple[str, ...]
    momentum: tuple[str, ...] = ()
    marks: tuple[tuple[str, ...], ...] = ()
    spellings: tuple[Spelling, ...] = ("named",)
    evaluates: str = ""
    cifar: Statistics | None = None
    cifar_stem: str = "cifar"


_LAYOUTS = (
    Layout(key="torchvision", online=("",)),
    Layout(key="timm", online=("",)),
    Layout(
        key="moco",
        online=("encoder_q.", "base_encoder.", "encoder_q.net."),
        momentum=("encoder_k.", "momentum_encoder.", "encoder_k.net."),
        spellings=("named", "indexed"),
        evaluates="the query encoder, which the papers' linear evaluation takes",
        cifar=CIFAR10_MOCO,
    ),
    Layout(key="simsiam", online=("encoder.",), marks=(("encoder.fc.", "predictor."),)),
    Layout(key="vicreg", online=("backbone.", ""), marks=(("projector.",),)),
    Layout(key="barlow_twins", online=("backbone.", ""), marks=(("projector.", "bn.running_mean"),)),
    Layout(
        key="byol",
        online=(
            *("online_network.encoder.", "online_encoder.net.", "online_network_state_dict.encoder."),
            *("online_encoder.", "online_network.", "online_network_state_dict.", "net."),
        ),
        momentum=(
            *("target_network.encoder.", "target_encoder.net.", "target_network_state_dict.encoder."),
            *("target_encoder.", "target_network.", "target_network_state_dict."),
        ),
        spellings=("named", "indexed"),
        evaluates="the online network, which the paper evaluates",
    ),
    Layout(key="swav", online=("",), marks=(("prototypes.",), ("projection_head.", "prototypes."))),
    Layout(
        key="solo-learn",
        online=("backbone.", "encoder."),
        momentum=("momentum_backbone.", "momentum_encoder."),
        marks=(("classifier.",), ("classifier.", "projector."), ("classifier.", "projector.", "predictor.")),
        evaluates="the online backbone, as solo-learn's own evaluation",
        cifar=CIFAR10,
        cifar_stem="solo-learn",
    ),
    Layout(
        key="lightly",
        online=("query_backbone.", "student_backbone.", "backbone."),
        momentum=("teacher_backbone.", "backbone_momentum.", "key_backbone.", "backbone."),
        marks=(("projection_head.",), ("prediction_head.",), ("online_classifier.",)),
        spellings=("named", "indexed"),
        evaluates="the network that is trained by gradients, as the papers do",
        cifar=IMAGENET,
    ),
    Layout(key="vissl", online=("_feature_blocks.",)),
    Layout(
        key="mmselfsup",
        online=("backbone.", "encoder_q.0.", "online_net.0."),
        momentum=("encoder_k.0.", "target_net.0.", "momentum_encoder.0."),
        marks=(("neck.",), ("head.",), ("encoder_q.1.",), ("online_net.1.",)),
        evaluates="the online network, as the model zoo does",
    ),
    Layout(key="detectron2", online=("", "backbone.", "backbone.bottom_up."), spellings=("detectron2",)),
)
LAYOUTS: Mapping[str, Layout] = {layout.key: layout for layout in _LAYOUTS}


@dataclass(frozen=True, kw_only=True)
class Root:
    """One backbone in a file.

    Attributes:
        prefix: what its keys begin with, as they stand in the file.
        place: the prefix without wrappers.
        spelling: of its layers.
    """

    prefix: str
    place: str
    spelling: Spelling

    @property
    def words(self) -> str:
        return repr(self.prefix) if self.prefix else "no prefix"


@dataclass(frozen=True, kw_only=True)
class Recognized:
    """The backbone to take, and why.

    Attributes:
        layout: the layout that was asked for, or the one that the keys fit best.
        root: the backbone's keys.
        network: which of the two networks it is.
        alike: other layouts that the keys fit as well and that give the same encoder.
        why: which network was chosen and for what reason; empty where the file has one backbone.
    """

    layout: Layout
    root: Root
    network: Network
    alike: tuple[str, ...] = ()
    why: str = ""

    @property
    def name(self) -> str:
        """The layout, or all that the keys fit alike."""
        return " or ".join((self.layout.key, *self.alike))


def find_roots(shapes: Shapes) -> tuple[Root, ...]:
    """Every ResNet among the keys, in the order of their prefixes."""
    found: dict[tuple[str, Spelling], int] = {}
    for key in shapes:
        for spelling, pattern in _ROOTS.items():
            if match := pattern.match(key):
                where = (match["root"], spelling)
                found[where] = found.get(where, 0) + 1
    return tuple(
        Root(prefix=prefix, place=place_of(prefix), spelling=spelling)
        for (prefix, spelling), count in sorted(found.items())
        if count >= _SEVERAL_BLOCKS
    )


def recognize(shapes: Shapes, *, layout: str = "auto", network: Network = "online") -> Recognized:
    """The backbone of a file by its key names.

    Args:
        shapes: of all tensors, by their keys in the file; the keys of nested dictionaries are joined by dots.
        layout: a key of :data:`LAYOUTS`, or ``auto``.
        network: which of two networks to take.

    Raises:
        CheckpointError: no layout fits, or several that give different encoders; the message lists them.
        UnknownNameError: there is no such layout.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, ("auto", *LAYOUTS))
    roots = find_roots(shapes)
    if not roots:
        raise CheckpointError(_without_roots(shapes))
    if layout != "auto":
        return _only(_fits(LAYOUTS[layout], roots, network), LAYOUTS[layout], roots, network)
    ranked = _ranked(shapes, roots, network)
    if not ranked:
        found = ", ".join(root.words for root in roots)
        raise CheckpointError(
            f"no known layout keeps a {network} network where this file has a ResNet ({found}). Choose another "
            "--network, or rename the keys to torchvision's and save them alone."
        )
    best = max(rank for rank, _ in ranked)
    candidates = [found for rank, found in ranked if rank == best]
    first = candidates[0]
    if any(_encoder_of(other, shapes) != _encoder_of(first, shapes) for other in candidates):
        keys = ", ".join(found.layout.key for found in candidates)
        raise CheckpointError(
            f"the key names fit several layouts ({keys}), which build or normalize the network differently. "
            "Say which one made the file with --layout."
        )
    alike = tuple(found.layout.key for found in candidates[1:])
    return Recognized(layout=first.layout, root=first.root, network=network, alike=alike, why=first.why)


def torchvision_names(shapes: Shapes, root: Root) -> dict[str, str]:
    """Keys of the file under the root, by torchvision's names for them.

    What has no name there keeps its own, without the prefix: heads, and whatever does not belong.

    Raises:
        CheckpointError: two keys stand for one tensor.
    """
    own = {key: key.removeprefix(root.prefix) for key in shapes if key.startswith(root.prefix)}
    if root.spelling == "indexed":
        renamed = _from_indices({short: shapes[key] for key, short in own.items()})
    else:
        rename = _from_detectron2 if root.spelling == "detectron2" else _from_names
        renamed = {short: rename(short) for short in own.values()}
    result: dict[str, str] = {}
    for key, short in own.items():
        if (name := renamed[short]) in result:
            raise CheckpointError(f"{result[name]} and {key} both stand for {name}. Remove one of them.")
        result[name] = key
    return result


def looks_like_backbone(name: str) -> bool:
    """Whether a name under the root belongs to a convolutional network's trunk and not to a head."""
    return re.match(r"(conv\d|bn\d|norm\d|stem|layer\d+|res\d+|downsample|shortcut|\d+)\.", name) is not None


def stem_kernel(shapes: Shapes, root: Root) -> int | None:
    """Width of the first convolution's kernel; None when it is not there."""
    key = torchvision_names(shapes, root).get("conv1.weight")
    return shapes[key][-1] if key is not None and len(shapes[key]) == 4 else None


# --- choosing ---------------------------------------------------------------------------------------------------


def place_of(prefix: str) -> str:
    """A key or a prefix without :data:`WRAPPERS`, each of its steps followed by a dot."""
    steps = [step for step in prefix.split(".") if step and step not in WRAPPERS]
    return "".join(f"{step}." for step in steps)


def _fits(layout: Layout, roots: tuple[Root, ...], network: Network) -> Recognized | None:
    spelled = [root for root in roots if root.spelling in layout.spellings]
    online = _first(layout.online, spelled)
    momentum = _first(layout.momentum, [root for root in spelled if root != online])
    chosen = online if network == "online" else momentum
    if chosen is None:
        return None
    why = f"{network} network, {chosen.words}" if online and momentum else ""
    if why and network == "online" and layout.evaluates:
        why += f": {layout.evaluates}"
    return Recognized(layout=layout, root=chosen, network=network, why=why)


def _first(places: tuple[str, ...], roots: list[Root]) -> Root | None:
    return next((root for place in places for root in roots if root.place == place), None)


def _only(found: Recognized | None, layout: Layout, roots: tuple[Root, ...], network: Network) -> Recognized:
    if found is None:
        places = ", ".join(repr(place) for place in getattr(layout, network)) or "none"
        raise CheckpointError(
            f"the layout {layout.key} keeps the {network} network's backbone under {places}; this file has a ResNet "
            f"under {', '.join(f'{root.words} ({root.spelling})' for root in roots)}. Leave --layout at auto, or "
            "choose another --network."
        )
    return found


def _ranked(shapes: Shapes, roots: tuple[Root, ...], network: Network) -> list[tuple[int, Recognized]]:
    """Every layout that fits, with the number of its marks that were found.

    Layouts whose marks are absent count only where nothing else fits.
    """
    keys = {place_of(key) for key in shapes}
    marked, unmarked = [], []
    for layout in LAYOUTS.values():
        if (found := _fits(layout, roots, network)) is None:
            continue
        present = [mark for mark in layout.marks if all(any(key.startswith(part) for key in keys) for part in mark)]
        if present or not layout.marks:
            marked.append((max((len(mark) for mark in present), default=0), found))
        else:
            unmarked.append((0, found))
    return marked or unmarked


def _encoder_of(found: Recognized, shapes: Shapes) -> tuple[object, ...]:
    """What the layout makes of the file: equal for layouts that may be confused without harm."""
    if stem_kernel(shapes, found.root) == 3:
        return found.root, found.layout.cifar_stem, found.layout.cifar
    return (found.root,)


def _without_roots(shapes: Shapes) -> str:
    keys = sorted(shapes)
    shown = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
    if any("branch2a" in key for key in keys):
        hint = "These are Caffe2's names (res2_0_branch2a): convert the file with detectron2 first."
    elif any("attn." in key or "pos_embed" in key for key in keys):
        hint = "This is a vision transformer; only ResNet-18, 34 and 50 can be evaluated."
    elif any("/~/" in key or key.endswith((".w", ".offset")) for key in keys):
        hint = "These are names of a JAX network: convert it to PyTorch with torchvision's names first."
    else:
        hint = "Only ResNet-18, 34 and 50 can be evaluated, with the layers called layer1 to layer4 or numbered."
    return f"none of its {len(keys)} tensors is a block of a ResNet (keys: {shown or 'none'}). {hint}"


# --- spelling ---------------------------------------------------------------------------------------------------


def _from_names(name: str) -> str:
    return re.sub(r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.", name)


def _from_detectron2(name: str) -> str:
    name = re.sub(r"^stem\.conv1\.norm\.", "bn1.", name)
    name = re.sub(r"^stem\.conv1\.", "conv1.", name)
    name = re.sub(r"^res(\d+)\.", lambda match: f"layer{int(match[1]) - 1}.", name)
    name = re.sub(r"^(layer\d+\.\d+)\.conv(\d)\.norm\.", r"\1.bn\2.", name)
    name = re.sub(r"^(layer\d+\.\d+)\.shortcut\.norm\.", r"\1.downsample.1.", name)
    return re.sub(r"^(layer\d+\.\d+)\.shortcut\.", r"\1.downsample.0.", name)


def _from_indices(shapes: Shapes) -> dict[str, str]:
    """Names of a ``Sequential`` over a ResNet's children: which index is what follows from the tensors.

    The stages are the indices with blocks, in order; before them, the convolution has a weight of four dimensions and
    the normalization a running mean. A matrix behind the stages is a head.
    """
    stages = sorted({int(match[1]) for key in shapes if (match := re.match(rf"(\d+)\.\d+\.{_BLOCK_PART}", key))})
    names = {f"{index}": f"layer{number}" for number, index in enumerate(stages, start=1)}
    for key, shape in shapes.items():
        index, _, rest = key.partition(".")
        if index.isdecimal() and int(index) < stages[0]:
            if len(shape) == 4:
                names[index] = "conv1"
            elif rest == "running_mean":
                names[index] = "bn1"
        elif index.isdecimal() and int(index) > stages[-1]:
            names[index] = f"head{index}"
    renamed = {}
    for key in shapes:
        index, _, rest = key.partition(".")
        renamed[key] = _from_names(f"{names.get(index, index)}.{rest}")
    return renamed

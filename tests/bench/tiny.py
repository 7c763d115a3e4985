"""A suite, plug-in methods and helpers small enough to run many times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bench.request import Request
from bench.runner import Settings, run
from bench.store import Store

Run = Callable[..., tuple[int, str, str]]
"""The command: words in, exit code, standard output and standard error out."""

SUITE: dict[str, Any] = {
    "title": "Tiny",
    "data": {"key": "digits"},
    "backbone": {"key": "convnet", "params": {"width": 4}},
    "training": {"epochs": 3, "batch_size": 256, "lr": 1.0e-3, "warmup_epochs": 0.5},
    "views": [{"crop_scale": [0.5, 1.0], "jitter": 0.0, "grayscale": 0.0}],
    "methods": ["byol", "random_init"],
    "overrides": {"byol": {"params": {"projector": [16, 8], "predictor": [16, 8], "tau_base": 0.9}}},
    "protocols": [{"protocol": "knn"}],
}

PLUGIN = """\
import torch
from bench.card import MethodCard
from bench.registry import register_method
from bench.training.heads import mlp
from bench.training.method import Method

class Base(Method):
    def __init__(self, backbone):
        super().__init__(backbone)
        self.projector = mlp((backbone.feature_dim, 8, 8))

CARD = MethodCard(title="Plug-in", family="asymmetric", summary="For tests.", complete_collapse="nothing")

@register_method("raises", card=CARD)
class Raises(Base):
    def __init__(self, backbone):
        super().__init__(backbone)
    def forward(self, views):
        raise ValueError("the second view is upside down")

@register_method("leaves", card=CARD)
class Leaves(Base):
    def __init__(self, backbone):
        super().__init__(backbone)
    def forward(self, views):
        raise SystemExit(3)

@register_method("diverges", card=CARD)
class Diverges(Base):
    def __init__(self, backbone):
        super().__init__(backbone)
    def forward(self, views):
        return {"alignment": self.projector(self.backbone(views[0])).sum() * float("nan")}

@register_method("collapses", card=CARD)
class Collapses(Base):
    def __init__(self, backbone):
        super().__init__(backbone)
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.projector = Constant(self.projector)
    def forward(self, views):
        z1, z2 = (self.projector(self.backbone(view)) for view in views)
        return {"alignment": (z1 - z2).square().mean() + 0 * self.scale}

class Constant(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, h):
        return 0 * self.inner(h) + 1
"""


def write_suite(folder: Path, **changes: Any) -> Path:
    """The tiny suite as a file."""
    file = folder / "tiny.yaml"
    file.write_text(yaml.safe_dump({**SUITE, **changes}))
    return file


def write_plugin(folder: Path) -> Path:
    """Methods that raise, diverge and collapse."""
    file = folder / "bad_methods.py"
    file.write_text(PLUGIN)
    return file


def compute(request: Request, cache: Path, **settings: Any) -> list[Any]:
    """Run a request in this process; returns its events."""
    plan = request.plan(request.results.frame())
    events: list[Any] = []
    run(
        plan.suite,
        plan.to_run,
        Settings(
            store=request.store,
            cache=cache,
            plugins=request.catalog.plugins,
            **{"workers": 1, **settings},
        ),
        events.append,
        catalog=request.catalog,
    )
    return events


def outcome(store: Store) -> dict[str, Any]:
    """Everything that a run must reproduce bit for bit: rows without times, predictions, histories, weights."""
    frame = store.frame()
    columns = ["cell", "identity", "status", "metric", "value", "low", "high", "n"]
    identities = sorted(set(frame["identity"]))
    return {
        "rows": frame[columns].to_json(orient="records", double_precision=15),
        "predictions": [_text(store.predictions(identity)) for identity in identities],
        "histories": _text(store.history(identities)),
        "weights": store.storage.names("objects", ""),
    }


def _text(frame: pd.DataFrame | None) -> str:
    return "" if frame is None else frame.map(lambda x: x.hex() if isinstance(x, float) else x).to_csv(index=False)

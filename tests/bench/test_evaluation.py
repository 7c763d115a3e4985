"""Evaluations by several processes, through the runner."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

from bench.request import Request

from .tiny import compute, write_suite

PROTOCOLS = """\
import pandas as pd
from bench.card import ProtocolCard
from bench.metric import TOP1
from bench.protocol import Outcome, Protocol, Score
from bench.registry import register_protocol
from bench.training.distributed import process_count, process_rank

class Base(Protocol):
    def evaluate(self, encoder, data, *, seed, device):
        if self.fails():
            raise ValueError("upside down in another process")
        x = encoder.features(data.split("test").images, device=device, batch_size=40)
        score = Score(metric=TOP1, value=float(x.double().mean()), n=process_count())
        return Outcome(scores=(score,), predictions=pd.DataFrame({"sample": data.split("test").samples}))

@register_protocol("fails_elsewhere", card=ProtocolCard(title="P", summary="s", metrics=(TOP1,)))
class FailsElsewhere(Base):
    def __init__(self):
        pass
    def fails(self):
        return process_rank() == 1

@register_protocol("shares", card=ProtocolCard(title="P", summary="s", metrics=(TOP1,)))
class Shares(Base):
    def __init__(self):
        pass
    def fails(self):
        return False
"""


def test_processes_share_evaluations_and_a_failure_costs_its_own_cell_only(tmp_path: Path, shared_cache: Path) -> None:
    plugin = tmp_path / "protocols_of_a_test.py"
    plugin.write_text(PROTOCOLS)
    names = ["shares", "fails_elsewhere", "knn"]
    suite = write_suite(tmp_path, methods=["random_init"], overrides={}, protocols=[{"protocol": n} for n in names])
    frames = {}
    for devices in (1, 2):
        request = Request(suite=str(suite), store=str(tmp_path / f"store {devices}"), plugins=(plugin,))
        compute(request, shared_cache, devices=devices)
        frame = request.results.frame()
        frames[devices] = frame[frame["kind"] == "evaluation"].set_index(["protocol", "metric"])
    assert not multiprocessing.active_children()
    two = frames[2]
    reason = two.loc[("fails_elsewhere", ""), "error_message"]
    assert "Process 1 of the 2 that work together" in reason and "ValueError: upside down in another process" in reason
    for cell in (("knn", "top1"), ("knn", "top5"), ("shares", "top1")):
        assert two.loc[cell, "value"] == frames[1].loc[cell, "value"]
    assert [frames[devices].loc[("shares", "top1"), "n"] for devices in (1, 2)] == [1, 2]


INTERRUPTED = """\
import torch
import pandas as pd
from pathlib import Path
from bench.card import ProtocolCard
from bench.metric import TOP1
from bench.protocol import Outcome, Protocol, Score
from bench.registry import register_protocol

@register_protocol("long", card=ProtocolCard(title="P", summary="s", metrics=(TOP1,)))
class Long(Protocol):
    def __init__(self):
        pass

    def evaluate(self, encoder, data, *, seed, device):
        file = self.workspace.checkpoint
        state = file.load() or {"done": 0}
        self.workspace.report(state["done"], 4, "half-way")
        if not state["done"]:
            file.save({"done": 2})
            raise ValueError("interrupted")
        samples = data.split("test").samples
        score = Score(metric=TOP1, value=float(state["done"]), n=len(samples))
        return Outcome(scores=(score,), predictions=pd.DataFrame({"sample": samples}))
"""


def test_a_long_evaluation_goes_on_where_it_saved_itself_and_leaves_nothing_behind(
    tmp_path: Path, shared_cache: Path
) -> None:
    plugin = tmp_path / "long_protocol.py"
    plugin.write_text(INTERRUPTED)
    suite = write_suite(tmp_path, methods=["random_init"], overrides={}, protocols=[{"protocol": "long"}])
    request = Request(suite=str(suite), store=str(tmp_path / "store"), plugins=(plugin,))
    events = compute(request, shared_cache)
    told = [(event.done, event.total, event.text) for event in events if event.kind == "progress" and event.is_cell]
    assert told == [(0, 4, "half-way")]
    saved = list((tmp_path / "store" / "resume").iterdir())
    assert len(saved) == 1
    compute(request, shared_cache)
    frame = request.results.frame()
    last = frame[(frame["protocol"] == "long") & (frame["status"] == "ok")]
    assert last["value"].tolist() == [2.0]
    assert not list((tmp_path / "store" / "resume").iterdir())

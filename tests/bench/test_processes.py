from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch.distributed as dist

from bench.errors import DivergenceError, JobError, RequestError, SpecError
from bench.processes import process_group
from bench.request import Request
from bench.runner import check_devices, default_workers

from .deeds import act, exchange, member
from .tiny import SUITE, compute, write_suite


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """After every test: no process, no group, and torch's traces on this process are gone."""
    hook = sys.excepthook
    yield
    assert not multiprocessing.active_children()
    assert not dist.is_initialized()
    assert sys.excepthook is hook and "GLOO_SOCKET_IFNAME" not in os.environ


def run(deed: str, *, count: int = 2, rank: int = 1) -> float:
    with process_group(count, "cpu", member, (deed, rank)):
        act(deed, rank) if deed == "all raise" else exchange(3)
        return exchange(1000)


def test_processes_meet_work_together_and_part() -> None:
    assert run("nothing") == 0 + 1


def test_one_process_needs_no_group() -> None:
    with process_group(1, "cpu", member, ("fails at once", 0)):
        assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("deed", "count", "rank", "message"),
    [
        ("raises", 3, 2, "Process 2 of the 3 that work together .+: ValueError: the second view is upside down"),
        ("dies", 2, 1, "Process 1 of the 2 .+ exit code -9: out of memory, or a crash"),
        ("fails at once", 2, 1, "Process 1 of the 2 .+ ValueError: there is no such method"),
    ],
)
def test_a_process_that_fails_is_an_error_that_says_which_and_why(
    deed: str, count: int, rank: int, message: str
) -> None:
    started = time.monotonic()
    with pytest.raises(JobError, match=message):
        run(deed, count=count, rank=rank)
    assert time.monotonic() - started < 120  # far from the ten minutes of torch's patience


def test_an_error_of_all_processes_is_that_of_the_first() -> None:
    with pytest.raises(RuntimeError, match=r"^the same everywhere$"):
        run("all raise")


def test_an_error_of_the_first_process_ends_the_others() -> None:
    with pytest.raises(DivergenceError, match="NaN"), process_group(2, "cpu", member, ("nothing", 1)):
        raise DivergenceError("NaN")


SCRIPT = """
import sys
from bench.processes import process_group
from {module} import exchange, member
if __name__ == "__main__":
    with process_group(2, "cpu", member, ("nothing", 1)):
        exchange(3)
        print("working", flush=True)
        while True:
            exchange(1)
"""


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_an_interrupt_or_the_death_of_the_first(tmp_path: Path, ending: signal.Signals) -> None:
    script = tmp_path / "trains.py"
    script.write_text(SCRIPT.format(module=member.__module__))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert first.stdout is not None and first.stdout.readline() == "working\n"
    others = psutil.Process(first.pid).children(recursive=True)
    assert others
    if ending == signal.SIGINT:
        os.killpg(first.pid, ending)  # as a terminal does: every process gets it
    else:
        first.kill()
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == -ending
    assert not psutil.wait_procs(others, timeout=60)[1]
    assert stderr.count("Traceback") == (1 if ending == signal.SIGINT else 0)


# --- through the runner ---

FAILING = """\
from bench.card import MethodCard
from bench.registry import register_method
from bench.training.distributed import process_rank
from bench.training.heads import mlp
from bench.training.method import Method

@register_method("fails", card=MethodCard(title="F", family="asymmetric", summary="s", complete_collapse="c"))
class Fails(Method):
    def __init__(self, backbone):
        super().__init__(backbone)
        self.projector = mlp((backbone.feature_dim, 8, 8))
    def forward(self, views):
        if process_rank() == 1:
            raise ValueError("only here")
        z1, z2 = (self.projector(self.backbone(view)) for view in views)
        return {"alignment": (z1 - z2).square().mean()}
"""


def test_two_devices_give_the_result_of_one_and_a_failing_process_costs_only_its_own_cells(
    tmp_path: Path, shared_cache: Path
) -> None:
    plugin = tmp_path / "fails.py"
    plugin.write_text(FAILING)
    training = {**SUITE["training"], "precision": "64-true"}
    suite = str(write_suite(tmp_path, methods=["byol", "fails", "random_init"], training=training))
    stores = {}
    for devices in (1, 2):
        request = Request(suite=suite, store=str(tmp_path / f"store {devices}"), plugins=(plugin,))
        compute(request, shared_cache, devices=devices)
        stores[devices] = Request(suite=suite, store=request.store).results
    one, two = (stores[devices].frame() for devices in (1, 2))
    assert set(one["identity"]) == set(two["identity"])
    failed = two[(two["kind"] == "pretraining") & (two["status"] == "failed")]
    assert list(failed["method"]) == ["fails"] and "ValueError: only here" in failed.iloc[0]["error_message"]
    identity = one.loc[(one["kind"] == "pretraining") & (one["method"] == "byol"), "identity"].iloc[0]
    histories = [stores[devices].history([identity])["value"] for devices in (1, 2)]
    assert list(histories[1]) == pytest.approx(list(histories[0]), rel=1e-6, abs=1e-9)
    scores = [frame[(frame["method"] == "byol") & (frame["metric"] == "top1")]["value"] for frame in (one, two)]
    assert list(scores[1]) == list(scores[0])
    assert '"devices": 2' in two.iloc[0]["provenance"]


def test_a_batch_that_the_devices_cannot_share_is_refused_before_anything_runs(
    tmp_path: Path, shared_cache: Path
) -> None:
    request = Request(suite=str(write_suite(tmp_path)), store=str(tmp_path / "store"))
    with pytest.raises(SpecError, match="batch_size 256 cannot be divided over 3 devices"):
        compute(request, shared_cache, devices=3)
    assert request.results.frame().empty


def test_more_cuda_devices_than_there_are_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    check_devices("cuda", 2)
    check_devices("cpu", 64)
    with pytest.raises(RequestError, match=r"torch sees 2 CUDA devices here\. Use --devices 2"):
        check_devices("cuda", 3)


def test_trainings_that_take_several_processes_leave_fewer_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.runner._cores", lambda: 8)
    assert [default_workers("cpu", devices) for devices in (1, 2, 4, 16)] == [4, 4, 2, 1]
    assert default_workers("cuda", 4) == 1

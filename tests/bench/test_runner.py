from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import bench.job
import bench.storage
import bench.training.checkpoint
from bench.errors import RequestError
from bench.request import Request
from bench.runner import resolve_device
from bench.store import Store

from .tiny import compute, outcome, write_plugin, write_suite


@pytest.fixture
def request_(tmp_path: Path, shared_cache: Path) -> Request:
    return Request(suite=str(write_suite(tmp_path)), store=str(tmp_path / "store"))


def fresh(request: Request) -> Request:
    """The same request, with nothing remembered."""
    return Request(suite=request.suite, store=request.store, plugins=request.plugins)


def test_a_run_fills_the_store_and_a_second_one_has_nothing_to_do(request_: Request, shared_cache: Path) -> None:
    compute(request_, shared_cache)
    frame = fresh(request_).results.frame()
    cells = frame[frame["kind"] == "evaluation"]
    assert set(cells["cell"]) == {f"digits/convnet/{m}/knn/digits/seed0" for m in ("byol", "random_init")}
    assert set(cells["metric"]) == {"top1", "top5"} and cells["value"].between(0, 100).all()
    assert (cells["low"] <= cells["value"]).all() and (cells["value"] <= cells["high"]).all()
    again = fresh(request_)
    assert again.plan(again.results.frame()).counts() == {"fresh": 2}


def test_a_row_carries_its_provenance(request_: Request, shared_cache: Path) -> None:
    compute(request_, shared_cache)
    frame = request_.results.frame()
    training = frame[(frame["kind"] == "pretraining") & (frame["method"] == "byol")].iloc[0]
    assert training["metric"] == "training_loss" and training["images_per_second"] > 0
    assert training["seconds_data"] > 0 and training["seconds_compute"] > 0
    assert training["seconds_data"] + training["seconds_compute"] <= training["seconds_total"]
    row = frame[frame["kind"] == "evaluation"].iloc[0]
    provenance = json.loads(row["provenance"])
    assert {"jointbench", "git_commit", "git_dirty", "libraries", "processor", "threads", "device"} <= set(provenance)
    assert provenance["libraries"]["torch"] and provenance["threads"] >= 1
    assert row["peak_memory_mb"] > 50 and row["seconds_evaluation"] > 0
    assert row["pretrain_epochs"] == 3 and row["pretrain_identity"] == training["identity"]


def test_the_predictions_recompute_the_score(request_: Request, shared_cache: Path) -> None:
    compute(request_, shared_cache)
    frame = request_.results.frame()
    for _, row in frame[frame["metric"] == "top1"].iterrows():
        predictions = request_.results.predictions(row["identity"])
        assert predictions is not None and len(predictions) == row["n"]
        assert 100 * (predictions["label"] == predictions["top1"]).mean() == pytest.approx(row["value"], abs=1e-12)


def test_the_history_holds_every_term_of_every_epoch(request_: Request, shared_cache: Path) -> None:
    compute(request_, shared_cache)
    frame = request_.results.frame()
    history = request_.results.history(frame.loc[frame["kind"] == "pretraining", "identity"])
    terms = history[history["kind"] == "term"].pivot(index="epoch", columns="term", values="value")
    assert len(terms) == 3 and {"view1_predicts_view2", "view2_predicts_view1", "total"} == set(terms.columns)
    summed = terms["view1_predicts_view2"] + terms["view2_predicts_view1"]
    pd.testing.assert_series_equal(terms["total"], summed, check_names=False, rtol=1e-5)


def test_equal_requests_give_equal_bits_with_one_process_or_two(
    request_: Request, shared_cache: Path, tmp_path: Path
) -> None:
    compute(request_, shared_cache)
    other = Request(suite=request_.suite, store=str(tmp_path / "other"))
    compute(other, shared_cache, workers=2)
    assert outcome(fresh(other).results) == outcome(fresh(request_).results)


def test_what_fails_is_a_row_with_its_reason_and_the_rest_is_computed(tmp_path: Path, shared_cache: Path) -> None:
    methods = ["raises", "leaves", "diverges", "collapses", "random_init"]
    suite = write_suite(tmp_path, methods=methods, overrides={}, training={"epochs": 8, "batch_size": 256})
    request = Request(suite=str(suite), store=str(tmp_path / "store"), plugins=(write_plugin(tmp_path),))
    compute(request, shared_cache)
    frame = request.results.frame()
    training = frame[(frame["kind"] == "pretraining") & (frame["method"] != "random_init")].set_index("method")
    assert training["status"].eq("failed").all()
    assert training["error_type"].to_dict() == {
        "raises": "ValueError",
        "leaves": "JobError",
        "diverges": "DivergenceError",
        "collapses": "CollapseError",
    }
    assert "sys.exit(3)" in training.loc["leaves", "error_message"]
    assert "upside down" in training.loc["raises", "error_message"]
    assert "alignment" in training.loc["diverges", "error_message"]
    log = request.results.storage.read(training.loc["raises", "log"])
    assert log is not None and b"Traceback" in log and b"in forward" in log
    cells = frame[frame["kind"] == "evaluation"].drop_duplicates("cell").set_index("method")
    assert cells["status"].to_dict() == {
        "raises": "failed",
        "leaves": "failed",
        "diverges": "failed",
        "collapses": "failed",
        "random_init": "ok",
    }
    assert "pre-training failed: DivergenceError" in cells.loc["diverges", "error_message"]
    again = fresh(request)
    plan = again.plan(again.results.frame())
    assert plan.counts() == {"failed": 4, "fresh": 1}


def test_a_worker_that_dies_costs_only_its_own_cells(tmp_path: Path, shared_cache: Path) -> None:
    plugin = tmp_path / "deadly.py"
    plugin.write_text(
        "import os, signal\n"
        "from bench.card import MethodCard\n"
        "from bench.registry import register_method\n"
        "from bench.training.method import Method\n"
        '@register_method("deadly", card=MethodCard(title="D", family="baseline", summary="s"))\n'
        "class Deadly(Method):\n"
        "    def __init__(self, backbone):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    def forward(self, views):\n"
        "        return {}\n"
    )
    suite = write_suite(tmp_path, methods=["deadly", "byol", "random_init"])
    request = Request(suite=str(suite), store=str(tmp_path / "store"), plugins=(plugin,))
    compute(request, shared_cache, workers=2)
    cells = request.results.frame().query("kind == 'evaluation'").drop_duplicates("cell").set_index("method")
    assert cells["status"].to_dict() == {"deadly": "failed", "byol": "ok", "random_init": "ok"}
    assert "its worker process died twice" in cells.loc["deadly", "error_message"]


# --- killed runs --------------------------------------------------------------------------------------------------


def run_and_die(request: Request, cache: Path, *, write: int, moment: str) -> bool:
    """Run in a forked process that kills itself at its n-th write to disk; returns whether it died."""
    child = os.fork()
    if child == 0:
        real, count = bench.storage.replace_file, 0

        def deadly(path: Path, content: bytes) -> None:
            nonlocal count
            count += 1
            if count == write and moment == "inside":
                path.parent.mkdir(parents=True, exist_ok=True)
                (path.parent / f".{path.name}.half.tmp").write_bytes(content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            real(path, content)
            if count == write:
                os.kill(os.getpid(), signal.SIGKILL)

        bench.storage.replace_file = deadly
        bench.training.checkpoint.replace_file = deadly
        try:
            compute(fresh(request), cache, save_seconds=0.0)
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed by itself"
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("moment", ["inside", "after"])
def test_a_run_killed_at_every_write_ends_like_an_uninterrupted_one(
    request_: Request, shared_cache: Path, tmp_path: Path, moment: str
) -> None:
    undisturbed = Request(suite=request_.suite, store=str(tmp_path / "undisturbed"))
    compute(undisturbed, shared_cache)
    expected = outcome(undisturbed.results)
    deaths = 0
    for write in range(1, 40):
        request = Request(suite=request_.suite, store=str(tmp_path / f"killed {write}"))
        if not run_and_die(request, shared_cache, write=write, moment=moment):
            break
        deaths += 1
        compute(request, shared_cache)
        again = fresh(request)
        assert again.plan(again.results.frame()).counts() == {"fresh": 2}
        assert outcome(again.results) == expected, f"killed {moment} write {write}"
        assert not again.results.problems
        assert not list((tmp_path / f"killed {write}").glob("resume/*.ckpt"))
    assert 10 <= deaths < 39


def test_a_run_killed_again_and_again_still_finishes(request_: Request, shared_cache: Path, tmp_path: Path) -> None:
    undisturbed = Request(suite=request_.suite, store=str(tmp_path / "undisturbed"))
    compute(undisturbed, shared_cache)
    draw = random.Random(0)
    while run_and_die(request_, shared_cache, write=draw.randint(1, 4), moment=draw.choice(["inside", "after"])):
        pass
    assert outcome(fresh(request_).results) == outcome(undisturbed.results)


def test_cuda_without_a_device_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("bench.runner._has_driver", lambda: True)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(RequestError, match="torch sees no CUDA device here"):
        resolve_device("cuda")


def test_a_stored_encoder_is_not_evaluated_by_code_that_was_edited_under_the_run(
    request_: Request, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute(request_, shared_cache)
    store = Store(request_.store)
    for identity in store.frame().query("kind == 'evaluation'")["identity"].unique():
        for name in store.storage.names("parts", ".parquet"):
            if name.startswith(f"parts/{identity[:16]}"):
                store.storage.delete(name)
    real = bench.job.pretraining_identity
    monkeypatch.setattr("bench.job.pretraining_identity", lambda *a, **k: replace(real(*a, **k), code="0" * 64))
    again = fresh(request_)
    compute(again, shared_cache)
    cells = fresh(request_).results.frame().query("kind == 'evaluation'")
    assert set(cells["status"]) == {"failed"} and cells["error_message"].str.contains("edited while").all()


def test_a_damaged_encoder_is_trained_again(request_: Request, shared_cache: Path) -> None:
    compute(request_, shared_cache)
    expected = outcome(request_.results)
    store = Store(request_.store)
    assert store.storage.local_folder is not None
    for weights in (store.storage.local_folder / "objects").iterdir():
        weights.write_bytes(b"damaged")
    for part in (store.storage.local_folder / "parts").iterdir():
        part.unlink()
    again = fresh(request_)
    compute(again, shared_cache)
    assert outcome(fresh(request_).results) == expected


def test_the_projector_is_kept_with_the_encoder_and_reaches_the_protocol(tmp_path: Path, shared_cache: Path) -> None:
    plugin = tmp_path / "seen.py"
    plugin.write_text(SEES_EMBEDDINGS)
    suite = write_suite(tmp_path, protocols=[{"protocol": "sees_embeddings"}])
    request = Request(suite=str(suite), store=str(tmp_path / "store"), plugins=(plugin,))

    def values() -> dict[str, float]:
        compute(request, shared_cache, force=True)
        rows = fresh(request).results.frame()
        return {str(row["method"]): row["value"] for _, row in rows[rows["kind"] == "evaluation"].iterrows()}

    trained, loaded = values(), values()
    assert trained == loaded  # the second time both networks come from the store
    assert trained["random_init"] == 0.0 and trained["byol"] > 0.0


SEES_EMBEDDINGS = """
from bench.card import ProtocolCard
from bench.metric import TOP1
from bench.protocol import Outcome, Protocol, Score
from bench.registry import register_protocol
import pandas as pd

@register_protocol("sees_embeddings", card=ProtocolCard(title="Sees", summary="For tests.", metrics=(TOP1,)))
class Sees(Protocol):
    def __init__(self):
        pass
    def evaluate(self, encoder, data, *, seed, device):
        test = data.split("test")
        embeddings = encoder.embeddings(encoder.features(test.images))
        value = 0.0 if embeddings is None else float(embeddings.abs().mean())
        return Outcome(scores=(Score(metric=TOP1, value=value, n=len(test)),),
                       predictions=pd.DataFrame({"sample": test.samples}))
"""


def test_a_collapse_that_is_recorded_stands_in_the_row_of_the_training(tmp_path: Path, shared_cache: Path) -> None:
    training = {"epochs": 3, "batch_size": 256, "warmup_epochs": 0.5, "on_collapse": "record"}
    suite = write_suite(tmp_path, methods=["collapses"], overrides={}, training=training)
    request = Request(suite=str(suite), store=str(tmp_path / "store"), plugins=(write_plugin(tmp_path),))
    compute(request, shared_cache)
    frame = fresh(request).results.frame()
    (row,) = frame[frame["kind"] == "pretraining"].to_dict("records")
    assert row["status"] == "ok" and "point the same way" in json.loads(row["details"])["collapse"]
    assert set(frame.loc[frame["kind"] == "evaluation", "status"]) == {"ok"}


def test_a_training_that_ends_in_a_collapse_keeps_its_curves(tmp_path: Path, shared_cache: Path) -> None:
    suite = write_suite(tmp_path, methods=["collapses"], overrides={})
    request = Request(suite=str(suite), store=str(tmp_path / "store"), plugins=(write_plugin(tmp_path),))
    compute(request, shared_cache)
    frame = fresh(request).results.frame()
    (row,) = frame[frame["kind"] == "pretraining"].to_dict("records")
    assert row["status"] == "failed" and row["error_type"] == "CollapseError"
    history = request.results.history([row["pretrain_identity"]])
    assert set(history.loc[history["kind"] == "term", "term"]) == {"alignment", "total"}
    assert history["epoch"].max() == 3

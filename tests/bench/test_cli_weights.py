"""Files of weights through the command line: into the store, into the report, and out again."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.data import voc_layout
from bench.encoders.build import load_weights
from bench.encoders.resnet import resnet18
from bench.request import Request
from bench.store import Store

from .data.annotated import write_voc
from .encoders.published_keys import heads, random_network, under
from .tiny import Run, write_suite

NAME = "Our ResNet 18"
CELL = "imported/resnet18/imported[Our ResNet 18]/knn/digits/seed0"


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    return write_suite(tmp_path, methods=["random_init"], overrides={})


def solo_learn_file(file: Path, seed: int = 0) -> nn.Module:
    network = random_network(resnet18(3, stem="solo-learn"), seed)
    state = {**under("backbone.", network.state_dict()), **heads("classifier.weight", "projector.0.weight")}
    torch.save({"state_dict": state}, file)
    return network


def plain_file(file: Path, seed: int = 0) -> nn.Module:
    """With the stem for large images, which leaves little of small ones: quick to evaluate."""
    network = random_network(resnet18(3), seed)
    torch.save(network.state_dict(), file)
    return network


def evaluate(cli: Run, suite: Path, file: str, *more: object) -> tuple[int, str, str]:
    return cli("evaluate", "--weights", file, "--name", NAME, "--suite", suite, "--workers", 1, *more)


def test_a_checkpoint_is_evaluated_remembered_and_shown(cli: Run, suite: Path, tmp_path: Path) -> None:
    network = solo_learn_file(tmp_path / "solo.ckpt")
    code, out, err = evaluate(cli, suite, "solo.ckpt")
    assert (code, err) == (0, "")
    assert "layout solo-learn: one network, 'state_dict.backbone.'" in out
    assert "mean 0.4914, 0.4822, 0.4465, std 0.247, 0.2435, 0.2616 (the usual one of solo-learn)" in out
    assert "tiny: 1 missing. Computing 1 cell." in out and f"  {CELL}: top-1 " in out
    store = Store(str(tmp_path / "jointbench-store"))
    rows = store.frame()
    assert set(rows["pretrain_data"]) == {"imported"} and rows["pretrain_epochs"].isna().all()
    (identity,) = rows.loc[rows["kind"] == "pretraining", "identity"]
    kept = store.pretrained(identity)
    assert kept is not None
    clone = nn.ModuleDict({"backbone": resnet18(3, stem="solo-learn")})
    load_weights(clone, kept[1])
    assert torch.equal(clone["backbone"].conv1.weight, network.conv1.weight)  # type: ignore[arg-type]
    assert str(tmp_path) not in "".join(rows["spec"])
    pages = (tmp_path / "jointbench-report/index.html").read_text()
    assert f">{NAME}<" in pages and "Imported checkpoint, " not in pages
    assert "does not compete" in (tmp_path / "jointbench-report/table1.html").read_text()
    # from now on it belongs to the suite
    _, planned, _ = cli("plan", suite, "--no-calibrate")
    assert "1 fresh, 1 missing" in planned and CELL in planned
    _, again, _ = evaluate(cli, suite, "solo.ckpt")
    assert "nothing to do, all 1 cell fresh" in again
    assert NAME in cli("tables", "1", "--origin", "measured", "--suite", suite)[1]
    assert "1 fresh." in cli("plan", suite, "--no-calibrate", "--methods", NAME)[1]
    assert f"--methods 'imported[{NAME}]' --protocols knn --force" in cli("why", CELL, "--suite", suite)[1]
    # and to no other
    other = tmp_path / "other.yaml"
    other.write_text(suite.read_text())
    assert NAME not in cli("plan", other, "--no-calibrate")[1]
    code, _, err = cli("plan", other, "--no-calibrate", "--methods", "imported")
    assert code == 2 and "Unknown method 'imported'" in err and "evaluate --weights" in err


def test_a_name_stands_for_one_file(cli: Run, suite: Path, tmp_path: Path) -> None:
    plain_file(tmp_path / "one.ckpt")
    plain_file(tmp_path / "two.ckpt", seed=1)
    first = evaluate(cli, suite, "one.ckpt")[1]
    code, _, err = evaluate(cli, suite, "two.ckpt")
    assert code == 2 and f"--name '{NAME}' stands for another file in this store" in err and "--replace" in err
    code, _, err = evaluate(cli, suite, "one.ckpt", "--image-size", 16)
    assert code == 2 and "this file with other settings" in err
    code, _, err = cli("evaluate", "--weights", "two.ckpt", "--name", "Our-ResNet-18", "--suite", suite)
    assert code == 2 and f"the store has '{NAME}'" in err
    code, out, _ = evaluate(cli, suite, "two.ckpt", "--replace")
    assert code == 0 and "1 stale" in out and _value(out) != _value(first)


def _value(out: str) -> str:
    return next(line for line in out.splitlines() if line.startswith(f"  {CELL}: "))


def test_a_store_without_the_weights_says_what_to_do(cli: Run, suite: Path, tmp_path: Path) -> None:
    plain_file(tmp_path / "solo.ckpt")
    evaluate(cli, suite, "solo.ckpt")
    store = tmp_path / "jointbench-store"
    for folder in ("objects", "pretrained", "parts"):
        for file in (store / folder).iterdir():
            file.unlink()
    code, _, err = cli("run", suite, "--workers", 1, "--methods", NAME)
    assert code == 1 and "pre-training failed: JobError: The store has no weights of the imported encoder" in err
    assert f"jointbench evaluate --weights FILE --name '{NAME}'" in err
    assert evaluate(cli, suite, "solo.ckpt")[0] == 0


def test_a_bad_file_or_name_leaves_nothing_behind(cli: Run, suite: Path, tmp_path: Path) -> None:
    network = plain_file(tmp_path / "solo.ckpt")
    state = {name: tensor for name, tensor in network.state_dict().items() if name != "layer4.1.bn2.bias"}
    torch.save(state, tmp_path / "broken.pth")
    code, _, err = evaluate(cli, suite, "broken.pth", "--mean", "0.5,0.5,0.5", "--std", "0.2,0.2,0.2")
    assert code == 2 and "1 missing: layer4.1.bn2.bias" in err
    code, _, err = cli("evaluate", "--weights", "solo.ckpt", "--name", "a/b", "--suite", suite)
    assert code == 2 and "--name 'a/b': use letters" in err
    code, _, err = evaluate(cli, suite, "solo.ckpt", "--mean", "a lot")
    assert code == 2 and "--mean 'a lot': give numbers" in err
    assert not (tmp_path / "jointbench-store/imports").exists()


def test_a_stored_encoder_is_exported_and_comes_back_with_equal_values(cli: Run, suite: Path, tmp_path: Path) -> None:
    cli("run", suite, "--workers", 1)
    code, out, err = cli(
        "export", "random_init", "--format", "safetensors", "--out", "net.safetensors", "--suite", suite
    )
    assert (code, err) == (0, "") and "(convnet; random_init on digits, seed 0)" in out
    code, out, _ = cli("evaluate", "--weights", "net.safetensors", "--name", "again", "--suite", suite, "--workers", 1)
    assert code == 0
    rows = Store(str(tmp_path / "jointbench-store")).frame()
    values = rows[rows["kind"] == "evaluation"].groupby("metric")["value"].agg(["nunique", "count"])
    assert (values["nunique"] == 1).all() and (values["count"] == 2).all()
    code, _, err = cli("export", "again", "--format", "timm", "--out", "x.pth", "--suite", suite)
    assert code == 2 and "convnet is no ResNet" in err
    code, _, err = cli("export", "absent", "--format", "timm", "--out", "x.pth", "--suite", suite)
    assert code == 2 and "Unknown stored encoder 'absent'" in err and "digits/convnet/random_init/seed0" in err


def test_a_file_is_exported_without_a_store(cli: Run, tmp_path: Path) -> None:
    network = solo_learn_file(tmp_path / "solo.ckpt")
    code, out, _ = cli("export", "solo.ckpt", "--format", "torchvision", "--out", "tv.pth")
    assert code == 0 and "net.conv1 = torch.nn.Conv2d(3, 64, 3, padding=2, bias=False)" in out
    state = torch.load(tmp_path / "tv.pth")
    assert all(torch.equal(state[name], tensor) for name, tensor in network.state_dict().items())
    assert not (tmp_path / "jointbench-store").exists()


def test_the_seeds_of_an_encoder_are_told_apart_by_address(cli: Run, suite: Path, shared_cache: Path) -> None:
    cli("run", suite, "--workers", 1, "--seeds", 2)
    code, _, err = cli("export", "random_init", "--format", "safetensors", "--out", "a", "--suite", suite)
    assert code == 2 and "names 2 encoders: digits/convnet/random_init/seed0, digits/convnet/random_init/seed1" in err
    address = "digits/convnet/random_init/seed1"
    assert cli("export", address, "--format", "safetensors", "--out", "a", "--suite", suite)[0] == 0
    rows = Request(suite=str(suite)).results.frame()
    identity = rows.loc[rows["cell"] == address, "identity"].iloc[0]
    assert cli("export", identity[:8], "--format", "safetensors", "--out", "b", "--suite", suite)[0] == 0
    assert Path("a").read_bytes() == Path("b").read_bytes()


def test_a_checkpoint_is_transferred_to_detection_with_the_scenes_alone(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(voc_layout, "OFFICIAL_SIZES", {("VOC2007", "trainval"): 8, ("VOC2007", "test"): 2})
    things = {f"{number}": [("cat", 1 + number, 2, 12 + number, 16)] for number in range(10)}
    write_voc(
        tmp_path / "data" / "VOC2007",
        things,
        {"trainval": list(map(str, range(8))), "test": ["8", "9"]},
    )
    detection = {
        "protocol": "detection",
        "data": {"key": "voc", "params": {"validation": 0.0}},
        "params": {"iterations": 2, "batch_size": 2, "sides": [64], "trials": 1},
    }
    suite = write_suite(
        tmp_path, data={"key": "imagenet"}, methods=["random_init"], overrides={}, protocols=[detection]
    )
    plain_file(tmp_path / "theirs.pth")
    given = ("--suite", suite, "--data", tmp_path / "data", "--workers", 1)
    code, out, err = cli("evaluate", "--weights", "theirs.pth", "--name", NAME, *given)
    assert (code, err) == (0, "")  # there is no ImageNet
    assert "tiny: 1 missing. Computing 1 cell." in out
    assert re.search(r"imported/resnet18/imported\[Our ResNet 18\]/detection/voc/seed0: AP \d", out), out
    assert "the data are not here: No ImageNet below" in (tmp_path / "jointbench-report/index.html").read_text()
    code, out, err = cli("plan", suite, "--data", tmp_path / "data", "--no-calibrate")
    assert code == 2 and "1 fresh, 1 missing" in out and "Nothing of this can run here yet" in err
    assert "published sizes of imagenet: the data are not here. No ImageNet below" in err

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import bench
from bench.store import Store

from .data.tiny import write_cifar10_binary
from .tiny import Run, outcome, write_plugin, write_suite


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_suite(tmp_path)


def start(*words: object, folder: Path, home: Path | None = None) -> subprocess.Popen[str]:
    """The command as a process of its own; ``home`` holds the packages to run instead of the installed ones."""
    environment = {**os.environ}
    if home:
        environment["PYTHONPATH"] = str(home)
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli", *map(str, words)],
        cwd=folder,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_run_reports_and_a_second_run_does_nothing_without_torch(cli: Run, tiny: Path, tmp_path: Path) -> None:
    code, out, err = cli("run", tiny, "--workers", 1)
    assert (code, err) == (0, "")
    assert "tiny: 2 missing. Computing 2 cells." in out and f"Report: {tmp_path}/jointbench-report/index.html" in out
    assert (tmp_path / "jointbench-report/index.html").is_file()
    code = (
        "import sys\nfrom bench.cli import main\ntry: main()\nexcept SystemExit as end: assert not end.code\n"
        "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(tiny)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tiny: nothing to do, all 2 cells fresh." in done.stdout and "(unchanged)" in done.stdout


def test_plan_why_and_store_show_tell_the_state(cli: Run, tiny: Path) -> None:
    assert "missing        digits/convnet/byol/knn/digits/seed0" in cli("plan", tiny)[1]
    cli("run", tiny, "--workers", 1, "--methods", "byol")
    assert "never computed" in Path("jointbench-report/index.html").read_text().lower()  # of the whole suite
    code, out, _ = cli("plan", tiny)
    assert code == 0 and "fresh          digits/convnet/byol" in out and "tiny: 1 fresh, 1 missing." in out
    code, out, _ = cli("why", "byol/knn", "--suite", tiny)
    assert "fresh: spec, code and data are those of the stored result" in out
    assert f"Recompute: jointbench run {tiny} --methods byol --protocols knn --force" in out
    assert "digits/convnet/byol/knn/digits/seed0" in cli("store", "show")[1]
    assert cli("store", "verify") == (0, "Problems found: 0.\n", "")
    assert cli("store", "compact")[1] == "Parts: 2 before, 1 after.\n"
    assert "1 fresh, 1 missing" in cli("plan", tiny)[1]


def test_the_recomputing_command_recomputes_the_same_value(cli: Run, tiny: Path, tmp_path: Path) -> None:
    cli("run", tiny, "--workers", 1, "--threads", 1)
    before = outcome(Store(str(tmp_path / "jointbench-store")))
    _, out, _ = cli("run", tiny, "--methods", "byol", "--protocols", "knn", "--force", "--workers", 1, "--threads", 1)
    assert "Computing 1 cell" in out
    store = Store(str(tmp_path / "jointbench-store"))
    assert outcome(store) == before
    assert len(store.storage.names("parts", ".parquet")) == 5  # the encoder is not trained again


def test_failed_cells_give_exit_code_1_and_a_report(cli: Run, tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path)
    suite = write_suite(tmp_path, methods=["raises", "random_init"], overrides={})
    code, out, err = cli("run", suite, "--plugin", plugin, "--workers", 1)
    assert code == 1 and "Report: " in out
    assert "1 cell failed:" in err and "upside down" in err and "Traceback" not in err + out
    page = (tmp_path / "jointbench-report/index.html").read_text()
    assert "upside down" in page


def test_a_forced_run_that_fails_says_so_and_keeps_the_earlier_results(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "moody.py"
    plugin.write_text(
        "import os\nfrom bench.card import ProtocolCard\nfrom bench.metric import TOP1, TOP5\n"
        "from bench.registry import register_protocol\nfrom protocols.knn import KNN\n"
        '@register_protocol("moody", card=ProtocolCard(title="Moody", summary="s", metrics=(TOP1, TOP5)))\n'
        "class Moody(KNN):\n    def evaluate(self, encoder, data, *, seed, device):\n"
        "        if os.environ.get('MOOD'):\n            raise ValueError('not today')\n"
        "        return super().evaluate(encoder, data, seed=seed, device=device)\n"
    )
    suite = write_suite(tmp_path, methods=["random_init"], overrides={}, protocols=[{"protocol": "moody"}])
    words = ("run", suite, "--plugin", plugin, "--workers", 1)
    assert cli(*words)[0] == 0
    monkeypatch.setenv("MOOD", "bad")
    code, out, err = cli(*words, "--force")
    assert code == 1 and "not today" in out and "1 cell failed" in err and "earlier results are kept" in err
    assert cli("plan", suite, "--plugin", plugin)[1].startswith("fresh")


def test_a_source_edited_under_a_run_is_never_stored_under_the_old_hash(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.runner

    plugin = tmp_path / "edited_method.py"
    plugin.write_text(write_plugin(tmp_path).read_text().replace('"raises"', '"edited"').replace("Raises", "Edited"))
    suite = write_suite(tmp_path, methods=["edited"], overrides={})
    real = bench.runner.run

    def edit_then_run(*arguments: Any, **options: Any) -> None:
        plugin.write_text(plugin.read_text().replace("upside down", "inside out"))
        real(*arguments, **options)

    monkeypatch.setattr(bench.runner, "run", edit_then_run)
    (tmp_path / "bad_methods.py").unlink()
    code, _, err = cli("run", suite, "--plugin", plugin, "--workers", 1)
    assert code == 1 and "inside out" not in err
    log = "".join(path.read_text() for path in (tmp_path / "jointbench-store/logs").iterdir())
    assert "The code was edited while the run was under way" in log and "Edited.forward changed" in log


@pytest.mark.parametrize("format", ["md", "csv", "latex", "json", "html"])
def test_tables_prints_every_format(cli: Run, tiny: Path, format: str) -> None:
    cli("run", tiny, "--workers", 1, "--methods", "random_init")
    code, out, _ = cli("tables", "1", "--origin", "both", "--format", format, "--suite", tiny)
    assert code == 0 and "BYOL" in out and "74.3" in out
    if format == "json":
        json.loads(out)
    if format == "latex":
        assert "\\toprule" in out
    if format == "html":
        assert "<caption" in out and 'scope="row"' in out


def test_tables_prints_table_2_and_says_when_nothing_measures_it(cli: Run, tiny: Path) -> None:
    code, out, _ = cli("tables", "2", "--origin", "published", "--format", "json", "--suite", tiny)
    assert code == 0 and [table["key"] for table in json.loads(out)] == [
        "table2-voc",
        "table2-coco-c4",
        "table2-coco-fpn",
    ]
    code, out, _ = cli("tables", "all", "--suite", tiny)
    assert code == 0 and "**Table 1, published beside measured.**" in out and "PASCAL VOC.**" in out
    code, _, err = cli("tables", "2", "--origin", "measured", "--suite", tiny)
    assert code == 2 and "measures no detection" in err


def test_tables_prints_table_3_and_says_when_nothing_measures_it(cli: Run, tiny: Path) -> None:
    code, out, _ = cli("tables", "3", "--origin", "published", "--format", "json", "--suite", tiny)
    assert code == 0 and [table["key"] for table in json.loads(out)] == [
        "table3-pretext-methods",
        "table3-works-contrastive",
        "table3-works-predictive",
        "table3-works-generative",
        "table3-works-multi-self-supervised",
    ]
    code, out, _ = cli("tables", "all", "--suite", tiny)
    assert code == 0 and "PASCAL VOC.**" in out and "**Table 3: counted by pretext method.**" in out
    code, _, err = cli("tables", "3", "--origin", "measured", "--suite", tiny)
    assert code == 2 and "Table 3: " in err and "no method that is made for medical images" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "qiuck"], "Unknown suite 'qiuck'. Did you mean 'quick'?"),
        (["run", "smoke", "--methods", "vicregg"], "Unknown method 'vicregg'. Did you mean 'vicreg'?"),
        (["run", "smoke", "--protocols", "linear"], "Unknown protocol of this suite 'linear'. Did you mean"),
        (
            ["run", "smoke", "--data", "absent"],
            "absent: there is no such folder or file. Check --data or JOINTBENCH_DATA.",
        ),
        (["run", "smoke", "--dataset", "cifar10"], "Give it with --data FOLDER or set JOINTBENCH_DATA"),
        (["run", "smoke", "--plugin", "absent.py"], "there is no such plug-in file"),
        (["plan", "smoke", "--store", "nowhere://x"], "cannot be opened as a store"),
        (["why", "nothing", "--suite", "smoke"], "Unknown cell 'nothing'"),
        (["check", "absent.py"], "absent.py: there is no such file. Give the path of a Python file"),
        (["run", "smoke", "--out", "/proc/nowhere"], "the report cannot be written there"),
        (["why", "vicreg", "--suite", "smoke"], "'vicreg' names 8 cells"),
        (["new", "method", "Not A Key"], "is no key. Use lower-case letters"),
        (["new", "method", "vicreg"], "exists already"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_code_2(cli: Run, words: list[str], message: str) -> None:
    code, _, err = cli(*words)
    assert code == 2 and message in err
    assert err.startswith("jointbench: ") and "Traceback" not in err and err.count("\n") == 1


def test_a_truncated_image_is_named(cli: Run, tiny: Path, tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(8):
            pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    broken = tmp_path / "photos/dog/3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    code, _, err = cli("run", tiny, "--data", tmp_path / "photos")
    assert code == 2 and str(Path("dog") / "3.png") in err and "Traceback" not in err


def test_a_folder_of_photos_runs_and_shows_its_name(cli: Run, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for label, level in (("dark", 40), ("light", 200)):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(draw.normal(level, 20, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    suite = write_suite(tmp_path, training={"epochs": 2, "batch_size": 16})
    code, _, err = cli("run", suite, "--data", tmp_path / "photos", "--workers", 1)
    assert (code, err) == (0, ""), err
    assert "photos/convnet/byol/knn/photos/seed0" in cli("store", "show")[1]
    assert "photos" in (tmp_path / "jointbench-report/index.html").read_text()


def test_a_part_with_a_flipped_byte_is_set_aside_and_recomputed(cli: Run, tiny: Path, tmp_path: Path) -> None:
    cli("run", tiny, "--workers", 1, "--threads", 1)
    before = outcome(Store(str(tmp_path / "jointbench-store")))
    part = next(iter((tmp_path / "jointbench-store/parts").glob("*.parquet")))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0xFF
    part.write_bytes(content)
    code, _, err = cli("run", tiny, "--workers", 1, "--threads", 1)
    assert code == 0 and f"Quarantined parts/{part.name}" in err and "Traceback" not in err
    assert outcome(Store(str(tmp_path / "jointbench-store"))) == before


def test_a_report_with_a_missing_page_is_built_again(cli: Run, tiny: Path, tmp_path: Path) -> None:
    cli("run", tiny, "--workers", 1, "--methods", "random_init")
    page = tmp_path / "jointbench-report/table1.html"
    page.unlink()
    assert "(unchanged)" not in cli("run", tiny, "--workers", 1, "--methods", "random_init")[1] and page.is_file()
    page.unlink()
    assert cli("report", tiny)[0] == 0 and page.is_file()


def test_paths_that_look_like_markup_are_printed_as_they_are(cli: Run, tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "o [red]x [/bold]"
    code, printed, _ = cli("run", tiny, "--workers", 1, "--methods", "random_init", "--out", out)
    assert code == 0 and f"Report: {out}/index.html" in printed


def test_list_shows_every_kind(cli: Run) -> None:
    for kind, key in (
        ("methods", "vicreg"),
        ("protocols", "semi_supervised"),
        ("datasets", "mnist5k"),
        ("backbones", "resnet50"),
        ("suites", "quick"),
    ):
        code, out, _ = cli("list", kind)
        assert code == 0 and any(line.startswith(key) for line in out.splitlines())


def test_doctor_and_version_answer(cli: Run) -> None:
    code, out, _ = cli("doctor")
    assert code == 0 and "ok   libraries: torch" in out and "detectron2:" in out
    assert cli("--version")[1] == f"jointbench {bench.__version__}\n"


# --- adding a method ----------------------------------------------------------------------------------------------


def test_a_new_method_beside_the_package_passes_its_check_and_runs_as_a_plugin(cli: Run, tmp_path: Path) -> None:
    code, out, _ = cli("new", "method", "mine")
    assert code == 0 and "jointbench run --plugin mine.py" in out
    assert len((tmp_path / "mine.py").read_text().splitlines()) <= 60
    code, out, _ = cli("check", "mine.py")
    assert code == 0 and "FAIL" not in out and out.count("ok  ") >= 8
    suite = write_suite(tmp_path, methods="all", overrides={})
    code, out, _ = cli("run", suite, "--plugin", "mine.py", "--methods", "mine", "--workers", 1)
    assert code == 0 and "Computing 1 cell" in out
    assert (tmp_path / "jointbench-report/methods/mine.html").is_file()
    assert cli("new", "method", "mine")[0] == 2


def test_a_broken_method_fails_its_check_with_a_reason(cli: Run, tmp_path: Path) -> None:
    code, out, _ = cli("check", write_plugin(tmp_path))
    assert code == 1 and "FAIL" in out and "upside down" in out and "SystemExit: 3" in out


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The sources, copied as a checkout that can be edited."""
    source = Path(bench.__file__).parent.parent
    for package in ("bench", "methods", "protocols", "reports"):
        shutil.copytree(source / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "tests").mkdir()
    return tmp_path


def test_only_what_an_edit_touches_becomes_stale(clone: Path, shared_cache: Path) -> None:
    suite = write_suite(clone, methods="all", overrides={"vicreg": {"params": {"projector": [16, 16]}}})
    words = ("--methods", "vicreg,random_init,supervised")

    def plan() -> str:
        code, out, err = finish(start("plan", suite, *extra, folder=clone, home=clone))
        assert code == 0, err
        return out

    extra: tuple[str, ...] = words
    code, _, err = finish(start("run", suite, *words, folder=clone, home=clone))
    assert code == 0, err
    vicreg = clone / "methods/vicreg.py"
    text = vicreg.read_text()

    vicreg.write_text(text.replace("\n    std = ", "\n    # a comment\n    std = ", 1))
    assert "tiny: 3 fresh." in plan()

    changed = text.replace("relu(gamma - std).mean()", "relu(gamma - std).square().mean()")
    assert changed != text
    vicreg.write_text(changed)
    out = plan()
    assert "stale(code)    digits/convnet/vicreg/knn" in out and "tiny: 2 fresh, 1 stale." in out
    _, why, _ = finish(start("why", "vicreg", "--suite", suite, folder=clone, home=clone))
    assert "  - methods.vicreg: variance changed" in why
    vicreg.write_text(text)

    code, out, _ = finish(start("new", "method", "mine", folder=clone, home=clone))
    assert code == 0 and (clone / "methods/mine.py").is_file() and (clone / "tests/methods/test_mine.py").is_file()
    extra = ("--methods", "vicreg,random_init,supervised,mine")
    out = plan()
    assert "missing        digits/convnet/mine/knn" in out and "tiny: 3 fresh, 1 missing." in out
    code, out, err = finish(start("check", "methods/mine.py", folder=clone, home=clone))
    assert code == 0, out + err


# --- processes ----------------------------------------------------------------------------------------------------


def test_two_runs_at_once_share_the_work(tmp_path: Path, shared_cache: Path) -> None:
    methods = ["byol", "vicreg", "random_init", "supervised"]
    suite = write_suite(tmp_path, methods=methods, overrides={"vicreg": {"params": {"projector": [16, 16]}}})
    runs = [start("run", suite, "--workers", 1, "--out", f"report{n}", folder=tmp_path) for n in range(2)]
    for run in runs:
        code, out, err = finish(run)
        assert code == 0, err
        assert "Report: " in out
    store = Store(str(tmp_path / "jointbench-store"))
    frame = store.frame()
    cells = frame[frame["kind"] == "evaluation"]
    assert set(cells["method"]) == set(methods) and set(cells["status"]) == {"ok"}
    assert not store.problems and not store.verify()
    assert len(store.storage.names("parts", ".parquet")) == 8, "a job was computed twice"


def test_runs_killed_at_random_moments_end_like_an_uninterrupted_one(tmp_path: Path, shared_cache: Path) -> None:
    suite = write_suite(tmp_path, training={"epochs": 40, "batch_size": 256})
    options = ("--workers", 2, "--threads", 1)
    code, _, err = finish(start("run", suite, *options, "--store", "calm", folder=tmp_path))
    assert code == 0, err
    draw = random.Random(1)
    for _ in range(4):
        run = start("run", suite, *options, "--store", "killed", folder=tmp_path)
        time.sleep(draw.uniform(2.0, 7.0))
        os.kill(run.pid, signal.SIGKILL)
        run.communicate(timeout=60)  # returns only when the workers, which hold the same pipes, are gone too
    code, _, err = finish(start("run", suite, *options, "--store", "killed", folder=tmp_path))
    assert code == 0, err
    store = Store(str(tmp_path / "killed"))
    assert outcome(store) == outcome(Store(str(tmp_path / "calm")))
    assert not store.problems


def test_new_words_in_a_suite_build_the_report_again(cli: Run, tiny: Path, tmp_path: Path) -> None:
    again = ("run", tiny, "--workers", 1, "--methods", "random_init")
    cli(*again)
    assert "(unchanged)" in cli(*again)[1]
    tiny.write_text(tiny.read_text().replace("title: Tiny", "title: Renamed"))
    assert "(unchanged)" not in cli(*again)[1]
    assert "Renamed" in (tmp_path / "jointbench-report/index.html").read_text()


def test_a_plan_without_the_files_of_a_published_set_tells_the_price_and_that_nothing_can_run(
    cli: Run, tmp_path: Path
) -> None:
    suite = write_suite(tmp_path, data={"key": "cifar10"})
    code, out, err = cli("plan", suite, "--workers", 1)
    lines = out.splitlines()
    assert code == 2 and re.match(r"train +cifar10/convnet/byol/seed0 +\d+\.?\d* (s|min|h)$", lines[0])
    assert re.match(r"missing +cifar10/convnet/byol/knn/cifar10/seed0 .* the data are not here: cifar10$", lines[1])
    assert "tiny: 2 missing. About " in lines[-1] and "3 by calibration)" in lines[-1]
    assert "Nothing of this can run here yet, and the price rests on the published sizes of cifar10" in err
    assert "Dataset 'cifar10' needs your folder of data. Give it with --data FOLDER or set JOINTBENCH_DATA." in err
    code, out, err = cli("run", suite)
    assert code == 2 and not out and err.startswith("jointbench: Dataset 'cifar10' needs your folder")
    assert not (tmp_path / "jointbench-store").exists()
    code, out, _ = cli("why", "byol", "--suite", suite)
    assert code == 0 and "missing: the data are not here: Dataset 'cifar10' needs" in out
    # what the store has is still shown
    code, _, err = cli("report", suite)
    assert (code, err) == (0, "")
    assert "the data are not here: Dataset" in (tmp_path / "jointbench-report/index.html").read_text()
    # with the files everything is as ever
    write_cifar10_binary(tmp_path / "data" / "cifar10", per_batch=30)
    code, out, err = cli("plan", suite, "--no-calibrate", "--data", tmp_path / "data")
    assert (code, err) == (0, "") and "never computed" in out and "not here" not in out

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from .data.annotated import many_scenes, thing_xml, write_voc
from .data.test_near import brightened, pictures
from .data.test_refusal import COPY, write_folder
from .tiny import Run, write_suite

NEAREST = {"protocol": "knn", "params": {"k": 3}}


def write_table(folder: Path, *, patients: bool = True) -> Path:
    """Thirty gray images of ten patients with two findings, and a CSV beside their folder."""
    folder.mkdir(parents=True)
    lines = ["file,patient,edema,mass"]
    for number, image in enumerate(pictures(30, channels=1)):
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{f'p{number // 3}' if patients else ''},{number % 2},{number % 3 - 1}")
    (labels := folder.parent / "findings.csv").write_text("\n".join(lines) + "\n")
    return labels


def test_doctor_counts_a_clean_table(cli: Run, tmp_path: Path) -> None:
    labels = write_table(tmp_path / "cxr")
    code, out, err = cli("data", "doctor", tmp_path / "cxr", "--labels", labels, "--data-param", "image_size=32")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[:2] == ["cxr (table): 30 images, 2 findings", "32×32 (files 32×32) pixels, 8 bits, gray"]
    rows = {line.split("  ")[0]: line.split()[1:] for line in lines if line}
    assert sum(map(int, rows["images"])) == 30 and sum(map(int, rows["patients"])) == 10
    assert out.count("uncertain") and "unknown" not in out
    assert lines[-1] == "No problems: no image, patient or study is shared between splits."


def test_doctor_lists_what_leaks_and_ends_with_1(cli: Run, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    original = root / "train/dog/1.png"
    Image.fromarray(brightened(pictures(30)[4])).save(root / "validation/cat/2.png")
    code, out, err = cli("data", "doctor", root)
    assert (code, err) == (1, "")
    problems = out[out.index("Problems") :]
    assert f"- 1 image in more than one split:\n    {COPY[0]} (train) = {COPY[1]} (test)\n" in problems
    assert original.is_file() and "train/dog/1.png (train) ~ validation/cat/2.png (validation)" in problems
    assert "- 1 image with different labels:" in problems
    assert "files 32×32" in out and "3 (50.0 %)" in out


def test_doctor_names_missing_classes_and_flat_images(cli: Run, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets", leak=False)
    for number in range(3):
        (root / f"test/dog/{number}.png").unlink()
    (root / "test/dog").rmdir()
    Image.new("RGB", (32, 32), (5, 5, 5)).save(root / "train/dog/0.png")
    code, out, _ = cli("data", "doctor", root)
    assert code == 1
    assert "- no test image of:\n    dog" in out and "- 1 image of a single value:\n    train/dog/0.png (train)" in out


def test_doctor_counts_objects_and_lists_those_left_out_with_file_and_number(cli: Run, tmp_path: Path) -> None:
    scenes = many_scenes(12) | {
        "s001": [("dog", 3, 3, 3, 3), ("dog", 2, 2, 9, 9), ("dog", 2, 2, 9, 9)],
        "s005": [thing_xml(("cat", 1, 1, 4, 4), difficult=1)],
    }
    lists = {"train": list(scenes)[:8], "val": list(scenes)[8:10], "test": list(scenes)[10:]}
    code, out, err = cli("data", "doctor", write_voc(tmp_path / "pets", scenes, lists))
    assert (code, err) == (1, "")
    counts = {line.split()[0]: line.split()[-3:] for line in out.splitlines() if len(line.split()) >= 4}
    assert out.startswith("pets (voc): 12 images, 2 classes")
    assert counts["objects"] == ["10", "2", "1"] and counts["dog"] == ["5", "1", "0"]
    assert counts["difficult"] == ["1", "0", "0"] and counts["left"] == ["1", "0", "0"]
    problem = "Annotations/s001.xml, object 1 (dog): (3, 3, 3, 3) in s001.png, 30×20 pixels: without area"
    assert f"- 1 object left out:\n    {problem}\n" in out[out.index("Problems") :]
    assert "- 1 object more than once with the same box:\n    JPEGImages/s001.png: dog (1, 1, 9, 9)" in out


def test_doctor_refuses_broken_annotations_in_one_message(cli: Run, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "pets", many_scenes(12) | {"s001": [("dog", 1, 1, 99, 9)]})
    code, _, err = cli("data", "doctor", root)
    assert code != 0 and "Traceback" not in err
    assert "Annotations/s001.xml, object 1 (dog): (0, 0, 99, 9) in s001.png" in err and "flawed=clip" in err


def test_doctor_takes_a_dataset_that_is_registered(cli: Run) -> None:
    code, out, _ = cli("data", "doctor", "digits")
    assert out.startswith("Digits (digits): 1797 images, 10 classes\n8×8 pixels, 8 bits, gray") and code in (0, 1)


def test_an_added_set_runs_under_its_name_from_anywhere(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "pets", leak=False)
    code, out, err = cli("data", "add", "mypets", "pets", "--data-param", "image_size=16")
    assert (code, err) == (0, "") and out.endswith("Kept as mypets: jointbench run --dataset mypets\n")
    kept = json.loads((tmp_path / "config/datasets.json").read_text())["datasets"]["mypets"]
    assert kept["root"] == str(tmp_path / "pets")
    assert kept["data"] == {"key": "folder", "params": {"name": "mypets", "image_size": 16}}
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    suite = write_suite(tmp_path, methods=["random_init"], overrides={}, protocols=[NEAREST])
    code, out, err = cli("run", suite, "--dataset", "mypets", "--workers", 1)
    assert (code, err) == (0, "")
    assert "mypets/convnet/random_init/knn/mypets/seed0" in cli("store", "show")[1]
    assert (
        "Recompute: jointbench run own --dataset mypets --methods byol"
        in cli("why", "byol/diagnostics", "--dataset", "mypets")[1]
    )
    assert f"mypets  yours: {tmp_path}/pets (folder) image_size=16" in cli("data", "list")[1]
    assert "yours: " in cli("list", "datasets")[1] and cli("data", "doctor", "mypets")[0] == 0
    assert cli("data", "remove", "mypets")[1] == "mypets is forgotten; its images are untouched.\n"
    assert cli("data", "list")[1] == "None yet: jointbench data add NAME PATH\n"
    assert cli("run", suite, "--dataset", "mypets")[0] == 2


def test_adding_refuses_leaks_until_they_are_allowed(cli: Run, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    code, out, err = cli("data", "add", "pets", root)
    assert code == 2 and COPY[1] in out and "is not kept: its splits share images or patients" in err
    assert cli("data", "list")[1].startswith("None yet")
    assert cli("data", "add", "pets", root, "--allow-leakage")[0] == 0
    assert "allow_leakage=True" in cli("data", "list")[1]
    suite = write_suite(tmp_path, methods=["random_init"], overrides={}, protocols=[NEAREST])
    assert cli("plan", suite, "--dataset", "pets", "--no-calibrate")[0] == 0


def test_adding_under_a_wrong_name_reads_nothing(cli: Run, tmp_path: Path) -> None:
    assert "is a dataset already" in cli("data", "add", "digits", tmp_path / "absent")[2]
    assert "is no name" in cli("data", "add", "a/b", tmp_path / "absent")[2]


def test_a_run_refuses_leaks_in_one_message(cli: Run, tmp_path: Path) -> None:
    root = write_folder(tmp_path / "pets")
    suite = write_suite(tmp_path, methods=["random_init"], overrides={}, protocols=[NEAREST])
    code, _, err = cli("run", suite, "--data", root)
    assert code == 2 and COPY[0] in err and "allow_leakage=true" in err and err.count("\n") == 1
    words = ("--data", root, "--data-param", "allow_leakage=true", "--data-param", "image_size=16")
    assert cli("run", suite, *words, "--workers", 1)[0] == 0
    assert cli("tables", "1", "--suite", suite, *words)[0] == 0
    assert cli("report", suite, *words)[0] == 0
    out = cli("why", "random_init/knn", "--suite", suite, *words)[1]
    repeated = f"jointbench run {suite} --data {root} --data-param allow_leakage=true --data-param image_size=16"
    assert "fresh" in out and f"Recompute: {repeated} --methods random_init" in out


def test_images_of_ones_own_take_the_suite_for_them(cli: Run, tmp_path: Path) -> None:
    write_folder(tmp_path / "pets", leak=False)
    assert "\nown: " in cli("plan", "--data", tmp_path / "pets", "--no-calibrate")[1]
    assert "\nquick: " in cli("plan", "--no-calibrate")[1]


def test_labels_and_parameters_reach_the_spec(cli: Run, tmp_path: Path) -> None:
    labels = write_table(tmp_path / "cxr")
    suite = write_suite(tmp_path, methods=["random_init"], overrides={}, protocols=[{"protocol": "diagnostics"}])
    words = ("plan", suite, "--data", "cxr", "--labels", labels, "--no-calibrate")
    assert "cxr/convnet/random_init/diagnostics/cxr/seed0" in cli(*words)[1]
    assert "Unknown parameter of dataset 'table' 'image'" in cli(*words, "--data-param", "image=3")[2]

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.choice import Choice, choose, default_suite, parse_params
from bench.collection import Collection, Named
from bench.errors import DataError, RequestError, SpecError, UnknownNameError
from bench.registry import Registry, discover
from bench.request import Request
from bench.spec import DataSpec

from .data.tiny import write_cifar10_binary, write_class_folders, write_fashion_mnist, write_image
from .tiny import write_suite


@pytest.fixture(scope="module")
def datasets() -> Registry:
    return discover().datasets


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOINTBENCH_CONFIG", str(tmp_path / "config"))
    monkeypatch.delenv("JOINTBENCH_DATA", raising=False)


def chosen(
    datasets: Registry,
    *,
    data: Path | None = None,
    dataset: str = "",
    labels: Path | None = None,
    params: Sequence[str] = (),
    suite: Sequence[DataSpec] = (),
) -> Choice:
    return choose(datasets, data=data, dataset=dataset, labels=labels, params=params, suite=suite)


def table(folder: Path) -> Path:
    write_image(folder / "1.png")
    labels = folder.parent / "findings.csv"
    labels.write_text("file,label\n1.png,a\n")
    return labels


def test_values_have_the_type_of_the_parameter(datasets: Registry) -> None:
    entry = datasets["table"]
    given = ["image_size=32", "window=[-1000, 400.5]", "name=7", "use_splits=false", "findings=[Edema, Mass]", "test=1"]
    assert parse_params(given, entry) == {
        "image_size": 32,
        "window": (-1000, 400.5),
        "name": "7",
        "use_splits": False,
        "findings": ("Edema", "Mass"),
        "test": 1.0,
    }


@pytest.mark.parametrize(
    ("param", "error", "message"),
    [
        ("image_size", SpecError, "is no KEY=VALUE"),
        ("=3", SpecError, "is no KEY=VALUE"),
        (
            "imagesize=3",
            UnknownNameError,
            "Unknown parameter of dataset 'table' 'imagesize'. Did you mean 'image_size'",
        ),
        ("image_size=big", SpecError, "parameter 'image_size' must be like 64"),
        ("use_splits=0", SpecError, "must be like True"),
        ("findings=Edema", SpecError, r"a list is needed. Write findings=\[Edema\]"),
        ("window=[[1], 2]", SpecError, "a list of these is needed"),
        ("image_size={a: 1}", SpecError, "a list of these is needed"),
        ("window=[1", SpecError, "is no YAML"),
    ],
)
def test_wrong_parameters_are_errors(datasets: Registry, param: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse_params([param], datasets["table"])


def test_a_parameter_given_twice_is_an_error(datasets: Registry) -> None:
    with pytest.raises(SpecError, match="'test' twice"):
        parse_params(["test=0.1", "test=0.2"], datasets["table"])


def test_a_path_is_recognized_and_its_parameters_join(datasets: Registry, tmp_path: Path) -> None:
    labels = table(tmp_path / "cxr")
    found = chosen(datasets, data=tmp_path / "cxr", labels=labels, params=["image_size=16"])
    params = {"name": "cxr", "labels": "../findings.csv", "image_size": 16}
    assert found == Choice(tmp_path / "cxr", DataSpec(key="table", params=params))


def test_the_folder_in_the_environment_says_where_datasets_lie_and_chooses_none(
    datasets: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOINTBENCH_DATA", str(tmp_path))
    assert chosen(datasets) == Choice(tmp_path, None)
    assert default_suite(None, "") == "quick"
    assert chosen(datasets, dataset="cifar10") == Choice(tmp_path, DataSpec(key="cifar10"))
    named = DataSpec(key="folder", params={"name": tmp_path.name})
    assert chosen(datasets, dataset="folder") == Choice(tmp_path, named)


def test_a_folder_with_what_the_suite_names_is_where_it_lies_and_replaces_nothing(
    datasets: Registry, tmp_path: Path
) -> None:
    root = tmp_path / "data"
    write_cifar10_binary(root / "cifar-10-batches-bin")
    write_fashion_mnist(root / "fashion-mnist")
    two = [DataSpec(key="cifar10"), DataSpec(key="fashion_mnist")]
    assert chosen(datasets, data=root, suite=two) == Choice(root, None)
    # a part is enough: a checkpoint needs no images to train on
    assert chosen(datasets, data=root, suite=[DataSpec(key="imagenet"), two[1]]) == Choice(root, None)
    with pytest.raises(RequestError, match=r"the suite has 2: cifar10, fashion_mnist\. Copy its file"):
        chosen(datasets, data=root, suite=two, params=["x=1"])
    with pytest.raises(UnknownNameError, match="parameter of dataset 'cifar10' 'x'"):
        chosen(datasets, data=root, suite=two[:1], params=["x=1"])
    # images of one's own replace what the suite names
    write_class_folders(tmp_path / "pets", per_class=1)
    assert chosen(datasets, data=tmp_path / "pets", suite=two).spec == DataSpec(key="folder", params={"name": "pets"})
    with pytest.raises(
        DataError, match=r"no layout that is known.* Nor does it hold what the suite runs on: imagenet\."
    ):
        chosen(datasets, data=root / "fashion-mnist", suite=[DataSpec(key="imagenet")])


def test_a_request_looks_for_every_dataset_of_its_suite(tmp_path: Path) -> None:
    protocols = [{"protocol": "knn"}, {"protocol": "knn", "data": {"key": "fashion_mnist"}}]
    suite = write_suite(tmp_path, data={"key": "cifar10"}, protocols=protocols)
    write_fashion_mnist(tmp_path / "data")
    assert Request(suite=str(suite), data=tmp_path / "data").chosen == Choice(tmp_path / "data", None)


def test_the_suite_without_a_name_is_own_for_images_of_ones_own(datasets: Registry, tmp_path: Path) -> None:
    Collection().add("pets", Named(root=str(tmp_path), data=DataSpec(key="folder")), registered=datasets)
    assert default_suite(None, "") == "quick"
    assert default_suite(tmp_path, "") == "own"
    assert default_suite(tmp_path, "cifar10") == "quick"
    assert default_suite(None, "pets") == "own"


def test_a_key_with_a_file_or_labels_hands_them_to_the_loader(datasets: Registry, tmp_path: Path) -> None:
    labels = table(tmp_path / "cxr")
    (tmp_path / "a.npz").write_bytes(b"")
    found = chosen(datasets, data=tmp_path / "a.npz", dataset="medmnist")
    assert found == Choice(tmp_path, DataSpec(key="medmnist", params={"path": "a.npz"}))
    found = chosen(datasets, data=tmp_path / "cxr", dataset="table", labels=labels)
    assert found.spec == DataSpec(key="table", params={"name": "cxr", "labels": "../findings.csv"})
    with pytest.raises(RequestError, match=r"is a file, and dataset 'cifar10' has no parameter 'path'"):
        chosen(datasets, data=tmp_path / "a.npz", dataset="cifar10")
    with pytest.raises(RequestError, match=r"--labels is given, and dataset 'cifar10' has no parameter 'labels'"):
        chosen(datasets, data=tmp_path, dataset="cifar10", labels=labels)


def test_labels_and_parameters_need_images(datasets: Registry, tmp_path: Path) -> None:
    for options in ({"labels": tmp_path / "l.csv"}, {"params": ["image_size=3"]}):
        with pytest.raises(RequestError, match="give --data or --dataset, too"):
            chosen(datasets, **options)  # type: ignore[arg-type]


def test_a_name_of_the_users_stands_for_folder_and_parameters(datasets: Registry, tmp_path: Path) -> None:
    kept = DataSpec(key="folder", params={"name": "pets", "image_size": 16})
    Collection().add("pets", Named(root=str(tmp_path), data=kept), registered=datasets)
    assert chosen(datasets, dataset="pets") == Choice(tmp_path, kept)
    changed = chosen(datasets, dataset="pets", params=["image_size=8"]).spec
    assert changed is not None and changed.params == {"name": "pets", "image_size": 8}
    with pytest.raises(RequestError, match="'pets' is kept with its folder"):
        chosen(datasets, dataset="pets", data=tmp_path)
    with pytest.raises(UnknownNameError, match=r"Unknown dataset 'pet'\. Did you mean 'pets'"):
        chosen(datasets, dataset="pet")
    Collection().add("gone", Named(root=str(tmp_path / "gone"), data=kept), registered=datasets)
    with pytest.raises(DataError, match="the folder of the data set 'gone', is not there"):
        chosen(datasets, dataset="gone")


def test_the_collection_survives_and_refuses_names_that_mislead(datasets: Registry, tmp_path: Path) -> None:
    collection = Collection()
    named = Named(root="/a", data=DataSpec(key="folder"))
    for name in ("b-1", "a.x"):
        collection.add(name, named, registered=datasets)
    assert list(Collection().sets()) == ["a.x", "b-1"]
    for name, message in (("digits", "is a dataset already"), ("a/b", "is no name"), ("", "is no name")):
        with pytest.raises(RequestError, match=message):
            collection.add(name, named, registered=datasets)
    collection.remove("a.x")
    assert Collection().sets() == {"b-1": named}
    with pytest.raises(RequestError, match=r"under the name 'a.x'. Known: b-1\."):
        collection.remove("a.x")
    collection.file.write_text("{broken")
    with pytest.raises(DataError, match="Correct the file, or delete it"):
        collection.sets()


def test_the_recomputing_command_repeats_the_options(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "pets", per_class=1)
    request = Request(suite="own", data=tmp_path / "pets", data_params=("image_size=16", "window=[0, 9]"))
    words = ["own", "--data", str(tmp_path / "pets"), "--data-param", "image_size=16", "--data-param", "window=[0, 9]"]
    assert list(request._words()) == words
    request = Request(suite="own", dataset="table", labels=Path("l.csv"))
    assert list(request._words()) == ["own", "--labels", "l.csv", "--dataset", "table"]

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from bench.errors import RegistrationError, SpecError, UnknownNameError
from bench.registry import discover

METHOD = """\
from bench.card import MethodCard
from bench.registry import register_method
from bench.training.method import Method

@register_method("{key}", card=MethodCard(title="T", family="contrastive", summary="s", complete_collapse="c"))
class Thing(Method):
    def __init__(self, backbone, *, rate: float = 0.5, sizes: tuple[int, ...] = (4, 2), flag: bool = False):
        super().__init__(backbone)
    def forward(self, views):
        return {{}}
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "thing.py"
    file.write_text(METHOD.format(key="thing"))
    return file


def test_the_built_in_folders_are_discovered() -> None:
    catalog = discover()
    assert {"simclr", "byol", "vicreg", "supervised", "random_init"} <= {entry.key for entry in catalog.methods}
    assert {"linear_probe", "knn", "semi_supervised"} <= {entry.key for entry in catalog.protocols}
    assert {"digits", "mnist5k", "fashion_mnist", "cifar10", "cifar100", "folder"} <= {
        entry.key for entry in catalog.datasets
    }
    assert {"convnet", "resnet18", "resnet34", "resnet50"} <= {entry.key for entry in catalog.backbones}
    assert {"smoke", "quick"} <= set(catalog.suites)


def test_every_entry_loads_and_carries_its_card() -> None:
    catalog = discover()
    for kind in ("method", "protocol", "dataset", "backbone"):
        for entry in catalog.registry(kind):
            loaded = entry.load()
            assert (loaded.key, loaded.card) == (entry.key, entry.card), entry.where


def test_a_plugin_file_adds_an_entry_that_loads(plugin: Path) -> None:
    entry = discover([plugin]).methods["thing"]
    assert entry.plugin and entry.file == plugin
    assert entry.load().key == "thing"
    assert entry.load() is entry.load()


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown method 'vicregg'. Did you mean 'vicreg'\? Known: .*simclr"):
        discover().methods["vicregg"]


def test_a_taken_key_names_both_places(tmp_path: Path) -> None:
    file = tmp_path / "again.py"
    file.write_text(METHOD.format(key="vicreg"))
    with pytest.raises(RegistrationError, match=r"again\.py:6: the method key 'vicreg' is taken by .*vicreg\.py:\d+"):
        discover([file])


def test_a_missing_or_empty_plugin_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RegistrationError, match="there is no such plug-in file"):
        discover([tmp_path / "absent.py"])
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(RegistrationError, match="registers nothing"):
        discover([empty])


def test_two_plugins_of_one_name_are_refused_and_one_given_twice_is_not(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    again = tmp_path / "other" / plugin.name
    again.write_text(METHOD.format(key="another"))
    with pytest.raises(RegistrationError, match="Two plug-in files have the same name"):
        discover([plugin, again])
    assert "thing" in discover([plugin, plugin]).methods


def test_a_built_in_file_given_as_a_plugin_stays_built_in() -> None:
    file = discover().methods["vicreg"].file
    assert not discover([file]).methods["vicreg"].plugin


def test_a_plugin_that_ends_the_program_is_an_error(plugin: Path) -> None:
    plugin.write_text("import sys\n" + plugin.read_text() + "\nsys.exit(0)\n")
    with pytest.raises(RegistrationError, match=r"thing.py: ends the program when it is imported \(exit 0\)"):
        discover([plugin]).methods["thing"].load()


def test_a_plugin_may_import_the_files_beside_it(plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "beside_the_thing.py").write_text("X = 1\n")
    plugin.write_text("from beside_the_thing import X\n" + plugin.read_text())
    assert discover([plugin]).methods["thing"].load().key == "thing"


def test_an_installed_package_registers_through_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "friendly_package.py").write_text(METHOD.format(key="friend"))
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("friend", "friendly_package:Thing", "jointbench.methods")
    absent = importlib.metadata.EntryPoint("gone", "no_such_package:Thing", "jointbench.methods")

    def points(group: str) -> list[importlib.metadata.EntryPoint]:
        return [point] if group == "jointbench.methods" else []

    monkeypatch.setattr(importlib.metadata, "entry_points", points)
    assert discover().methods["friend"].load().key == "friend"
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [absent] if "methods" in group else [])
    with pytest.raises(RegistrationError, match="names a module that cannot be found"):
        discover()


def test_an_installed_package_brings_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_suites"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "theirs.yaml").write_text("title: Theirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = importlib.metadata.EntryPoint("theirs", "their_suites", "jointbench.suites")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if "suites" in group else [])
    assert discover().suites["theirs"] == package / "theirs.yaml"
    (package / "quick.yaml").touch()
    with pytest.raises(RegistrationError, match=r"the suite key 'quick' is taken by .*quick\.yaml"):
        discover()


def test_parameters_are_completed_in_the_type_of_their_default(plugin: Path) -> None:
    entry = discover([plugin]).methods["thing"]
    assert entry.complete({"rate": 1, "sizes": [8, 8]}) == {"rate": 1.0, "sizes": (8, 8), "flag": False}
    assert isinstance(entry.complete({"rate": 1})["rate"], float)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rates": 1}, r"Unknown parameter of method 'thing' 'rates'. Did you mean 'rate'\?"),
        ({"rate": "high"}, r"parameter 'rate' must be like 0.5 \(float\), got 'high'"),
        ({"rate": float("nan")}, r"parameter 'rate' must be finite, got nan"),
        ({"flag": 1}, r"parameter 'flag' must be like False \(bool\), got 1"),
        ({"sizes": ["a"]}, r"parameter 'sizes' must be like 4 \(int\), got 'a'"),
    ],
)
def test_a_wrong_parameter_is_an_error(plugin: Path, given: dict[str, object], message: str) -> None:
    with pytest.raises((UnknownNameError, SpecError), match=message):
        discover([plugin]).methods["thing"].complete(given)

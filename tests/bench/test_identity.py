from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from bench.identity import (
    canonical_dump,
    code_manifest,
    digest,
    evaluation_identity,
    manifest_changes,
    pretraining_identity,
)
from bench.registry import Catalog, discover
from bench.spec import DataSpec, PretrainSpec, RunSpec, TrainingSpec, ViewSpec

SOURCE = '''\
"""A module."""
import math
from bench.card import MethodCard
from bench.registry import register_method

SCALE = 2.0

@register_method("mine", card=MethodCard(title="A", family="contrastive", summary="s"))
class Mine:
    """A class."""

    def __init__(self, backbone, *, width: int = 3):
        self.width = width  # a comment

    def forward(self, views):
        return {"loss": SCALE * views[0].mean()}
'''


def manifest_of(folder: Path, source: str, name: str = "mine") -> dict[str, dict[str, str]]:
    file = folder / f"{name}.py"
    file.write_text(source)
    return code_manifest([("mine", file)])


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another comment"),
        ('"""A module."""', '"""Other words."""'),
        ('    """A class."""\n', ""),
        ("width: int = 3", "width: int=(3)"),
        ('title="A"', 'title="B"'),
        ("import math\n", "import math\nimport json\n"),
    ],
)
def test_comments_format_docstrings_and_cards_do_not_count(tmp_path: Path, old: str, new: str) -> None:
    assert old in SOURCE
    assert digest(manifest_of(tmp_path, SOURCE)) == digest(manifest_of(tmp_path, SOURCE.replace(old, new), "other"))


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("SCALE * views[0]", "SCALE * views[1]", "mine: Mine.forward changed"),
        ("SCALE = 2.0", "SCALE = 2.5", "mine: SCALE changed"),
        ("int = 3", "int = 4", "mine: Mine.__init__ changed"),
        ("class Mine:", "class Mine(Base):", "mine: Mine changed"),
        ("SCALE = 2.0\n", "SCALE = 2.0\nOTHER = 1\n", "mine: OTHER added"),
    ],
)
def test_what_computes_counts_and_the_change_is_named(tmp_path: Path, old: str, new: str, change: str) -> None:
    before = manifest_of(tmp_path, SOURCE)
    after = manifest_of(tmp_path, SOURCE.replace(old, new), "other")
    assert manifest_changes(before, after) == [change]
    assert digest(before) != digest(after)


def test_moving_a_line_out_of_a_loop_counts(tmp_path: Path) -> None:
    inside = "def f(x):\n    for i in x:\n        a(i)\n        b()\n"
    outside = "def f(x):\n    for i in x:\n        a(i)\n    b()\n"
    assert manifest_of(tmp_path, inside) != manifest_of(tmp_path, outside, "other")


def test_a_file_beside_a_plugin_counts_and_other_imports_do_not(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("X = 1\n")
    with_import = SOURCE.replace("import math\n", "import math\nimport beside\nimport bench.store\n")
    manifest = manifest_of(tmp_path, with_import)
    assert set(manifest) == {"mine", "beside"}


def test_the_modules_of_an_entrys_own_package_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "their_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "losses.py").write_text("def loss(z):\n    return z\n")
    (package / "method.py").write_text("from their_package.losses import loss\nX = loss\n")
    (package / "relative.py").write_text("from .losses import loss\nX = loss\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("method", "relative"):
        manifest = code_manifest([(f"their_package.{name}", package / f"{name}.py")])
        assert set(manifest) == {f"their_package.{name}", "their_package.losses"}


def test_a_card_kept_in_a_constant_does_not_count(tmp_path: Path) -> None:
    with_card = SOURCE + 'CARD = MethodCard(title="A", family="contrastive", summary="s")\n'
    assert manifest_of(tmp_path, with_card) == manifest_of(tmp_path, SOURCE, "other")


def test_the_dump_leaves_out_what_differs_between_python_versions() -> None:
    import ast

    text = canonical_dump(ast.parse("def f(x: int) -> int:\n    return x + 1\n"))
    assert text == (
        "Module(body=[FunctionDef(args=arguments(args=[arg(annotation=Name(id='int'),arg='x')]),"
        "body=[Return(value=BinOp(left=Name(id='x'),op=Add(),right=Constant(value=1)))],name='f',"
        "returns=Name(id='int'))])"
    )


# --- identities of jobs -------------------------------------------------------------------------------------------

VIEWS = (ViewSpec(), ViewSpec())


def spec_of(method: str = "vicreg", protocol: str = "knn", **training: object) -> RunSpec:
    data = DataSpec(key="digits")
    trained = TrainingSpec.model_validate(training) if method != "random_init" else None
    pretrain = PretrainSpec(
        method=method, backbone="convnet", data=data, views=VIEWS if trained else (), training=trained
    )
    return RunSpec(pretrain=pretrain, protocol=protocol, data=data)


def hashes(catalog: Catalog, spec: RunSpec) -> tuple[str, str, str]:
    encoder = pretraining_identity(spec.pretrain, catalog, fingerprint="f" * 64)
    identity = evaluation_identity(spec, catalog, encoder, fingerprint="f" * 64)
    return identity.spec, identity.code, identity.data


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the four packages that the registry and the hashes look at instead of the installed ones."""
    import bench.identity

    for package in ("bench", "methods", "protocols", "reports"):
        source = Path(sys.modules["bench"].__file__ or "").parent.parent / package
        shutil.copytree(source, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    real = bench.identity.importlib.util.find_spec

    class Spec:
        def __init__(self, path: Path) -> None:
            self.origin = str(path / "__init__.py")
            self.submodule_search_locations = [str(path)]

    def find_spec(name: str) -> object:
        path = tmp_path.joinpath(*name.split("."))
        return Spec(path) if path.is_dir() else real(name)

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    bench.identity._source.cache_clear()
    yield tmp_path
    bench.identity._source.cache_clear()


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} no longer holds {old!r}"
    file.write_text(text.replace(old, new, 1))


def test_a_change_of_the_loss_touches_only_its_own_method(checkout: Path) -> None:
    before = {name: hashes(discover(), spec_of(name)) for name in ("vicreg", "simclr", "byol", "random_init")}
    edit(checkout / "methods/vicreg.py", "relu(gamma - std).mean()", "relu(gamma - std).sum()")
    after = {name: hashes(discover(), spec_of(name)) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"vicreg"}


@pytest.mark.parametrize(
    ("file", "old", "new", "touched"),
    [
        ("bench/cli.py", "Report: ", "The report: ", set()),
        ("bench/runner.py", "timeout=0.2", "timeout=0.3", set()),
        ("bench/store.py", 'compression="zstd"', 'compression="snappy"', set()),
        ("bench/training/checkpoint.py", "is damaged", "is broken", set()),
        (
            "bench/data/dataset.py",
            "return int(self.images.shape[3])",
            "return int(self.images.shape[-1])",
            {"trained knn", "trained linear", "random knn", "random linear"},
        ),
        ("protocols/knn.py", "temperature: float = 0.07", "temperature: float = 0.08", {"trained knn", "random knn"}),
        ("bench/training/optimizers.py", "class LARS", "EXTRA = 1\n\n\nclass LARS", {"trained knn", "trained linear"}),
        (
            "bench/encoders/convnet.py",
            "nn.MaxPool2d(2)",
            "nn.AvgPool2d(2)",
            {"trained knn", "trained linear", "random knn", "random linear"},
        ),
    ],
)
def test_a_change_makes_stale_exactly_what_it_computes(
    checkout: Path, file: str, old: str, new: str, touched: set[str]
) -> None:
    specs = {
        f"{kind} {short}": spec_of(method, protocol)
        for kind, method in (("trained", "vicreg"), ("random", "random_init"))
        for short, protocol in (("knn", "knn"), ("linear", "linear_probe"))
    }
    before = {name: hashes(discover(), spec) for name, spec in specs.items()}
    edit(checkout / file, old, new)
    after = {name: hashes(discover(), spec) for name, spec in specs.items()}
    assert {name for name in specs if before[name][1] != after[name][1]} == touched


def test_code_that_reads_or_scores_scenes_counts_for_detection_alone_and_that_which_finds_them_does_not() -> None:
    detection, probe = (set(code_manifest([(f"protocols.{key}", None)])) for key in ("detection", "linear_probe"))
    computing = {
        "bench.data.detection",
        "bench.data.imaging",
        "bench.detection.training",
        "bench.detection.resizing",
        "bench.statistics.matching",
    }
    assert computing <= detection and not computing & probe
    assert not {"bench.data.voc", "bench.data.scenes", "bench.data.sources", "bench.training.checkpoint"} & detection


def test_only_the_spec_hash_follows_the_recipe() -> None:
    catalog = discover()
    first, second = hashes(catalog, spec_of(epochs=2)), hashes(catalog, spec_of(epochs=3))
    assert first[0] != second[0] and first[1:] == second[1:]


def test_a_second_backbone_of_the_method_is_part_of_its_code(checkout: Path) -> None:
    def code(**params: str) -> str:
        pretrain = spec_of().pretrain.model_copy(update={"method_params": params})
        return pretraining_identity(pretrain, discover(), fingerprint="f" * 64).code

    alone, both = code(), code(second_backbone="resnet18")
    assert code(second_backbone="") == code(second_backbone="convnet") == alone != both == code(teacher="resnet18")
    edit(checkout / "bench/encoders/resnet.py", "nn.Identity()", "nn.Identity(1)")
    assert code() == alone and code(second_backbone="resnet18") != both


def test_no_path_of_the_machine_enters_a_hash(checkout: Path, tmp_path: Path) -> None:
    here = hashes(discover(), spec_of())
    moved = tmp_path / "moved"
    moved.mkdir()
    manifest = code_manifest([("mine", Path(shutil.copy(checkout / "methods/vicreg.py", moved / "mine.py")))])
    original = code_manifest([("mine", checkout / "methods/vicreg.py")])
    assert manifest == original
    assert str(tmp_path) not in repr(here) + repr(manifest)

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.errors import SpecError, UnknownNameError
from bench.registry import discover
from bench.spec import DataSpec, PairingSpec, PretrainSpec, RunSpec
from bench.suite import Candidate, Evaluation, expand, find_suite, load_suite
from bench.training.optimizers import scaled_lr
from bench.training.schedule import Schedule

CONTENT = {
    "title": "Mine",
    "data": {"key": "digits"},
    "backbone": {"key": "convnet", "params": {"width": 8}},
    "training": {"epochs": 4, "lr": 0.1},
    "views": [{"flip": 0.0}],
    "methods": ["vicreg", "random_init", "supervised"],
    "overrides": {"vicreg": {"params": {"projector": [16, 16]}, "training": {"lr": 0.2}}},
    "protocols": [
        {"protocol": "knn", "params": {"k": 5}},
        {"protocol": "semi_supervised", "variant": "1%", "params": {"fraction": 0.01}},
        {"protocol": "semi_supervised", "variant": "10%", "params": {"fraction": 0.1}},
    ],
}


def write(folder: Path, **changes: object) -> Path:
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump({**CONTENT, **changes}))
    return file


def specs_of(folder: Path, **changes: object) -> tuple[RunSpec, ...]:
    return expand(load_suite(write(folder, **changes)), discover())


def test_a_suite_expands_into_methods_times_seeds_times_protocols(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, seeds=2)
    assert len(specs) == 3 * 2 * 3
    assert len({spec.digest() for spec in specs}) == len(specs)


def test_overrides_change_their_own_method_alone(tmp_path: Path) -> None:
    by_method = {spec.pretrain.method: spec.pretrain for spec in specs_of(tmp_path)}
    assert by_method["vicreg"].method_params["projector"] == (16, 16)
    assert by_method["vicreg"].training is not None and by_method["vicreg"].training.lr == 0.2
    assert by_method["vicreg"].training.epochs == 4
    assert by_method["supervised"].training is not None and by_method["supervised"].training.lr == 0.1


def test_specs_are_completed_with_every_default(tmp_path: Path) -> None:
    spec = specs_of(tmp_path)[0]
    assert spec.pretrain.method_params["sim_coeff"] == 25.0
    assert spec.pretrain.backbone_params == {"width": 8}
    assert set(spec.protocol_params) >= {"k", "temperature"} and spec.protocol_params["k"] == 5


def test_views_and_training_are_absent_where_they_cannot_change_the_answer(tmp_path: Path) -> None:
    by_method = {spec.pretrain.method: spec.pretrain for spec in specs_of(tmp_path)}
    assert by_method["random_init"].views == () and by_method["random_init"].training is None
    assert len(by_method["supervised"].views) == 1 and len(by_method["vicreg"].views) == 2


def test_a_change_of_the_training_leaves_random_initialization_alone(tmp_path: Path) -> None:
    before = {spec.digest() for spec in specs_of(tmp_path) if spec.pretrain.method == "random_init"}
    after = {
        spec.digest() for spec in specs_of(tmp_path, training={"epochs": 9}) if spec.pretrain.method == "random_init"
    }
    assert before == after


def test_the_order_of_methods_in_the_file_changes_no_spec(tmp_path: Path) -> None:
    forward = {spec.digest() for spec in specs_of(tmp_path)}
    backward = {spec.digest() for spec in specs_of(tmp_path, methods=["supervised", "random_init", "vicreg"])}
    assert forward == backward


def test_a_choice_of_methods_and_protocols_restricts_the_suite(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path))
    chosen = expand(suite, discover(), methods=("vicreg",), protocols=("semi_supervised[1%]", "knn"))
    assert [(spec.protocol, spec.variant) for spec in chosen] == [("knn", ""), ("semi_supervised", "1%")]
    every = load_suite(write(tmp_path, methods="all"))
    twice = expand(every, discover(), methods=("vicreg", "vicreg"), protocols=("knn",))
    assert len(twice) == 1
    both = expand(suite, discover(), methods=("vicreg",), protocols=("semi_supervised",))
    assert [spec.variant for spec in both] == ["1%", "10%"]


def test_another_dataset_replaces_the_suites(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path))
    spec = expand(suite, discover(), data=DataSpec(key="mnist5k"))[0]
    assert spec.data.key == spec.pretrain.data.key == "mnist5k"


def test_a_given_dataset_keeps_those_of_the_suites_parameters_that_it_knows(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, data={"key": "folder", "params": {"image_size": 48, "path": "here"}}))
    given = DataSpec(key="table", params={"path": "there"})
    params = expand(suite, discover(), data=given)[0].data.params
    assert params["image_size"] == 48 and params["path"] == "there" and "labels" in params
    assert expand(suite, discover(), data=DataSpec(key="mnist5k"))[0].data.params == {}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"methods": ["vicregg"]}, UnknownNameError, r"Unknown method 'vicregg'. Did you mean 'vicreg'\?"),
        ({"overrides": {"simclrr": {}}}, UnknownNameError, r"Did you mean 'simclr'\?"),
        ({"data": {"key": "digit"}}, UnknownNameError, r"Did you mean 'digits'\?"),
        ({"backbone": {"key": "convnet", "params": {"widht": 3}}}, UnknownNameError, r"Did you mean 'width'\?"),
        ({"trainig": {}}, SpecError, r"mine.yaml: trainig: Extra inputs are not permitted"),
        ({"training": {"epochs": 0}}, SpecError, r"training.epochs: Input should be greater than or equal to 1"),
        ({"overrides": {"vicreg": {"training": {"lr": -1}}}}, SpecError, r"training settings of vicreg: lr: .*greater"),
        ({"seeds": 0}, SpecError, "seeds: Input should be greater"),
        ({"methods": ["vicreg", "vicreg"]}, SpecError, "methods: vicreg is listed 2 times"),
        (
            {"protocols": [{"protocol": "knn"}, {"protocol": "knn", "params": {"k": 3}}]},
            SpecError,
            "protocols: knn on digits is listed 2 times. Remove it, or give one of them a `variant`",
        ),
        ({"training": {"lr": float("inf")}}, SpecError, "training.lr: Input should be a finite number"),
        ({"views": [{}, {}, {}], "methods": ["vicreg"]}, None, ""),
    ],
)
def test_a_wrong_suite_says_where_and_what(
    tmp_path: Path, changes: dict[str, object], error: type[Exception] | None, message: str
) -> None:
    if error is None:
        assert len(specs_of(tmp_path, **changes)[0].pretrain.views) == 2
        return
    with pytest.raises(error, match=message):
        specs_of(tmp_path, **changes)


def test_an_unknown_suite_protocol_or_empty_choice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown suite 'qick'. Did you mean 'quick'\?"):
        find_suite("qick", discover())
    suite = load_suite(write(tmp_path))
    with pytest.raises(UnknownNameError, match=r"protocol of this suite 'kn'. Did you mean 'knn'\?"):
        expand(suite, discover(), protocols=("kn",))
    with pytest.raises(SpecError, match="Nothing is left to run"):
        expand(suite, discover(), methods=("simclr",))


def test_a_file_that_is_no_yaml_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("title: [")
    with pytest.raises(SpecError, match="not a readable YAML file"):
        find_suite(str(file), discover())
    with pytest.raises(SpecError, match=r"absent.yaml: not a readable"):
        find_suite(str(tmp_path / "absent.yaml"), discover())


def test_the_built_in_suites_expand() -> None:
    catalog = discover()
    for key in catalog.suites:
        assert expand(find_suite(key, catalog)[1], catalog)


PRESETS = {
    # optimizer, learning rate at the batch size, weight decay, batch size, head and what else defines the method
    "barlow_twins": ("lars", 0.3, 1e-4, 256, {"projector": (2048, 2048, 2048), "sim_coeff": 0.1, "lambd": 5.1e-4}),
    "byol": ("lars", 1.0, 1e-5, 256, {"projector": (4096, 256), "predictor": (4096, 256), "tau_base": 0.99}),
    "byol_whitened": ("lars", 1.0, 1e-5, 256, {"projector": (4096, 64), "predictor": (4096, 64), "sub_batch": 128}),
    "moco_fnc": ("sgd", 0.3, 1e-4, 256, {"projector": (2048, 256), "temperature": 0.2, "queue_size": 32768}),
    "moco_v1": ("sgd", 0.06, 5e-4, 512, {"projector": (128,), "temperature": 0.1, "queue_size": 4096, "bn_groups": 8}),
    "moco_v2": ("sgd", 0.3, 1e-4, 256, {"projector": (2048, 256), "temperature": 0.2, "queue_size": 32768}),
    "simclr": ("lars", 0.4, 1e-4, 256, {"projector": (2048, 256), "temperature": 0.2}),
    "simclr_fnc": ("lars", 0.4, 1e-4, 256, {"projector": (2048, 256), "temperature": 0.2}),
    "simsiam": ("sgd", 0.5, 1e-5, 256, {"projector": (2048, 2048, 2048), "predictor": (512, 2048)}),
    "simsiam_whitened": ("sgd", 0.5, 1e-5, 256, {"projector": (2048, 2048, 64), "predictor": (512, 64)}),
    "vicreg": ("lars", 0.3, 1e-4, 256, {"projector": (2048, 2048, 2048), "sim_coeff": 25.0, "std_coeff": 50.0}),
    "wmse": ("adam", 3e-3, 1e-6, 512, {"projector": (1024, 64), "positives": 2, "sub_batch": 128}),
}
VIEWS = {
    # per view: smallest crop, brightness, saturation, grayscale, blur, solarize
    "asymmetric": [(0.08, 0.4, 0.2, 0.2, 0.0, 0.0), (0.08, 0.4, 0.2, 0.2, 0.0, 0.2)],
    "symmetric": [(0.08, 0.8, 0.8, 0.2, 0.5, 0.0)] * 2,
    "symmetric_weak": [(0.08, 0.4, 0.4, 0.2, 0.5, 0.0)] * 2,
    "moco demo": [(0.08, 0.4, 0.4, 0.2, 0.0, 0.0)] * 2,
    "vicreg": [(0.2, 0.4, 0.2, 0.2, 0.0, 0.1)] * 2,
    "wmse": [(0.2, 0.4, 0.4, 0.1, 0.0, 0.0)] * 2,
}
VIEWS_OF = {
    **dict.fromkeys(("barlow_twins", "byol", "byol_whitened"), "asymmetric"),
    **dict.fromkeys(("simclr", "simclr_fnc"), "symmetric"),
    **dict.fromkeys(("moco_v2", "moco_fnc", "simsiam", "simsiam_whitened"), "symmetric_weak"),
    "moco_v1": "moco demo",
    "vicreg": "vicreg",
    "wmse": "wmse",
}


@pytest.fixture(scope="module")
def cifar10() -> dict[str, PretrainSpec]:
    catalog = discover()
    return {spec.pretrain.name: spec.pretrain for spec in expand(find_suite("cifar10", catalog)[1], catalog)}


def test_the_cifar10_suite_has_a_preset_for_every_method(cifar10: dict[str, PretrainSpec]) -> None:
    cards = {entry.key: entry.card for entry in discover().methods}
    runnable = {key for key, card in cards.items() if not (card.imported or card.pairing)}  # type: ignore[union-attr]
    assert set(cifar10) == {*PRESETS, "supervised", "pseudo_label", "random_init"} == runnable
    for spec in cifar10.values():
        assert (spec.data.key, spec.backbone, spec.backbone_params["stem"]) == ("cifar10", "resnet18", "cifar")


@pytest.mark.parametrize("method", PRESETS)
def test_the_presets_of_the_cifar10_suite_are_the_published_ones(method: str, cifar10: dict[str, PretrainSpec]) -> None:
    optimizer, lr, weight_decay, batch_size, params = PRESETS[method]
    spec, training = cifar10[method], cifar10[method].training
    assert training is not None
    assert (training.optimizer, training.weight_decay) == (optimizer, weight_decay)
    assert (training.epochs, training.batch_size) == (1000, batch_size)
    assert scaled_lr(training) == pytest.approx(lr)
    assert params.items() <= spec.method_params.items()
    assert training.exclude_1d == (optimizer == "lars") and training.final_lr_fraction == 0.0
    if optimizer == "lars":
        assert training.lars_eta == 0.02
    found = [(v.crop_scale[0], v.brightness, v.saturation, v.grayscale, v.blur, v.solarize) for v in spec.views]
    wanted = VIEWS[VIEWS_OF[method]]
    assert found == (wanted if len(wanted) == len(found) else wanted[:1] * len(found))
    assert all(v.flip == 0.5 and v.jitter == 0.8 and v.contrast == v.brightness for v in spec.views)
    assert {v.hue for v in spec.views} == {0.2 if method.startswith("simclr") else 0.1}


def test_the_rates_of_the_cifar10_suite_follow_their_schedules(cifar10: dict[str, PretrainSpec]) -> None:
    trained = {name: spec.training for name, spec in cifar10.items() if spec.training and name in PRESETS}
    wmse, moco_v1 = trained.pop("wmse"), trained.pop("moco_v1")
    assert {(t.schedule, t.warmup_epochs) for t in trained.values()} == {("cosine", 10.0)}
    assert (moco_v1.schedule, moco_v1.warmup_epochs) == ("cosine", 0.0)
    schedule = Schedule.of(wmse, steps_per_epoch=45_000 // 512)
    assert schedule.warmup_steps == 500
    rates = {epoch: schedule.factor(epoch * (45_000 // 512)) for epoch in (949, 950, 974, 975)}
    assert rates == pytest.approx({949: 1.0, 950: 0.2, 974: 0.2, 975: 0.04})


def test_the_cifar10_suite_is_evaluated_like_table_1_and_diagnosed() -> None:
    names = [item.name for item in find_suite("cifar10", discover())[1].protocols]
    assert names == ["linear_probe", "knn", "semi_supervised[1%]", "semi_supervised[10%]", "diagnostics"]


TWO_SETTINGS = [
    "random_init",
    "vicreg",
    {"method": "vicreg", "variant": "no variance", "params": {"std_coeff": 0.0}, "training": {"on_collapse": "record"}},
]


def test_two_settings_of_one_method_stand_side_by_side_and_share_the_overrides(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, methods=TWO_SETTINGS)
    by_name = {spec.pretrain.name: spec.pretrain for spec in specs}
    assert list(by_name) == ["random_init", "vicreg", "vicreg[no variance]"]
    plain, changed = by_name["vicreg"], by_name["vicreg[no variance]"]
    assert (plain.method_params["std_coeff"], changed.method_params["std_coeff"]) == (25.0, 0.0)
    assert plain.method_params["projector"] == changed.method_params["projector"] == (16, 16)
    assert plain.training is not None and changed.training is not None
    assert (plain.training.lr, plain.training.on_collapse) == (0.2, "stop")
    assert (changed.training.lr, changed.training.on_collapse) == (0.2, "record")


def test_a_candidate_has_the_last_word_over_the_overrides(tmp_path: Path) -> None:
    mine = {"method": "vicreg", "params": {"projector": [8, 8]}, "training": {"lr": 0.3}, "views": [{"flip": 1.0}]}
    (pretrain,) = {spec.pretrain.digest(): spec.pretrain for spec in specs_of(tmp_path, methods=[mine])}.values()
    assert pretrain.method_params["projector"] == (8, 8)
    assert pretrain.training is not None and pretrain.training.lr == 0.3
    assert [view.flip for view in pretrain.views] == [1.0, 1.0]


@pytest.mark.parametrize(("chosen", "names"), [("vicreg", 2), ("vicreg[no variance]", 1), ("random_init", 1)])
def test_settings_are_chosen_by_the_methods_key_or_by_their_name(tmp_path: Path, chosen: str, names: int) -> None:
    suite = load_suite(write(tmp_path, methods=TWO_SETTINGS))
    assert len({spec.pretrain.name for spec in expand(suite, discover(), methods=[chosen])}) == names


def test_a_setting_that_is_listed_twice_or_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"methods: vicreg no variance is listed 2 times.*`variant`"):
        specs_of(tmp_path, methods=[*TWO_SETTINGS, TWO_SETTINGS[-1]])
    with pytest.raises(UnknownNameError, match="vicregg"):
        specs_of(tmp_path, methods=[{"method": "vicregg", "variant": "x"}])
    with pytest.raises(SpecError, match="vicreg no variance is listed 2 times"):
        specs_of(tmp_path, methods=[*TWO_SETTINGS, {"method": "vicreg", "variant": "no-variance"}])
    with pytest.raises(UnknownNameError, match=r"vicreg\[no variance\]"):
        specs_of(tmp_path, methods=TWO_SETTINGS, overrides={"vicreg[no variance]": {"params": {"std_coeff": 7.0}}})
    with pytest.raises(UnknownNameError, match=r"no covariance.*Did you mean"):
        expand(load_suite(write(tmp_path, methods=TWO_SETTINGS)), discover(), methods=["vicreg[no covariance]"])


VIEWS_BY_PARAMETER = """
from bench.card import MethodCard
from bench.registry import register_method
from bench.training.method import Method

@register_method("several", card=MethodCard(title="Several", family="contrastive", summary="S.", views="2 + extra"))
class Several(Method):
    def __init__(self, backbone, *, extra: int = 1):
        super().__init__(backbone)
    def forward(self, views):
        return {}
"""


def test_a_parameter_may_decide_the_number_of_views(tmp_path: Path) -> None:
    plugin = tmp_path / "several.py"
    plugin.write_text(VIEWS_BY_PARAMETER)
    settings = ["several", {"method": "several", "variant": "four", "params": {"extra": 4}}]
    suite = load_suite(write(tmp_path, methods=settings, overrides={}))
    views = {spec.pretrain.name: len(spec.pretrain.views) for spec in expand(suite, discover([plugin]))}
    assert views == {"several": 3, "several[four]": 6}
    four = load_suite(write(tmp_path, methods=settings[1:], overrides={}, views=[{"flip": 0.0}] * 5))
    with pytest.raises(SpecError, match="'several' takes 6 views, the suite describes 5"):
        expand(four, discover([plugin]))


def params_of(specs: tuple[RunSpec, ...], name: str) -> dict[str, object]:
    return {spec.pretrain.name: spec.protocol_params[name] for spec in specs}


def test_a_protocol_may_take_other_parameters_for_a_method_and_leave_methods_out(tmp_path: Path) -> None:
    knn = {"protocol": "knn", "params": {"k": 5, "vote": "majority"}}
    specs = specs_of(tmp_path, protocols=[{**knn, "overrides": {"vicreg": {"k": 7}}}])
    assert params_of(specs, "k") == {"vicreg": 7, "random_init": 5, "supervised": 5}
    assert set(params_of(specs, "vote").values()) == {"majority"}
    only = specs_of(tmp_path, protocols=[{**knn, "methods": ["vicreg", "supervised"]}])
    assert set(params_of(only, "k")) == {"vicreg", "supervised"}
    named = specs_of(tmp_path, methods=TWO_SETTINGS, protocols=[{**knn, "methods": ["vicreg[no variance]"]}])
    assert set(params_of(named, "k")) == {"vicreg[no variance]"}
    nearer = {"vicreg": {"k": 7}, "vicreg[no variance]": {"k": 9}}
    both = specs_of(tmp_path, methods=TWO_SETTINGS, protocols=[{**knn, "overrides": nearer}])
    assert params_of(both, "k") == {"random_init": 5, "vicreg": 7, "vicreg[no variance]": 9}


@pytest.mark.parametrize("field", [{"overrides": {"vicregg": {"k": 7}}}, {"methods": ["vicregg"]}])
def test_an_unknown_method_at_a_protocol_is_refused(tmp_path: Path, field: dict[str, object]) -> None:
    with pytest.raises(UnknownNameError, match=r"'vicregg'.*Did you mean 'vicreg'\?.*protocol knn"):
        specs_of(tmp_path, protocols=[{"protocol": "knn", **field}])


def test_pseudo_label_is_evaluated_by_its_protocol_alone_and_with_its_loss(tmp_path: Path) -> None:
    specs = specs_of(tmp_path, methods=["pseudo_label", "random_init"])
    mine = [spec for spec in specs if spec.pretrain.method == "pseudo_label"]
    assert [spec.protocol_name for spec in mine] == ["semi_supervised[1%]", "semi_supervised[10%]"]
    assert [spec.protocol_params["pseudo_weight"] for spec in mine] == [3.0, 3.0]
    others = [spec for spec in specs if spec.pretrain.method == "random_init"]
    assert [spec.protocol_params.get("pseudo_weight", 0.0) for spec in others] == [0.0, 0.0, 0.0]


IMAGENET = {
    # optimizer, rate at the batch size, weight decay, batch size, epochs, warm-up
    "barlow_twins": ("lars", 1.6, 1.5e-6, 2048, 1000, 10),
    "byol": ("lars", 3.2, 1.5e-6, 4096, 1000, 10),
    "moco_v1": ("sgd", 0.03, 1e-4, 256, 200, 0),
    "moco_v2": ("sgd", 0.03, 1e-4, 256, 800, 0),
    "simclr": ("lars", 4.8, 1e-6, 4096, 1000, 10),
    "simsiam": ("sgd", 0.05, 1e-4, 256, 800, 0),
    "vicreg": ("lars", 1.6, 1e-6, 2048, 1000, 10),
}
IMAGENET100 = {
    "barlow_twins": ("lars", 0.3, 1e-4, 256, 400, 10),
    "byol": ("lars", 0.5, 1e-6, 256, 400, 10),
    "moco_v2": ("sgd", 0.3, 1e-4, 256, 400, 10),
    "simclr": ("lars", 0.3, 1e-4, 256, 400, 10),
    "simsiam": ("sgd", 0.5, 1e-5, 256, 400, 10),
    "vicreg": ("lars", 0.3, 1e-4, 256, 400, 10),
    "wmse": ("adam", 2e-3, 1e-6, 512, 240, 2),
}


@pytest.mark.parametrize(
    ("suite", "presets", "backbone"), [("imagenet", IMAGENET, "resnet50"), ("imagenet100", IMAGENET100, "resnet18")]
)
def test_the_presets_of_the_imagenet_suites_are_the_published_ones(
    suite: str, presets: dict[str, tuple[str, float, float, int, int, float]], backbone: str
) -> None:
    catalog = discover()
    specs = expand(find_suite(suite, catalog)[1], catalog)
    found = {spec.pretrain.name: spec.pretrain for spec in specs}
    assert set(found) == {*presets, "supervised", "pseudo_label", "random_init"}
    assert {(spec.data.key, spec.backbone) for spec in found.values()} == {(suite, backbone)}
    for name, (optimizer, lr, weight_decay, batch_size, epochs, warmup) in presets.items():
        training = found[name].training
        assert training is not None
        assert (training.optimizer, training.weight_decay, training.batch_size) == (optimizer, weight_decay, batch_size)
        assert (training.epochs, training.warmup_epochs) == (epochs, warmup)
        assert scaled_lr(training) == pytest.approx(lr)
        assert training.exclude_1d == (optimizer == "lars")


def test_the_imagenet_suite_evaluates_each_method_by_the_recipe_of_its_paper_on_the_official_lists() -> None:
    catalog = discover()
    specs = expand(find_suite("imagenet", catalog)[1], catalog)
    cells = {(spec.pretrain.name, spec.protocol_name): spec.protocol_params for spec in specs}
    for name in ("barlow_twins", "byol", "vicreg", "simclr"):
        assert cells[name, "linear_probe"]["recipe"] == cells[name, "semi_supervised[1%]"]["recipe"] == name
        assert cells[name, "linear_probe[common recipe]"]["recipe"] == "common"
        assert [cells[name, f"semi_supervised[{p}%]"]["label_list"] for p in (1, 10)] == [
            "1percent.txt",
            "10percent.txt",
        ]
    assert cells["moco_v2", "linear_probe"]["recipe"] == "moco" and ("pseudo_label", "linear_probe") not in cells
    assert {spec.data.params["label_lists"] for spec in specs} == {("1percent.txt", "10percent.txt")}


def test_an_optional_protocol_is_left_out_where_the_labels_do_not_fit_it_and_another_is_refused(tmp_path: Path) -> None:
    def names(**changes: object) -> list[str]:
        protocols = [{"protocol": "knn", **changes}, {"protocol": "diagnostics"}]
        specs = expand(load_suite(write(tmp_path, protocols=protocols)), discover(), offers=lambda _: offered)
        return sorted({spec.protocol for spec in specs})

    offered = ("labels",)
    assert names(optional=True) == names() == ["diagnostics", "knn"]
    offered = ("multilabel",)
    with pytest.raises(SpecError, match="needs labels, which dataset"):
        names()
    assert "knn" not in names(optional=True)


def test_a_candidate_may_have_a_backbone_of_its_own(tmp_path: Path) -> None:
    candidates = ["random_init", {"method": "random_init", "variant": "deep", "backbone": {"key": "resnet18"}}]
    first, second = expand(load_suite(write(tmp_path, methods=candidates)), discover(), protocols=["knn"])
    assert first.pretrain.backbone == "convnet"
    assert second.pretrain.backbone == "resnet18" and second.pretrain.backbone_params["stem"] == "imagenet"


def test_an_imported_encoder_needs_only_the_images_that_it_is_evaluated_on(tmp_path: Path) -> None:
    protocols = [{"protocol": "knn"}, {"protocol": "knn", "data": {"key": "mnist5k"}}]
    suite = load_suite(write(tmp_path, methods=["random_init"], protocols=protocols))
    imported = Candidate(method="imported", variant="theirs")
    cells = expand(suite, discover(), imports=[imported])
    used = {(cell.pretrain.name, cell.data.key): cell.pretrain.data.key for cell in cells}
    assert used == {
        ("random_init", "digits"): "digits",
        ("random_init", "mnist5k"): "digits",
        ("imported[theirs]", "digits"): "digits",
        ("imported[theirs]", "mnist5k"): "mnist5k",
    }


def test_a_method_of_pairs_by_metadata_is_one_of_all_methods_where_there_is_metadata() -> None:
    catalog = discover()
    suite = find_suite("smoke", catalog)[1]
    table = DataSpec(key="table")

    def methods(*offers: str) -> set[str]:
        optional = suite.model_copy(update={"protocols": (Evaluation(protocol="knn"),)})
        return {s.pretrain.method for s in expand(optional, catalog, data=table, offers=lambda _: ("labels", *offers))}

    assert methods("metadata") - methods() == {"medaug"}


def test_the_pairing_is_that_of_the_candidate_else_of_the_method() -> None:
    catalog = discover()
    given = {"study": "all", "laterality": "distinct"}
    suite = find_suite("smoke", catalog)[1].model_copy(
        update={
            "data": DataSpec(key="table"),
            "protocols": (Evaluation(protocol="knn"),),
            "overrides": {},
            "methods": tuple(
                Candidate.model_validate(item)
                for item in (
                    {"method": "medaug"},
                    {"method": "medaug", "variant": "plain", "pairing": "none"},
                    {"method": "byol", "variant": "medaug", "pairing": given},
                    {"method": "byol"},
                    {"method": "random_init", "pairing": given},
                )
            ),
        }
    )
    found = [spec.pretrain.pairing for spec in expand(suite, catalog)]
    assert found == [PairingSpec(study="same"), None, PairingSpec.model_validate(given), None, None]

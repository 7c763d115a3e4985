"""Suites: what to run, as YAML validated by pydantic, expanded into run specs.

title: Quick
data: {key: mnist5k}
backbone: {key: convnet}
views: [{crop_scale: [0.3, 1.0]}]
training: {epochs: 20, optimizer: adamw}
methods: all                       # or a list of keys; a changed setting is {method: vicreg, variant: no variance, …}
overrides:
  vicreg: {params: {projector: [512, 512]}, training: {lr: 2.0e-3}}
protocols:
  - {protocol: linear_probe}
  - {protocol: semi_supervised, variant: "1%", params: {fraction: 0.01}}

``pretraining: imagenet`` takes data, backbone, views, training, methods and overrides from that built-in suite, as far
as the file does not say otherwise.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from bench.card import DatasetCard, MethodCard, ProtocolCard
from bench.errors import SpecError, UnknownNameError, describe
from bench.registry import Catalog, Entry
from bench.spec import DataSpec, Frozen, PairingSpec, Parameters, PretrainSpec, RunSpec, TrainingSpec, ViewSpec, named

PRETRAINING = ("data", "backbone", "views", "training", "methods", "overrides")
"""Fields of a suite that decide which encoders it trains."""


class Component(Frozen):
    """A registered thing with parameters."""

    key: str
    params: Parameters = Field(default_factory=dict)


class Override(Frozen):
    """What one method changes of the suite's recipe; views and pairing are replaced whole, the rest entry by entry."""

    params: Parameters = Field(default_factory=dict)
    views: tuple[ViewSpec, ...] | None = None
    pairing: PairingSpec | Literal["none"] | None = None
    training: Parameters = Field(default_factory=dict)

    def changed_by(self, other: Override) -> Override:
        """Both, where ``other`` has the last word."""
        return Override(
            params={**self.params, **other.params},
            views=self.views if other.views is None else other.views,
            pairing=self.pairing if other.pairing is None else other.pairing,
            training={**self.training, **other.training},
        )


class Candidate(Override):
    """One method of the suite; ``variant`` tells two settings of one method apart.

    Its own changes come after the suite's ``overrides`` of the method; ``backbone`` replaces the suite's. ``expected``
    says what the setting is to show, for the report: it decides nothing.
    """

    method: str
    variant: str = ""
    backbone: Component | None = None
    expected: str = ""

    @model_validator(mode="before")
    @classmethod
    def _key_alone(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @property
    def name(self) -> str:
        return named(self.method, self.variant)


class Evaluation(Frozen):
    """One protocol of the suite; ``variant`` tells two settings of one protocol apart.

    An ``optional`` one is left out where the data do not offer what it requires; another one is an error there.
    ``overrides`` says by method which of ``params`` differ for it, such as the recipe that its paper uses; ``methods``
    restricts the evaluation to these, by key or name.
    """

    protocol: str
    optional: bool = False
    variant: str = ""
    params: Parameters = Field(default_factory=dict)
    overrides: dict[str, Parameters] = Field(default_factory=dict)
    methods: tuple[str, ...] = ()
    data: DataSpec | None = None

    @property
    def name(self) -> str:
        return named(self.protocol, self.variant)


class Suite(Frozen):
    """A suite as written in its file."""

    title: str
    summary: str = ""
    data: DataSpec
    backbone: Component
    views: tuple[ViewSpec, ...] = (ViewSpec(),)
    training: TrainingSpec = TrainingSpec()
    seeds: Annotated[int, Field(ge=1)] = 1
    methods: Literal["all"] | tuple[Candidate, ...] = "all"
    overrides: dict[str, Override] = Field(default_factory=dict)
    protocols: tuple[Evaluation, ...]


def load_suite(path: Path) -> Suite:
    """Read and validate a suite file.

    Raises:
        SpecError: the file is not readable YAML, or a field is missing, unknown or out of range.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path}: not a readable YAML file: {error}. Fix it, or name another suite.") from error
    try:
        return Suite.model_validate(_with_pretraining(content, path))
    except ValidationError as error:
        raise SpecError(f"{path}: {describe(error)}") from error


def _with_pretraining(content: Any, path: Path) -> Any:
    """What a file says; the fields of pre-training that it leaves out are those of the suite it names for that.

    Both then ask for the same encoders, which are trained once.
    """
    if not isinstance(content, dict) or "pretraining" not in content:
        return content
    known = {file.stem: file for file in (Path(__file__).parent / "suites").glob("*.yaml")}
    key = str(content["pretraining"])
    if key not in known:
        raise SpecError(
            f"{path}: pretraining: there is no built-in suite {key!r}. Choose of {', '.join(sorted(known))}."
        )
    whole = yaml.safe_load(known[key].read_text(encoding="utf-8"))
    inherited = {name: whole[name] for name in PRETRAINING if name in whole}
    return {**inherited, **{name: value for name, value in content.items() if name != "pretraining"}}


def find_suite(name: str, catalog: Catalog) -> tuple[str, Suite]:
    """The suite's key and content, by key or by the path of a YAML file."""
    if name in catalog.suites:
        return name, load_suite(catalog.suites[name])
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path.stem, load_suite(path)
    raise UnknownNameError("suite", name, catalog.suites, hint="A suite may also be the path of a YAML file.")


def expand(
    suite: Suite,
    catalog: Catalog,
    *,
    methods: Sequence[str] = (),
    protocols: Sequence[str] = (),
    seeds: int | None = None,
    data: DataSpec | None = None,
    offers: Offers | None = None,
    imports: Sequence[Candidate] = (),
) -> tuple[RunSpec, ...]:
    """All cells of the suite as specs completed with every default, in a stable order.

    Args:
        methods, protocols: restrict to these keys, or ``key[variant]``; empty means all. In a suite of all methods
            the order of ``methods`` counts.
        seeds: number of seeds, instead of the suite's.
        data: replaces every dataset of the suite.
        offers: the capabilities of the images of a spec; without it those that the dataset's card declares.
        imports: encoders from files of the user's, which join the suite's methods.

    Raises:
        SpecError, UnknownNameError: a name or a parameter is wrong, or a protocol asks for what the data lack.
    """
    _check_names(suite, catalog, imports, methods=methods, protocols=protocols)
    joined = [item for item in imports if not methods or _imported_names(item) & set(methods)]
    if suite.methods == "all":
        named = [key for key in dict.fromkeys(methods) if not any(key in _imported_names(item) for item in imports)]
        offered = _offered(suite_data(suite, catalog, data), catalog, offers)
        keys = named if methods else [entry.key for entry in catalog.methods if _fits_all(entry, offered)]
        chosen = [*(Candidate(method=key) for key in keys), *joined]
    else:
        chosen = [item for item in suite.methods if not methods or {item.method, item.name} & set(methods)] + joined
    evaluations = [item for item in suite.protocols if not protocols or {item.protocol, item.name} & set(protocols)]
    specs = []
    for candidate in chosen:
        for seed in range(suite.seeds if seeds is None else seeds):
            pretrain = _pretrain_spec(suite, catalog, candidate, seed=seed, data=data)
            found = [_run_spec(item, catalog, pretrain, data=data, offers=offers) for item in evaluations]
            specs += [spec for spec in found if spec is not None]
    if not specs:
        raise SpecError("Nothing is left to run: the chosen methods and protocols are not in this suite.")
    return tuple(specs)


def _check_names(
    suite: Suite,
    catalog: Catalog,
    imports: Sequence[Candidate],
    *,
    methods: Iterable[str],
    protocols: Iterable[str],
) -> None:
    listed = (*(() if suite.methods == "all" else suite.methods), *imports)
    for key in (*suite.overrides, *(item.method for item in listed)):
        catalog.methods[key]
    runnable = {entry.key for entry in catalog.methods if not _imported(entry)}
    known = runnable.union(*({item.method, item.name} for item in listed), *map(_imported_names, imports))
    for key in methods:
        if key not in known:
            hint = (
                "`jointbench list methods` shows all; --plugin adds one, `jointbench evaluate --weights FILE` one more."
            )
            raise UnknownNameError("method", key, known, hint=hint)
    for item in suite.protocols:
        catalog.protocols[item.protocol]
        for key in (*item.overrides, *item.methods):
            if key not in (every := {entry.key for entry in catalog.methods} | {item.name for item in listed}):
                raise UnknownNameError("method", key, every, hint=f"It stands in the suite's protocol {item.name}.")
    # Signs other than letters and digits do not tell names apart in the report's paths.
    _check_doubles("methods", [" ".join(re.findall(r"\w+", item.name)) for item in listed])
    _check_doubles("protocols", [f"{item.name} on {(item.data or suite.data).label}" for item in suite.protocols])
    offered = {name for item in suite.protocols for name in (item.protocol, item.name)}
    for key in protocols:
        if key not in offered:
            raise UnknownNameError("protocol of this suite", key, offered)


Offers = Callable[[DataSpec], Collection[str]]


def _offered(data: DataSpec, catalog: Catalog, offers: Offers | None) -> Collection[str]:
    """What the images offer, by their files or else by the card of their dataset."""
    card = catalog.datasets[data.key].card
    assert isinstance(card, DatasetCard)
    return offers(data) if offers else card.capabilities


def _fits_all(entry: Entry, offered: Collection[str]) -> bool:
    """Whether a suite of all methods has this one: no weights from a file, and no pairs without metadata."""
    card = entry.card
    return isinstance(card, MethodCard) and not card.imported and (not card.pairing or "metadata" in offered)


def _imported(entry: Entry) -> bool:
    return isinstance(entry.card, MethodCard) and entry.card.imported


def _imported_names(item: Candidate) -> set[str]:
    """What the command line may call an imported encoder: all of them, one, or one by the user's name alone."""
    return {item.method, item.name, item.variant}


def _check_doubles(field: str, names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise SpecError(f"{field}: {name} is listed {count} times. Remove it, or give one of them a `variant`.")


def _pretrain_spec(
    suite: Suite, catalog: Catalog, candidate: Candidate, *, seed: int, data: DataSpec | None
) -> PretrainSpec:
    entry = catalog.methods[candidate.method]
    assert isinstance(entry.card, MethodCard)
    changes = suite.overrides.get(entry.key, Override()).changed_by(candidate)
    views = changes.views if changes.views is not None else suite.views
    params = entry.complete(changes.params)
    backbone = candidate.backbone or suite.backbone
    return PretrainSpec(
        method=entry.key,
        variant=candidate.variant,
        method_params=params,
        backbone=backbone.key,
        backbone_params=catalog.backbones[backbone.key].complete(backbone.params),
        data=suite_data(suite, catalog, data),
        views=_views_for(entry, views, entry.card.view_count(params)) if entry.card.trains else (),
        pairing=_pairing(changes.pairing, entry.card),
        training=_training(suite.training, changes.training, candidate.name) if entry.card.trains else None,
        seed=seed,
    )


def _pairing(given: PairingSpec | Literal["none"] | None, card: MethodCard) -> PairingSpec | None:
    """The rule of the suite, else that of the method; none for what does not compare views."""
    if given == "none" or not card.trains or card.uses_labels:
        return None
    return PairingSpec(**card.pairing) if given is None and card.pairing else given


def _views_for(entry: Entry, views: tuple[ViewSpec, ...], count: int) -> tuple[ViewSpec, ...]:
    if len(views) == 1:
        return views * count
    if len(views) < count:
        raise SpecError(f"Method {entry.key!r} takes {count} views, the suite describes {len(views)}.")
    return views[:count]


def _training(base: TrainingSpec, changes: Mapping[str, Any], method: str) -> TrainingSpec:
    try:
        return TrainingSpec.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        raise SpecError(f"the training settings of {method}: {describe(error)}") from error


def _run_spec(
    item: Evaluation,
    catalog: Catalog,
    pretrain: PretrainSpec,
    *,
    data: DataSpec | None,
    offers: Offers | None,
) -> RunSpec | None:
    """The cell's question; None where the protocol does not evaluate the method, and for an optional protocol whose
    requirements the data do not meet."""
    entry, method = catalog.protocols[item.protocol], catalog.methods[pretrain.method].card
    assert isinstance(method, MethodCard)
    names = (pretrain.method, pretrain.name)
    if item.methods and not set(names) & set(item.methods):
        return None
    if method.protocols and item.protocol not in method.protocols:
        return None
    evaluated = pretrain.data if data or not item.data else complete_data(item.data, catalog)
    if pretrain.imported:  # trained elsewhere: it needs no images but those that it is evaluated on
        pretrain = pretrain.model_copy(update={"data": evaluated})
    dataset = catalog.datasets[evaluated.key]
    assert isinstance(entry.card, ProtocolCard)
    offered = _offered(evaluated, catalog, offers)
    lacking = set(entry.card.requires) - set(offered)
    if lacking and item.optional:
        return None
    if lacking:
        raise SpecError(
            f"Protocol {entry.key!r} needs {', '.join(sorted(lacking))}, which dataset {dataset.key!r} does not offer. "
            "Choose another dataset or leave the protocol out."
        )
    params = dict(item.params)
    for changes in (*(item.overrides.get(name, {}) for name in names), method.protocols.get(item.protocol, {})):
        params |= changes
    return RunSpec(
        pretrain=pretrain,
        protocol=item.protocol,
        variant=item.variant,
        protocol_params=entry.complete(params),
        data=evaluated,
    )


def suite_data(suite: Suite, catalog: Catalog, given: DataSpec | None) -> DataSpec:
    """What the suite pre-trains on: its own data, or what was given instead, with every default."""
    return complete_data(_replaced(suite.data, given, catalog), catalog)


def _replaced(own: DataSpec, given: DataSpec | None, catalog: Catalog) -> DataSpec:
    """The suite's dataset, or the one given instead, which keeps those of the suite's parameters that it knows, such as
    ``image_size``."""
    if given is None:
        return own
    known = catalog.datasets[given.key].parameters
    kept = {name: value for name, value in own.params.items() if name in known}
    return DataSpec(key=given.key, params={**kept, **given.params})


def complete_data(data: DataSpec, catalog: Catalog) -> DataSpec:
    """The dataset's spec with every default filled in."""
    return DataSpec(key=data.key, params=catalog.datasets[data.key].complete(data.params))

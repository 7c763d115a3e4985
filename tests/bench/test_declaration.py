from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.card import Deviation, MethodCard
from bench.declaration import REQUIRED, read_declarations, register_method
from bench.errors import RegistrationError

HEADER = """\
from bench.card import *
from bench.card import BackboneCard, DatasetCard, Deviation, MethodCard, ProtocolCard
from bench.metric import TOP1, Metric
from bench.registry import register_backbone, register_dataset, register_method, register_protocol
raise RuntimeError("this file must be read, not run")
"""
CARD = 'MethodCard(title="Mine", family="contrastive", summary="s", complete_collapse="c")'


def write(folder: Path, body: str) -> Path:
    file = folder / "mine.py"
    file.write_text(HEADER + body)
    return file


def method(signature: str = "self, backbone, *, width: int = 3", forward: str = "self, views", card: str = CARD) -> str:
    return (
        f'@register_method("mine", card={card})\nclass Mine:\n'
        f"    def __init__({signature}): ...\n    def forward({forward}): ...\n"
    )


def test_a_declaration_is_read_without_running_the_file(tmp_path: Path) -> None:
    (found,) = read_declarations(write(tmp_path, method()))
    assert (found.kind, found.key, found.name) == ("method", "mine", "Mine")
    assert found.card == MethodCard(title="Mine", family="contrastive", summary="s", complete_collapse="c")
    assert found.parameters == {"width": 3}
    assert found.line == 7


def test_defaults_and_cards_may_use_the_constants_of_the_file(tmp_path: Path) -> None:
    card = (
        'MethodCard(title=NAME + "!", family="contrastive", summary="s", '
        'deviations=(Deviation(what="a" "b", reason="c"),))'
    )
    body = 'NAME = "X"\nWIDTHS = (2 ** 3, -1)\n'
    (found,) = read_declarations(
        write(tmp_path, body + method("self, backbone, *, widths: tuple[int, ...] = WIDTHS", card=card))
    )
    assert found.parameters == {"widths": (8, -1)}
    assert isinstance(found.card, MethodCard)
    assert found.card.title == "X!" and found.card.deviations == (Deviation(what="ab", reason="c"),)


def test_a_method_that_uses_labels_takes_the_number_of_classes(tmp_path: Path) -> None:
    card = 'MethodCard(title="Sup", family="baseline", summary="s", uses_labels=True)'
    (found,) = read_declarations(
        write(tmp_path, method("self, backbone, *, num_classes: int", "self, views, labels", card))
    )
    assert found.parameters == {"num_classes": REQUIRED}


def test_an_inherited_constructor_gives_the_parameters(tmp_path: Path) -> None:
    body = (
        "class Base:\n    def __init__(self, backbone, *, depth: int = 2): ...\n    def forward(self, views): ...\n"
        f'@register_method("mine", card={CARD})\nclass Mine(Base):\n    pass\n'
    )
    (found,) = read_declarations(write(tmp_path, body))
    assert found.parameters == {"depth": 2}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (method(forward="self, images"), r"py:9: Mine.forward must take \(self, views\), it takes \(self, images\)"),
        (method("self, encoder"), r"mine.py:8: Mine.__init__ must take \(self, backbone\)"),
        (method("self, backbone, *, width"), "parameter 'width' of 'mine' needs a literal default"),
        (method("self, backbone, *, width=len('abc')"), r"\"len\('abc'\)\" is not a literal"),
        (method("self, backbone, **options"), r"must name its parameters; \*args and \*\*kwargs hide them"),
        (method(card="MethodCard(title='Mine')"), "missing 2 required keyword-only arguments: 'family' and 'summary'"),
        (method(card="MethodCard(titel='Mine')"), "unexpected keyword argument 'titel'"),
        (method(card="make_card()"), "is not a literal"),
        (method(card=CARD.replace("contrastive", "bogus")), "MethodCard: family: Input should be 'information max"),
        (method(card=CARD.replace('"Mine"', "3")), r"MethodCard: title: Input should be a valid string \(got 3\)"),
        ("X = 1 / 0\n" + method("self, backbone, *, width=X"), "'X' is not a literal"),
        (method("self, backbone, *, width=1 / 0"), "'1 / 0' has no value: division by zero"),
        (method(card="BackboneCard(title='a', summary='b')"), r"the card of method 'mine' must be a MethodCard"),
        (f'@register_method("mine", card={CARD})\nclass Mine:\n    pass\n', r"Mine \('mine'\) has no forward"),
        (f'@register_method("My Method", card={CARD})\nclass Mine: ...\n', "needs a key first, in lower case"),
        ('@register_method("mine")\nclass Mine: ...\n', r"register_method\('mine'\) has no card"),
        (
            '@register_protocol("p", card=ProtocolCard(title="t", summary="s", metrics=(TOP1,)))\n'
            "class P:\n    def evaluate(self, encoder, data, *, device): ...\n",
            "must take the keyword-only arguments: seed, device",
        ),
        (
            '@register_dataset("d", card=DatasetCard(title="t", summary="s", license="l", source="s"))\n'
            "def d(folder): ...\n",
            r"dataset 'd' must take \(root\), it takes \(folder\)",
        ),
        (
            '@register_backbone("b", card=BackboneCard(title="t", summary="s"))\nclass B: ...\n',
            "backbone 'b' must be a function, not a class",
        ),
        ("register_x = 1\ndef broken(:\n", r"mine.py:7: does not parse"),
    ],
)  # fmt: skip
def test_a_broken_contract_names_file_line_and_remedy(tmp_path: Path, body: str, message: str) -> None:
    with pytest.raises(RegistrationError, match=message) as caught:
        read_declarations(write(tmp_path, body))
    assert re.match(rf"{re.escape(str(tmp_path))}/mine\.py:\d+: ", str(caught.value))


def test_the_decorator_marks_the_class_and_checks_the_card() -> None:
    card = MethodCard(title="Mine", family="contrastive", summary="s")

    @register_method("mine", card=card)
    class Mine: ...

    assert (Mine.key, Mine.card) == ("mine", card)  # type: ignore[attr-defined]
    with pytest.raises(RegistrationError, match=r"needs card=MethodCard\(...\), got None"):
        register_method("mine", card=None)  # type: ignore[arg-type]

from __future__ import annotations

import pytest
from torch import nn

from bench.check import check_method
from bench.errors import JobError
from bench.registry import discover
from methods.pseudo_label import PseudoLabel


def test_it_keeps_the_contract_of_methods() -> None:
    assert [result.message for result in check_method(discover().methods["pseudo_label"]) if not result.ok] == []


def test_it_has_no_pre_training_and_says_who_trains_it() -> None:
    with pytest.raises(JobError, match="the protocol semi_supervised trains it"):
        PseudoLabel(nn.Identity()).forward([])


def test_its_protocol_knows_what_the_card_asks_of_it() -> None:
    catalog = discover()
    for protocol, params in PseudoLabel.card.protocols.items():
        assert catalog.protocols[protocol].complete(params).items() >= params.items()

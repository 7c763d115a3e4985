from __future__ import annotations

from xml.etree import ElementTree

import pandas as pd
import pytest

from reports.breakdown import breakdown_figure, loss_breakdown
from reports.curves import Figure, training_figures
from reports.plots import draw, spread

from .synthetic import METHODS, identity, make_history, make_plan


@pytest.fixture(scope="module")
def history() -> pd.DataFrame:
    return make_history(make_plan(seeds=2))


def encoders(method: str) -> dict[str, int]:
    return {identity(f"{method}-{seed}").digest: seed for seed in range(2)}


def loss_figure(history: pd.DataFrame) -> Figure:
    item = loss_breakdown(history, encoders("vicreg"), name="vicreg", card=METHODS["vicreg"])
    assert item is not None
    return breakdown_figure(item, title="Loss terms")


def test_each_seed_has_its_curves(history: pd.DataFrame) -> None:
    (figure,) = training_figures(history, encoders("vicreg"), method="vicreg")
    assert [item.name for item in figure.series if item.seed == 0] == ["embeddings", "representations"]
    assert {item.seed for item in figure.series} == {0, 1}
    assert figure.series[0].epochs == tuple(range(1, 21))


def test_another_methods_training_is_left_out(history: pd.DataFrame) -> None:
    (figure,) = training_figures(history, encoders("simclr") | encoders("byol"), method="simclr")
    assert len(figure.series) == 8
    (figure,) = training_figures(history, encoders("simclr"), method="simclr")
    assert len(figure.series) == 4


def test_a_method_without_history_has_no_figure(history: pd.DataFrame) -> None:
    assert training_figures(history, encoders("random_init"), method="random_init") == ()
    assert training_figures(history.iloc[:0], encoders("vicreg"), method="vicreg") == ()


def test_drawing_twice_gives_the_same_text_and_unique_ids(history: pd.DataFrame) -> None:
    figures = [loss_figure(history), *training_figures(history, encoders("vicreg"), method="vicreg")]
    drawings = [draw(figure) for figure in figures]
    assert drawings == [draw(figure) for figure in figures]
    ids = [node.get("id") for text in drawings for node in ElementTree.fromstring(text).iter() if node.get("id")]
    assert len(ids) == len(set(ids)) and ids


def test_text_stays_text_and_references_resolve(history: pd.DataFrame) -> None:
    figure = loss_figure(history)
    root = ElementTree.fromstring(draw(figure))
    words = {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"epoch", "total", "invariance", "variance", "covariance"} <= words
    ids = {node.get("id") for node in root.iter()}
    references = {
        value.split("#")[1].rstrip(")")
        for node in root.iter()
        for value in node.attrib.values()
        if "url(#" in value or value.startswith("#vicreg")
    }
    assert references and references <= ids


def test_labels_move_apart_and_no_further_than_needed() -> None:
    assert spread([0.0, 5.0], gap=1.0) == [0.0, 5.0]
    assert spread([1.0, 1.0], gap=1.0) == [0.5, 1.5]
    moved = spread([0.0, 0.1, 0.2, 9.0], gap=1.0)
    assert moved == pytest.approx([-0.9, 0.1, 1.1, 9.0])

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.card import MethodCard, Term
from bench.registry import discover
from reports.architecture import draw_architecture
from reports.architecture_words import describe
from reports.drawing import text_width, wrap

from .cards import BARLOW_TWINS, BYOL, BYOL_WHITENED, CARDS, MOCO_FNC, MOCO_V2, SIMCLR, SIMSIAM, VICREG, WMSE

REAL = {entry.key: entry.card for entry in discover().methods}
EVERY = CARDS | {f"{key} of the catalog": card for key, card in REAL.items() if isinstance(card, MethodCard)}


class Figure:
    """A drawn figure: its words, and what is drawn where."""

    def __init__(self, card: MethodCard) -> None:
        self.svg = draw_architecture(card)
        self.root = ElementTree.fromstring(self.svg)
        self.width, self.height = map(float, self.root.attrib["viewBox"].split()[2:])
        self.texts = [
            ("".join(node.itertext()), self._left(node), float(node.attrib["y"])) for node in self._all("text")
        ]

    def _all(self, tag: str) -> list[ElementTree.Element]:
        return [node for node in self.root if node.tag == tag]

    def _left(self, node: ElementTree.Element) -> float:
        width = text_width("".join(node.itertext()), float(node.attrib["font-size"]))
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[node.attrib["text-anchor"]]
        return float(node.attrib["x"]) - share * width

    @property
    def words(self) -> list[str]:
        return [text for text, _, _ in self.texts]

    def classed(self, tag: str, css: str) -> list[ElementTree.Element]:
        return [node for node in self._all(tag) if css in node.attrib.get("class", "").split()]

    def height_of(self, word: str) -> list[float]:
        return sorted(y for text, _, y in self.texts if text == word)

    def place_of(self, word: str) -> list[float]:
        return sorted(left for text, left, _ in self.texts if text == word)


@pytest.mark.parametrize("key", EVERY)
def test_nothing_runs_out_of_the_figure(key: str) -> None:
    figure = Figure(EVERY[key])
    for node in figure.root:
        if node.tag == "rect":
            x, y, width, height = (float(node.attrib[name]) for name in ("x", "y", "width", "height"))
            assert x >= 0 and y >= 0 and x + width <= figure.width and y + height <= figure.height
        for pair in node.attrib.get("points", "").split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= figure.width and 0 <= y <= figure.height
    for text, left, y in figure.texts:
        size = 12.5
        assert left >= 0 and left + text_width(text, size) <= figure.width, text
        assert size <= y <= figure.height, text


@pytest.mark.parametrize("key", EVERY)
def test_boxes_do_not_overlap_and_no_text_leaves_its_box(key: str) -> None:
    figure = Figure(EVERY[key])
    boxes = [
        [float(node.attrib[name]) for name in ("x", "y", "width", "height")]
        for node in figure.root
        if node.tag == "rect" and "cell" not in node.attrib["class"].split() and node.attrib["height"] != "34"
    ]
    for number, (x, y, width, height) in enumerate(boxes):
        for a, b, c, d in boxes[:number]:
            assert x + width <= a or a + c <= x or y + height <= b or b + d <= y
        for text, left, base in figure.texts:
            inside = y < base < y + height and x < left + text_width(text, 11) / 2 < x + width
            if inside:
                assert x <= left and left + text_width(text, 11) <= x + width, text


@pytest.mark.parametrize("key", EVERY)
def test_a_figure_has_a_description_and_neither_styles_nor_ids_nor_colors(key: str) -> None:
    svg = draw_architecture(EVERY[key])
    assert svg == draw_architecture(EVERY[key])
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"].startswith("Architecture of ")
    assert not re.search(r'[ "](style|id|fill|stroke)=|#[0-9a-fA-F]{3}', svg)


@pytest.mark.parametrize("key", EVERY)
def test_there_is_an_encoder_and_no_decoder(key: str) -> None:
    figure = Figure(EVERY[key])
    assert "encoder" in figure.words
    assert not any("decod" in word.lower() for word in figure.words) and "decoder" not in describe(EVERY[key])
    two_branches = EVERY[key].branches != "single"
    assert ("projector" in figure.words) == two_branches


@pytest.mark.parametrize("key", EVERY)
def test_every_term_is_drawn_by_its_name_where_it_acts(key: str) -> None:
    figure, card = Figure(EVERY[key]), EVERY[key]
    joined = " ".join(figure.words).replace("- ", "")
    for term in card.terms:
        times = len(re.findall(rf"(?<!\w){term.name.replace('_', ' ')}(?!\w)", joined))
        assert times == (2 if term.acts == "on each branch" else 1), term.name
        assert term.name.replace("_", " ") in describe(card) and term.role in describe(card)


def test_terms_between_the_branches_stand_between_them_and_those_on_a_branch_at_its_height() -> None:
    figure = Figure(VICREG)
    upper, lower = figure.height_of("projector")
    (between,) = figure.height_of("invariance")
    assert upper + 40 < between < lower - 40
    assert [abs(a - b) < 25 for a, b in zip(figure.height_of("variance"), (upper, lower), strict=True)] == [True, True]


def test_weights_are_shared_may_differ_follow_or_are_separate() -> None:
    shared, either, momentum = Figure(SIMCLR), Figure(VICREG), Figure(BYOL)
    assert "f′" not in shared.words and len(shared.classed("polyline", "first")) == 2
    assert {"f′", "g′", "architectures"} <= set(either.words) and len(either.classed("polyline", "second")) == 2
    assert {"f′", "moving", "target branch"} <= set(momentum.words)
    arrows = momentum.classed("polygon", "momentum")
    assert len(arrows) == 2
    for arrow in arrows:  # the average flows down, from the trained branch to the other
        heights = [float(pair.split(",")[1]) for pair in arrow.attrib["points"].split()]
        assert heights[0] > heights[1] == heights[2]
    separate = Figure(CARDS["separate"])
    assert "separate" in separate.words and not separate.classed("polyline", "tie")


@pytest.mark.parametrize("card", [BYOL, SIMSIAM])
def test_the_predictor_is_on_the_upper_branch_and_the_stopped_gradient_on_the_lower(card: MethodCard) -> None:
    figure = Figure(card)
    upper, lower = figure.height_of("projector")
    assert figure.height_of("predictor") == [upper]
    (stop,) = figure.height_of("stop-gradient")
    assert stop > lower and len(figure.classed("polyline", "stop")) == 2
    assert "Both views take both roles, and the loss adds up both directions." in figure.words
    without = Figure(replace(card, predictor=False, stop_gradient=False, branches="shared"))
    assert not {"predictor", "stop-gradient"} & set(without.words)


def test_whitening_before_the_predictor_is_drawn_before_it() -> None:
    figure = Figure(BYOL_WHITENED)
    assert len(figure.place_of("whitened")) == 2
    (predictor,) = figure.place_of("predictor")
    assert max(figure.place_of("whitened")) < predictor < min(figure.place_of("unit length"))
    after = Figure(replace(BYOL_WHITENED, before_predictor=()))
    assert min(after.place_of("whitened")) > max(after.place_of("predictor"))


def test_embeddings_are_standardized_or_whitened_on_both_branches_before_the_loss() -> None:
    assert len(Figure(BARLOW_TWINS).place_of("standardized")) == 2
    assert Figure(WMSE).words.count("then unit length") == 2
    assert "view n" in Figure(WMSE).words and "view n" not in Figure(BARLOW_TWINS).words


def test_negatives_come_from_the_batch_from_a_queue_of_keys_or_from_nowhere() -> None:
    batch, queue = Figure(SIMCLR), Figure(MOCO_V2)
    assert {"other images", "of the batch", "anchor"} <= set(batch.words)
    assert {"queue of", "earlier keys", "query", "key branch"} <= set(queue.words)
    (lower,) = queue.height_of("key branch")
    assert queue.height_of("query branch")[0] < queue.height_of("q")[0] < queue.height_of("k")[0] < lower
    assert queue.height_of("queue of")[0] > lower and len(queue.classed("rect", "cell")) == 8
    for card in (VICREG, BARLOW_TWINS, WMSE, BYOL, SIMSIAM):
        assert not Figure(card).classed("rect", "cell") and "There are no negatives." in describe(card)


def test_keys_of_a_queue_come_from_the_lower_branch_the_momentum_encoder() -> None:
    figure = Figure(MOCO_V2)
    (key,) = [node for node in figure.root if node.tag == "circle" and "momentum" in node.attrib["class"]]
    x, bottom = float(key.attrib["cx"]), float(key.attrib["cy"]) + float(key.attrib["r"])
    down = [
        node for node in figure.classed("polyline", "wire") if node.attrib["points"].startswith(f"{x:g},{bottom:g} ")
    ]
    cells = [float(node.attrib["y"]) for node in figure.classed("rect", "cell")]
    assert len(down) == 1 and min(cells) - 5 < float(down[0].attrib["points"].split(",")[-1]) <= min(cells)


def test_support_views_find_the_false_negatives_of_the_anchor() -> None:
    figure = Figure(MOCO_FNC)
    assert {"support", "views", "find the", "false negatives", "left out or attracted"} <= set(figure.words)
    assert len(figure.height_of("f′")) == 2  # like the keys that they score
    assert "Support views of the anchor's image find the false ones among them." in describe(MOCO_FNC)
    assert "support" not in Figure(MOCO_V2).words


def test_a_card_without_terms_has_one_loss() -> None:
    card = replace(SIMCLR, terms=())
    assert Figure(card).words.count("loss") == 1
    one = Term(name="info_nce", acts="between the branches", role="tells images apart")
    figure = Figure(replace(SIMCLR, terms=(one,)))
    assert figure.words.count("info nce") == 1 and "anchor" not in figure.words


def test_baselines_have_one_branch_labels_or_nothing_trained() -> None:
    supervised, random = Figure(CARDS["supervised"]), Figure(CARDS["random_init"])
    assert {"classifier", "labels", "cross entropy"} <= set(supervised.words)
    assert supervised.words.count("encoder") == random.words.count("encoder") == 1
    assert "representation h: nothing is trained" in random.words and not random.classed("rect", "loss")


def test_long_words_are_cut_and_lines_keep_their_width() -> None:
    lines = wrap("redundancy reduction averyveryverylongwordindeed", 70, 11)
    assert lines[:2] == ("redundancy", "reduction")
    assert all(text_width(line, 11) <= 70 for line in lines)
    assert "".join(line.rstrip("-") for line in lines[2:]) == "averyveryverylongwordindeed"

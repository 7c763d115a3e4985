"""The figure of a method's architecture, drawn from its card alone.

Every method has the same columns: image, views, encoder, projector, predictor or stop-gradient, what happens to the
embeddings, loss. What a method does not have stays an empty place, so that two figures differ where two methods do.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from bench.card import MethodCard, Term
from reports.architecture_words import describe, lanes, many_views, roles
from reports.drawing import LARGE, Box, Drawing, Point, wrap

WIDTH = 748.0
IMAGE, VIEW, ENCODER, PROJECTOR, PREDICTOR, SHAPED, EMBEDDING, LOSS = 35, 109, 189, 281, 373, 482, 551, 657
"""Centers of the columns."""
MIDWAY = (ENCODER + PROJECTOR) / 2

BLOCK, SHAPED_WIDTH, LOSS_WIDTH = 70, 84, 142
HEIGHT, LINE, GAP = 42, 14.5, 13
TOP = 33.0
"""Least height of the upper branch's center."""
CLOSE = ((355, 54), (423, 62), (496, 62))
"""Centers and widths of what stands before the predictor, of the predictor and of what follows it."""

LINKS = {
    "shared": ("shared", "weights"),
    "shared or separate": ("weights and", "architectures", "may differ"),
    "separate": ("separate", "weights"),
    "momentum": ("moving", "average of", "the weights"),
}
SECOND = {"shared": "first", "shared or separate": "second", "separate": "second", "momentum": "momentum"}
"""Class of the lower branch: the same color means the same weights."""


def draw_architecture(card: MethodCard) -> str:
    """The architecture as an ``<svg>`` element with a description in words; equal cards give equal text."""
    drawing = Drawing(width=WIDTH)
    if card.branches == "single":
        _single(drawing, card)
    else:
        _Branches(card, drawing).draw()
    return drawing.render(f"Architecture of {card.title}. {describe(card)}")


def _single(drawing: Drawing, card: MethodCard) -> None:
    """A baseline: one branch, with a classifier and labels, or with nothing trained."""
    image = drawing.box(Box(IMAGE, TOP, 54, 54), ("image",), css="data", size=LARGE)
    encoder = Box(ENCODER, TOP, BLOCK, HEIGHT)
    if not card.trains:
        drawing.box(encoder, ("f", "encoder"), css="block still")
        drawing.arrow(image.right, encoder.left)
        drawing.arrow(encoder.right, (PROJECTOR - BLOCK / 2, TOP))
        trained = "the protocol trains it" if card.protocols else "nothing is trained"
        trained = "weights from a file" if card.imported else trained
        drawing.text((PROJECTOR - BLOCK / 2 + 8, TOP + 4), f"representation h: {trained}")
        return
    view = drawing.box(Box(VIEW, TOP, 50, 34), ("view",), css="data")
    drawing.box(encoder, ("f", "encoder"), css="block first")
    classifier = drawing.box(Box(PROJECTOR, TOP, BLOCK, HEIGHT), ("classifier",), css="block first")
    drawing.arrow(image.right, view.left)
    drawing.arrow(view.right, encoder.left)
    drawing.arrow(encoder.right, classifier.left)
    _representation(drawing, TOP)
    loss = _terms_box(drawing, card.terms, TOP)
    drawing.arrow(classifier.right, loss.left)
    if card.uses_labels:
        labels = drawing.box(Box(PROJECTOR, TOP + 66, BLOCK, 28), ("labels",), css="data")
        drawing.arrow(labels.right, (LOSS, labels.y), loss.bottom)


def _representation(drawing: Drawing, y: float) -> None:
    drawing.text((MIDWAY, y - 6), "", italic="h", anchor="middle")


def _terms_box(drawing: Drawing, terms: tuple[Term, ...], y: float) -> Box:
    """The loss, or some of its terms, centered at height ``y``."""
    box = Box(LOSS, y, LOSS_WIDTH, _height(terms))
    drawing.box(box, (), css="loss")
    edge = box.top[1]
    for number, lines in enumerate(_term_lines(terms)):
        if number:
            drawing.line((box.left[0] + 8, edge), (box.right[0] - 8, edge), css="between")
        for place, line in enumerate(lines):
            drawing.text((LOSS, edge + 18.5 + LINE * place), line, anchor="middle", size=LARGE)
        edge += LINE * len(lines) + GAP
    return box


def _term_lines(terms: tuple[Term, ...]) -> list[tuple[str, ...]]:
    names = [term.name.replace("_", " ") for term in terms] or ["loss"]
    return [wrap(name, LOSS_WIDTH - 10, LARGE) for name in names]


def _height(terms: tuple[Term, ...]) -> float:
    return sum(LINE * len(lines) + GAP for lines in _term_lines(terms))


@dataclass
class _Branches:
    """A figure with two branches; the heights follow from what the loss has to say."""

    card: MethodCard
    drawing: Drawing
    between: tuple[Term, ...] = field(init=False)
    on_branch: tuple[Term, ...] = field(init=False)
    against: tuple[Term, ...] = field(init=False)
    upper: float = field(init=False)
    lower: float = field(init=False)
    under: float = field(init=False)

    def __post_init__(self) -> None:
        acting = {where: tuple(t for t in self.card.terms if t.acts == where) for where in _places(self.card)}
        self.on_branch = acting.pop("on each branch", ())
        self.against = acting.pop("against negatives", ())
        self.between = tuple(term for terms in acting.values() for term in terms)
        side = _height(self.on_branch) / 2 if self.on_branch else 0.0
        named = any(label for label, _ in lanes(self.card))
        self.upper = max(TOP + 12 * named, max(HEIGHT / 2, side) + 32 if self.against else side + 8)
        self.lower = self.upper + max(132.0, _height(self.between) + 2 * side + 26)
        self.under = self.lower + max(84.0, side + _height(self.against) / 2 + 14)

    @property
    def middle(self) -> float:
        return (self.upper + self.lower) / 2

    def draw(self) -> None:
        image = self.drawing.box(Box(IMAGE, self.middle, 54, 54), ("image",), css="data", size=LARGE)
        second = SECOND[self.card.branches]
        self._lane(image, self.upper, "first", number=0)
        self._lane(image, self.lower, second, number=1)
        self._links(second)
        loss = self._loss()
        if self.card.negatives != "none":
            self._negatives(image, loss)
        self._note()

    def _lane(self, image: Box, y: float, css: str, *, number: int) -> None:
        """One branch, from the image to its embedding."""
        card, drawing = self.card, self.drawing
        label, mark = lanes(card)[number]
        if label:
            side = y - HEIGHT / 2 - 9 if number == 0 else y + HEIGHT / 2 + 17
            drawing.text((MIDWAY, side), label, anchor="middle", css="label")
        word = "view n" if number and many_views(card) else f"view {number + 1}"
        view = drawing.box(Box(VIEW, y, 50, 34), (word,), css="data")
        fork = (IMAGE + VIEW) / 2 + 1
        drawing.arrow(image.right, (fork, image.y), (fork, y), view.left)
        prime = "" if self._same_weights or number == 0 else "′"
        at = self._encode(view, y, css, prime)
        first, last = card.before_predictor, card.normalization[len(card.before_predictor) :]
        (early, narrow), (predictor, block), (late, wide) = (
            CLOSE if first else ((0, 0), (PREDICTOR, BLOCK), (SHAPED, SHAPED_WIDTH))
        )
        at = self._shaped(at, Box(early, y, narrow, 0), first)
        if card.predictor and number == 0:
            at = self._block(at, Box(predictor, y, block, HEIGHT), ("q", "predictor"), "predictor")
        if card.stop_gradient and number == 1:
            self._stop((predictor, y))
        at = self._shaped(at, Box(late, y, wide, 0), last)
        drawing.arrow(at, (EMBEDDING - 12, y))
        drawing.circle((EMBEDDING, y), 12, css=f"block {css}")
        drawing.text((EMBEDDING, y + 4), "", italic=mark, anchor="middle")

    @property
    def _same_weights(self) -> bool:
        return self.card.branches == "shared"

    def _encode(self, view: Box, y: float, css: str, prime: str) -> Point:
        at = self._block(view.right, Box(ENCODER, y, BLOCK, HEIGHT), (f"f{prime}", "encoder"), css)
        _representation(self.drawing, y)
        return self._block(at, Box(PROJECTOR, y, BLOCK, HEIGHT), (f"g{prime}", "projector"), css)

    def _block(self, at: Point, box: Box, lines: tuple[str, ...], css: str) -> Point:
        self.drawing.box(box, lines, css=f"block {css}")
        self.drawing.arrow(at, box.left)
        return box.right

    def _shaped(self, at: Point, place: Box, steps: tuple[str, ...]) -> Point:
        """What happens to the embeddings, from top to bottom, in a box as high as it needs."""
        if not steps:
            return at
        lines = tuple(f"then {word}" if number else word for number, word in enumerate(steps))
        box = replace(place, height=LINE * len(lines) + 13)
        self.drawing.box(box, lines, css="shaped")
        self.drawing.arrow(at, box.left)
        return box.right

    def _stop(self, at: Point) -> None:
        """Two strokes across the wire: nothing flows back."""
        x, y = at
        for shift in (-3.0, 3.0):
            self.drawing.line((x + shift - 4, y + 11), (x + shift + 4, y - 11), css="stop")
        self.drawing.text((x, y + 26), "stop-gradient", anchor="middle", css="stop")

    def _links(self, second: str) -> None:
        """How the weights of the two branches relate, between them."""
        start, end = self.upper + HEIGHT / 2, self.lower - HEIGHT / 2
        for x in (ENCODER, PROJECTOR):
            if self.card.branches == "momentum":
                self.drawing.arrow((x, start), (x, end), css="tie momentum")
            elif self.card.branches != "separate":
                self.drawing.line((x, start), (x, end), css=f"tie {second}")
        lines = LINKS[self.card.branches]
        for number, line in enumerate(lines):
            y = self.middle - LINE * (len(lines) - 1) / 2 + 4 + LINE * number
            self.drawing.text((MIDWAY, y), line, anchor="middle", css="label")
        if many_views(self.card):
            self.drawing.text((VIEW, self.middle + 4), "⋮", anchor="middle", size=LARGE)

    def _loss(self) -> Box:
        """The terms between the branches at the link of the embeddings, those on each branch at its end."""
        drawing = self.drawing
        box = _terms_box(drawing, self.between, self.middle) if self.between or not self.card.terms else None
        if box:
            drawing.line((EMBEDDING, self.upper + 12), (EMBEDDING, self.lower - 12))
            drawing.arrow((EMBEDDING, self.middle), box.left)
        for y in (self.upper, self.lower) if self.on_branch else ():
            end = _terms_box(drawing, self.on_branch, y)
            drawing.arrow((EMBEDDING + 12, y), end.left)
        return box or Box(LOSS, self.middle, LOSS_WIDTH, 0)

    def _negatives(self, image: Box, loss: Box) -> None:
        """Where negatives come from, what is sorted out of them, and the terms that they enter."""
        drawing, queue = self.drawing, self.card.negatives == "queue"
        y = self.under
        strip = Box(503, y, 120, 20)
        for cell in range(8):
            shade = f"cell c{8 - cell}" if queue else "cell"
            drawing.box(Box(strip.left[0] + 7.5 + 15 * cell, y, 15, 20), (), css=shade, corner=0)
        words = ("queue of", "earlier keys") if queue else ("other images", "of the batch")
        for number, word in enumerate(words):
            drawing.text((strip.left[0] - 9, y - 3 + LINE * number), word, anchor="end")
        drawing.arrow((EMBEDDING, self.lower + 12), (EMBEDDING, y - 10))
        target = _terms_box(drawing, self.against, y) if self.against else loss
        if self.against:
            drawing.arrow(strip.right, target.left)
            edge = WIDTH - 6
            over = min(self.upper - HEIGHT / 2, self.upper - _height(self.on_branch) / 2) - 12
            drawing.arrow((EMBEDDING, self.upper - 12), (EMBEDDING, over), (edge, over), (edge, y), target.right)
            drawing.text((LOSS, over - 5), "query" if queue else "anchor", anchor="middle", css="label")
        else:
            drawing.arrow(strip.right, (LOSS, y), loss.bottom)
        if self.card.support_views:
            self._support(image, strip, target)

    def _support(self, image: Box, strip: Box, target: Box) -> None:
        """Further views of the anchor's image, which tell the false negatives apart."""
        drawing, y = self.drawing, max(strip.y + 88, target.bottom[1] + 38)
        css = SECOND[self.card.branches]
        for shift in (6, 3):
            drawing.box(Box(VIEW + shift, y - shift, 50, 34), (), css="data")
        view = drawing.box(Box(VIEW, y, 50, 34), ("support", "views"), css="data")
        fork = (IMAGE + VIEW) / 2 + 1
        drawing.arrow((fork, image.y), (fork, y), view.left)
        at = self._encode(Box(VIEW, y, 62, 34), y, css, "" if self._same_weights else "′")
        for x in (ENCODER, PROJECTOR):
            drawing.line((x, self.lower + HEIGHT / 2), (x, y - HEIGHT / 2), css=f"tie same {css}")
        if self.card.gradient_views != "all":
            self._stop((PREDICTOR, y))
        finder = drawing.box(Box(strip.x, y, 120, HEIGHT), ("find the", "false negatives"), css="shaped")
        drawing.arrow(at, finder.left)
        drawing.arrow(strip.bottom, finder.top)
        drawing.arrow(finder.right, (LOSS, y), target.bottom)
        drawing.text((finder.right[0] + 8, y + 17), "left out or attracted")

    def _note(self) -> None:
        """Which view takes which role, where the roles differ."""
        if words := roles(self.card):
            self.drawing.text((8, self.drawing.depth + 14), words, css="label")


def _places(card: MethodCard) -> dict[str, None]:
    return dict.fromkeys(term.acts for term in card.terms)

"""SVG drawn by hand: boxes, lines and text. Classes leave the colors to the page, and nothing has an id or a style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]

LARGE, SMALL = 12.5, 11.0
"""The two sizes of text, in units of the view box."""

_NARROW, _WIDE = frozenset("iljtfr.,:;'′|()[]-– "), frozenset("mwMW—→")


def text_width(text: str, size: float) -> float:
    """Estimated width of a line in the page's sans-serif face, rather too large than too small."""
    return size * sum(0.34 if sign in _NARROW else 0.86 if sign in _WIDE or sign.isupper() else 0.57 for sign in text)


def wrap(text: str, width: float, size: float) -> tuple[str, ...]:
    """Lines no wider than ``width``; a word that is wider than a line is cut."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(joined, size) <= width:
            lines[-1] = joined
            continue
        while text_width(word, size) > width:
            cut = max(1, next(end for end in range(len(word)) if text_width(word[: end + 1] + "-", size) > width))
            lines.append(word[:cut] + "-")
            word = word[cut:]
        lines.append(word)
    return tuple(lines)


@dataclass(frozen=True)
class Box:
    """A rectangle by its center."""

    x: float
    y: float
    width: float
    height: float

    @property
    def left(self) -> Point:
        return (self.x - self.width / 2, self.y)

    @property
    def right(self) -> Point:
        return (self.x + self.width / 2, self.y)

    @property
    def top(self) -> Point:
        return (self.x, self.y - self.height / 2)

    @property
    def bottom(self) -> Point:
        return (self.x, self.y + self.height / 2)


@dataclass
class Drawing:
    """A picture that grows part by part; ``render`` makes it an element of the page."""

    width: float
    parts: list[str] = field(default_factory=list)
    depth: float = 0.0

    def box(self, box: Box, lines: Sequence[str], *, css: str, size: float = SMALL, corner: float = 5) -> Box:
        """A box with centered lines of text; a first line of one letter is set large and in italics, as a symbol."""
        x, y = box.left[0], box.top[1]
        shape = f'x="{_n(x)}" y="{_n(y)}" width="{_n(box.width)}" height="{_n(box.height)}" rx="{_n(corner)}"'
        self.parts.append(f'<rect class="{css}" {shape}/>')
        self._deepen(box.bottom[1])
        step = 14.5
        first = box.y - step * (len(lines) - 1) / 2 + 4
        for number, line in enumerate(lines):
            letter = line if not number and len(line.rstrip("′")) == 1 else ""
            word = "" if letter else line
            self.text(
                (box.x, first + step * number), word, anchor="middle", size=LARGE if letter else size, italic=letter
            )
        return box

    def circle(self, center: Point, radius: float, *, css: str) -> None:
        self.parts.append(f'<circle class="{css}" cx="{_n(center[0])}" cy="{_n(center[1])}" r="{_n(radius)}"/>')

    def text(
        self, at: Point, text: str, *, anchor: Anchor = "start", size: float = SMALL, css: str = "", italic: str = ""
    ) -> None:
        """One line of text with its baseline at ``at``; ``italic`` is set before it in italics, as a symbol."""
        kind = f' class="{css}"' if css else ""
        symbol = f'<tspan font-style="italic">{escape(italic)}</tspan>' if italic else ""
        self.parts.append(
            f'<text{kind} x="{_n(at[0])}" y="{_n(at[1])}" text-anchor="{anchor}" font-size="{_n(size)}">'
            f"{symbol}{escape(text)}</text>"
        )
        self._deepen(at[1] + 4)

    def line(self, *points: Point, css: str = "wire") -> None:
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
        self.parts.append(f'<polyline class="{css}" points="{path}"/>')
        self._deepen(max(y for _, y in points))

    def arrow(self, *points: Point, css: str = "wire") -> None:
        """A line with a head at its last point; its last part is horizontal or vertical."""
        (x0, y0), (x1, y1) = points[-2:]
        dx, dy = _sign(x1 - x0), _sign(y1 - y0)
        self.line(*points[:-1], (x1 - 4 * dx, y1 - 4 * dy), css=css)
        back, wide = (x1 - 7 * dx, y1 - 7 * dy), (3.2 * dy, 3.2 * dx)
        corners = ((x1, y1), (back[0] - wide[0], back[1] - wide[1]), (back[0] + wide[0], back[1] + wide[1]))
        path = " ".join(f"{_n(x)},{_n(y)}" for x, y in corners)
        self.parts.append(f'<polygon class="head {css}" points="{path}"/>')

    def render(self, label: str) -> str:
        """The ``<svg>`` element, as high as what was drawn; ``label`` says in words what it shows."""
        head = f'<svg class="architecture" viewBox="0 0 {_n(self.width)} {_n(self.depth + 6)}" role="img"'
        return "\n".join((f'{head} aria-label="{escape(label)}">', *self.parts, "</svg>"))

    def _deepen(self, y: float) -> None:
        self.depth = max(self.depth, y)


def _sign(value: float) -> int:
    return (value > 1e-9) - (value < -1e-9)


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")

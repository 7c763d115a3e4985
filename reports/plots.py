"""Figures as inline SVG: drawn by matplotlib, colored by the page's style sheet."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from reports.curves import Arrow, Figure, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
INK, FAINT = "#010101", "#020202"
SLOTS = tuple(f"#0301{slot:02x}" for slot in range(8))
"""Placeholder colors that become classes of the style sheet: ``ink``, ``faint``, ``s0`` … ``s7``."""

DASHES: tuple[Any, ...] = ("solid", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
EQUAL_AXES = {"left": 0.14, "right": 0.7, "bottom": 0.18, "top": 0.97}
CLASS_OF = {INK: "ink", FAINT: "faint", **{color: f"s{slot}" for slot, color in enumerate(SLOTS)}}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "path.simplify": True,
}


def draw(figure: Figure) -> str:
    """The figure as an ``<svg>`` element with its summary as description; equal figures give equal text."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": figure.key}):
        canvas = Canvas(figsize=(4.6, 2.6), layout=None if figure.equal_axes else "constrained")
        axes = canvas.subplots(gridspec_kw=EQUAL_AXES if figure.equal_axes else None)
        heights = _areas(axes, figure)
        for item in figure.series:
            if item.form != "area":
                _line(axes, item)
        if heights:
            axes.set_ylim(bottom=0)
        axes.set_yscale(figure.y_scale)
        _label_ends(axes, figure, heights)
        axes.set_xlabel(figure.x_label)
        axes.set_ylabel(figure.y_label)
        _horizontal_axis(axes, figure, most=8)
        for arrow in figure.arrows:
            _arrow(axes, arrow)
        target = io.BytesIO()
        FigureCanvasSVG(canvas).print_svg(target, metadata={"Date": None, "Creator": None})
    return _embed(target.getvalue().decode("utf-8"), figure)


def draw_multiples(figures: Sequence[Figure], whole: Figure, *, columns: int = 4) -> str:
    """Small figures with common axes as one ``<svg>``, each under its own title, without names at the lines' ends.

    Args:
        figures: what the panels show.
        whole: key, title, axis labels and summary of all together.
        columns: panels side by side.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    rows = -(-len(figures) // columns)
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": whole.key}):
        canvas = Canvas(figsize=(2.1 * columns, 1.65 * rows + 0.3), layout="constrained")
        panels = canvas.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, figure in zip(panels, figures, strict=False):
            for item in figure.series:
                _line(axes, item)
            _horizontal_axis(axes, figure, most=4)
            axes.set_title(figure.title, fontsize=9, loc="left")
            axes.xaxis.set_tick_params(labelbottom=True)
        for axes in panels[len(figures) :]:
            axes.set_axis_off()
        canvas.supxlabel(whole.x_label, fontsize=9)
        canvas.supylabel(whole.y_label, fontsize=9)
        target = io.BytesIO()
        FigureCanvasSVG(canvas).print_svg(target, metadata={"Date": None, "Creator": None})
    return _embed(target.getvalue().decode("utf-8"), whole)


def _horizontal_axis(axes: Axes, figure: Figure, *, most: int) -> None:
    """Whole numbers, or the figure's own ticks on a logarithmic scale, thinned from the largest down to ``most``."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

    if figure.ticks:
        axes.set_xscale("log")
        ticks = figure.ticks[:: len(figure.ticks) // -most]
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(FixedFormatter([f"{tick:,g}" for tick in ticks]))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.margins(x=0.02)


def _arrow(axes: Axes, arrow: Arrow) -> None:
    axes.annotate(
        "",
        xy=(arrow.end, arrow.height),
        xytext=(arrow.start, arrow.height),
        arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
    )
    right = max(arrow.start, arrow.end)  # below and to the right of a rising curve there is room
    inside = right < axes.get_xlim()[1] * 0.5
    axes.annotate(
        arrow.text,
        xy=(right, arrow.height),
        xytext=(4 if inside else -2, -3),
        textcoords="offset points",
        ha="left" if inside else "right",
        va="top",
    )


def _areas(axes: Axes, figure: Figure) -> dict[int, float]:
    """Stack the areas from the bottom up; returns the middle of each at its right end, by slot."""
    heights = {}
    bottom: list[float] = []
    for item in figure.series:
        if item.form == "area":
            bottom = bottom or [0.0] * len(item.values)
            top = [low + value for low, value in zip(bottom, item.values, strict=True)]
            color = SLOTS[item.slot % len(SLOTS)]
            axes.fill_between(item.epochs, bottom, top, facecolor=color, edgecolor=color, alpha=0.45, linewidth=0.6)
            heights[item.slot] = (bottom[-1] + top[-1]) / 2
            bottom = top
    return heights


def _color(item: Series) -> str:
    if item.form == "faint":
        return FAINT
    return INK if item.form == "total" else SLOTS[item.slot % len(SLOTS)]


def _line(axes: Axes, item: Series) -> None:
    plain = item.form in ("total", "faint")
    axes.plot(
        item.epochs,
        item.values,
        color=_color(item),
        alpha=0.55 if item.form == "faint" else None,
        linestyle="solid" if plain else DASHES[item.slot % len(DASHES)],
        linewidth=1.0 if plain else 1.5,
        zorder=1.5 if item.form == "faint" else None,
        marker="o" if len(item.values) == 1 or item.low else None,
        markersize=3,
    )
    if item.low:
        axes.fill_between(item.epochs, item.low, item.high, facecolor=_color(item), alpha=0.16, linewidth=0)


def _label_ends(axes: Axes, figure: Figure, middles: Mapping[int, float]) -> None:
    """Name each line at its right end and each area at its middle there; labels that would overlap move apart."""
    ends: dict[int, Series] = {}
    for item in figure.series:
        ends.setdefault(item.slot, item)
    places = {
        slot: middles.get(slot, item.values[-1] if item.named_at is None else item.named_at)
        for slot, item in ends.items()
    }
    low, high = (_placed(figure, value) for value in axes.get_ylim())
    named = sorted(ends.values(), key=lambda item: places[item.slot])
    heights = spread([(_placed(figure, places[item.slot]) - low) / (high - low) for item in named], gap=0.085)
    for item, height in zip(named, heights, strict=True):
        axes.annotate(
            item.name,
            xy=(1, height),
            xycoords="axes fraction",
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=_color(item),
            annotation_clip=False,
        )


def _placed(figure: Figure, value: float) -> float:
    return math.log10(value) if figure.y_scale == "log" else value


def spread(heights: list[float], *, gap: float) -> list[float]:
    """Ascending heights moved as little as possible so that neighbors are at least ``gap`` apart."""
    blocks: list[list[float]] = []
    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and _bottom(blocks[-1], gap) - _top(blocks[-2], gap) < gap:
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [_bottom(block, gap) + place * gap for block in blocks for place in range(len(block))]


def _bottom(block: list[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2


def _top(block: list[float], gap: float) -> float:
    return sum(block) / len(block) + gap * (len(block) - 1) / 2


def _embed(text: str, figure: Figure) -> str:
    """Matplotlib's file as an element of a page: no styles of its own, no ids but the referenced ones, page colors."""
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)
    referenced = set(
        re.findall(r"#([\w-]+)", " ".join(value for node in root.iter() for value in node.attrib.values()))
    )
    for node in root.iter():
        _restyle(node)
        name = node.attrib.pop("id", None)
        if name in referenced:
            node.set("id", f"{figure.key}-{name}")
        for key, value in node.attrib.items():
            if "url(#" in value:
                node.set(key, value.replace("url(#", f"url(#{figure.key}-"))
            elif key == f"{{{XLINK}}}href":
                node.set(key, f"#{figure.key}-{value[1:]}")
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", "plot")
    root.set("role", "img")
    root.set("aria-label", f"{figure.title}. {figure.summary}")
    root.set("stroke-linejoin", "round")
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _restyle(node: ElementTree.Element) -> None:
    """Inline styles become attributes and classes, which a strict content policy allows."""
    style = node.attrib.pop("style", "")
    classes = []
    for rule in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = (part.strip() for part in rule.partition(":"))
        if name.startswith("font"):
            continue
        if value in CLASS_OF:
            classes.append(f"{CLASS_OF[value]}-{name}")
        else:
            node.set(name, value)
    if node.tag == f"{{{SVG}}}text" and "fill" not in node.attrib and not classes:
        classes.append("ink-fill")
    if classes:
        node.set("class", " ".join(classes))

"""The published half of Table 3: works of medical imaging by pretext task, and what their pretext methods do.

A cell that is known from memory only is never shown: it holds a question mark, and the notes count such cells. What is
shown of a pretext method comes from the card of the registered method, else from a source that the row names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.card import MethodCard
from bench.metric import Metric
from bench.published import CONFIDENCE_WORDS, load_papers
from bench.published.works import CATEGORIES, REVIEW, PretextFamily, Told, Work, load_families, load_works
from bench.table import SECONDARY, Cell, Column, Row, Table
from reports.panels import Fact, Panel, Run, Section
from reports.places import slug
from reports.published_rows import short_name
from reports.words import counted, listed

WORKS = Metric(key="works", title="works listed", higher_is_better=None, decimals=0, lower=0.0)
"""How often the review lists a pretext method; a count says nothing about how well it does."""

CELL_TITLES = ("authors", "pretext method", "downstream tasks", "task type", "modality")
UNSEEN = "not seen"
CONFIDENCE_NOTE = (
    "A plain cell was read in the review's table or in its authors' list, one with ‡ in something that repeats the "
    "paper, and a ? stands for what is known from memory only. Title, year, venue and category were read for every row."
)
REVIEW_NOTE = (
    "The review is Shurrab and Duwairi 2022. Its contrastive table was read; of its other tables only what its "
    "authors' list of papers repeats. The list goes beyond the 40 studies of the review, and four entries that were "
    "probably added later are left out."
)
COUNT_NOTE = (
    "Counted are works that the review lists under contrastive, the only category whose pretext methods were read. "
    "Often listed is not well tested: see erratum 32."
)
PROPERTIES_NOTE = (
    "Properties of registered methods are those of their cards: negatives, momentum branch with stop-gradient, family "
    "and normalization. Whitening and the terms of information maximization count as explicit decorrelation."
)


def published_tables(
    methods: Mapping[str, MethodCard], *, page_of: Callable[[str], str] = lambda key: ""
) -> tuple[Table, ...]:
    """Table 3 as published: pretext methods by how often they are listed, then the works of each category.

    Args:
        methods: cards by key.
        page_of: path of a method's page; empty where it has none.
    """
    return (family_table(methods, page_of=page_of), *work_tables())


# --- works ------------------------------------------------------------------------------------------------------


def work_tables(*, linked: bool = False) -> tuple[Table, ...]:
    """One table for each category, the one with known pretext methods first.

    Args:
        linked: titles lead to the panels of ``work_panels``, which must then be on the same page.
    """
    order = sorted(CATEGORIES, key=lambda category: category != "contrastive")
    return tuple(
        _work_table(category, [work for work in load_works() if work.category == category], linked=linked)
        for category in order
    )


def _work_table(category: str, works: Sequence[Work], *, linked: bool) -> Table:
    columns = ("authors", "year", "venue", "pretext method", "downstream tasks", "task type", "modality")
    return Table(
        key=f"table3-works-{slug(category)}",
        title=f"Table 3: {CATEGORIES[category].lower()}",
        caption=f"{counted(len(works), 'work')} of self-supervised learning in medical imaging that the review lists "
        f"as {category}.",
        stub="Work",
        columns=tuple(Column(title=title) for title in columns),
        rows=tuple(_work_row(work, linked=linked) for work in works),
        notes=_left_out(works),
        rules=(CONFIDENCE_NOTE, REVIEW_NOTE),
        citations=(REVIEW, *(work.paper for work in works)),
    )


def _work_row(work: Work, *, linked: bool) -> Row:
    paper = load_papers()[work.paper]
    authors, pretext, tasks, task_type, modality = map(_cell, work.cells)
    year, venue = Cell(text=str(paper.year)), Cell(text=paper.venue or "arXiv")
    cells = (authors, year, venue, pretext, tasks, task_type, modality)
    return Row(title=paper.title, key=work.paper, cells=cells, href=f"#{work_panel_id(work)}" if linked else "")


def _cell(told: Told) -> Cell:
    if told.text and not told.shown:
        return Cell(state="unverified", reason="known from memory only")
    return Cell(text=told.text or UNSEEN, marks=(SECONDARY,) if told.confidence == "secondary" else ())


def _left_out(works: Iterable[Work]) -> tuple[str, ...]:
    """How many cells of each column are known from memory only."""
    told = [work.cells for work in works]
    lost = [
        (title, sum(bool(cell.text) and not cell.shown for cell in column))
        for title, column in zip(CELL_TITLES, zip(*told, strict=True), strict=True)
    ]
    total = sum(count for _, count in lost)
    if not total:
        return ()
    words = listed([f"{count} of {title}" for title, count in lost if count])
    known = sum(bool(cell.text) for cells in told for cell in cells)
    return (f"{total} of {known} cells are known from memory only and left out: {words}.",)


# --- pretext methods --------------------------------------------------------------------------------------------


def family_table(methods: Mapping[str, MethodCard], *, page_of: Callable[[str], str] = lambda key: "") -> Table:
    """Pretext methods by the number of works that the review lists, with three properties that are mixed up.

    A method that is not listed follows those that are: what the review has none of belongs to the picture.
    """
    works = [work for work in load_works() if work.family]
    count = {key: sum(work.family == key for work in works) for key in load_families()}
    families = sorted(load_families().values(), key=lambda family: -count[family.key])
    papers = (family.paper or _paper(methods, family) for family in families)
    return Table(
        key="table3-pretext-methods",
        title="Table 3: counted by pretext method",
        caption=f"How many of the {counted(len(works), 'work')} under contrastive use each pretext method, and what it "
        "does.",
        stub="Pretext method",
        columns=(
            Column(title=WORKS.title, metric=WORKS),
            *(Column(title=title, groups=("Classed as",)) for title in ("by the review", "here")),
            Column(title="uses negatives"),
            Column(title="teacher with stop-gradient"),
            Column(title="explicit decorrelation"),
            Column(title="settled by"),
        ),
        rows=tuple(_family_row(family, count[family.key], methods, page_of) for family in families),
        notes=(_tasks_note(works),),
        rules=(COUNT_NOTE, PROPERTIES_NOTE, *_settled(families), REVIEW_NOTE),
        citations=(REVIEW, *dict.fromkeys(paper for paper in papers if paper)),
    )


def _settled(families: Iterable[PretextFamily]) -> Iterable[str]:
    """What was read of each pretext method that is not registered."""
    return (f"{family.title}: {family.notes}." for family in families if family.notes)


def _paper(methods: Mapping[str, MethodCard], family: PretextFamily) -> str:
    return methods[family.method].paper if family.method in methods else ""


def _family_row(
    family: PretextFamily, count: int, methods: Mapping[str, MethodCard], page_of: Callable[[str], str]
) -> Row:
    card = methods.get(family.method)
    properties: tuple[Cell, ...]
    if family.method:
        properties = card_properties(card) if card else (Cell(text="not known"),) * 3
        settled = "its card" if card else "not registered here"
    else:
        properties = tuple(map(_cell, (family.negatives, family.teacher, family.decorrelation)))
        settled = f"{short_name(family.paper)}, {family.place}"
    return Row(
        title=family.title,
        key=family.method or family.key,
        href=page_of(family.method) if family.method else "",
        cells=(
            Cell(state="published", metric=WORKS, value=float(count)),
            Cell(text="contrastive" if count else "not listed"),
            Cell(text=card.family if card else "not registered"),
            *properties,
            Cell(text=settled),
        ),
    )


def card_properties(card: MethodCard) -> tuple[Cell, Cell, Cell]:
    """Negatives, teacher with stop-gradient and explicit decorrelation, from a method's card."""
    negatives = "no" if card.negatives == "none" else f"yes, {card.negatives}"
    teacher = "no"
    if card.stop_gradient:
        teacher = "yes" if card.branches == "momentum" else "stop-gradient, no teacher"
    whitened = "whitened" in card.normalization
    decorrelates = whitened or card.family == "information maximization"
    decorrelation = "yes, whitening" if whitened else "yes" if decorrelates else "no"
    return Cell(text=negatives), Cell(text=teacher), Cell(text=decorrelation)


def _tasks_note(works: Sequence[Work]) -> str:
    """How many of the works are about which kind of task; what is not verified is not counted."""
    kinds = {"classification": 0, "segmentation": 0}
    for kind in kinds:
        kinds[kind] = sum(kind in work.task_type.shown for work in works)
    words = listed([f"{count} have tasks of {kind}" for kind, count in kinds.items()])
    return (
        f"Of these {counted(len(works), 'work')}, {words}. Where the review says detection, whole images are labeled."
    )


# --- panels -----------------------------------------------------------------------------------------------------


def work_panel_id(work: Work) -> str:
    return f"work-{work.paper}"


def work_panels() -> tuple[Panel, ...]:
    """Where each work's cells come from, and how each was checked."""
    return tuple(_work_panel(work) for work in load_works())


def _work_panel(work: Work) -> Panel:
    paper = load_papers()[work.paper]
    facts = [
        Fact(label="work", value=paper.title, href=paper.link),
        Fact(label="listed by", value=f"{short_name(REVIEW)}, as {work.category}", href=load_papers()[REVIEW].link),
        Fact(label="read in", value=work.source),
    ]
    for title, told in zip(CELL_TITLES, work.cells, strict=True):
        if told.text:
            shown = told.shown or "left out"
            facts.append(Fact(label=title, value=f"{shown} ({told.confidence}: {CONFIDENCE_WORDS[told.confidence]})"))
    if work.notes:
        facts.append(Fact(label="notes", value=work.notes))
    title = f"{work.authors.shown} {paper.year}" if work.authors.shown else paper.title
    section = Section(title="Source", facts=tuple(facts))
    return Panel(
        id=work_panel_id(work), title=title, runs=(Run(title="Listed work", state="published", sections=(section,)),)
    )

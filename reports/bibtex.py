"""BibTeX of the papers that a table cites."""

from __future__ import annotations

from collections.abc import Iterable

from bench.published import Paper, load_papers
from bench.table_latex import escape_latex


def bibtex(keys: Iterable[str]) -> str:
    """One entry per key, in order, each once; a key without an entry in ``papers.csv`` becomes a comment."""
    papers = load_papers()
    parts = [_entry(papers[key]) if key in papers else f"% {key}: not in papers.csv\n" for key in dict.fromkeys(keys)]
    return "\n".join(parts)


def _entry(paper: Paper) -> str:
    kind = "inproceedings" if _is_conference(paper) else "article" if paper.venue else "misc"
    container = {"inproceedings": "booktitle", "article": "journal"}.get(kind, "howpublished")
    fields = [
        ("author", escape_latex(paper.authors)),
        ("title", f"{{{escape_latex(paper.title)}}}" if paper.title else ""),
        (container, escape_latex(paper.venue)),
        ("year", str(paper.year) if paper.year else ""),
        ("doi", paper.doi),
        ("eprint", paper.arxiv_id),
        ("archivePrefix", "arXiv" if paper.arxiv_id else ""),
        ("url", "" if paper.arxiv_id else paper.url),
    ]
    lines = [f"  {name} = {{{value}}}," for name, value in fields if value]
    return "\n".join([f"@{kind}{{{paper.key},", *lines, "}", ""])


def _is_conference(paper: Paper) -> bool:
    signs = ("Conference", "Advances in Neural", "Deep Learning", "Computer Assisted")
    return any(sign in paper.venue for sign in signs)

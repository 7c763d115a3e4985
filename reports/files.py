"""The files of one build of the report, and the removal of those that an earlier build left."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

LISTING = ".jointbench-report"
"""Names of the files of the last build, so that the next one removes those it no longer writes."""


@dataclass
class Files:
    """The pages and files of one build, by path relative to the site's root."""

    files: dict[str, str] = field(default_factory=dict)

    def add(self, path: str, text: str) -> None:
        self.files[path] = text if text.endswith("\n") else text + "\n"

    def write(self, out: Path) -> None:
        """Write all files and remove those that an earlier build wrote and this one does not."""
        listing = out / LISTING
        earlier = listing.read_text(encoding="utf-8").splitlines() if listing.is_file() else []
        for path in sorted(set(earlier) - set(self.files)):
            if (out / path).resolve().is_relative_to(out.resolve()):
                (out / path).unlink(missing_ok=True)
        for path, text in self.files.items():
            target = out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8", newline="\n")
        listing.write_text("\n".join(sorted(self.files)) + "\n", encoding="utf-8", newline="\n")

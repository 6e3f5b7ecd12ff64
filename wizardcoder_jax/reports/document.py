"""A short document of headings, paragraphs and tables that can be written as Markdown or as an HTML page."""

import dataclasses
from collections.abc import Sequence

from wizardcoder_jax.reports.html_page import render_page


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """A table of strings with a header row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, paragraphs and an optional table."""

    heading: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A document: a title and sections."""

    title: str
    sections: Sequence[Section]

    def to_markdown(self) -> str:
        """Return the document as Markdown."""
        lines = [f"# {self.title}", ""]
        for section in self.sections:
            lines += [f"## {section.heading}", ""]
            for paragraph in section.paragraphs:
                lines += [paragraph, ""]
            if section.table is not None:
                rows = [section.table.header, ["---"] * len(section.table.header), *section.table.rows]
                lines += [*("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows), ""]
        return "\n".join(lines)

    def to_html(self) -> str:
        """Return the document as a self-contained HTML page."""
        return "".join(render_page("document.html", styles=["page.css"], title=self.title, sections=self.sections))

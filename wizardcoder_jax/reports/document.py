"""A short document of headings, paragraphs and tables, written as Markdown or as one self-contained HTML page."""

import dataclasses
from collections.abc import Sequence

from wizardcoder_jax.reports.html_escape import escaped

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ccc;padding:.3rem .7rem;text-align:left}
th{background:#f4f4f4}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}th{background:#282828}}"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A heading, paragraphs, and a table where there is one."""

    heading: str
    paragraphs: Sequence[str] = ()
    table: Table | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A title and sections."""

    title: str
    sections: Sequence[Section]

    def to_markdown(self) -> str:
        """The document as Markdown."""
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
        """The document as an HTML page without outside assets."""
        parts = [f"<h1>{escaped(self.title)}</h1>"]
        for section in self.sections:
            parts.append(f"<h2>{escaped(section.heading)}</h2>")
            parts += [f"<p>{escaped(paragraph)}</p>" for paragraph in section.paragraphs]
            if section.table is not None:
                parts.append(f"<table>{_row('th', section.table.header)}")
                parts += [_row("td", row) for row in section.table.rows]
                parts.append("</table>")
        head = f'<meta charset="utf-8"><title>{escaped(self.title)}</title><style>{_STYLE}</style>'
        return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _row(cell: str, values: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escaped(value)}</{cell}>" for value in values) + "</tr>"

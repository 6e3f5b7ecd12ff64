"""Self-contained HTML pages, rendered from the Jinja templates in `templates/` and the files in `assets/`.

A page loads nothing from the network, and its Content-Security-Policy allows only its own style sheet and script. Every value
that a template prints is escaped and its hidden characters are made visible, unless the value is `Markup`.
"""

import base64
import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from wizardcoder_jax.reports.visible_text import reveal_hidden, shorten_line

_FOLDER = Path(__file__).parent


def render_page(template: str, *, styles: Sequence[str], scripts: Sequence[str] = (), **context: Any) -> Iterator[str]:
    """Render a page piece by piece, so that a large page never has to be in memory as a whole.

    Args:
        template: name of a template that extends base.html.
        styles: names of the style sheets in assets/, in order.
        scripts: names of the scripts in assets/, in order.
        **context: the template's variables; "title" is required.
    """
    style, script = _read_assets(styles), _read_assets(scripts)
    policy = f"default-src 'none'; style-src '{_csp_hash(style)}'; base-uri 'none'; form-action 'none'"
    if script:
        policy += f"; script-src '{_csp_hash(script)}'"
    context |= {"policy": policy, "style": style, "script": script}
    yield from _environment().get_template(template).generate(context)
    yield "\n"


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        finalize=_reveal,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "shorten": shorten_line,
        "percent": lambda rate: f"{100 * rate:.1f} %",
        "interval": lambda ends: f"[{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]",
        "points": lambda change: f"{100 * change:+.1f}",
        "thousands": lambda number: f"{number:,}",
        "plural": lambda number, noun: f"{number:,} {noun}{'' if number == 1 else 's'}",
        "prefix": lambda values, text: [f"{text}{value}" for value in values],
        "number_columns": lambda names: [(name, "number") for name in names],  # (name of a column, CSS class of its cells)
        "text_columns": lambda names: [(name, "") for name in names],
    }
    return environment


def _reveal(value: Any) -> Any:
    """Return a value that a template prints as a string with visible hidden characters; Jinja escapes it afterwards."""
    return value if hasattr(value, "__html__") else reveal_hidden(str(value))


def _read_assets(names: Sequence[str]) -> Markup:
    """Return the concatenated contents of files in assets/."""
    return Markup("".join((_FOLDER / "assets" / name).read_text(encoding="utf-8") for name in names))


def _csp_hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

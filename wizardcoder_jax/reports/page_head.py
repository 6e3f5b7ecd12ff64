"""The head of a self-contained page: nothing from outside is loaded, and no script runs but the page's own."""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

_ASSETS = Path(__file__).with_name("assets")


def asset(*names: str) -> str:
    """The style sheets or scripts of these names, one after the other."""
    return "".join((_ASSETS / name).read_text(encoding="utf-8") for name in names)


def head(title: str, style: str, scripts: Sequence[str]) -> str:
    """The page's head.

    Args:
        title: as HTML.
        style: the one style sheet.
        scripts: all that the page may run.
    """
    allowed = " ".join(f"'{_hash(script)}'" for script in scripts)
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src {allowed}; base-uri 'none'; form-action 'none'"
    return (
        f'<head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title>'
        f"<style>{style}</style></head>"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

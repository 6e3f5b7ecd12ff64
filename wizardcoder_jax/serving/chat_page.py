"""Chat page: an HTML document with inline style and script. Its Content-Security-Policy only allows calls to this server."""

import base64
import functools
import hashlib
from pathlib import Path

from aiohttp import web

_ASSETS = Path(__file__).with_name("assets")


async def handle(request: web.Request) -> web.Response:
    """Return the response with the chat page."""
    document, policy = _page()
    headers = {
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return web.Response(body=document, content_type="text/html", charset="utf-8", headers=headers)


@functools.cache
def _page() -> tuple[bytes, str]:
    """Return the document and its Content-Security-Policy."""
    style, script = ((_ASSETS / name).read_text(encoding="utf-8") for name in ("chat.css", "chat.js"))
    document = (_ASSETS / "chat.html").read_text(encoding="utf-8")
    document = document.replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return document.encode(), policy


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

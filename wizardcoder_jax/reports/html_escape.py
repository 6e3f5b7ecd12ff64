"""Text of models and files as HTML: nothing in it is markup, and characters that hide or reorder text are shown."""

import html
import re

# C0 and C1 controls without tab and newline; zero-width and bidirectional controls (they make code look like other code);
# lone surrogates and noncharacters, which UTF-8 or HTML cannot hold.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]"
)


def visible(text: str) -> str:
    """`text` with hidden characters as pictures (U+2400...) or as <U+....>."""
    return _HIDDEN.sub(_picture, text)


def _picture(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def escaped(text: object) -> str:
    """`text` for an element's content or a quoted attribute."""
    return html.escape(visible(str(text)))


def short(text: object, max_chars: int = 200) -> str:
    """`text` on one line, cut after `max_chars`, escaped."""
    line = " ".join(str(text)[: 4 * max_chars].split())
    return escaped(line if len(line) <= max_chars else line[:max_chars] + "\u2026")


def block(text: str, max_chars: int) -> str:
    """`text` as a preformatted block that the keyboard can scroll; cut after `max_chars`, which is said."""
    note = f'<p class="note">Cut: {max_chars:,} of {len(text):,} characters are shown.</p>' if len(text) > max_chars else ""
    # HTML drops one newline after <pre>: ours, not the text's.
    return f'<pre tabindex="0">\n{escaped(text[:max_chars])}</pre>{note}' if text else '<p class="note">Empty.</p>'

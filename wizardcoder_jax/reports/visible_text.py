"""Functions that make untrusted text safe to read: characters that hide or reorder text are replaced by visible ones."""

import re

# Hidden characters: C0 and C1 controls except tab and newline; zero-width and bidirectional controls, which can make code look
# like other code; lone surrogates and noncharacters, which UTF-8 or HTML cannot represent.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]"
)


def reveal_hidden(text: str) -> str:
    """Return `text` with each hidden character replaced by its Unicode control picture or by <U+XXXX>."""
    return _HIDDEN.sub(_visible_form, text)


def _visible_form(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<U+{code:04X}>"


def shorten_line(text: object, max_chars: int = 200) -> str:
    """Return `text` on one line, cut after `max_chars` characters with an ellipsis."""
    line = " ".join(str(text)[: 4 * max_chars].split())
    return line if len(line) <= max_chars else line[:max_chars] + "\u2026"

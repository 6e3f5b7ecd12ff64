"""Extracts the text of records of any instruction dataset: instructions, chats, completions and plain text."""

from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.core.errors import InputError

# The first layout whose first field is in the record applies. The other fields of the layout may be missing or null.
LAYOUTS = (
    ("messages",),
    ("conversations",),
    ("instruction", "input", "output", "response"),
    ("prompt", "completion", "response"),
    ("query", "answer", "response"),
    ("question", "answer", "response"),
    ("problem", "solution"),
    ("text",),
    ("content",),
)


def extract_text(location: str, entry: dict[str, Any], fields: Sequence[str]) -> str:
    """Return all text of a record, in the order of its fields.

    Args:
        location: file and line of the record, for error messages.
        entry: the record.
        fields: names of the fields that contain text; if empty, the fields of the first matching layout in LAYOUTS.

    Raises:
        InputError: no layout matches, a named field is missing, or a field contains neither a string nor a list of messages.
    """
    chosen = fields or next((layout for layout in LAYOUTS if layout[0] in entry), None)
    if chosen is None:
        found = ", ".join(map(str, entry)) or "none"
        raise InputError(
            f"{location}: no known text field (fields: {found}); name the fields that contain text with --text-fields"
        )
    missing = [field for field in fields or chosen[:1] if field not in entry]
    if missing:
        raise InputError(f'{location}: field "{missing[0]}" is missing; --text-fields must name fields that every record has')
    return "\n".join(text for field in chosen for text in _texts(location, field, entry.get(field)))


def _texts(location: str, field: str, value: Any) -> list[str]:
    """Return the strings in the value of a field, which is a string or a list of chat messages."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise InputError(f'{location}: field "{field}" is {type(value).__name__}, expected a string or a list of messages')
    texts = []
    for message in value:
        content = (
            next((message[name] for name in ("content", "value", "text") if name in message), "")
            if isinstance(message, dict)
            else message
        )
        texts += _texts(location, field, content)
    return texts

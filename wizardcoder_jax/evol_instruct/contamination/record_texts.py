"""The texts of a record of any instruction dataset: instructions, chats, completions and plain texts."""

from collections.abc import Sequence
from typing import Any

from wizardcoder_jax.core.errors import InputError

LAYOUTS = (  # a record has the first layout whose first field it has; the other fields may be missing or null
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
        fields: the fields with its text; if empty, the fields of the first layout that fits.

    Raises:
        InputError: no layout fits, a named field is missing, or a field is not a text.
    """
    chosen = fields or next((layout for layout in LAYOUTS if layout[0] in entry), None)
    if chosen is None:
        found = ", ".join(map(str, entry)) or "none"
        raise InputError(
            f"{location}: no field of an instruction dataset (fields: {found}); name its text fields with --text-fields"
        )
    missing = [field for field in fields or chosen[:1] if field not in entry]
    if missing:
        raise InputError(f'{location}: no field "{missing[0]}"; --text-fields must name fields that every record has')
    return "\n".join(text for field in chosen for text in _texts(location, field, entry.get(field)))


def _texts(location: str, field: str, value: Any) -> list[str]:
    """Return the text of a field, or the texts of the messages of a chat."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise InputError(f'{location}: field "{field}" is {type(value).__name__}, expected a text or a list of messages')
    texts = []
    for message in value:
        content = (
            next((message[name] for name in ("content", "value", "text") if name in message), "")
            if isinstance(message, dict)
            else message
        )
        texts += _texts(location, field, content)
    return texts

"""The messages of a chat request."""

from typing import Any

from wizardcoder_jax.serving.api_errors import RefusalError
from wizardcoder_jax.serving.body_fields import shown

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}  # as asked -> as told the model


def read_messages(value: Any) -> list[dict[str, str]]:
    """The "role" and "content" of each message.

    Raises:
        RefusalError: there is none, one is malformed, or it holds anything but text.
    """
    if not isinstance(value, list) or not value:
        raise RefusalError(f"messages must be a list of at least one message, got {shown(value)}", param="messages")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(value)]


def _message(message: Any, place: str) -> dict[str, str]:
    if not isinstance(message, dict):
        raise RefusalError(f"{place} must be an object, got {shown(message)}", param=place)
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        wanted = "system, developer, user or assistant"
        raise RefusalError(f"{place}.role must be {wanted}, got {shown(role)}", param=f"{place}.role")
    if message.get("tool_calls") or message.get("function_call"):
        raise RefusalError(f"{place}: calls of tools are not supported", param=place, code="unsupported")
    return {"role": ROLES[role], "content": _text(message.get("content"), f"{place}.content")}


def _text(content: Any, place: str) -> str:
    """A text, or the texts of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise RefusalError(f"{place} must be a text or a list of parts, got {shown(content)}", param=place)
    texts = []
    for i, part in enumerate(content):
        if not isinstance(part, dict):
            raise RefusalError(f"{place}[{i}] must be an object, got {shown(part)}", param=f"{place}[{i}]")
        if part.get("type") != "text":
            message = f"{place}[{i}].type {shown(part.get('type'))} is not supported; this model reads text"
            raise RefusalError(message, param=f"{place}[{i}].type", code="unsupported")
        if not isinstance(part.get("text"), str):
            raise RefusalError(f"{place}[{i}].text must be a text", param=f"{place}[{i}].text")
        texts.append(part["text"])
    return "".join(texts)

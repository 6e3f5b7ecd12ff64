"""The keys of a request's body, read one by one and checked; null counts as absent, as with OpenAI."""

import json
from typing import Any, NoReturn

from wizardcoder_jax.serving.api_errors import RefusalError

SHOWN_CHARS = 60  # of a wrong value, in a message


def parse_body(content: bytes) -> dict[str, Any]:
    """The JSON object in `content`.

    Raises:
        RefusalError: it is no JSON, holds NaN or infinity, is nested too deep, is no object, or holds what is no text.
    """
    try:
        body = json.loads(content, parse_constant=_refuse_constant)
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise RefusalError("the body holds half of a surrogate pair (\\ud800 to \\udfff), which is no text") from error
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, a number of too many digits, nested too deep
        raise RefusalError(f"the body is no JSON: {_brief(error)}") from error
    if not isinstance(body, dict):
        raise RefusalError(f"the body must be a JSON object, got {shown(body)}")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def shown(value: object) -> str:
    """A value that is wrong, short enough for a message."""
    text = repr(value) if not isinstance(value, dict | list) else type(value).__name__.replace("dict", "object")
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


class BodyFields:
    """The values of a body, by key.

    Raises (from every method): RefusalError: a value is of the wrong type or out of range.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def get(self, name: str) -> Any:
        """The value as it is; None where it is absent."""
        return self._values.get(name)

    def refuse(self, name: str, wanted: str) -> NoReturn:
        """Refuses what the key has."""
        raise RefusalError(f"{name} must be {wanted}, got {shown(self.get(name))}", param=name)

    def flag(self, name: str) -> bool:
        """True or false; false by default."""
        value = self.get(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "true or false")
        return bool(value)

    def text(self, name: str) -> str | None:
        """A text."""
        value = self.get(name)
        if value is not None and not isinstance(value, str):
            self.refuse(name, "a text")
        return value

    def integer(self, name: str, least: int, most: int) -> int | None:
        """A whole number from `least` to `most`."""
        value = self.get(name)
        if value is not None and not (is_integer(value) and least <= value <= most):
            self.refuse(name, f"a whole number from {least} to {most}")
        return value

    def real(self, name: str, default: float, least: float, most: float) -> float:
        """A number from `least` to `most`."""
        value = self.get(name)
        if value is None:
            return default
        if not ((is_integer(value) or isinstance(value, float)) and least <= value <= most):
            self.refuse(name, f"a number from {least:g} to {most:g}")
        return float(value)

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A text, or a list of at most so many; none may be empty."""
        value = self.get(name)
        found = [] if value is None else [value] if isinstance(value, str) else value
        is_right = isinstance(found, list) and len(found) <= most and all(isinstance(text, str) and text for text in found)
        if not is_right:
            self.refuse(name, f"a text or a list of at most {most} texts, none of them empty")
        return tuple(found)

    def refuse_unsupported(self, idle: dict[str, tuple[object, ...]]) -> None:
        """Refuses keys that would change the answer in a way that is not supported.

        Args:
            idle: key -> values, besides null, with which it changes nothing.
        """
        for name, values in idle.items():
            value = self.get(name)
            if value is not None and not any(type(value) is type(other) and value == other for other in values):
                raise RefusalError(f"{name} is not supported by this server; leave it out", param=name, code="unsupported")


def is_integer(value: object) -> bool:
    """Whether a value of JSON is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)

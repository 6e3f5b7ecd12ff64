"""Request bodies of the OpenAI API as pydantic models. A value of null counts as absent, as in OpenAI's server.

Keys and ranges come from OpenAI's API reference (completions, chat completions); `top_k`, `min_p` and `repetition_penalty` come
from vLLM. As in vLLM, unknown keys are ignored, and keys of OpenAI's API that this server does not support are rejected.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from wizardcoder_jax.serving.api_errors import ApiError

MAX_SAMPLES, MAX_STOPS, MAX_PROMPTS = 128, 16, 2048  # maximum of `n`, number of stop strings, number of prompts
MAX_CHAT_LOGPROBS, MAX_COMPLETION_LOGPROBS = 20, 5  # maximum of `top_logprobs` and of `logprobs`
MAX_SHOWN_CHARS = 60  # maximum number of characters of an invalid value in an error message
UNSUPPORTED: dict[str, tuple[object, ...]] = {  # key -> values that are accepted because they have no effect
    "logit_bias": ({},),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "echo": (False,),
    "best_of": (1,),
}


def parse_json(content: bytes) -> dict[str, Any]:
    """Return the JSON object in `content`.

    pydantic's JSON parser is not used, because it accepts NaN and rejects deeply nested values of unknown keys.

    Raises:
        ApiError: the content is not a JSON object, or contains NaN, infinity or a lone surrogate.
    """
    try:
        body = json.loads(content, parse_constant=_refuse_constant)
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ApiError("the body contains a lone surrogate (\\ud800 to \\udfff); send valid Unicode text") from error
    except (ValueError, RecursionError) as error:  # malformed, invalid UTF-8, too many digits, or nested too deeply
        raise ApiError(f"the body is not valid JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(body, dict):
        raise ApiError(f"the body must be a JSON object, got {_shorten(body)}")
    return body


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _shorten(value: object) -> str:
    """Return an invalid value as text that is short enough for an error message."""
    text = repr(value) if not isinstance(value, dict | list) else type(value).__name__.replace("dict", "object")
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "..."


def _integer(minimum: int, maximum: int) -> Any:
    return Field(default=None, ge=minimum, le=maximum, description=f"an integer from {minimum} to {maximum}")


def _number(minimum: float, maximum: float) -> Any:
    return Field(default=None, ge=minimum, le=maximum, description=f"a number from {minimum:g} to {maximum:g}")


def _boolean() -> Any:
    return Field(default=None, description="true or false")


class _Model(BaseModel):
    """Base class of all models. It does not convert between types, so "1" and true are not accepted as integers.

    The description of a field is the end of its error message "FIELD must be ...".
    """

    model_config = ConfigDict(strict=True)


class StreamOptions(_Model):
    """Options of a streamed response."""

    include_usage: bool | None = _boolean()


class RequestBody(_Model):
    """Keys that completions and chat completions have in common."""

    model: str | None = Field(default=None, description="a string")
    n: int | None = _integer(1, MAX_SAMPLES)
    max_tokens: int | None = _integer(1, 2**31 - 1)
    temperature: float | None = _number(0, 2)
    top_p: float | None = _number(0, 1)
    top_k: int | None = _integer(-1, 2**31 - 1)
    min_p: float | None = _number(0, 1)
    repetition_penalty: float | None = _number(0.01, 100)
    seed: int | None = _integer(-(2**63), 2**63 - 1)
    stream: bool | None = _boolean()
    stream_options: StreamOptions | None = Field(default=None, description="an object")
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], FailFast()] = Field(
        default=[], max_length=MAX_STOPS, description=f"a nonempty string or a list of at most {MAX_STOPS} nonempty strings"
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _as_list(cls, value: Any) -> Any:
        return [] if value is None else [value] if isinstance(value, str) else value


class CompletionBody(RequestBody):
    """Body of a request for completions; `prompt` is converted to a list of prompts, each a string or a list of token ids."""

    prompt: Annotated[list[str | Annotated[list[int], Field(min_length=1, fail_fast=True)]], FailFast()] = Field(
        validate_default=True,
        default=None,
        description=f"a string, a list of token ids, or a list of at most {MAX_PROMPTS} of either",
    )
    suffix: str | None = Field(default=None, description="a string")
    logprobs: int | None = _integer(0, MAX_COMPLETION_LOGPROBS)

    @field_validator("prompt", mode="before")
    @classmethod
    def _as_prompts(cls, value: Any) -> Any:
        is_list_of_prompts = isinstance(value, list) and not all(map(_is_integer, value))
        if is_list_of_prompts and len(value) > MAX_PROMPTS:
            raise PydanticCustomError("too_long", "too many prompts")
        return value if is_list_of_prompts else [value]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class TextPart(_Model):
    """A part of a message. Only text is supported."""

    type: Literal["text"]
    text: str = Field(description="a string")


class ChatMessage(_Model):
    """A message of a chat; `content` is converted to a list of parts."""

    role: Literal["system", "developer", "user", "assistant"] = Field(description="system, developer, user or assistant")
    tool_calls: Any = None
    function_call: Any = None
    content: Annotated[list[TextPart], FailFast()] = Field(min_length=1, description="a string or a list of parts")

    @field_validator("tool_calls", "function_call")
    @classmethod
    def _refuse_calls(cls, value: Any) -> Any:
        if value:
            raise PydanticCustomError("unsupported", "tool calls are not supported")
        return value

    @field_validator("content", mode="before")
    @classmethod
    def _as_parts(cls, value: Any) -> Any:
        return [{"type": "text", "text": value}] if isinstance(value, str) else value

    def for_template(self) -> dict[str, str]:
        """Return the message in the format of chat templates."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": "".join(part.text for part in self.content)}


class ChatBody(RequestBody):
    """Body of a request for chat completions."""

    messages: Annotated[list[ChatMessage], FailFast()] = Field(min_length=1, description="a list of at least one message")
    max_completion_tokens: int | None = _integer(1, 2**31 - 1)
    logprobs: bool | None = _boolean()
    top_logprobs: int | None = _integer(0, MAX_CHAT_LOGPROBS)


Body = TypeVar("Body", bound=RequestBody)


def validate_body(values: dict[str, Any], kind: type[Body]) -> Body:
    """Validate a body and return it as an instance of `kind`.

    Raises:
        ApiError: a value has the wrong type, is out of range, or is not supported.
    """
    for name, idle in UNSUPPORTED.items():  # Literal fields cannot distinguish 0 from false, or have an error code
        value = values.get(name)
        if value is not None and not any(type(value) is type(other) and value == other for other in idle):
            raise ApiError(f"{name} is not supported by this server; leave it out", param=name, code="unsupported")
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _to_api_error(kind, values, details["loc"], details["type"]) from error


_NESTED: dict[str, type[_Model]] = {"messages": ChatMessage, "content": TextPart, "stream_options": StreamOptions}


def _to_api_error(kind: type[RequestBody], values: dict[str, Any], location: Sequence[str | int], error: str) -> ApiError:
    """Return the response for the first validation error. It names the key, the expected value, and the given value."""
    if location[0] not in _NESTED:
        location = location[:1]  # the rest of the location identifies the member of a union
    model: type[_Model] = kind
    path, expected = "", "an object"
    value: Any = values
    for step in location:
        if isinstance(step, int):
            path, value, expected = f"{path}[{step}]", value[step], "an object"
            continue
        if error == "unsupported" and step in ("tool_calls", "function_call"):
            return ApiError(f"{path}: tool calls are not supported; leave them out", param=path, code="unsupported")
        expected = str(model.model_fields[step].description)
        path, value = f"{path}.{step}" if path else step, value.get(step)
        model = _NESTED.get(step, model)
    if location[-1] == "type":
        message = f"{path} {_shorten(value)} is not supported; this model only accepts text"
        return ApiError(message, param=path, code="unsupported")
    return ApiError(f"{path} must be {expected}, got {_shorten(value)}", param=path)

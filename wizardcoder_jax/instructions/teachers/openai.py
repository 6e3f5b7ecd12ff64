"""A teacher behind any server with the OpenAI chat-completions API (OpenAI, vLLM, llama.cpp, ...).

The key comes from the environment variable OPENAI_API_KEY and goes into one request header, nowhere else. 408, 429, 5xx,
timeouts and broken connections are retried with exponential backoff; every other failure is final.
"""

import datetime
import email.utils
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import httpx2

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.errors import InputError, StoppedEarlyError
from wizardcoder_jax.instructions.teachers.teacher import Completion, Message

KEY_VARIABLE = "OPENAI_API_KEY"
FIRST_DELAY_S = 0.5  # before the second attempt; doubles with each further one
MAX_DELAY_S = 60.0
MAX_RETRY_AFTER_S = 300.0  # a server that asks for longer is not waited for
EXCERPT_CHARS = 200
REDACTED_KEY_MIN_CHARS = 12  # shorter "keys" are placeholders for local servers ("EMPTY"), and may be words of a text


class _RetryableError(Exception):
    """An attempt failed, another may not; `retry_after_s` is what the server asked for."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class OpenAITeacher:
    """Asks the server at `config.base_url`.

    Args:
        config: address, model, decoding settings, retries.
        sleep: waits so many seconds between attempts.

    Raises:
        InputError: the address or the key is not usable.
    """

    def __init__(self, config: TeacherConfig, sleep: Callable[[float], object] = time.sleep) -> None:
        self._config, self._sleep = config, sleep
        self._url = f"{_checked_base_url(config.base_url)}/chat/completions"
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and (self._key.isprintable() or not self._key)):
            raise InputError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
        self._client = httpx2.Client(
            headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=httpx2.Timeout(config.timeout_s),
            limits=httpx2.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
        )

    @property
    def identity(self) -> str:
        """The kind and the address."""
        return f"openai:{self._config.base_url.rstrip('/')}"

    def complete(self, messages: Sequence[Message]) -> Completion:
        """Asks until the server answers, at most `max_attempts` times."""
        payload = {
            "model": self._config.model,
            "messages": [dict(message) for message in messages],
            "temperature": self._config.temperature,
            "top_p": self._config.top_p,
            "max_tokens": self._config.max_tokens,
        }
        for attempt in range(1, self._config.max_attempts + 1):
            try:
                return self._attempt(payload)
            except _RetryableError as error:
                if attempt == self._config.max_attempts or (error.retry_after_s or 0.0) > MAX_RETRY_AFTER_S:
                    raise StoppedEarlyError(f"{error} ({attempt} attempts); the same command resumes") from error
                self._sleep(_delay_s(attempt, error.retry_after_s))
        raise AssertionError("max_attempts is at least 1")

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _attempt(self, payload: dict[str, Any]) -> Completion:
        try:
            response = self._client.post(self._url, json=payload)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError) as error:
            raise InputError(f"the teacher's address {self._url} is not usable ({error}); check --teacher.base-url") from error
        except httpx2.TimeoutException as error:
            raise _RetryableError(f"{self._url} gave no answer within {self._config.timeout_s:g} s") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _RetryableError(f"{self._url} cannot be reached ({error or type(error).__name__})") from error
        self._check_status(response)
        return self._completion(response)

    def _check_status(self, response: httpx2.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in (401, 403):  # no excerpt: servers quote the key in it
            raise InputError(f"{self._url} refused the key (HTTP {status}); check {KEY_VARIABLE}")
        message = f"{self._url} answered HTTP {status}: {self._excerpt(response)}"
        if status in (408, 429) or status >= 500:
            raise _RetryableError(message, _retry_after_s(response.headers.get("retry-after")))
        raise InputError(f"{message}; check --teacher.base-url, --teacher.model and the decoding settings")

    def _completion(self, response: httpx2.Response) -> Completion:
        hint = "is this an OpenAI-compatible address? Check --teacher.base-url (it usually ends in /v1)"
        try:
            body = response.json()
        except ValueError as error:  # malformed JSON or not UTF-8
            kind = response.headers.get("content-type", "no content type")
            raise InputError(f"{self._url} answered {kind}, not JSON: {self._excerpt(response)}; {hint}") from error
        choices = body.get("choices") if isinstance(body, dict) else None
        if not (isinstance(choices, list) and choices and isinstance(choices[0], dict)):
            raise InputError(f"{self._url} answered without choices: {self._excerpt(response)}; {hint}")
        message, usage = choices[0].get("message"), body.get("usage")
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(message, dict) or not isinstance(content, str | None):
            raise InputError(f"{self._url} answered without a message text: {self._excerpt(response)}; {hint}")
        return Completion(
            text=self._redacted(content or ""),
            finish_reason=choices[0].get("finish_reason"),
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            model=self._redacted(str(body.get("model") or self._config.model)),
        )

    def _excerpt(self, response: httpx2.Response) -> str:
        text = " ".join(self._redacted(response.content.decode("utf-8", "replace")).split())
        return text[:EXCERPT_CHARS] or "an empty body"

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= REDACTED_KEY_MIN_CHARS else text


def _checked_base_url(base_url: str) -> str:
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL as error:
        raise InputError(f"teacher.base_url {base_url!r} is no address ({error})") from error
    if url.userinfo or url.query:
        raise InputError(f"teacher.base_url may hold no user, password or query; give the key in {KEY_VARIABLE}")
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"teacher.base_url must start with http:// or https://, got {base_url!r}")
    return base_url.rstrip("/")


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else None


def _delay_s(attempt: int, retry_after_s: float | None) -> float:
    if retry_after_s is not None:
        return retry_after_s
    longest_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1))
    return longest_s * random.uniform(0.5, 1.0)  # jitter: callers that failed together do not come back together


def _retry_after_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header (a number or a date) asks to wait."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())

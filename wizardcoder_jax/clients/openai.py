"""The client of any server with the OpenAI API (OpenAI, vLLM, llama.cpp, ...): chat completions and bare completions.

The key comes from the environment variable OPENAI_API_KEY and goes into one request header, nowhere else. 408, 429, 5xx,
timeouts, broken connections and answers with no choice in them are retried with exponential backoff; every other failure is
final. While a server is overloaded or down, one caller tries for all (gate.py).
"""

import datetime
import email.utils
import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from wizardcoder_jax.clients.completion import Completion
from wizardcoder_jax.clients.gate import Gate
from wizardcoder_jax.config import ServerConfig
from wizardcoder_jax.errors import InputError, StoppedEarlyError

KEY_VARIABLE = "OPENAI_API_KEY"
FIRST_DELAY_S = 0.5  # before the second attempt; doubles with each further one
MAX_DELAY_S = 60.0
RENAMED_LIMIT = "max_completion_tokens"  # what OpenAI's later chat models call max_tokens (API reference, chat completions)
MAX_RETRY_AFTER_S = 300.0  # a server that asks for longer is not waited for
EXCERPT_CHARS = 200
REDACTED_KEY_MIN_CHARS = 12  # shorter "keys" are placeholders for local servers ("EMPTY"), and may be words of a text


class _RetryableError(Exception):
    """An attempt failed, another may not.

    Attributes:
        retry_after_s: what the server asked to wait.
        throttled: whether the server asks for fewer requests, and nothing else is wrong.
    """

    def __init__(self, message: str, retry_after_s: float | None = None, throttled: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s, self.throttled = retry_after_s, throttled


class OpenAIClient:
    """Asks the server at `config.base_url`; may be used from several threads.

    Args:
        config: address, concurrency, retries.
        sleep: waits so many seconds between attempts.

    Raises:
        InputError: the address or the key is not usable.
    """

    def __init__(self, config: ServerConfig, sleep: Callable[[float], object] = time.sleep) -> None:
        self._config, self._sleep, self._gate = config, sleep, Gate()
        self._limit_is_renamed = False
        self._base_url = _checked_base_url(config)
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
        return f"openai:{self._base_url}"

    def complete(self, request: Mapping[str, Any]) -> Completion:
        """Asks until the server answers, at most `max_attempts` times.

        Args:
            request: the body, with "model" and either "messages" (a chat) or "prompt" (text to go on from).

        Raises:
            InputError: the request can never succeed.
            StoppedEarlyError: it kept failing, but may succeed later.
        """
        num_attempts, num_answers = 0, self._gate.num_answers
        try:
            while True:
                self._gate.enter()
                try:
                    completion = self._attempt(request)
                    self._gate.answered()
                    return completion
                except _RetryableError as error:
                    # A server that throttles this call while it answers others is not failing.
                    is_progress = error.throttled and self._gate.num_answers > num_answers
                    num_attempts, num_answers = num_attempts + (not is_progress), self._gate.num_answers
                    if num_attempts >= self._config.max_attempts or (error.retry_after_s or 0.0) > MAX_RETRY_AFTER_S:
                        raise StoppedEarlyError(f"{error} ({num_attempts} attempts); the same command resumes") from error
                    self._gate.failed(throttled=error.retry_after_s is not None)
                    self._sleep(_delay_s(max(num_attempts, 1), error.retry_after_s))
        except Exception as error:
            self._gate.break_with(error)
            raise

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _attempt(self, request: Mapping[str, Any]) -> Completion:
        url = f"{self._base_url}/{'chat/completions' if 'messages' in request else 'completions'}"
        body = dict(request)
        if self._limit_is_renamed and "max_tokens" in body:
            body[RENAMED_LIMIT] = body.pop("max_tokens")
        try:
            response = self._client.post(url, json=body)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL, httpx2.LocalProtocolError) as error:
            raise InputError(f"the address {url} is not usable ({error}); check {self._flag}") from error
        except httpx2.TimeoutException as error:
            raise _RetryableError(f"{url} gave no answer within {self._config.timeout_s:g} s") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _RetryableError(f"{url} cannot be reached ({error or type(error).__name__})") from error
        if response.status_code == 400 and "max_tokens" in body and RENAMED_LIMIT.encode() in response.content:
            self._limit_is_renamed = True
            return self._attempt(request)
        self._check_status(url, response)
        return self._completion(url, response, str(request["model"]))

    @property
    def _flag(self) -> str:
        return f"--{self._config.section}.base-url"

    def _check_status(self, url: str, response: httpx2.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in (401, 403):  # no excerpt: servers quote the key in it
            raise InputError(f"{url} refused the key (HTTP {status}); check {KEY_VARIABLE}")
        message = f"{url} answered HTTP {status}: {self._excerpt(response)}"
        if status in (408, 429) or status >= 500:
            raise _RetryableError(message, _retry_after_s(response.headers.get("retry-after")), throttled=status == 429)
        raise InputError(f"{message}; check {self._flag}, the model's name and the decoding settings")

    def _completion(self, url: str, response: httpx2.Response, model: str) -> Completion:
        hint = f"is this an OpenAI-compatible address? Check {self._flag} (it usually ends in /v1)"
        try:
            body = response.json()
        except ValueError as error:  # malformed JSON or not UTF-8
            kind = response.headers.get("content-type", "no content type")
            raise InputError(f"{url} answered {kind}, not JSON: {self._excerpt(response)}; {hint}") from error
        choices = body.get("choices") if isinstance(body, dict) else None
        if choices == []:
            raise _RetryableError(f"{url} answered without choices: {self._excerpt(response)}")
        if not (isinstance(choices, list) and isinstance(choices[0], dict)):
            raise InputError(f"{url} answered without choices: {self._excerpt(response)}; {hint}")
        choice, usage = choices[0], body.get("usage")
        text = _text(choice, in_chat=url.endswith("/chat/completions"))
        if text is None:
            raise InputError(f"{url} answered without a message text: {self._excerpt(response)}; {hint}")
        reason = choice.get("finish_reason")
        return Completion(
            text=self._redacted(text),
            finish_reason=self._redacted(reason) if isinstance(reason, str) else None,
            prompt_tokens=_count(usage, "prompt_tokens"),
            completion_tokens=_count(usage, "completion_tokens"),
            model=self._redacted(str(body.get("model") or model)),
        )

    def _excerpt(self, response: httpx2.Response) -> str:
        text = " ".join(self._redacted(response.content.decode("utf-8", "replace")).split())
        return text[:EXCERPT_CHARS] or "an empty body"

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= REDACTED_KEY_MIN_CHARS else text


def _checked_base_url(config: ServerConfig) -> str:
    name = f"{config.section}.base_url"
    try:
        url = httpx2.URL(config.base_url)
    except httpx2.InvalidURL as error:
        raise InputError(f"{name} {config.base_url!r} is no address ({error})") from error
    if url.userinfo or url.query:
        raise InputError(f"{name} may hold no user, password or query; give the key in {KEY_VARIABLE}")
    if url.scheme not in ("http", "https") or not url.host:
        raise InputError(f"{name} must start with http:// or https://, got {config.base_url!r}")
    return config.base_url.rstrip("/")


def _text(choice: Mapping[str, Any], *, in_chat: bool) -> str | None:
    """The text of a choice, "" where it is null; None where there is none."""
    holder, key = (choice.get("message"), "content") if in_chat else (choice, "text")
    if not isinstance(holder, dict) or not (in_chat or key in holder):
        return None
    text = holder.get(key)
    return "" if text is None else text if isinstance(text, str) else None


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else None


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

"""The client of any server with the OpenAI API (OpenAI, vLLM, llama.cpp, ...): chat completions and bare completions.

The key comes from the environment variable OPENAI_API_KEY and goes into one request header, nowhere else. 408, 429, 5xx,
timeouts, broken connections, cut-off JSON and answers with an error or no choice in them are retried with exponential
backoff; every other failure is final. While a server is overloaded or down, one caller tries for all (gate.py).
"""

import asyncio
import json
import os
import re
import urllib.parse
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import aiohttp

from wizardcoder_jax.config import ServerConfig
from wizardcoder_jax.core.errors import InputError, RefusedPromptError, StoppedEarlyError
from wizardcoder_jax.llm_client.circuit_breaker import CircuitBreaker
from wizardcoder_jax.llm_client.completion import MOST_TOKENS, Completion, most_tokens
from wizardcoder_jax.llm_client.rate_limits import RateLimiter, Ticket
from wizardcoder_jax.llm_client.retries import MAX_RETRY_AFTER_S, RetryableError, delay_s, retry_after_s

KEY_VARIABLE = "OPENAI_API_KEY"
RENAMED_LIMIT = "max_completion_tokens"  # what OpenAI's later chat models call max_tokens (API reference, chat completions)
EXCERPT_CHARS = 200
LONG_REQUEST_BYTES = 4000  # a shorter one exceeds no model's context by its own fault, but by its limit of tokens
_AGAINST_POLICY = re.compile(rb"content_filter|content_policy_violation|invalid_prompt")  # OpenAI's and Azure's codes
# How OpenAI, vLLM and llama.cpp say that prompt and answer do not fit.
_TOO_LONG = re.compile(rb"context.?length|maximum model length|context.?size", re.IGNORECASE)
REDACTED_KEY_MIN_CHARS = 8  # shorter "keys" are placeholders for local servers ("EMPTY"), and may be words of a text


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


class OpenAIClient:
    """Asks the server at `config.base_url`, for all callers of one event loop.

    Args:
        config: address, concurrency, retries.
        sleep: waits so many seconds between attempts.

    Raises:
        InputError: the address or the key is not usable.
    """

    def __init__(self, config: ServerConfig, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._config, self._sleep, self._gate = config, sleep, CircuitBreaker()
        self._rates = RateLimiter(requests_per_minute=config.requests_per_minute, tokens_per_minute=config.tokens_per_minute)
        self._limit_is_renamed = False
        self._base_url = _checked_base_url(config)
        self._proxy = _proxy_of(self._base_url)
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and (self._key.isprintable() or not self._key)):
            raise InputError(f"{KEY_VARIABLE} holds characters that no key has; set it again")
        self._open_session: aiohttp.ClientSession | None = None

    @property
    def identity(self) -> str:
        """The kind and the address."""
        return f"openai:{self._base_url}"

    async def complete(self, request: Mapping[str, Any]) -> Completion:
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
                try:
                    completion = await self._attempt(request)
                    self._gate.answered()
                    return completion
                except RetryableError as error:
                    # A server that throttles this call while it answers others is not failing.
                    is_progress = error.throttled and self._gate.num_answers > num_answers
                    num_attempts, num_answers = num_attempts + (not is_progress), self._gate.num_answers
                    if num_attempts >= self._config.max_attempts or (error.retry_after_s or 0.0) > MAX_RETRY_AFTER_S:
                        raise StoppedEarlyError(f"{error} ({num_attempts} attempts); the same command resumes") from error
                    self._gate.failed(throttled=error.retry_after_s is not None)
                    await self._sleep(delay_s(max(num_attempts, 1), error.retry_after_s))
        except RefusedPromptError:  # says nothing about other requests
            self._gate.answered()
            raise
        except Exception as error:
            self._gate.break_with(error)
            raise

    async def aclose(self) -> None:
        """Closes the connections."""
        if self._open_session is not None:
            await self._open_session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._open_session is None:  # it belongs to an event loop: made in it
            self._open_session = aiohttp.ClientSession(
                headers={
                    "Content-Type": "application/json",
                    **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
                },
                timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._proxy,
            )
        return self._open_session

    async def _attempt(self, request: Mapping[str, Any]) -> Completion:
        url = f"{self._base_url}/{'chat/completions' if 'messages' in request else 'completions'}"
        body = dict(request)
        if self._limit_is_renamed and "max_tokens" in body:
            body[RENAMED_LIMIT] = body.pop("max_tokens")
        content = json.dumps(body).encode()
        ticket = await self._admitted(request)
        response = await self._post(url, content)
        if response.status == 400 and "max_tokens" in body and RENAMED_LIMIT.encode() in response.content:
            self._limit_is_renamed = True
            return await self._attempt(request)
        self._check_status(url, response, len(content))
        completion = self._completion(url, response, str(request["model"]))
        self._rates.settle(ticket, completion.num_tokens)
        return completion

    async def _admitted(self, request: Mapping[str, Any]) -> Ticket:
        """The right to send a request now: waits for the gate and for the rates."""
        asked = request.get("messages") or request["prompt"]
        num_tokens = most_tokens(asked) + request.get("max_tokens", 0)
        while True:
            await self._gate.enter()
            async with self._rates.turn:
                while self._gate.is_open():
                    wait_s = self._rates.delay_s(num_tokens)
                    if wait_s == 0:
                        return self._rates.take(num_tokens)
                    await self._rates.wait(wait_s)

    async def _post(self, url: str, content: bytes) -> _Response:
        try:
            # A redirect is not followed: it would carry the key elsewhere.
            async with self._session.post(url, data=content, allow_redirects=False) as response:
                return _Response(response.status, response.headers, await response.read())
        except aiohttp.InvalidURL as error:
            raise InputError(f"the address {url} is not usable ({self._redacted(str(error))}); check {self._flag}") from error
        except TimeoutError as error:
            raise RetryableError(f"{url} gave no answer within {self._config.timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            reason = " ".join(self._redacted(str(error)).split()) or type(error).__name__
            raise RetryableError(f"{url} cannot be reached ({reason[:EXCERPT_CHARS]})") from error

    @property
    def _flag(self) -> str:
        return f"--{self._config.section}.base-url"

    def _check_status(self, url: str, response: _Response, num_bytes: int) -> None:
        status = response.status
        if status == 200:
            return
        if status in (401, 403):  # no excerpt: servers quote the key in it
            raise InputError(f"{url} refused the key (HTTP {status}); check {KEY_VARIABLE}")
        message = f"{url} answered HTTP {status}: {self._excerpt(response)}"
        if status in (408, 429) or status >= 500:
            raise RetryableError(message, retry_after_s(response.headers.get("Retry-After")), throttled=status == 429)
        if num_bytes >= LONG_REQUEST_BYTES and (status == 413 or (status == 400 and _TOO_LONG.search(response.content))):
            raise RefusedPromptError(f"{message}; shorten the prompt, or lower the limit of tokens", finish_reason="length")
        if status == 400 and _AGAINST_POLICY.search(response.content):
            raise RefusedPromptError(f"{message}; reword the prompt", finish_reason="content_filter")
        raise InputError(f"{message}; check {self._flag}, the model's name and the decoding settings")

    def _completion(self, url: str, response: _Response, model: str) -> Completion:
        hint = f"is this an OpenAI-compatible address? Check {self._flag} (it usually ends in /v1)"
        kind = response.headers.get("Content-Type", "no content type")
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError) as error:  # malformed JSON or not UTF-8
            message = f"{url} answered {kind}, not JSON: {self._excerpt(response)}"
            if "json" in kind.lower():  # meant as JSON, and cut off
                raise RetryableError(message) from error
            raise InputError(f"{message}; {hint}") from error
        choices = body.get("choices") if isinstance(body, dict) else None
        if _is_passing(body):
            raise RetryableError(f"{url} answered without choices: {self._excerpt(response)}")
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

    def _excerpt(self, response: _Response) -> str:
        text = " ".join(self._redacted(response.content.decode("utf-8", "replace")).split())[:EXCERPT_CHARS]
        return "".join(letter if letter.isprintable() else "?" for letter in text) or "an empty body"

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= REDACTED_KEY_MIN_CHARS else text


def _checked_base_url(config: ServerConfig) -> str:
    name = f"{config.section}.base_url"
    try:
        url = urllib.parse.urlsplit(config.base_url)
        is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError as error:
        raise InputError(f"{name} {config.base_url!r} is no address ({error})") from error
    if "@" in url.netloc or url.query:
        raise InputError(f"{name} may hold no user, password or query; give the key in {KEY_VARIABLE}")
    if not is_usable:
        raise InputError(f"{name} must start with http:// or https://, got {config.base_url!r}")
    return config.base_url.rstrip("/")


def _proxy_of(base_url: str) -> str | None:
    """The proxy that the environment (HTTPS_PROXY, NO_PROXY, ...) names for an address."""
    url = urllib.parse.urlsplit(base_url)
    is_bypassed = urllib.request.proxy_bypass(url.netloc)
    return None if is_bypassed else urllib.request.getproxies().get(url.scheme)


def _is_passing(body: object) -> bool:
    """Whether an answer lacks its choice as that of an overloaded server does: none, an empty one, or an error in its place."""
    if not isinstance(body, dict):
        return False
    return isinstance(body.get("error"), dict) if "choices" not in body else body["choices"] in (None, [], [None], [{}])


def _text(choice: Mapping[str, Any], *, in_chat: bool) -> str | None:
    """The text of a choice, "" where it is null; None where there is none."""
    holder, key = (choice.get("message"), "content") if in_chat else (choice, "text")
    if not isinstance(holder, dict) or not (in_chat or key in holder):
        return None
    text = holder.get(key)
    return "" if text is None else text if isinstance(text, str) else None


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None

"""A client for any server with the OpenAI API (OpenAI, vLLM, llama.cpp, ...): chat completions and text completions.

The API key comes from the environment variable OPENAI_API_KEY and is only sent in the request header. HTTP 408, 429 and 5xx,
timeouts, broken connections, truncated JSON and answers with an error or without a choice are retried with exponential backoff;
every other failure is final. While a server is overloaded or down, one caller probes it and the others wait
(circuit_breaker.py).
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
from wizardcoder_jax.llm_client.completion import MAX_TOKENS, Completion, max_prompt_tokens
from wizardcoder_jax.llm_client.rate_limits import RateLimiter, Ticket
from wizardcoder_jax.llm_client.retries import MAX_RETRY_AFTER_S, RetryableError, parse_retry_after, retry_delay_s

KEY_VARIABLE = "OPENAI_API_KEY"
RENAMED_LIMIT = "max_completion_tokens"  # new name of max_tokens for OpenAI's newer chat models (OpenAI API reference)
EXCERPT_CHARS = 200  # maximum number of characters of an answer that an error message quotes
LONG_REQUEST_BYTES = 4000  # if a shorter request exceeds the context length, max_tokens is the cause rather than the prompt
_POLICY_VIOLATION = re.compile(rb"content_filter|content_policy_violation|invalid_prompt")  # error codes of OpenAI and Azure
# Phrases of the errors with which OpenAI, vLLM and llama.cpp report that prompt and answer exceed the context length.
_TOO_LONG = re.compile(rb"context.?length|maximum model length|context.?size", re.IGNORECASE)
# Shorter keys are not redacted: they are placeholders for local servers ("EMPTY") and may occur in ordinary text.
REDACTED_KEY_MIN_CHARS = 8


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes


class OpenAIClient:
    """A client of the server at `config.base_url`, shared by all callers on one event loop.

    Args:
        config: address of the server, rate limits, timeout and number of attempts.
        sleep: coroutine function that waits for a number of seconds between attempts.

    Raises:
        InputError: the server address or the API key is invalid.
    """

    def __init__(self, config: ServerConfig, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._config, self._sleep, self._breaker = config, sleep, CircuitBreaker()
        self._rates = RateLimiter(requests_per_minute=config.requests_per_minute, tokens_per_minute=config.tokens_per_minute)
        self._limit_is_renamed = False
        self._base_url = _check_base_url(config)
        self._proxy = _find_proxy(self._base_url)
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and (self._key.isprintable() or not self._key)):
            raise InputError(f"{KEY_VARIABLE} contains characters that are not allowed in an API key; set it again")
        self._open_session: aiohttp.ClientSession | None = None

    @property
    def identity(self) -> str:
        """Kind and address of the server, which are part of the ledger keys of its answers."""
        return f"openai:{self._base_url}"

    async def complete(self, request: Mapping[str, Any]) -> Completion:
        """Send a request, retry it until the server answers, and return the answer.

        Args:
            request: the body, with "model" and either "messages" (a chat) or "prompt" (text to complete).

        Raises:
            RefusedPromptError: the server refused this prompt; other requests may succeed.
            InputError: the address, the key or a setting is wrong, so that retrying cannot help.
            StoppedEarlyError: `max_attempts` attempts failed, but the request may succeed later.
        """
        num_attempts, num_answers = 0, self._breaker.num_answers
        try:
            while True:
                try:
                    completion = await self._attempt(request)
                    self._breaker.record_answer()
                    return completion
                except RetryableError as error:
                    # If the server answered other calls meanwhile, being throttled does not count as a failed attempt.
                    is_progress = error.throttled and self._breaker.num_answers > num_answers
                    num_attempts, num_answers = num_attempts + (not is_progress), self._breaker.num_answers
                    if num_attempts >= self._config.max_attempts or (error.retry_after_s or 0.0) > MAX_RETRY_AFTER_S:
                        raise StoppedEarlyError(f"{error} ({num_attempts} attempts); the same command resumes") from error
                    self._breaker.record_failure(throttled=error.retry_after_s is not None)
                    await self._sleep(retry_delay_s(max(num_attempts, 1), error.retry_after_s))
        except RefusedPromptError:  # other requests may still succeed
            self._breaker.record_answer()
            raise
        except Exception as error:
            self._breaker.fail_all(error)
            raise

    async def aclose(self) -> None:
        """Close the connections to the server."""
        if self._open_session is not None:
            await self._open_session.close()

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._open_session is None:  # a session must be created while its event loop is running
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
        ticket = await self._wait_for_ticket(request)
        response = await self._post(url, content)
        if response.status == 400 and "max_tokens" in body and RENAMED_LIMIT.encode() in response.content:
            self._limit_is_renamed = True
            return await self._attempt(request)
        self._check_status(url, response, len(content))
        completion = self._completion(url, response, str(request["model"]))
        self._rates.settle(ticket, completion.num_tokens)
        return completion

    async def _wait_for_ticket(self, request: Mapping[str, Any]) -> Ticket:
        """Wait until the circuit breaker and the rate limits allow a request, and return the ticket to send it now."""
        messages = request.get("messages") or request["prompt"]
        num_tokens = max_prompt_tokens(messages) + request.get("max_tokens", 0)
        while True:
            await self._breaker.wait()
            async with self._rates.lock:
                while self._breaker.allows_request():
                    wait_s = self._rates.delay_s(num_tokens)
                    if wait_s == 0:
                        return self._rates.take(num_tokens)
                    await self._rates.wait(wait_s)

    async def _post(self, url: str, content: bytes) -> _Response:
        try:
            # Redirects are not followed, because they would send the key to another server.
            async with self._session.post(url, data=content, allow_redirects=False) as response:
                return _Response(response.status, response.headers, await response.read())
        except aiohttp.InvalidURL as error:
            raise InputError(f"{url} is not a valid URL ({self._redacted(str(error))}); check {self._flag}") from error
        except TimeoutError as error:
            raise RetryableError(f"{url} did not answer within {self._config.timeout_s:g} s") from error
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
        if status in (401, 403):  # the error does not quote the answer, which may contain the key
            raise InputError(f"{url} rejected the API key (HTTP {status}); check {KEY_VARIABLE}")
        message = f"{url} answered HTTP {status}: {self._excerpt(response)}"
        if status in (408, 429) or status >= 500:
            raise RetryableError(message, parse_retry_after(response.headers.get("Retry-After")), throttled=status == 429)
        if num_bytes >= LONG_REQUEST_BYTES and (status == 413 or (status == 400 and _TOO_LONG.search(response.content))):
            raise RefusedPromptError(f"{message}; shorten the prompt, or lower the token limit", finish_reason="length")
        if status == 400 and _POLICY_VIOLATION.search(response.content):
            raise RefusedPromptError(f"{message}; reword the prompt", finish_reason="content_filter")
        raise InputError(f"{message}; check {self._flag}, the model's name and the sampling settings")

    def _completion(self, url: str, response: _Response, model: str) -> Completion:
        hint = f"check that {self._flag} is the address of an OpenAI-compatible API (it usually ends in /v1)"
        kind = response.headers.get("Content-Type", "no content type")
        try:
            body = json.loads(response.content)
        except (ValueError, RecursionError) as error:  # malformed JSON or not UTF-8
            message = f"{url} answered with {kind}, not JSON: {self._excerpt(response)}"
            if "json" in kind.lower():  # the JSON was truncated
                raise RetryableError(message) from error
            raise InputError(f"{message}; {hint}") from error
        choices = body.get("choices") if isinstance(body, dict) else None
        if _is_overload(body):
            raise RetryableError(f"{url} answered without a valid choice: {self._excerpt(response)}")
        if not (isinstance(choices, list) and isinstance(choices[0], dict)):
            raise InputError(f"{url} answered without a valid choice: {self._excerpt(response)}; {hint}")
        choice, usage = choices[0], body.get("usage")
        text = _choice_text(choice, in_chat=url.endswith("/chat/completions"))
        if text is None:
            raise InputError(f"{url} answered with a choice that has no text: {self._excerpt(response)}; {hint}")
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


def _check_base_url(config: ServerConfig) -> str:
    name = f"{config.section}.base_url"
    try:
        url = urllib.parse.urlsplit(config.base_url)
        is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError as error:
        raise InputError(f"{name} {config.base_url!r} is not a valid URL ({error})") from error
    if "@" in url.netloc or url.query:
        raise InputError(f"{name} must not contain a user, password or query; put the key in {KEY_VARIABLE}")
    if not is_usable:
        raise InputError(f"{name} must start with http:// or https:// and name a host, got {config.base_url!r}")
    return config.base_url.rstrip("/")


def _find_proxy(base_url: str) -> str | None:
    """Return the proxy that environment variables (HTTPS_PROXY, NO_PROXY, ...) set for a URL, or None."""
    url = urllib.parse.urlsplit(base_url)
    is_bypassed = urllib.request.proxy_bypass(url.netloc)
    return None if is_bypassed else urllib.request.getproxies().get(url.scheme)


def _is_overload(body: object) -> bool:
    """Return whether an answer looks like that of an overloaded server: no choice, an empty choice, or an error object."""
    if not isinstance(body, dict):
        return False
    return isinstance(body.get("error"), dict) if "choices" not in body else body["choices"] in (None, [], [None], [{}])


def _choice_text(choice: Mapping[str, Any], *, in_chat: bool) -> str | None:
    """Return the text of a choice: "" if the server sent null, or None if the choice has no valid text."""
    holder, key = (choice.get("message"), "content") if in_chat else (choice, "text")
    if not isinstance(holder, dict) or not (in_chat or key in holder):
        return None
    text = holder.get(key)
    return "" if text is None else text if isinstance(text, str) else None


def _count(usage: object, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and 0 <= value <= MAX_TOKENS else None

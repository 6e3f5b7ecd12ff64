"""A teacher behind a server with the OpenAI chat completions API."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.llm_client.completion import Completion, Message
from wizardcoder_jax.llm_client.openai_client import OpenAIClient


class OpenAITeacher:
    """A teacher that sends its requests to the server at `config.base_url`.

    Args:
        config: address, model, decoding settings and retries.
        sleep: function that waits the given number of seconds between attempts; tests replace it.

    Raises:
        InputError: the address or the API key is not usable.
    """

    def __init__(self, config: TeacherConfig, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        self._client = OpenAIClient(config, sleep)
        self._settings = {
            "model": config.model,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "max_tokens": config.max_tokens,
        }

    @property
    def identity(self) -> str:
        """The kind of teacher and the server's address."""
        return self._client.identity

    async def complete(self, messages: Sequence[Message], draw: str) -> Completion:
        """Request a completion from the server, in at most `max_attempts` attempts."""
        return await self._client.complete({**self._settings, "messages": [dict(message) for message in messages]})

    async def aclose(self) -> None:
        """Close the connections to the server."""
        await self._client.aclose()

"""A teacher on a server with the OpenAI chat API."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from wizardcoder_jax.config import TeacherConfig
from wizardcoder_jax.llm_client.completion import Completion, Message
from wizardcoder_jax.llm_client.openai_client import OpenAIClient


class OpenAITeacher:
    """A teacher that asks the server at `config.base_url`.

    Args:
        config: address, model, decoding settings and retries.
        sleep: waits between attempts for the given number of seconds.

    Raises:
        InputError: the address or the key is not usable.
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
        """The kind and the address."""
        return self._client.identity

    async def complete(self, messages: Sequence[Message], draw: str) -> Completion:
        """Ask the server, with at most `max_attempts` attempts."""
        return await self._client.complete({**self._settings, "messages": [dict(message) for message in messages]})

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

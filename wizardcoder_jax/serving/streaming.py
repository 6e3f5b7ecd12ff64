"""The engine's answers to one HTTP request, as pieces of text in the order in which they are made."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.request import GenerationRequest, Logprob
from wizardcoder_jax.serving.incremental_text import Transcript


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """What is new in one answer.

    Attributes:
        index: of the answer within its request.
        text: what its tokens add; characters and stop strings that are not complete are held back.
        tokens: new ones, up to that which completes a stop string.
        logprobs: of the tokens, where they were asked for.
        finish_reason: "stop" or "length" in the last piece.
    """

    index: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[Logprob, ...] = ()
    finish_reason: str | None = None


class Answering:
    """All answers to one HTTP request at once; a context manager, which gives up those that are not ended when it is left.

    Args:
        engine: makes them.
        decode: tokens -> text.
        requests: one an answer.
        stops: strings that end an answer.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        decode: Callable[[Sequence[int]], str],
        requests: Sequence[GenerationRequest],
        stops: Sequence[str],
    ) -> None:
        self._engine, self._decode, self._requests, self._stops = engine, decode, requests, stops
        self._heard: asyncio.Queue[Piece | Exception] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._follow(index)) for index in range(len(self._requests))]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def pieces(self) -> AsyncIterator[Piece]:
        """The pieces of all answers, until each has its last.

        Raises:
            InputError: a request cannot be answered.
            Exception: that which ended the engine.
        """
        num_left = len(self._requests)
        while num_left:
            piece = await self._heard.get()
            if isinstance(piece, Exception):
                raise piece
            num_left -= piece.finish_reason is not None
            yield piece

    async def _follow(self, index: int) -> None:
        try:
            transcript = Transcript(self._decode, self._stops)
            async with contextlib.aclosing(self._engine.stream(self._requests[index], owner=self)) as stream:
                async for update in stream:
                    num_used, text = 0, ""
                    while num_used < len(update.tokens) and not transcript.is_stopped:
                        text += transcript.add(update.tokens[num_used])
                        num_used += 1
                    reason = update.generation.finish_reason if update.generation is not None else None
                    if reason is not None and not transcript.is_stopped:
                        text += transcript.end()
                    reason = "stop" if transcript.is_stopped else reason
                    self._heard.put_nowait(
                        Piece(
                            index=index,
                            text=text,
                            tokens=tuple(update.tokens[:num_used]),
                            logprobs=update.logprobs[:num_used],
                            finish_reason=reason,
                        )
                    )
                    if reason is not None:
                        return
        except Exception as error:  # the engine's, whatever it is
            self._heard.put_nowait(error)

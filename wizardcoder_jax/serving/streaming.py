"""Stream of text pieces of all answers to one HTTP request, in the order in which they are generated."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.engine import RequestUpdate
from wizardcoder_jax.inference.request import GenerationRequest, Logprob
from wizardcoder_jax.serving.detokenizer import IncrementalDetokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextDelta:
    """The next piece of one answer.

    Attributes:
        index: index of the answer within its HTTP request.
        text: new text, without an incomplete character or a possible beginning of a stop string at its end.
        tokens: new tokens, up to the one that completes a stop string.
        logprobs: log-probabilities of the tokens, if the request asks for them.
        finish_reason: "stop" or "length" in the last piece, else None.
    """

    index: int
    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[Logprob, ...] = ()
    finish_reason: str | None = None


class AnswerStream:
    """Context manager that generates all answers to one HTTP request concurrently. Leaving it cancels unfinished answers.

    Args:
        engine: engine that generates the answers.
        decode: function that converts tokens to text.
        requests: one request per answer.
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
        self._queue: asyncio.Queue[TextDelta | Exception] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._generate(index)) for index in range(len(self._requests))]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def deltas(self) -> AsyncIterator[TextDelta]:
        """Yield the pieces of all answers until every answer has finished.

        Raises:
            InputError: a request is invalid.
            Exception: the error that ended the engine.
        """
        num_unfinished = len(self._requests)
        while num_unfinished:
            delta = await self._queue.get()
            if isinstance(delta, Exception):
                raise delta
            num_unfinished -= delta.finish_reason is not None
            yield delta

    async def _generate(self, index: int) -> None:
        try:
            detokenizer = IncrementalDetokenizer(self._decode, self._stops)
            async with contextlib.aclosing(self._engine.stream(self._requests[index], owner=self)) as stream:
                async for update in stream:
                    delta = _to_delta(index, update, detokenizer)
                    self._queue.put_nowait(delta)
                    if delta.finish_reason is not None:
                        return
        except Exception as error:  # passed to `deltas`, which raises it
            self._queue.put_nowait(error)


def _to_delta(index: int, update: RequestUpdate, detokenizer: IncrementalDetokenizer) -> TextDelta:
    """Convert new tokens to text, up to the first stop string."""
    num_used, text = 0, ""
    while num_used < len(update.tokens) and not detokenizer.is_stopped:
        text += detokenizer.add(update.tokens[num_used])
        num_used += 1
    finish_reason = update.generation.finish_reason if update.generation is not None else None
    if finish_reason is not None and not detokenizer.is_stopped:
        text += detokenizer.end()
    return TextDelta(
        index=index,
        text=text,
        tokens=tuple(update.tokens[:num_used]),
        logprobs=update.logprobs[:num_used],
        finish_reason="stop" if detokenizer.is_stopped else finish_reason,
    )

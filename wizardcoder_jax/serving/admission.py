"""The model that is served and its callers: who is let in, how many wait, what is counted."""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator

from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams, SamplingSteps
from wizardcoder_jax.serving.api_errors import RefusalError, unavailable
from wizardcoder_jax.serving.prometheus_metrics import Metrics
from wizardcoder_jax.serving.request_parsing import MOST_TOP_LOGPROBS, ParsedRequest, Served
from wizardcoder_jax.serving.streaming import Answering, Piece

MOST_RETRY_AFTER_S = 60
# Whatever clients combine, so many programs are compiled for each length of the cache: everybody waits while one is.
PROGRAMS = (
    SamplingSteps(),
    SamplingSteps(sampled=True, top_p=True),
    SamplingSteps(repetition_penalty=True, sampled=True, top_k=True, top_p=True, min_p=True),
    SamplingSteps(repetition_penalty=True, sampled=True, top_k=True, top_p=True, min_p=True, num_logprobs=MOST_TOP_LOGPROBS),
)
WARM_LENGTH = 4  # tokens of a first request: enough for every program to be compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdmissionLimits:
    """What the server takes on."""

    num_slots: int  # answers made together
    max_queue: int  # answers that wait
    max_body_bytes: int  # of a request


class Service:
    """Answers what is asked, as far as there is room.

    Args:
        engine: makes the answers.
        served: the model.
        limits: how much there is room for.
        num_held: answers that the engine has, in its slots and before them.
    """

    def __init__(self, engine: AsyncEngine, served: Served, limits: AdmissionLimits, num_held: Callable[[], int]) -> None:
        self.served, self.limits, self.metrics, self.created = served, limits, Metrics(), int(time.time())
        self._engine, self._num_held = engine, num_held
        self._num_admitted = 0  # answers
        self._mean_s = 1.0  # that a request takes
        self.is_draining = False
        self.is_idle, self.has_failed = asyncio.Event(), asyncio.Event()
        self.is_idle.set()

    async def warm_up(self) -> None:
        """Has the model loaded, and the programs compiled that most requests need."""
        length = min(WARM_LENGTH, self.served.max_length)
        for params in (SamplingParams(), SamplingParams(temperature=1.0)):
            prompt = (self.served.tokenizer.eos_id,)
            await self._engine.generate(GenerationRequest(prompt=prompt, key=(0, 0), max_length=length, params=params))

    def gauges(self) -> dict[str, tuple[str, int]]:
        """What is so at present, for the metrics."""
        num_busy = min(self._num_held(), self.limits.num_slots)
        return {
            "slots": ("answers that can be made together", self.limits.num_slots),
            "slots_busy": ("answers that are being made", num_busy),
            "queue_length": ("answers that wait for a slot", max(0, self._num_admitted - num_busy)),
            "ready": ("whether requests are taken", int(not (self.is_draining or self.has_failed.is_set()))),
        }

    @contextlib.asynccontextmanager
    async def answering(self, asked: ParsedRequest) -> AsyncIterator[AsyncIterator[Piece]]:
        """The pieces of the answers, until the context is left.

        Raises:
            RefusalError: there is no room, or the server is about to end.
        """
        requests = asked.requests(self.served.max_length)
        started = time.monotonic()
        with self._admitted(len(requests)):
            async with Answering(self._engine, self.served.tokenizer.decode, requests, asked.stops) as answers:
                self.metrics.prompt_tokens += asked.num_prompt_tokens
                yield self._counted(answers.pieces(), started)
        whole_s = time.monotonic() - started
        self.metrics.whole_s.observe(whole_s)
        self._mean_s += (whole_s - self._mean_s) / 8

    @contextlib.contextmanager
    def _admitted(self, num_answers: int) -> Iterator[None]:
        room = self.limits.num_slots + self.limits.max_queue
        if self.is_draining:
            raise unavailable("the server is about to end")
        if num_answers > room:
            raise RefusalError(f"{num_answers} answers are more than this server takes on, {room}; ask for fewer at a time")
        if self._num_admitted + num_answers > room:
            raise self._queue_full()
        self._num_admitted += num_answers
        self.is_idle.clear()
        try:
            yield
        finally:
            self._num_admitted -= num_answers
            if not self._num_admitted:
                self.is_idle.set()

    def _queue_full(self) -> RefusalError:
        wait_s = min(MOST_RETRY_AFTER_S, max(1, math.ceil(self._mean_s)))
        message = f"the queue is full ({self.limits.max_queue} answers wait); try again in {wait_s} s"
        return RefusalError(message, status=429, kind="rate_limit_error", code="queue_full", retry_after_s=wait_s)

    async def _counted(self, pieces: AsyncIterator[Piece], started: float) -> AsyncIterator[Piece]:
        is_first = True
        try:
            async for piece in pieces:
                self.metrics.completion_tokens += len(piece.tokens)
                if is_first and piece.tokens:
                    self.metrics.first_token_s.observe(time.monotonic() - started)
                    is_first = False
                yield piece
        except Exception:
            if self._engine.has_failed:
                self.has_failed.set()
            raise

"""Inference service behind the HTTP routes: admission limits, generation of answers, metrics, and readiness."""

import asyncio
import contextlib
import dataclasses
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator

from wizardcoder_jax.inference.async_engine import AsyncEngine
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams, SamplingSteps
from wizardcoder_jax.serving.api_errors import ApiError, shutting_down
from wizardcoder_jax.serving.prometheus_metrics import Metrics
from wizardcoder_jax.serving.request_bodies import MAX_CHAT_LOGPROBS
from wizardcoder_jax.serving.request_parsing import ParsedRequest, ServedModel
from wizardcoder_jax.serving.streaming import AnswerStream, TextDelta

MAX_RETRY_AFTER_S = 60  # maximum of the Retry-After header in seconds
# Sampling steps of the compiled programs. There are only four for each capacity of the KV cache, whatever parameters clients
# combine, because all requests wait while a program is compiled.
PROGRAMS = (
    SamplingSteps(),
    SamplingSteps(sampled=True, top_p=True),
    SamplingSteps(repetition_penalty=True, sampled=True, top_k=True, top_p=True, min_p=True),
    SamplingSteps(repetition_penalty=True, sampled=True, top_k=True, top_p=True, min_p=True, num_logprobs=MAX_CHAT_LOGPROBS),
)
WARM_UP_LENGTH = 4  # maximum length of a warm-up request in tokens, enough to compile its programs


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdmissionLimits:
    """Limits on what the server accepts at the same time."""

    num_slots: int  # number of answers generated at the same time
    max_queue: int  # maximum number of answers that wait for a slot
    max_body_bytes: int  # maximum size of a request body in bytes


class InferenceService:
    """Service that generates the answers to HTTP requests within the admission limits.

    Args:
        engine: engine that generates the answers.
        served: the model.
        limits: admission limits.
        num_submitted: function that returns the number of answers in the engine's slots and queue.
    """

    def __init__(
        self, engine: AsyncEngine, served: ServedModel, limits: AdmissionLimits, num_submitted: Callable[[], int]
    ) -> None:
        self.served, self.limits, self.created = served, limits, int(time.time())
        self._engine, self._num_submitted = engine, num_submitted
        self._num_admitted = 0  # number of unfinished answers
        self._mean_request_s = 1.0
        self.is_draining = False
        self.is_idle, self.has_failed = asyncio.Event(), asyncio.Event()
        self.is_idle.set()
        self.metrics = Metrics(
            {
                "slots": ("answers that can be made together", lambda: limits.num_slots),
                "slots_busy": ("answers that are being made", lambda: self._num_busy),
                "queue_length": ("answers that wait for a slot", lambda: max(0, self._num_admitted - self._num_busy)),
                "ready": ("whether requests are taken", lambda: int(self.is_ready)),
            }
        )

    @property
    def is_ready(self) -> bool:
        """Whether new requests are accepted."""
        return not (self.is_draining or self.has_failed.is_set())

    @property
    def _num_busy(self) -> int:
        return min(self._num_submitted(), self.limits.num_slots)

    async def warm_up(self) -> None:
        """Load the model and compile the programs that most requests need."""
        length = min(WARM_UP_LENGTH, self.served.max_length)
        for params in (SamplingParams(), SamplingParams(temperature=1.0)):
            prompt = (self.served.tokenizer.eos_id,)
            await self._engine.generate(GenerationRequest(prompt=prompt, key=(0, 0), max_length=length, params=params))

    @contextlib.asynccontextmanager
    async def generate(self, parsed: ParsedRequest) -> AsyncIterator[AsyncIterator[TextDelta]]:
        """Generate the answers to a request. Leaving the context cancels unfinished answers.

        Yields:
            An iterator over the pieces of the answers.

        Raises:
            ApiError: the request asks for too many answers, the queue is full, or the server is shutting down.
        """
        requests = parsed.requests(self.served.max_length)
        start = time.monotonic()
        with self._admit(len(requests)):
            async with AnswerStream(self._engine, self.served.tokenizer.decode, requests, parsed.stops) as stream:
                self.metrics.prompt_tokens.inc(parsed.num_prompt_tokens)
                yield self._measure(stream.deltas(), start)
        request_s = time.monotonic() - start
        self.metrics.request_s.observe(request_s)
        self._mean_request_s += (request_s - self._mean_request_s) / 8

    @contextlib.contextmanager
    def _admit(self, num_answers: int) -> Iterator[None]:
        capacity = self.limits.num_slots + self.limits.max_queue
        if self.is_draining:
            raise shutting_down()
        if num_answers > capacity:
            raise ApiError(f"{num_answers} answers exceed the limit of {capacity} per request; request fewer answers")
        if self._num_admitted + num_answers > capacity:
            raise self._queue_full()
        self._num_admitted += num_answers
        self.is_idle.clear()
        try:
            yield
        finally:
            self._num_admitted -= num_answers
            if not self._num_admitted:
                self.is_idle.set()

    def _queue_full(self) -> ApiError:
        wait_s = min(MAX_RETRY_AFTER_S, max(1, math.ceil(self._mean_request_s)))
        message = f"the queue is full ({self.limits.max_queue} answers are waiting); try again in {wait_s} s"
        return ApiError(message, status=429, kind="rate_limit_error", code="queue_full", retry_after_s=wait_s)

    async def _measure(self, deltas: AsyncIterator[TextDelta], start: float) -> AsyncIterator[TextDelta]:
        """Yield the pieces unchanged, and record metrics of their tokens."""
        is_first = True
        try:
            async for delta in deltas:
                self.metrics.completion_tokens.inc(len(delta.tokens))
                if is_first and delta.tokens:
                    self.metrics.first_token_s.observe(time.monotonic() - start)
                    is_first = False
                yield delta
        except Exception:
            if self._engine.has_failed:
                self.has_failed.set()
            raise

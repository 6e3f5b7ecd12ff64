"""Continuous batching: a fixed number of slots, each of which decodes one answer and then takes the next request.

An answer depends only on its request and the model, not on the rest of the batch. The capacity of the KV cache follows the
longest running sequence. It takes few values, each twice the previous one, because each capacity needs its own compiled
program.

With several processes, every process calls the engine with the same requests. The host makes all decisions from replicated
arrays and passes only NumPy arrays to programs, so that all processes decide alike and pass the same inputs.
"""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import jax
import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import target_device_kind
from wizardcoder_jax.inference import decode_state, engine_programs
from wizardcoder_jax.inference.memory import cache_capacities, padded_num_slots
from wizardcoder_jax.inference.prefix_cache import PrefixCache
from wizardcoder_jax.inference.request import Generation, GenerationRequest, Logprob, SamplingSteps
from wizardcoder_jax.inference.request_queue import RequestQueue
from wizardcoder_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestUpdate:
    """Progress of a request since its last update.

    Attributes:
        request_id: id that `Engine.submit` returned.
        tokens: new tokens.
        logprobs: log-probabilities of the new tokens, if the request asks for them.
        generation: the complete answer, once it has finished.
    """

    request_id: int
    tokens: list[int]
    logprobs: tuple[Logprob, ...] = ()
    generation: Generation | None = None


@dataclasses.dataclass(kw_only=True)
class _Sequence:
    """A request and the tokens generated for it so far."""

    request_id: int
    request: GenerationRequest
    owner: Hashable
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[Logprob] = dataclasses.field(default_factory=list)


class Engine:
    """Engine that generates answers with one model.

    Args:
        model: weights with unstacked blocks (`Transformer.unstack_layers`).
        num_slots: number of answers that are decoded together.
        max_length: upper limit on the `max_length` of requests.
        eos_ids: ids of the tokens that end an answer.
        dtype: dtype of activations and KV cache.
        shared_prefix: tokens that many prompts start with; they are prefilled only once.
        num_draft_tokens: number of tokens that each step drafts from the text so far and then verifies. Answers do not change.
            Repetitive text takes fewer steps, but each step processes 1 + num_draft_tokens tokens per slot, which pays off with
            few slots.
        programs: sets of sampling steps that may be compiled. A batch runs the first program with all steps that it needs;
            additional steps do not change its answers. If no program has them, one with exactly these steps is compiled.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        num_slots: int,
        max_length: int,
        eos_ids: Sequence[int],
        dtype: jax.typing.DTypeLike,
        shared_prefix: tuple[int, ...] = (),
        num_draft_tokens: int = 0,
        programs: Sequence[SamplingSteps] = (),
    ) -> None:
        self._model, self._num_slots, self._dtype = model, num_slots, np.dtype(dtype)
        self._eos_ids = np.array(eos_ids, np.int32)
        self._capacities, self._num_draft_tokens = cache_capacities(max_length), num_draft_tokens
        self._history_length = max_length if num_draft_tokens else 0
        self._prefix_cache = PrefixCache(model, self._capacities, dtype, shared_prefix)
        self._programs = tuple(programs)
        self._queue: RequestQueue[_Sequence] = RequestQueue()
        self._running: dict[int, _Sequence] = {}  # running sequences by slot
        self._num_submitted = 0
        self._steps = SamplingSteps()
        self._capacity = self._capacities[0]
        self._num_rows = padded_num_slots(num_slots)
        self._state = decode_state.new_state(model, self._num_rows, self._history_length)
        self._cache = decode_state.new_cache(model, self._num_rows, self._capacity, self._dtype)
        self.num_steps = 0  # number of decode steps so far

    @property
    def num_free_slots(self) -> int:
        """Number of free slots minus the number of queued requests; negative if more requests are queued."""
        return self._num_slots - len(self._running) - len(self._queue)

    @property
    def is_busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._running or self._queue)

    def submit(self, request: GenerationRequest, owner: Hashable = None) -> int:
        """Queue a request and return its id. Consecutive requests with equal prompts share one prefill.

        Args:
            request: the request.
            owner: client that the request belongs to. A free slot goes to the owner that uses the fewest slots.

        Raises:
            InputError: the prompt is empty, or so long that no token of the answer fits.
        """
        if not 0 < len(request.prompt) < request.max_length <= self._capacities[-1]:
            raise InputError(
                "a request needs a nonempty prompt that is shorter than its max_length, which the engine limits to "
                f"{self._capacities[-1]} tokens; got {len(request.prompt)} prompt tokens and max_length {request.max_length}"
            )
        self._num_submitted += 1
        self._queue.add(_Sequence(request_id=self._num_submitted, request=request, owner=owner), owner)
        return self._num_submitted

    def cancel(self, request_id: int) -> None:
        """Cancel a request. Does nothing if it has already finished."""
        self._queue.remove(lambda sequence: sequence.request_id == request_id)
        for row, sequence in list(self._running.items()):
            if sequence.request_id == request_id:
                self._free_slot(row)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yield (index in `requests`, answer) in the order in which the answers finish."""
        indices = {self.submit(request): index for index, request in enumerate(requests)}
        while indices:
            for update in self.step():
                if update.generation is not None and update.request_id in indices:
                    yield indices.pop(update.request_id), update.generation

    def step(self) -> list[RequestUpdate]:
        """Fill free slots from the queue, run a few decode steps, and return the progress of each running request."""
        updates = [update for row in range(self._num_slots) for update in self._fill_slot(row)]
        if not self._running:
            return updates
        self._fit_cache()
        decode = engine_programs.decode_program(target_device_kind(), self._num_slots * (1 + self._num_draft_tokens))
        self._state, self._cache, output, num_steps = decode(
            self._model, self._state, self._cache, self._eos_ids, self._steps, self._num_draft_tokens
        )
        self.num_steps += int(num_steps)
        output = jax.tree.map(np.asarray, output)
        for row in sorted(self._running):
            is_token = output.tokens[:, row] >= 0
            new = jax.tree.map(lambda array, row=row, is_token=is_token: array[is_token, row], output)
            updates.append(self._add_tokens(row, new))
        return updates

    def _fill_slot(self, row: int) -> Iterator[RequestUpdate]:
        """Start queued requests in a slot until one is unfinished after its first token, or the queue is empty."""
        while row not in self._running and self._queue:
            sequence = self._queue.pop(sequence.owner for sequence in self._running.values())
            self._include_steps(sequence.request)
            logits, prompt_cache = self._prefix_cache.get(sequence.request.prompt)
            self._fit_cache(len(sequence.request.prompt))
            vocab_size = self._model.arch.padded_vocab_size
            slot = decode_state.slot_of(sequence.request, vocab_size, self._num_seen, self._history_length)
            self._state, self._cache, first = engine_programs.insert_prompt(
                self._model, self._state, self._cache, np.int32(row), slot, logits, prompt_cache, self._steps
            )
            self._running[row] = sequence
            yield self._add_tokens(row, jax.tree.map(lambda array: np.asarray(array)[None], first))

    def _add_tokens(self, row: int, new: decode_state.StepOutput) -> RequestUpdate:
        """Record the new tokens [n] of a slot, and free the slot if its answer has finished."""
        sequence = self._running[row]
        tokens = new.tokens.tolist()
        logprobs = _logprobs(new, sequence.request.params.num_logprobs)
        sequence.tokens += tokens
        sequence.logprobs += logprobs
        generation = self._finished(sequence)
        if generation is not None:
            self._free_slot(row)
            if generation.tokens != sequence.tokens:  # the answer does not contain the end-of-text token
                tokens, logprobs = tokens[:-1], logprobs[:-1]
        return RequestUpdate(request_id=sequence.request_id, tokens=tokens, logprobs=tuple(logprobs), generation=generation)

    def _finished(self, sequence: _Sequence) -> Generation | None:
        """Return the answer if it has finished, else None."""
        tokens, request = sequence.tokens, sequence.request
        if tokens[-1] in self._eos_ids:
            return Generation(tokens=tokens[:-1], finish_reason="stop", logprobs=tuple(sequence.logprobs[:-1]))
        if request.should_stop is not None and request.should_stop(tokens):
            return Generation(tokens=tokens, finish_reason="stop", logprobs=tuple(sequence.logprobs))
        if len(request.prompt) + len(tokens) >= request.max_length:
            return Generation(tokens=tokens, finish_reason="length", logprobs=tuple(sequence.logprobs))
        return None

    def _free_slot(self, row: int) -> None:
        del self._running[row]
        self._state = decode_state.free_slot(self._model, self._state, np.int32(row))

    def _include_steps(self, request: GenerationRequest) -> None:
        """Select a program with all sampling steps that this request and the running requests need."""
        batch = [request.params, *(sequence.request.params for sequence in self._running.values())]
        required = SamplingSteps.required_by(batch)
        steps = next((program for program in self._programs if program.covers(required)), required)
        if steps == self._steps:
            return
        is_changed = steps.repetition_penalty != self._steps.repetition_penalty
        self._steps = steps
        if is_changed:
            self._rebuild_seen()

    @property
    def _num_seen(self) -> int:
        """Width of the `seen` table: 0 if no running request has a repetition penalty."""
        return self._model.arch.padded_vocab_size if self._steps.repetition_penalty else 0

    def _rebuild_seen(self) -> None:
        """Build the `seen` table from the running requests, or drop it if it is no longer needed."""
        seen = np.zeros((self._num_rows, self._num_seen), bool)
        if self._num_seen:
            for row, sequence in self._running.items():
                seen[row, [*sequence.request.prompt, *sequence.tokens]] = True
        self._state = decode_state.replace_seen(self._model, self._state, seen)

    def _fit_cache(self, min_length: int = 0) -> None:
        """Resize the KV cache to the smallest capacity that suffices for the next decode call and for `min_length` tokens."""
        num_new = engine_programs.DECODE_STEPS * (1 + self._num_draft_tokens)
        lengths = [len(sequence.request.prompt) + len(sequence.tokens) + num_new for sequence in self._running.values()]
        needed = min(max([*lengths, min_length]), self._capacities[-1])
        capacity = next(capacity for capacity in self._capacities if capacity >= needed)
        if capacity != self._capacity:
            self._cache = decode_state.resize_cache(self._model, self._cache, capacity)
            self._capacity = capacity


def _logprobs(new: decode_state.StepOutput, num_logprobs: int | None) -> list[Logprob]:
    """Return the log-probability of each new token, and the `num_logprobs` most likely tokens at its position."""
    if num_logprobs is None or new.logprobs is None:
        return []
    if not num_logprobs or new.top is None:
        return [Logprob(logprob=logprob) for logprob in new.logprobs.tolist()]
    values, ids = (array[:, :num_logprobs].tolist() for array in new.top)
    tops = [tuple(zip(*pair, strict=True)) for pair in zip(ids, values, strict=True)]
    return [Logprob(logprob=logprob, top=top) for logprob, top in zip(new.logprobs.tolist(), tops, strict=True)]

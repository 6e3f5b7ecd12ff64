"""Continuous batching: a fixed number of slots, each decoding one answer; a slot that ends is given the next request.

An answer is a function of its request and the model alone, whatever else is in the batch. The cache is as long as the longest
sequence in it needs, in doubling lengths, each with one compiled program.

Several processes of one run each call this with the same requests: whatever the host decides by is replicated, so that all of
them decide alike, and what it hands in is NumPy's, which is the same for every process.
"""

import dataclasses
from collections.abc import Hashable, Iterator, Sequence

import jax
import numpy as np

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import target_device_kind
from wizardcoder_jax.inference import decode_state as device
from wizardcoder_jax.inference.memory import capacities_up_to, num_rows
from wizardcoder_jax.inference.prefix_cache import PrefixCache
from wizardcoder_jax.inference.request import Generation, GenerationRequest, Logprob, Needs
from wizardcoder_jax.inference.request_queue import RequestQueue
from wizardcoder_jax.models.transformer import Transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class News:
    """What became of a request since the last look.

    Attributes:
        ticket: of the request.
        tokens: new ones.
        logprobs: of the new tokens, where they were asked for.
        answer: the whole, where it has ended.
    """

    ticket: int
    tokens: list[int]
    logprobs: tuple[Logprob, ...] = ()
    answer: Generation | None = None


@dataclasses.dataclass(kw_only=True)
class _Held:
    """An answer in progress."""

    ticket: int
    request: GenerationRequest
    owner: Hashable
    tokens: list[int] = dataclasses.field(default_factory=list)
    logprobs: list[Logprob] = dataclasses.field(default_factory=list)


class Engine:
    """Answers requests with one model.

    Args:
        model: the weights, blocks apart (`Transformer.unstacked`).
        num_slots: answers decoded together.
        max_length: the most that any request may have as its `max_length`.
        eos_ids: tokens that end a text.
        dtype: of activations and cache.
        header: what prompts begin with, for it to be prefilled once.
        num_guessed: tokens that each step guesses from the text so far and checks; answers are the same, with fewer steps
            where text repeats itself, and each step has as many times the work, which is little for few slots.
        programs: the sets of steps that are compiled; the first that has all that is asked for is run, and rows that ask for
            less have the same answers. Where none has, and by default, a set is made for what is asked for.
    """

    def __init__(
        self,
        model: Transformer,
        *,
        num_slots: int,
        max_length: int,
        eos_ids: Sequence[int],
        dtype: jax.typing.DTypeLike,
        header: tuple[int, ...] = (),
        num_guessed: int = 0,
        programs: Sequence[Needs] = (),
    ) -> None:
        self._model, self._num_slots, self._dtype = model, num_slots, np.dtype(dtype)
        self._eos_ids = np.array(eos_ids, np.int32)
        self._capacities, self._num_guessed = capacities_up_to(max_length), num_guessed
        self._history_length = max_length if num_guessed else 0
        self._prompts = PrefixCache(model, self._capacities, dtype, header)
        self._programs = tuple(programs)
        self._waiting: RequestQueue[_Held] = RequestQueue()
        self._held: dict[int, _Held] = {}  # by slot
        self._tickets = 0
        self._needs = Needs()
        self._capacity = self._capacities[0]
        self._num_rows = num_rows(num_slots)
        self._slots = device.new_slots(model, self._num_rows, self._history_length)
        self._cache = device.new_cache(model, self._num_rows, self._capacity, self._dtype)
        self.num_steps = 0  # of decoding

    @property
    def num_free(self) -> int:
        """Slots that nothing waits for."""
        return self._num_slots - len(self._held) - len(self._waiting)

    @property
    def is_busy(self) -> bool:
        """Whether any answer is wanted."""
        return bool(self._held or self._waiting)

    def submit(self, request: GenerationRequest, owner: Hashable = None) -> int:
        """Puts a request in the queue; returns its ticket. Those with equal prompts, side by side, share one prefill.

        Args:
            request: what is wanted.
            owner: who asks; slots go to those who have fewest.

        Raises:
            InputError: the prompt is empty, or leaves no room for an answer.
        """
        if not 0 < len(request.prompt) < request.max_length <= self._capacities[-1]:
            lengths = f"{len(request.prompt)} tokens of prompt, max_length {request.max_length} of {self._capacities[-1]}"
            raise InputError(f"a request needs a prompt and room for an answer: {lengths}")
        self._tickets += 1
        self._waiting.add(_Held(ticket=self._tickets, request=request, owner=owner), owner)
        return self._tickets

    def cancel(self, ticket: int) -> None:
        """Lets go of a request; one that has ended is no matter."""
        self._waiting.remove(lambda held: held.ticket == ticket)
        for row, held in list(self._held.items()):
            if held.ticket == ticket:
                self._free(row)

    def answer(self, requests: Sequence[GenerationRequest]) -> Iterator[tuple[int, Generation]]:
        """Yields (index, answer) as answers end."""
        indices = {self.submit(request): index for index, request in enumerate(requests)}
        while indices:
            for news in self.advance():
                if news.answer is not None and news.ticket in indices:
                    yield indices.pop(news.ticket), news.answer

    def advance(self) -> list[News]:
        """Fills free slots, decodes a few steps, and tells what is new."""
        found = [news for row in range(self._num_slots) for news in self._filled(row)]
        if not self._held:
            return found
        self._fit()
        decode = device.decoder(target_device_kind(), self._num_slots * (1 + self._num_guessed))
        self._slots, self._cache, emitted, num_steps = decode(
            self._model, self._slots, self._cache, self._eos_ids, self._needs, self._num_guessed
        )
        self.num_steps += int(num_steps)
        emitted = jax.tree.map(np.asarray, emitted)
        for row in sorted(self._held):
            is_token = emitted.tokens[:, row] >= 0
            new = jax.tree.map(lambda array, row=row, is_token=is_token: array[is_token, row], emitted)
            found.append(self._told(row, new))
        return found

    def _filled(self, row: int) -> Iterator[News]:
        """Puts requests into a slot until one stays there."""
        while row not in self._held and self._waiting:
            held = self._waiting.take(held.owner for held in self._held.values())
            self._meet(held.request)
            logits, prompt = self._prompts.get(held.request.prompt)
            self._fit(len(held.request.prompt))
            vocab_size = self._model.arch.padded_vocab_size
            one = device.fresh_slot(held.request, vocab_size, self._num_seen, self._history_length)
            self._slots, self._cache, first = device.begin(
                self._model, self._slots, self._cache, np.int32(row), one, logits, prompt, self._needs
            )
            self._held[row] = held
            yield self._told(row, jax.tree.map(lambda array: np.asarray(array)[None], first))

    def _told(self, row: int, new: device.Emitted) -> News:
        """Takes new tokens [n] of a slot down; frees the slot where its answer ends."""
        held = self._held[row]
        tokens = new.tokens.tolist()
        logprobs = _logprobs(new, held.request.decoding.num_logprobs)
        held.tokens += tokens
        held.logprobs += logprobs
        answer = self._ended(held)
        if answer is not None:
            self._free(row)
            if answer.tokens != held.tokens:  # without the end-of-text token
                tokens, logprobs = tokens[:-1], logprobs[:-1]
        return News(ticket=held.ticket, tokens=tokens, logprobs=tuple(logprobs), answer=answer)

    def _ended(self, held: _Held) -> Generation | None:
        tokens, request = held.tokens, held.request
        if tokens[-1] in self._eos_ids:
            return Generation(tokens=tokens[:-1], finish_reason="stop", logprobs=tuple(held.logprobs[:-1]))
        if request.stopped is not None and request.stopped(tokens):
            return Generation(tokens=tokens, finish_reason="stop", logprobs=tuple(held.logprobs))
        if len(request.prompt) + len(tokens) >= request.max_length:
            return Generation(tokens=tokens, finish_reason="length", logprobs=tuple(held.logprobs))
        return None

    def _free(self, row: int) -> None:
        del self._held[row]
        self._slots = device.end(self._model, self._slots, np.int32(row))

    def _meet(self, request: GenerationRequest) -> None:
        """Makes the program's steps those that this request and the answers in progress need."""
        asked = Needs.of([request.decoding, *(held.request.decoding for held in self._held.values())])
        needs = next((program for program in self._programs if _covers(program, asked)), asked)
        if needs == self._needs:
            return
        changed = needs.repetition_penalty != self._needs.repetition_penalty
        self._needs = needs
        if changed:
            self._remember()

    @property
    def _num_seen(self) -> int:
        """Columns of the table of tokens that have occurred."""
        return self._model.arch.padded_vocab_size if self._needs.repetition_penalty else 0

    def _remember(self) -> None:
        """Makes the table of tokens that have occurred, or lets go of it."""
        seen = np.zeros((self._num_rows, self._num_seen), bool)
        if self._num_seen:
            for row, held in self._held.items():
                seen[row, [*held.request.prompt, *held.tokens]] = True
        self._slots = device.with_seen(self._model, self._slots, seen)

    def _fit(self, least: int = 0) -> None:
        """Makes the cache as long as its longest sequence will be, or `least`."""
        coming = device.DECODE_STEPS * (1 + self._num_guessed)
        needed = [len(held.request.prompt) + len(held.tokens) + coming for held in self._held.values()]
        needed = min(max([*needed, least]), self._capacities[-1])
        capacity = next(capacity for capacity in self._capacities if capacity >= needed)
        if capacity != self._capacity:
            self._cache = device.resized(self._model, self._cache, capacity)
            self._capacity = capacity


def _covers(program: Needs, asked: Needs) -> bool:
    """Whether a program has all the steps that are asked for."""
    pairs = zip(dataclasses.astuple(program), dataclasses.astuple(asked), strict=True)
    return all(wanted is None or (has is not None and has >= wanted) for has, wanted in pairs)


def _logprobs(new: device.Emitted, wanted: int | None) -> list[Logprob]:
    if wanted is None or new.logprobs is None:
        return []
    if not wanted or new.likeliest is None:
        return [Logprob(logprob=number) for number in new.logprobs.tolist()]
    values, ids = (array[:, :wanted].tolist() for array in new.likeliest)
    tops = [tuple(zip(*pair, strict=True)) for pair in zip(ids, values, strict=True)]
    return [Logprob(logprob=number, likeliest=top) for number, top in zip(new.logprobs.tolist(), tops, strict=True)]

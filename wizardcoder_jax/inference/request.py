"""Types of the sampling engine: requests, their sampling parameters, and the generations that the engine returns."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Parameters of token selection for one answer. They are applied in the order of the list, as in transformers.

    Attributes:
        repetition_penalty: divisor of positive logits, and factor of negative logits, of tokens that have already occurred
            (Keskar et al., arXiv 1909.05858); 1 disables it.
        temperature: divisor of the logits; 0 selects the most likely token.
        top_k: number of most likely tokens to keep, plus ties with the last one; None keeps all.
        top_p: total probability of the smallest set of most likely tokens to keep (Holtzman et al., arXiv 1904.09751).
        min_p: minimum probability of a token relative to the most likely one (Nguyen et al., arXiv 2407.01082).
        num_logprobs: number of most likely tokens at each position whose log-probabilities are reported, in addition to that
            of the selected token. They are computed before the other steps. None reports no log-probabilities.
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    num_logprobs: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """A request for one answer.

    Attributes:
        prompt: token ids, at least one.
        key: random key, two 32-bit words that determine all randomness of the answer.
        max_length: maximum number of tokens in prompt and answer together.
        params: parameters of token selection.
        should_stop: function that returns whether the tokens generated so far contain a stop string; called every few tokens.
    """

    prompt: tuple[int, ...]
    key: tuple[int, int]
    max_length: int
    params: SamplingParams = SamplingParams()
    should_stop: Callable[[list[int]], bool] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logprob:
    """Log-probability of a token, and (token, log-probability) of the most likely tokens at its position."""

    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """A finished answer."""

    tokens: list[int]  # token ids of the answer, without the end-of-text token
    finish_reason: str  # "stop" after the end-of-text token or a stop string, "length" if max_length was reached
    logprobs: tuple[Logprob, ...] = ()  # one per token, if the request asks for them


class BatchSamplingParams(NamedTuple):
    """The `SamplingParams` of a batch as arrays of shape [B]. Rows that do not use a step have a value without effect."""

    repetition_penalty: jax.Array
    temperature: jax.Array
    top_k: jax.Array  # int32
    top_p: jax.Array
    min_p: jax.Array

    @classmethod
    def from_params(cls, params: SamplingParams, vocab_size: int) -> Self:
        """Return the parameters of a single row, as NumPy arrays of shape [1]."""
        floats: Any = functools.partial(np.full, 1, dtype=np.float32)
        top_k: Any = np.full(1, min(params.top_k or vocab_size, vocab_size), np.int32)
        return cls(
            repetition_penalty=floats(fill_value=params.repetition_penalty),
            temperature=floats(fill_value=params.temperature),
            top_k=top_k,
            top_p=floats(fill_value=params.top_p),
            min_p=floats(fill_value=params.min_p),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSteps:
    """Steps of token selection that a compiled program includes. Omitting steps that no row needs saves time."""

    repetition_penalty: bool = False
    sampled: bool = False  # whether any row has a temperature above 0
    top_k: bool = False
    top_p: bool = False
    min_p: bool = False
    num_logprobs: int | None = None

    @classmethod
    def required_by(cls, batch: Iterable[SamplingParams]) -> Self:
        """Return the steps that at least one row of the batch needs."""
        rows = list(batch)
        sampled = [params for params in rows if params.temperature > 0]
        return cls(
            repetition_penalty=any(params.repetition_penalty != 1 for params in rows),
            sampled=bool(sampled),
            top_k=any(params.top_k is not None for params in sampled),
            top_p=any(params.top_p < 1 for params in sampled),
            min_p=any(params.min_p > 0 for params in sampled),
            num_logprobs=max((params.num_logprobs for params in rows if params.num_logprobs is not None), default=None),
        )

    def covers(self, required: "SamplingSteps") -> bool:
        """Return whether a program with these steps can serve a batch that needs `required`."""
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(required), strict=True)
        return all(needed is None or (included is not None and included >= needed) for included, needed in pairs)

"""What is asked of the sampler: how tokens are chosen, where answers end, and what comes back."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the tokens of one answer are chosen; the steps are taken in this order, as transformers takes them.

    Attributes:
        repetition_penalty: logits of tokens that have occurred are divided by it, or multiplied where negative (Keskar et al.,
            arXiv 1909.05858); 1 for none.
        temperature: logits are divided by it; 0 takes the likeliest token.
        top_k: keep so many of the likeliest tokens, and ties of the last; None for all.
        top_p: keep the smallest set of likeliest tokens with at least this probability (Holtzman et al., arXiv 1904.09751).
        min_p: keep tokens at least this likely compared with the likeliest (Nguyen et al., arXiv 2407.01082).
        num_logprobs: report the log-probability of each token, before any of the steps, and of so many of the likeliest
            tokens in its place; None for no report.
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float = 1.0
    min_p: float = 0.0
    num_logprobs: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One answer that is wanted.

    Attributes:
        prompt: token ids, at least one.
        key: two 32-bit words: all randomness of this answer.
        max_length: tokens of prompt and answer together.
        decoding: how its tokens are chosen.
        stopped: whether the tokens so far hold a stop string; asked now and then.
    """

    prompt: tuple[int, ...]
    key: tuple[int, int]
    max_length: int
    decoding: SamplingParams = SamplingParams()
    stopped: Callable[[list[int]], bool] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Logprob:
    """The log-probability of a token, and the likeliest tokens in its place with theirs."""

    logprob: float
    likeliest: tuple[tuple[int, float], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
    """One answer."""

    tokens: list[int]  # without the end-of-text token
    finish_reason: str  # "stop": end of text or a stop string; "length": max_length reached
    logprobs: tuple[Logprob, ...] = ()  # of the tokens, where they were asked for


class Options(NamedTuple):
    """`SamplingParams` as numbers, [B] each; what a row does not ask for has the value that does nothing."""

    repetition_penalty: jax.Array
    temperature: jax.Array
    top_k: jax.Array  # int32
    top_p: jax.Array
    min_p: jax.Array

    @classmethod
    def of(cls, decoding: SamplingParams, vocab_size: int) -> Self:
        """Those of one row, [1], as NumPy's arrays."""
        reals: Any = functools.partial(np.full, 1, dtype=np.float32)
        top_k: Any = np.full(1, min(decoding.top_k or vocab_size, vocab_size), np.int32)
        return cls(
            repetition_penalty=reals(fill_value=decoding.repetition_penalty),
            temperature=reals(fill_value=decoding.temperature),
            top_k=top_k,
            top_p=reals(fill_value=decoding.top_p),
            min_p=reals(fill_value=decoding.min_p),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Needs:
    """Which steps any row of a batch asks for; the others are left out of the program."""

    repetition_penalty: bool = False
    sampled: bool = False
    top_k: bool = False
    top_p: bool = False
    min_p: bool = False
    num_logprobs: int | None = None

    @classmethod
    def of(cls, decodings: Iterable[SamplingParams]) -> Self:
        """The needs of all of them together."""
        everyone = list(decodings)
        sampled = [decoding for decoding in everyone if decoding.temperature > 0]
        return cls(
            repetition_penalty=any(decoding.repetition_penalty != 1 for decoding in everyone),
            sampled=bool(sampled),
            top_k=any(decoding.top_k is not None for decoding in sampled),
            top_p=any(decoding.top_p < 1 for decoding in sampled),
            min_p=any(decoding.min_p > 0 for decoding in sampled),
            num_logprobs=max((d.num_logprobs for d in everyone if d.num_logprobs is not None), default=None),
        )

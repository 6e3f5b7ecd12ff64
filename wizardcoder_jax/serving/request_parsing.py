"""Conversion of an HTTP request's body to requests for the engine."""

import dataclasses
import secrets

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.seeded_random import random_key
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.fim import fim_prompt
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams
from wizardcoder_jax.serving.api_errors import ApiError, model_not_found
from wizardcoder_jax.serving.request_bodies import (
    MAX_CHAT_LOGPROBS,
    ChatBody,
    CompletionBody,
    RequestBody,
    parse_json,
    validate_body,
)

DEFAULT_COMPLETION_TOKENS = 16
MIN_TEMPERATURE = 1e-6  # with a lower temperature or top_p, the most likely token is always selected


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedModel:
    """The model that the server offers to clients."""

    name: str
    tokenizer: Tokenizer  # tokenizer with a chat template
    vocab_size: int  # number of valid token ids in a prompt
    max_length: int  # maximum number of tokens in prompt and answer together


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedRequest:
    """A validated HTTP request. It asks for `num_samples` answers to each of `prompts`, in this order."""

    in_chat: bool  # whether it is a request for chat completions
    prompts: tuple[tuple[int, ...], ...]  # token ids
    num_samples: int  # number of answers per prompt
    max_tokens: int | None  # maximum number of tokens in an answer; None for as many as fit
    params: SamplingParams
    num_top: int | None  # number of most likely tokens to report at each position; None for no log-probabilities
    stops: tuple[str, ...]  # stop strings
    seed: int
    stream: bool  # whether to stream the answers
    include_usage: bool  # whether a stream ends with the usage

    @property
    def num_prompt_tokens(self) -> int:
        """Number of tokens in all prompts; each prompt is counted once."""
        return sum(map(len, self.prompts))

    def requests(self, max_length: int) -> list[GenerationRequest]:
        """Return one request per answer. The key of sample i depends only on the seed, the prompt and i."""
        return [
            GenerationRequest(
                prompt=prompt,
                key=random_key(self.seed, i, ",".join(map(str, prompt))),
                max_length=min(max_length, len(prompt) + (self.max_tokens or max_length)),
                params=self.params,
            )
            for prompt in self.prompts
            for i in range(self.num_samples)
        ]


def parse_request(content: bytes, *, in_chat: bool, served: ServedModel) -> ParsedRequest:
    """Parse and validate the body of a request.

    Args:
        content: the body.
        in_chat: True for a request for chat completions, False for completions.
        served: the model.

    Raises:
        ApiError: the body is invalid, or asks for something that is not supported.
    """
    values = parse_json(content)
    if isinstance(values.get("model"), str) and values["model"] != served.name:
        raise model_not_found(values["model"], served.name)
    return _parse_chat(values, served) if in_chat else _parse_completion(values, served)


def _parse_chat(values: dict[str, object], served: ServedModel) -> ParsedRequest:
    body = validate_body(values, ChatBody)
    if body.top_logprobs and not body.logprobs:
        raise ApiError("top_logprobs requires logprobs: true", param="top_logprobs")
    messages = [message.for_template() for message in body.messages]
    try:
        prompt = tuple(served.tokenizer.encode(served.tokenizer.apply_chat_template(messages)))
    except InputError as error:
        raise ApiError(str(error), param="messages") from error
    _check_length(prompt, served.max_length, "messages")
    return _parsed_request(
        body,
        in_chat=True,
        prompts=(prompt,),
        max_tokens=body.max_completion_tokens or body.max_tokens,
        num_top=(body.top_logprobs or 0) if body.logprobs else None,
    )


def _parse_completion(values: dict[str, object], served: ServedModel) -> ParsedRequest:
    body = validate_body(values, CompletionBody)
    prompts = tuple(_encode_prompt(prompt, body.suffix, served) for prompt in body.prompt)
    for prompt in prompts:
        _check_length(prompt, served.max_length, "prompt")
    max_tokens = body.max_tokens or DEFAULT_COMPLETION_TOKENS
    return _parsed_request(body, in_chat=False, prompts=prompts, max_tokens=max_tokens, num_top=body.logprobs)


def _parsed_request(
    body: RequestBody, *, in_chat: bool, prompts: tuple[tuple[int, ...], ...], max_tokens: int | None, num_top: int | None
) -> ParsedRequest:
    if body.stream_options is not None and not body.stream:
        raise ApiError("stream_options requires stream: true", param="stream_options")
    return ParsedRequest(
        in_chat=in_chat,
        prompts=prompts,
        num_samples=body.n or 1,
        max_tokens=max_tokens,
        params=_sampling_params(body, num_top),
        num_top=num_top,
        stops=tuple(body.stop),
        seed=secrets.randbits(63) if body.seed is None else body.seed,
        stream=bool(body.stream),
        include_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
    )


def _sampling_params(body: RequestBody, num_top: int | None) -> SamplingParams:
    temperature = 1.0 if body.temperature is None else body.temperature
    top_p = 1.0 if body.top_p is None else body.top_p
    return SamplingParams(
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        temperature=temperature if min(temperature, top_p) >= MIN_TEMPERATURE else 0.0,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,  # as in vLLM, 0 and -1 keep all tokens
        top_p=max(top_p, MIN_TEMPERATURE),
        min_p=body.min_p or 0.0,
        # Always the maximum, because each number would require another compiled program.
        num_logprobs=MAX_CHAT_LOGPROBS if num_top else num_top,
    )


def _encode_prompt(prompt: str | list[int], suffix: str | None, served: ServedModel) -> tuple[int, ...]:
    tokenizer = served.tokenizer
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    if not all(0 <= token < served.vocab_size for token in ids):
        raise ApiError(f"prompt contains a token id outside 0 to {served.vocab_size - 1}", param="prompt")
    if suffix is not None:
        try:
            return fim_prompt(tokenizer, ids, suffix)
        except InputError as error:
            raise ApiError(str(error), param="suffix", code="unsupported") from error
    first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return tuple(ids) or (first,)  # an empty prompt becomes the begin-of-text token


def _check_length(prompt: tuple[int, ...], max_length: int, param: str) -> None:
    if len(prompt) >= max_length:
        message = (
            f"the prompt has {len(prompt)} tokens, but prompt and answer together are limited to {max_length}; "
            "shorten the prompt, or start the server with a larger --max-length"
        )
        raise ApiError(message, param=param, code="context_length_exceeded")

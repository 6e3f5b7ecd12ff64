"""What the body of a request asks for, checked: prompts as tokens, and how they are to be answered.

Keys, ranges and defaults are those of OpenAI's API reference (completions, chat completions); `top_k`, `min_p` and
`repetition_penalty` those of vLLM. As with vLLM, unknown keys are ignored, and known ones that are not supported are refused.
"""

import dataclasses
import secrets
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.seeded_random import random_key
from wizardcoder_jax.hf.tokenizer import Tokenizer
from wizardcoder_jax.inference.fim import fim_prompt
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams
from wizardcoder_jax.serving.api_errors import RefusalError
from wizardcoder_jax.serving.body_fields import BodyFields, is_integer, parse_body
from wizardcoder_jax.serving.chat_messages import read_messages

MOST_SAMPLES, MOST_STOPS, MOST_TEXTS = 128, 16, 2048
MOST_TOP_LOGPROBS, MOST_LOGPROBS = 20, 5  # of a chat, of a completion
DEFAULT_COMPLETION_TOKENS = 16
LEAST_HEAT = 1e-6  # a lower temperature or top_p leaves the likeliest token alone, and is no number for the sampler
UNSUPPORTED: dict[str, tuple[object, ...]] = {  # key -> values with which it changes nothing
    "logit_bias": ({},),
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "echo": (False,),
    "best_of": (1,),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Served:
    """The model that there is."""

    name: str
    tokenizer: Tokenizer  # with a chat template
    vocab_size: int  # tokens that a prompt may hold
    max_length: int  # tokens of prompt and answer together


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParsedRequest:
    """The answers that one HTTP request wants: `num_samples` to each of `prompts`, in this order."""

    in_chat: bool
    prompts: tuple[tuple[int, ...], ...]
    num_samples: int
    max_tokens: int | None  # of an answer; None for all that there is room for
    decoding: SamplingParams
    num_top: int | None  # likeliest tokens that are reported with each; None for no log-probabilities
    stops: tuple[str, ...]
    seed: int
    stream: bool
    include_usage: bool

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each counted once."""
        return sum(map(len, self.prompts))

    def requests(self, max_length: int) -> list[GenerationRequest]:
        """One for each answer: sample i of a prompt depends on the seed, the prompt and i only."""
        return [
            GenerationRequest(
                prompt=prompt,
                key=random_key(self.seed, i, ",".join(map(str, prompt))),
                max_length=min(max_length, len(prompt) + (self.max_tokens or max_length)),
                params=self.decoding,
            )
            for prompt in self.prompts
            for i in range(self.num_samples)
        ]


def read_asked(content: bytes, *, in_chat: bool, served: Served) -> ParsedRequest:
    """What a request's body asks for.

    Args:
        content: the body.
        in_chat: whether it came to chat completions, and not to completions.
        served: the model.

    Raises:
        RefusalError: it is malformed, or cannot be done.
    """
    fields = BodyFields(parse_body(content))
    _check_model(fields, served.name)
    fields.refuse_unsupported(UNSUPPORTED)
    prompts = (_chat_prompt(fields, served.tokenizer),) if in_chat else _prompts(fields, served)
    for prompt in prompts:
        _check_length(prompt, served.max_length, "messages" if in_chat else "prompt")
    max_tokens = fields.integer("max_tokens", 1, 2**31 - 1)
    num_top = _num_top(fields, in_chat=in_chat)
    if in_chat:
        max_tokens = fields.integer("max_completion_tokens", 1, 2**31 - 1) or max_tokens
    stream = fields.flag("stream")
    seed = fields.integer("seed", -(2**63), 2**63 - 1)
    return ParsedRequest(
        in_chat=in_chat,
        prompts=prompts,
        num_samples=fields.integer("n", 1, MOST_SAMPLES) or 1,
        max_tokens=max_tokens or (None if in_chat else DEFAULT_COMPLETION_TOKENS),
        decoding=_decoding(fields, num_top),
        num_top=num_top,
        stops=fields.texts("stop", MOST_STOPS),
        seed=secrets.randbits(63) if seed is None else seed,
        stream=stream,
        include_usage=_include_usage(fields, stream=stream),
    )


def _check_model(fields: BodyFields, served_name: str) -> None:
    named = fields.text("model")
    if named is not None and named != served_name:
        raise no_such_model(named, served_name)


def no_such_model(named: str, served_name: str) -> RefusalError:
    """The model is another."""
    message = f"the model {named[:100]!r} is not served here; it is {served_name!r}"
    return RefusalError(message, status=404, param="model", code="model_not_found")


def _check_length(prompt: tuple[int, ...], max_length: int, param: str) -> None:
    if len(prompt) >= max_length:
        message = (
            f"the prompt has {len(prompt)} tokens, and prompt and answer together may have {max_length}; "
            "shorten it, or serve with a greater --max-length"
        )
        raise RefusalError(message, param=param, code="context_length_exceeded")


def _decoding(fields: BodyFields, num_top: int | None) -> SamplingParams:
    temperature, top_p = fields.real("temperature", 1.0, 0, 2), fields.real("top_p", 1.0, 0, 1)
    top_k = fields.integer("top_k", -1, 2**31 - 1)  # vLLM: 0 and -1 for all
    return SamplingParams(
        repetition_penalty=fields.real("repetition_penalty", 1.0, 0.01, 100),
        temperature=temperature if min(temperature, top_p) >= LEAST_HEAT else 0.0,
        top_k=top_k if top_k is not None and top_k > 0 else None,
        top_p=max(top_p, LEAST_HEAT),
        min_p=fields.real("min_p", 0.0, 0, 1),
        # Each number would be another program to compile.
        num_logprobs=MOST_TOP_LOGPROBS if num_top else num_top,
    )


def _num_top(fields: BodyFields, *, in_chat: bool) -> int | None:
    if not in_chat:
        return fields.integer("logprobs", 0, MOST_LOGPROBS)
    wanted, num_top = fields.flag("logprobs"), fields.integer("top_logprobs", 0, MOST_TOP_LOGPROBS)
    if num_top and not wanted:
        raise RefusalError("top_logprobs needs logprobs: true", param="top_logprobs")
    return (num_top or 0) if wanted else None


def _include_usage(fields: BodyFields, *, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        fields.refuse("stream_options", "an object")
    if not stream:
        raise RefusalError("stream_options needs stream: true", param="stream_options")
    return BodyFields(options).flag("include_usage")


def _chat_prompt(fields: BodyFields, tokenizer: Tokenizer) -> tuple[int, ...]:
    messages = read_messages(fields.get("messages"))
    try:
        return tuple(tokenizer.encode(tokenizer.apply_chat_template(messages)))
    except InputError as error:
        raise RefusalError(str(error), param="messages") from error


def _prompts(fields: BodyFields, served: Served) -> tuple[tuple[int, ...], ...]:
    """Each prompt of a completion: a text, tokens, or a list of either."""
    value, suffix = fields.get("prompt"), fields.text("suffix")
    several = value if isinstance(value, list) and not all(map(is_integer, value)) else [value]
    if len(several) > MOST_TEXTS:
        fields.refuse("prompt", f"at most {MOST_TEXTS} prompts")
    return tuple(_prompt(fields, one, suffix, served) for one in several)


def _prompt(fields: BodyFields, value: Any, suffix: str | None, served: Served) -> tuple[int, ...]:
    tokenizer = served.tokenizer
    if isinstance(value, list) and value and all(map(is_integer, value)):
        ids = value
        if not all(0 <= token < served.vocab_size for token in ids):
            raise RefusalError(f"prompt holds a token that is not from 0 to {served.vocab_size - 1}", param="prompt")
    elif isinstance(value, str):
        ids = tokenizer.encode(value)
    else:
        fields.refuse("prompt", "a text, a list of tokens, or a list of either")
    if suffix is not None:
        try:
            return fim_prompt(tokenizer, ids, suffix)
        except InputError as error:
            raise RefusalError(str(error), param="suffix", code="unsupported") from error
    first = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
    return tuple(ids) or (first,)  # an empty prompt: the beginning of a text

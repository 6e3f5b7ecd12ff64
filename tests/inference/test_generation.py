"""Greedy answers equal those of transformers, and no answer depends on the rest of the batch."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.helpers import tiny_models
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams

pytestmark = pytest.mark.full_optimization

LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}
FAMILIES = {
    "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393),
    "llama": lambda: tiny_models.llama(vocab_size=393),
    "starcoder2, a window shorter than most prompts": lambda: tiny_models.starcoder2(sliding_window=12),
}
MORE_FAMILIES = {
    "gpt_bigcode multi-head, untied": lambda: tiny_models.gpt_bigcode(multi_query=False, tie_word_embeddings=False),
    "starcoder2 multi-query, untied": lambda: tiny_models.starcoder2(num_key_value_heads=1, tie_word_embeddings=False),
    "llama linear rope scaling, tied": lambda: tiny_models.llama(rope_parameters=LINEAR_ROPE, tie_word_embeddings=True),
    "qwen2": lambda: tiny_models.qwen2(),
}


@pytest.fixture(scope="module")
def model(load_engine_model):
    return load_engine_model(FAMILIES["gpt_bigcode"]())


@pytest.fixture(scope="module")
def prompts():
    """Eight prompts of different lengths, one longer than a prefill chunk."""
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(2, 380, n).tolist()) for n in (1, 2, 5, 9, 17, 31, 40, 150)]


def generate(model, requests, num_slots=3, eos_id=0, max_length=256, temperature=0.0, should_stop=None):
    fields = {
        "max_length": max_length,
        "params": SamplingParams(temperature=temperature),
        "should_stop": should_stop,
    }
    requests = [dataclasses.replace(request, **fields) for request in requests]
    engine = Engine(model, num_slots=num_slots, max_length=256, eos_ids=[eos_id], dtype=jnp.float32)
    answers = dict(engine.generate(requests))
    return [answers[i] for i in range(len(requests))]


def make_request(prompt, i=0):
    return GenerationRequest(prompt=prompt, key=(7, i), max_length=256)


@pytest.mark.parametrize("family", [*FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in MORE_FAMILIES)])
def test_greedy_tokens_equal_those_that_transformers_generates_from_a_left_padded_batch(family, prompts, load_engine_model):
    theirs = {**FAMILIES, **MORE_FAMILIES}[family]()
    answers = generate(load_engine_model(theirs), [make_request(prompt) for prompt in prompts])
    longest, lengths = max(map(len, prompts)), []
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    generated = theirs.generate(ids, attention_mask=mask, max_new_tokens=64, do_sample=False, pad_token_id=0)
    for row, answer in zip(generated[:, longest:].tolist(), answers, strict=True):
        expected = row[: row.index(0)] if 0 in row else row
        assert answer.tokens[:64] == expected
        lengths.append(len(expected))
    assert max(lengths) == 64


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_do_not_depend_on_the_batch(model, prompts, temperature):
    requests = [make_request(prompt, i) for i, prompt in enumerate(prompts)]
    runs = [
        generate(model, ordered, num_slots=num_slots, temperature=temperature)
        for num_slots, ordered in ((3, requests), (8, requests[::-1]))
    ]
    assert runs[0] == runs[1][::-1]
    other = generate(model, [make_request(prompt, 100 + i) for i, prompt in enumerate(prompts)], temperature=temperature)
    assert (other == runs[0]) == (temperature == 0)


def test_samples_of_one_prompt_differ_only_if_their_keys_differ(model, prompts):
    first, second, again = generate(model, [make_request(prompts[3], i) for i in (1, 2, 1)], temperature=0.8)
    assert first == again
    assert first != second


def test_the_end_of_text_token_stops_an_answer_and_is_left_out(model, prompts):
    whole = generate(model, [make_request(prompts[4])], eos_id=392, max_length=60)[0]
    assert (whole.finish_reason, len(whole.tokens)) == ("length", 60 - len(prompts[4]))
    for index in (0, len(whole.tokens) - 1):
        eos = whole.tokens[index]
        stopped = generate(model, [make_request(prompts[4])], eos_id=eos, max_length=60)[0]
        assert stopped.tokens == whole.tokens[: whole.tokens.index(eos)]
        assert stopped.finish_reason == "stop"


@pytest.mark.parametrize("num_new", [1, 17])
def test_answers_fill_max_length_exactly(model, prompts, num_new):
    requests = [make_request(prompts[5]), make_request(prompts[2])]
    first, second = generate(model, requests, eos_id=392, max_length=len(prompts[5]) + num_new)
    assert (len(first.tokens), first.finish_reason) == (num_new, "length")
    assert (len(second.tokens), second.finish_reason) == (num_new + len(prompts[5]) - len(prompts[2]), "length")


def test_a_stop_condition_ends_an_answer(model, prompts):
    should_stop = lambda tokens: len(tokens) >= 5  # noqa: E731
    answer = generate(model, [make_request(prompts[2])], eos_id=392, max_length=60, should_stop=should_stop)[0]
    assert answer.finish_reason == "stop"
    assert len(answer.tokens) >= 5


def test_padding_entries_of_the_vocabulary_are_never_sampled(model, prompts):
    answers = generate(model, [make_request(p, i) for i, p in enumerate(prompts)], temperature=50.0, eos_id=392)
    tokens = {token for answer in answers for token in answer.tokens}
    assert max(tokens) < 393
    assert len(tokens) > 200  # at this temperature nearly the whole vocabulary occurs

"""Answers of the engine equal those of transformers, and do not depend on the rest of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests.helpers import tiny_models
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.memory import cache_capacities
from wizardcoder_jax.inference.prefix_cache import CHUNK_SIZES, MAX_CACHED_PROMPTS, PrefixCache, common_prefix
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams
from wizardcoder_jax.serving.admission import PROGRAMS
from wizardcoder_jax.serving.request_bodies import MAX_CHAT_LOGPROBS

pytestmark = pytest.mark.full_optimization

FAMILIES = {
    "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393, n_positions=1100),
    "llama": lambda: tiny_models.llama(vocab_size=393, max_position_embeddings=1100),
}
NUM_NEW = 40
# Most tests use these sizes, so that they share compiled programs.
NUM_SLOTS, MAX_LENGTH = 4, 512


@pytest.fixture(scope="module")
def llama(load_engine_model):
    """A transformers model, and our model with the same weights."""
    theirs = FAMILIES["llama"]()
    return theirs, load_engine_model(theirs)


@pytest.fixture(scope="module")
def model(llama):
    return llama[1]


@pytest.fixture(scope="module", params=["llama", pytest.param("gpt_bigcode", marks=pytest.mark.slow)])
def pair(request, llama, load_engine_model):
    if request.param == "llama":
        return llama
    theirs = FAMILIES[request.param]()
    return theirs, load_engine_model(theirs)


@pytest.fixture(scope="module")
def prompts():
    """32 prompts of different lengths, from one token to several prefill chunks."""
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(2, 380, n).tolist()) for n in [1, 2, 63, 64, 65, 150, 200, *rng.integers(3, 120, 25)]]


def make_engine(model, num_slots=NUM_SLOTS, max_length=MAX_LENGTH, eos_ids=(), **options):
    return Engine(model, num_slots=num_slots, max_length=max_length, eos_ids=eos_ids, dtype=jnp.float32, **options)


def make_request(prompt, num_new=NUM_NEW, i=0, **fields):
    return GenerationRequest(prompt=prompt, key=(7, i), max_length=len(prompt) + num_new, **fields)


def generate(engine, requests):
    answers = dict(engine.generate(requests))
    return [answers[i] for i in range(len(requests))]


def generate_with_transformers(theirs, prompt, num_new, **options):
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": num_new, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **options}
    return theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


def test_greedy_answers_that_outgrow_the_smallest_cache_equal_those_of_transformers(pair, prompts):
    theirs, ours = pair
    requests = [
        make_request(prompts[6], 312),
        make_request(prompts[0], 20),
        make_request(prompts[5], 200),
        make_request(prompts[1], 40),
        make_request(prompts[4], 9),
    ]
    for request, answer in zip(requests, generate(make_engine(ours), requests), strict=True):
        num_new = request.max_length - len(request.prompt)
        assert answer.tokens == generate_with_transformers(theirs, request.prompt, num_new)
        assert answer.finish_reason == "length"


def test_a_repetition_penalty_acts_as_in_transformers(pair, prompts):
    theirs, ours = pair
    penalty = SamplingParams(repetition_penalty=1.3)
    requests = [make_request(prompts[i], params=penalty if i % 2 else SamplingParams()) for i in range(8)]
    for i, answer in enumerate(generate(make_engine(ours), requests)):
        options = {"repetition_penalty": 1.3} if i % 2 else {}
        assert answer.tokens == generate_with_transformers(theirs, prompts[i], NUM_NEW, **options)


def test_logprobs_equal_those_of_a_forward_pass_over_the_whole_sequence(pair, prompts):
    theirs, ours = pair
    params = {
        0: SamplingParams(temperature=0.9, top_p=0.8, num_logprobs=3),
        1: SamplingParams(),
        2: SamplingParams(temperature=0.5, num_logprobs=0),
    }
    requests = [make_request(prompts[5 - 2 * i % 3], i=i, params=params[i]) for i in range(3)]
    answers = generate(make_engine(ours), requests)
    assert answers[1].logprobs == ()
    for i, num_top in ((0, 3), (2, 0)):
        prompt, answer = requests[i].prompt, answers[i]
        with torch.no_grad():
            logits = theirs(torch.tensor([[*prompt, *answer.tokens]])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)
        of_tokens = expected[torch.arange(NUM_NEW), torch.tensor(answer.tokens)]
        np.testing.assert_allclose([entry.logprob for entry in answer.logprobs], of_tokens, atol=1e-4)
        for entry, row in zip(answer.logprobs, expected, strict=True):
            values, ids = row.topk(num_top)
            assert [token for token, _ in entry.top] == ids.tolist()
            np.testing.assert_allclose([value for _, value in entry.top], values, atol=1e-4)


def test_a_sample_depends_only_on_its_own_request(model, prompts):
    params = SamplingParams(temperature=1.0, top_p=0.9)
    other_params = [
        params,
        SamplingParams(),
        SamplingParams(temperature=0.7, top_k=5),
        SamplingParams(temperature=2.0, min_p=0.1, num_logprobs=2),
    ]
    requests = [make_request(prompts[i % 8], 30, i, params=params) for i in range(6)]
    alone = [generate(make_engine(model, 1), [request])[0].tokens for request in requests]
    others = [make_request(prompts[8 + i], 30, 99, params=other_params[i % 4]) for i in range(12)]
    mixed = [request for pair in zip(requests, others, strict=False) for request in pair] + others[6:]
    answers = generate(make_engine(model, programs=PROGRAMS), mixed)
    assert [answer.tokens for answer in answers[:12:2]] == alone


def test_common_prefixes_and_equal_prompts_are_prefilled_once(model, prompts):
    prefix = prompts[6][:150]
    whole = [prefix + prompt for prompt in prompts[7:11]]
    params = SamplingParams(temperature=1.0)
    requests = [make_request(prompt, 5, i, params=params) for prompt in whole for i in range(8)]
    plain, shared = make_engine(model), make_engine(model, shared_prefix=common_prefix(whole))
    assert common_prefix(whole)[:150] == prefix
    assert generate(plain, requests) == generate(shared, requests)

    def num_chunks(length):
        return -(-length // CHUNK_SIZES[-1])

    start = len(common_prefix(whole))
    assert shared._prefix_cache.num_chunks == num_chunks(start) + sum(num_chunks(len(prompt) - start) for prompt in whole)
    assert plain._prefix_cache.num_chunks < sum(num_chunks(len(prompt)) for prompt in whole)


def test_a_prompt_that_extends_a_cached_one_has_the_same_logits_as_without_the_cache(model, prompts):
    short, long = prompts[6], prompts[6] + prompts[5]
    alone, after = (PrefixCache(model, (256, 512), jnp.float32) for _ in range(2))
    after.get(short)
    for a, b in zip(jax.tree.leaves(alone.get(long)), jax.tree.leaves(after.get(long)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert after.num_chunks == alone.num_chunks + 1  # all chunks of the short prompt but the last are shared


def test_the_prefix_cache_never_exceeds_its_limit_and_keeps_the_shared_prefix(model, prompts):
    cache = PrefixCache(model, (256,), jnp.float32, shared_prefix=prompts[2])
    for prompt in prompts[7:]:
        cache.get(prompts[2] + prompt)
        assert len(cache._entries) <= MAX_CACHED_PROMPTS
        assert prompts[2] in cache._entries


def test_continuous_batching_takes_at_most_two_thirds_of_the_steps_of_static_batches(model, prompts):
    lengths = [200 if i % NUM_SLOTS == 0 else 20 for i in range(16)]
    engine = make_engine(model)
    list(engine.generate([make_request(prompt[:40], n) for prompt, n in zip(prompts, lengths, strict=False)]))
    static = sum(max(lengths[i : i + NUM_SLOTS]) for i in range(0, 16, NUM_SLOTS))
    assert engine.num_steps <= 0.67 * static


@pytest.mark.parametrize("num_draft_tokens", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_draft_tokens_change_no_answer_and_save_steps_where_text_repeats(model, prompts, num_draft_tokens):
    params = [
        SamplingParams(),
        SamplingParams(repetition_penalty=1.2),
        SamplingParams(temperature=0.7, top_p=0.9, num_logprobs=1),
        SamplingParams(temperature=0.3, repetition_penalty=1.1),
    ]
    requests = [make_request(prompt, 90, i, params=params[i % 4]) for i, prompt in enumerate(prompts[:16])]
    options = {"eos_ids": [7], "programs": PROGRAMS}
    plain, drafting = make_engine(model, **options), make_engine(model, **options, num_draft_tokens=num_draft_tokens)
    for expected, answer in zip(generate(plain, requests), generate(drafting, requests), strict=True):
        assert (answer.tokens, answer.finish_reason) == (expected.tokens, expected.finish_reason)
        np.testing.assert_allclose(
            [entry.logprob for entry in answer.logprobs], [entry.logprob for entry in expected.logprobs], atol=1e-4
        )
    greedy = [make_request(prompt, 300) for prompt in prompts[:4]]  # a tiny model soon repeats itself
    plain, drafting = make_engine(model), make_engine(model, num_draft_tokens=num_draft_tokens)
    assert generate(drafting, greedy) == generate(plain, greedy)
    assert drafting.num_steps < 0.8 * plain.num_steps


def test_requests_can_be_submitted_and_canceled_while_others_are_running(model, prompts):
    engine = make_engine(model)
    expected = [generate(make_engine(model), [make_request(prompt, 60)])[0].tokens for prompt in prompts[:6]]
    ids, tokens, finished, canceled = [engine.submit(make_request(prompts[0], 60))], {}, {}, None
    while engine.is_busy:
        if len(ids) < 6:
            ids.append(engine.submit(make_request(prompts[len(ids)], 60)))
            canceled = canceled or engine.submit(make_request(prompts[9], 200))
        else:
            engine.cancel(canceled)
        for update in engine.step():
            tokens.setdefault(update.request_id, []).extend(update.tokens)
            if update.generation is not None:
                finished[update.request_id] = update.generation.tokens
    assert [finished[request_id] for request_id in ids] == expected
    assert [tokens[request_id] for request_id in ids] == expected
    assert canceled not in finished
    assert engine.num_free_slots == NUM_SLOTS


@pytest.mark.parametrize(("length", "limit"), [(0, 10), (10, 10), (10, 600)])
def test_a_request_with_an_empty_or_too_long_prompt_is_rejected(model, length, limit):
    with pytest.raises(ValueError, match=rf"limits to 512 tokens; got {length} prompt tokens and max_length {limit}"):
        make_engine(model).submit(GenerationRequest(prompt=(5,) * length, key=(0, 0), max_length=limit))


def test_an_answer_that_ends_with_its_first_token_leaves_its_slot_to_the_next_request(model, prompts):
    requests = [make_request(prompt) for prompt in prompts[:6]]
    first = generate(make_engine(model), requests)
    eos = first[2].tokens[0]
    answers = generate(make_engine(model, 1, eos_ids=[eos, 391]), requests)
    for whole, cut in zip(first, answers, strict=True):
        ends = [i for i, token in enumerate(whole.tokens) if token in (eos, 391)]
        assert cut.tokens == (whole.tokens[: ends[0]] if ends else whole.tokens)
        assert cut.finish_reason == ("stop" if ends else "length")
    assert answers[2].tokens == []


# The last two tests clear JAX's caches to count compilations.


def test_each_length_of_the_cache_has_one_program(model, prompts, caplog):
    def num_compiled(requests):
        caplog.clear()
        with jax.log_compiles():
            list(make_engine(model, num_slots=3, max_length=1000).generate(requests))
        names = [record.getMessage().split(" with ")[0] for record in caplog.records]
        return [names.count(f"Compiling jit({program})") for program in ("decode", "prefill_chunk")]

    jax.clear_caches()
    params = SamplingParams(temperature=0.8)
    requests = [make_request(prompt, 30 * i % 700 + 1, params=params) for i, prompt in enumerate(prompts)]
    assert cache_capacities(1000) == (256, 512, 1000)
    assert num_compiled(requests) == [3, len(CHUNK_SIZES)]  # all prompts fit the smallest cache
    assert num_compiled(requests[::-1]) == [0, 0]


def test_a_fixed_set_of_programs_serves_all_parameters_and_changes_no_answer(model, prompts, caplog):
    rng = np.random.default_rng(1)
    choices = {
        "temperature": (0.0, 0.7, 1.3),
        "top_p": (1.0, 0.9),
        "top_k": (None, 20),
        "min_p": (0.0, 0.1),
        "repetition_penalty": (1.0, 1.2),
        "num_logprobs": (None, 0, MAX_CHAT_LOGPROBS),
    }
    draw = lambda: SamplingParams(**{name: values[rng.integers(len(values))] for name, values in choices.items()})  # noqa: E731
    requests = [make_request(prompt, 12, i, params=draw()) for i, prompt in enumerate(prompts[7:11])]
    requests += [make_request(prompts[0]), make_request(prompts[1], params=SamplingParams(temperature=0.8))]

    def generate_alone(programs):
        """Answer each request alone, without a batch; return the answers and the number of compiled programs."""
        jax.clear_caches()
        caplog.clear()
        with jax.log_compiles():
            answers = generate(make_engine(model, 1, max_length=256, programs=programs), requests)
        names = [record.getMessage().split(" with ")[0] for record in caplog.records]
        return answers, names.count("Compiling jit(decode)")

    alone, num_alone = generate_alone(())
    answers, num_programs = generate_alone(PROGRAMS)
    assert num_programs == len(PROGRAMS) < num_alone
    for expected, answer in zip(alone, answers, strict=True):
        assert (answer.tokens, answer.finish_reason) == (expected.tokens, expected.finish_reason)
        for entry, other in zip(answer.logprobs, expected.logprobs, strict=True):
            assert entry.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in entry.top] == [token for token, _ in other.top]

import dataclasses

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

FAMILIES = {
    "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393, n_positions=1100),
    "llama": lambda: tiny_models.llama(vocab_size=393, max_position_embeddings=1100),
}
NEW = 64


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    theirs = FAMILIES[request.param]()
    return theirs, jax.jit(lambda m: m.unstack_layers())(tiny_models.ours(theirs, tmp_path_factory.mktemp("pair")))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return jax.jit(lambda m: m.unstack_layers())(tiny_models.ours(FAMILIES["llama"](), tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def prompts():
    """32 ragged prompts, from one token to several pieces of prefill."""
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(2, 380, n).tolist()) for n in [1, 2, 63, 64, 65, 150, 200, *rng.integers(3, 120, 25)]]


def engine_of(model, num_slots=4, max_length=512, eos_ids=(), **more):
    return Engine(model, num_slots=num_slots, max_length=max_length, eos_ids=eos_ids, dtype=jnp.float32, **more)


def request(prompt, new=NEW, i=0, **more):
    return GenerationRequest(prompt=prompt, key=(7, i), max_length=len(prompt) + new, **more)


def answers(engine, requests):
    found = dict(engine.generate(requests))
    return [found[i] for i in range(len(requests))]


def generated(theirs, prompt, new, **more):
    ids = torch.tensor([prompt])
    settings = {"max_new_tokens": new, "do_sample": False, "pad_token_id": 0, "eos_token_id": None, **more}
    return theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)[0, len(prompt) :].tolist()


def test_answers_longer_than_the_shortest_cache_are_those_of_transformers(pair, prompts):
    theirs, ours = pair
    requests = [request(prompts[6], 700), request(prompts[0], 20), request(prompts[5], 300), request(prompts[1], 40)]
    engine = engine_of(ours, 2, max_length=1000)
    for wanted, answer in zip(requests, answers(engine, requests), strict=True):
        assert answer.tokens == generated(theirs, wanted.prompt, wanted.max_length - len(wanted.prompt))
        assert answer.finish_reason == "length"


def test_a_repetition_penalty_is_that_of_transformers(pair, prompts):
    theirs, ours = pair
    decoding = SamplingParams(repetition_penalty=1.3)
    mixed = [request(prompts[i], params=decoding if i % 2 else SamplingParams()) for i in range(8)]
    for i, answer in enumerate(answers(engine_of(ours, 3), mixed)):
        assert answer.tokens == generated(theirs, prompts[i], NEW, **({"repetition_penalty": 1.3} if i % 2 else {}))


def test_logprobs_are_those_of_the_whole_sequence_at_once(pair, prompts):
    theirs, ours = pair
    asked = SamplingParams(temperature=0.9, top_p=0.8, num_logprobs=3)
    wanted = [request(prompts[5], 40, params=asked), request(prompts[3], 40), request(prompts[4], 40, 1, params=asked)]
    wanted[2] = dataclasses.replace(wanted[2], params=SamplingParams(temperature=0.5, num_logprobs=0))
    found = answers(engine_of(ours), wanted)
    assert found[1].logprobs == ()
    for number, width in ((0, 3), (2, 0)):
        prompt, answer = wanted[number].prompt, found[number]
        with torch.no_grad():
            logits = theirs(torch.tensor([[*prompt, *answer.tokens]])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits.double(), -1)
        own = expected[torch.arange(40), torch.tensor(answer.tokens)]
        np.testing.assert_allclose([entry.logprob for entry in answer.logprobs], own, atol=1e-4)
        for entry, row in zip(answer.logprobs, expected, strict=True):
            values, ids = row.topk(width)
            assert [token for token, _ in entry.top] == ids.tolist()
            np.testing.assert_allclose([number for _, number in entry.top], values, atol=1e-4)


def test_a_sample_depends_on_its_own_request_alone(model, prompts):
    hot = SamplingParams(temperature=1.0, top_p=0.9)
    others = [
        hot,
        SamplingParams(),
        SamplingParams(temperature=0.7, top_k=5),
        SamplingParams(temperature=2.0, min_p=0.1, num_logprobs=2),
    ]
    wanted = [request(prompts[i % 8], 30, i, params=hot) for i in range(6)]
    alone = [answers(engine_of(model, 1), [one])[0].tokens for one in wanted]
    for num_slots in (2, 5):
        company = [request(prompt, 50, 99, params=others[i % 4]) for i, prompt in enumerate(prompts)]
        mixed = [one for pair in zip(wanted, company, strict=False) for one in pair]
        found = answers(engine_of(model, num_slots), mixed)
        assert [answer.tokens for answer in found[::2]] == alone


def test_one_program_serves_each_length_of_the_cache(model, prompts, caplog):
    def num_compiled(requests):
        caplog.clear()
        with jax.log_compiles():
            list(engine_of(model, num_slots=3, max_length=1000).answer(requests))
        names = [record.getMessage().split(" with ")[0] for record in caplog.records]
        return [names.count(f"Compiling jit({program})") for program in ("decode", "prefill_chunk")]

    jax.clear_caches()
    requests = [request(prompt, 30 * i % 700 + 1, params=SamplingParams(temperature=0.8)) for i, prompt in enumerate(prompts)]
    assert cache_capacities(1000) == (256, 512, 1000)
    assert num_compiled(requests) == [3, len(CHUNK_SIZES)]  # all prompts fit the shortest
    assert num_compiled(requests[::-1]) == [0, 0]


def test_so_many_programs_serve_whatever_is_asked_and_change_no_answer(model, prompts, caplog):
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
    requests = [request(prompt, 12, i, params=draw()) for i, prompt in enumerate(prompts[7:19])]
    requests += [request(prompts[0]), request(prompts[1], params=SamplingParams(temperature=0.8))]

    def answered(programs):
        """One after the other, so that no request shares another's steps; also how many programs it took."""
        jax.clear_caches()
        caplog.clear()
        with jax.log_compiles():
            found = answers(engine_of(model, 1, programs=programs), requests)
        names = [record.getMessage().split(" with ")[0] for record in caplog.records]
        return found, names.count("Compiling jit(decode)")

    alone, num_alone = answered(())
    found, num_programs = answered(PROGRAMS)
    assert num_programs == len(PROGRAMS) < num_alone
    for expected, answer in zip(alone, found, strict=True):
        assert (answer.tokens, answer.finish_reason) == (expected.tokens, expected.finish_reason)
        for own, other in zip(answer.logprobs, expected.logprobs, strict=True):
            assert own.logprob == pytest.approx(other.logprob, abs=1e-4)
            assert [token for token, _ in own.top] == [token for token, _ in other.top]


def test_samples_of_one_prompt_share_its_prefill_and_all_prompts_their_start(model, prompts):
    header = prompts[6][:150]
    whole = [header + prompt for prompt in prompts[7:13]]
    hot = SamplingParams(temperature=1.0)
    requests = [request(prompt, 5, i, params=hot) for prompt in whole for i in range(10)]
    plain, shared = engine_of(model), engine_of(model, shared_prefix=common_prefix(whole))
    assert common_prefix(whole)[:150] == header
    assert answers(plain, requests) == answers(shared, requests)
    pieces = lambda length: -(-length // CHUNK_SIZES[-1])  # noqa: E731
    start = len(common_prefix(whole))
    assert shared._prefix_cache.num_chunks == pieces(start) + sum(pieces(len(prompt) - start) for prompt in whole)
    assert plain._prefix_cache.num_chunks < sum(pieces(len(prompt)) for prompt in whole)


def test_a_prompt_that_goes_on_from_another_has_the_numbers_of_one_that_does_not(model, prompts):
    short, long = prompts[6], prompts[6] + prompts[5]
    make = lambda: PrefixCache(model, (256, 512), jnp.float32)  # noqa: E731
    alone, after = make(), make()
    after.get(short)
    for a, b in zip(jax.tree.leaves(alone.get(long)), jax.tree.leaves(after.get(long)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert after.num_chunks == alone.num_chunks + 1  # of the short one, all but the last are shared


def test_no_more_prompts_are_entries_than_memory_was_said_to_hold(model, prompts):
    store = PrefixCache(model, (256,), jnp.float32, shared_prefix=prompts[2])
    for prompt in prompts[7:]:
        store.get(prompts[2] + prompt)
        assert len(store._entries) <= MAX_CACHED_PROMPTS
        assert prompts[2] in store._entries


def test_a_workload_of_unequal_lengths_takes_at_most_two_thirds_of_the_steps_of_whole_batches(model, prompts):
    lengths = [200 if i % 8 == 0 else 20 for i in range(32)]
    engine = engine_of(model, num_slots=8)
    list(engine.generate([request(prompt[:40], new) for prompt, new in zip(prompts, lengths, strict=True)]))
    static = sum(max(lengths[i : i + 8]) for i in range(0, 32, 8))
    assert engine.num_steps <= 0.67 * static


@pytest.mark.parametrize("num_draft_tokens", [1, 5])
def test_guessing_changes_no_answer_and_takes_fewer_steps_where_text_repeats(model, prompts, num_draft_tokens):
    decodings = [
        SamplingParams(),
        SamplingParams(repetition_penalty=1.2),
        SamplingParams(temperature=0.7, top_p=0.9, num_logprobs=1),
        SamplingParams(temperature=0.3, repetition_penalty=1.1),
    ]
    requests = [request(prompt, 90, i, params=decodings[i % 4]) for i, prompt in enumerate(prompts)]
    plain, guessing = engine_of(model, 5, eos_ids=[7]), engine_of(model, 5, eos_ids=[7], num_draft_tokens=num_draft_tokens)
    for expected, found in zip(answers(plain, requests), answers(guessing, requests), strict=True):
        assert (found.tokens, found.finish_reason) == (expected.tokens, expected.finish_reason)
        np.testing.assert_allclose(
            [entry.logprob for entry in found.logprobs], [entry.logprob for entry in expected.logprobs], atol=1e-4
        )
    greedy = [request(prompt, 300) for prompt in prompts[:4]]  # a tiny model soon says the same again and again
    plain, guessing = engine_of(model, 4), engine_of(model, 4, num_draft_tokens=num_draft_tokens)
    assert answers(guessing, greedy) == answers(plain, greedy)
    assert guessing.num_steps < 0.8 * plain.num_steps


def test_requests_may_come_and_go_while_others_are_answered(model, prompts):
    engine = engine_of(model, num_slots=2)
    expected = [answers(engine_of(model), [request(prompt, 60)])[0].tokens for prompt in prompts[:4]]
    tickets, tokens, ended = [engine.submit(request(prompts[0], 60))], {}, {}
    gone = None
    while engine.is_busy:
        if len(tickets) < 4:
            tickets.append(engine.submit(request(prompts[len(tickets)], 60)))
            gone = gone or engine.submit(request(prompts[9], 200))
        else:
            engine.cancel(gone)
        for update in engine.step():
            tokens.setdefault(update.request_id, []).extend(update.tokens)
            if update.generation is not None:
                ended[update.request_id] = update.generation.tokens
    assert [ended[ticket] for ticket in tickets] == expected
    assert [tokens[ticket] for ticket in tickets] == expected
    assert gone not in ended
    assert engine.num_free_slots == 2


@pytest.mark.parametrize(("length", "limit"), [(0, 10), (10, 10), (10, 600)])
def test_a_request_without_prompt_or_room_is_refused(model, length, limit):
    with pytest.raises(ValueError, match=rf"limits to 512 tokens; got {length} prompt tokens and max_length {limit}"):
        engine_of(model).submit(GenerationRequest(prompt=(5,) * length, key=(0, 0), max_length=limit))


def test_an_end_of_text_at_once_leaves_the_slot_to_the_next(model, prompts):
    first = answers(engine_of(model), [request(prompt) for prompt in prompts[:6]])
    eos = first[2].tokens[0]
    found = answers(engine_of(model, 1, eos_ids=[eos, 391]), [request(prompt) for prompt in prompts[:6]])
    for whole, cut in zip(first, found, strict=True):
        ends = [i for i, token in enumerate(whole.tokens) if token in (eos, 391)]
        assert cut.tokens == (whole.tokens[: ends[0]] if ends else whole.tokens)
        assert cut.finish_reason == ("stop" if ends else "length")
    assert found[2].tokens == []

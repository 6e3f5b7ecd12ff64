import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from tests.helpers import tiny_models
from tests.helpers.processes import run_python
from wizardcoder_jax import sample
from wizardcoder_jax.config.command_line import run_command
from wizardcoder_jax.inference.decode_state import uniform
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.request import BatchSamplingParams, GenerationRequest, SamplingParams, SamplingSteps
from wizardcoder_jax.inference.token_selection import select_tokens

FAMILIES = {
    "gpt_bigcode": lambda: tiny_models.gpt_bigcode(vocab_size=393),
    "llama": lambda: tiny_models.llama(vocab_size=393),
}
LINEAR_ROPE = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}
GREEDY = {
    **FAMILIES,
    "gpt_bigcode multi-head, untied": lambda: tiny_models.gpt_bigcode(multi_query=False, tie_word_embeddings=False),
    "starcoder2, a window shorter than most prompts": lambda: tiny_models.starcoder2(sliding_window=12),
    "starcoder2 multi-query, untied": lambda: tiny_models.starcoder2(num_key_value_heads=1, tie_word_embeddings=False),
    "llama linear rope scaling, tied": lambda: tiny_models.llama(rope_parameters=LINEAR_ROPE, tie_word_embeddings=True),
    "qwen2": lambda: tiny_models.qwen2(),
}
# The sample door, killed right after it has written down so many answers.
KILLED_RUN = """
import os, signal, sys
from wizardcoder_jax.core.resume_log import ResumeLog
from wizardcoder_jax.sample import main
append = ResumeLog.append
def append_and_die(self, record):
    append(self, record)
    if len(self.records) == int(sys.argv[1]):
        os.kill(os.getpid(), signal.SIGKILL)
ResumeLog.append = append_and_die
main(sys.argv[2:])
"""
MANY_RUNS = """
import json, sys
from wizardcoder_jax.sample import main
for arguments in json.load(open(sys.argv[1])):
    main(arguments)
"""


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    theirs = FAMILIES[request.param]()
    return theirs, jax.jit(lambda m: m.unstack_layers())(tiny_models.ours(theirs, tmp_path_factory.mktemp("pair")))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    ours = tiny_models.ours(FAMILIES["gpt_bigcode"](), tmp_path_factory.mktemp("model"))
    return jax.jit(lambda m: m.unstack_layers())(ours)


@pytest.fixture(scope="module")
def prompts():
    """Eight ragged prompts; one longer than a piece of prefill."""
    rng = np.random.default_rng(0)
    return [tuple(rng.integers(2, 380, n).tolist()) for n in (1, 2, 5, 9, 17, 31, 40, 150)]


def answers(model, requests, num_slots=8, eos_id=0, max_length=256, temperature=0.0, top_p=1.0, should_stop=None):
    decoding = SamplingParams(temperature=temperature, top_p=top_p)
    named = {"max_length": max_length, "params": decoding, "should_stop": should_stop}
    requests = [dataclasses.replace(request, **named) for request in requests]
    engine = Engine(model, num_slots=num_slots, max_length=max_length, eos_ids=[eos_id], dtype=jnp.float32)
    found = dict(engine.generate(requests))
    return [found[i] for i in range(len(requests))]


def request(prompt, i=0):
    return GenerationRequest(prompt=prompt, key=(7, i), max_length=256)


@pytest.mark.parametrize("case", GREEDY)
def test_greedy_tokens_equal_those_that_transformers_generates_from_a_left_padded_batch(case, prompts, tmp_path):
    theirs = GREEDY[case]()
    ours = jax.jit(lambda m: m.unstack_layers())(tiny_models.ours(theirs, tmp_path))
    found = answers(ours, [request(prompt) for prompt in prompts], num_slots=3)
    longest, lengths = max(map(len, prompts)), []
    ids = torch.tensor([[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    generated = theirs.generate(ids, attention_mask=mask, max_new_tokens=64, do_sample=False, pad_token_id=0)
    for row, answer in zip(generated[:, longest:].tolist(), found, strict=True):
        expected = row[: row.index(0)] if 0 in row else row
        assert answer.tokens[:64] == expected
        lengths.append(len(expected))
    assert max(lengths) == 64


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_do_not_depend_on_the_batch(pair, prompts, temperature):
    requests = [request(prompt, i) for i, prompt in enumerate(prompts)]
    orders = ((1, requests), (3, requests), (8, requests[::-1]))
    runs = [answers(pair[1], order, num_slots=slots, temperature=temperature) for slots, order in orders]
    assert runs[0] == runs[1] == runs[2][::-1]
    other = answers(pair[1], [request(prompt, 100 + i) for i, prompt in enumerate(prompts)], temperature=temperature)
    assert (other == runs[0]) == (temperature == 0)


def test_samples_of_one_prompt_differ_by_their_key_only(pair, prompts):
    first, second, again = answers(pair[1], [request(prompts[3], i) for i in (1, 2, 1)], temperature=0.8)
    assert first == again
    assert first != second


def test_the_end_of_text_stops_an_answer_and_is_left_out(model, prompts):
    whole = answers(model, [request(prompts[4])], eos_id=392, max_length=60)[0]
    assert (whole.finish_reason, len(whole.tokens)) == ("length", 60 - len(prompts[4]))
    for place in (0, len(whole.tokens) - 1):
        eos = whole.tokens[place]
        stopped = answers(model, [request(prompts[4])], eos_id=eos, max_length=60)[0]
        assert stopped.tokens == whole.tokens[: whole.tokens.index(eos)]
        assert stopped.finish_reason == "stop"


@pytest.mark.parametrize("room", [1, 17])
def test_answers_fill_max_length_exactly(model, prompts, room):
    requests = [request(prompts[5]), request(prompts[2])]
    first, second = answers(model, requests, eos_id=392, max_length=len(prompts[5]) + room)
    assert (len(first.tokens), first.finish_reason) == (room, "length")
    assert (len(second.tokens), second.finish_reason) == (room + len(prompts[5]) - len(prompts[2]), "length")


def test_a_stop_string_ends_an_answer(model, prompts):
    stopped = lambda tokens: len(tokens) >= 5  # noqa: E731
    answer = answers(model, [request(prompts[2])], eos_id=392, max_length=60, should_stop=stopped)[0]
    assert answer.finish_reason == "stop"
    assert len(answer.tokens) >= 5


def test_the_padding_of_the_vocabulary_is_never_sampled(model, prompts):
    found = answers(model, [request(p, i) for i, p in enumerate(prompts)], temperature=50.0, eos_id=392)
    tokens = {token for answer in found for token in answer.tokens}
    assert max(tokens) < 393
    assert len(tokens) > 200  # as hot as that, nearly all of the vocabulary comes


def nucleus(probabilities, top_p):
    """By sorting: the likeliest tokens, until their sum reaches top_p."""
    order = np.argsort(-probabilities, kind="stable")
    count = int(np.searchsorted(np.cumsum(probabilities[order], dtype=np.float64), top_p)) + 1
    return set(order[:count].tolist())


def drawn_many(logits, num_draws, decoding, seen=None):
    """So many tokens from one row of logits, each by its own key."""
    rows = jnp.repeat(logits, num_draws, 0)
    keys = jnp.stack([jnp.full(num_draws, 9), jnp.arange(num_draws)], -1).astype(jnp.uint32)
    options = jax.tree.map(
        lambda number: jnp.repeat(number, num_draws), BatchSamplingParams.from_params(decoding, logits.shape[1])
    )
    seen = jnp.zeros(rows.shape, bool) if seen is None else jnp.repeat(seen, num_draws, 0)
    draw = functools.partial(uniform, keys, jnp.zeros(num_draws, jnp.int32))
    return np.asarray(
        jax.jit(select_tokens, static_argnums=(2, 4))(rows, seen, draw, options, SamplingSteps.required_by([decoding]))
    )


def filtered(logits, decoding, seen_ids):
    """The distribution that transformers draws from."""
    steps = transformers.LogitsProcessorList([transformers.RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty)])
    steps.append(transformers.TemperatureLogitsWarper(decoding.temperature))
    if decoding.top_k is not None:
        steps.append(transformers.TopKLogitsWarper(decoding.top_k))
    if decoding.top_p < 1:
        steps.append(transformers.TopPLogitsWarper(decoding.top_p))
    if decoding.min_p:
        steps.append(transformers.MinPLogitsWarper(decoding.min_p))
    ids = torch.tensor([seen_ids or [0]])
    if not seen_ids:
        steps.pop(0)
    return torch.softmax(steps(ids, torch.tensor(np.array(logits)))[0].double(), -1).numpy()


DECODINGS = {
    "all": SamplingParams(temperature=1.0),
    "hot": SamplingParams(temperature=1.7),
    "nucleus": SamplingParams(temperature=0.8, top_p=0.9),
    "a small nucleus": SamplingParams(temperature=1.0, top_p=0.3),
    "the likeliest alone": SamplingParams(temperature=1.0, top_p=0.01),
    "top-k": SamplingParams(temperature=1.0, top_k=7),
    "top-k then nucleus": SamplingParams(temperature=1.0, top_k=12, top_p=0.7),
    "min-p": SamplingParams(temperature=1.2, min_p=0.2),
    "penalty": SamplingParams(temperature=1.0, repetition_penalty=1.8),
    "everything": SamplingParams(temperature=0.9, top_k=30, top_p=0.95, min_p=0.05, repetition_penalty=1.3),
}


@pytest.mark.parametrize("case", DECODINGS)
@pytest.mark.parametrize("vocab_size", [60, 700])
def test_tokens_are_drawn_from_the_distribution_that_transformers_draws_from(case, vocab_size):
    decoding, num_draws = DECODINGS[case], 20_000
    logits = 2 * jax.random.normal(jax.random.key(vocab_size), (1, vocab_size))
    seen_ids = list(range(0, vocab_size, 3)) if decoding.repetition_penalty != 1 else []
    seen = jnp.zeros((1, vocab_size), bool).at[0, jnp.array(seen_ids, int)].set(True)
    expected = filtered(logits, decoding, seen_ids)
    counts = np.bincount(drawn_many(logits, num_draws, decoding, seen), minlength=vocab_size)
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    spread = np.sqrt(num_draws * expected[kept] * (1 - expected[kept])) + 1
    assert (np.abs(counts[kept] - num_draws * expected[kept]) < 5 * spread).all()


def test_the_uniform_numbers_of_keys_positions_and_attempts_are_uniform_and_apart():
    keys = jnp.stack(jnp.meshgrid(jnp.arange(50), jnp.arange(40), indexing="ij"), -1).reshape(-1, 2).astype(jnp.uint32)
    draws = np.stack([uniform(keys, jnp.full(len(keys), p), jnp.int32(n)) for p, n in ((5, 0), (5, 1), (6, 0), (700, 0))])
    assert len(np.unique(draws)) > 0.999 * draws.size
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    chi_square = ((counts - draws.size / 20) ** 2 / (draws.size / 20)).sum()
    assert chi_square < 19 + 4 * np.sqrt(2 * 19)  # four standard deviations above its mean


@pytest.mark.parametrize("decoding", [SamplingParams(temperature=1.0), SamplingParams(temperature=1.0, top_p=0.95)])
def test_a_choice_at_the_ends_of_the_uniform_range_is_a_real_token(decoding):
    logits = jnp.array([[0.0, 1.0, -jnp.inf, 2.0, -jnp.inf]])
    largest = jnp.nextafter(jnp.float32(1), jnp.float32(0))
    for number, allowed in ((jnp.float32(0), {0, 1}), (largest, {3})):
        options, draw = BatchSamplingParams.from_params(decoding, 5), lambda _, number=number: number[None]
        assert (
            int(select_tokens(logits, jnp.zeros((1, 5), bool), draw, options, SamplingSteps.required_by([decoding]))[0])
            in allowed
        )


def test_rows_of_one_batch_are_chosen_each_by_its_own_options():
    logits = 2 * jax.random.normal(jax.random.key(5), (1, 300))
    decodings = [SamplingParams(), *DECODINGS.values()]
    alone = [drawn_many(logits, 1, decoding)[0] for decoding in decodings]
    options = BatchSamplingParams(
        *map(jnp.concatenate, zip(*(BatchSamplingParams.from_params(decoding, 300) for decoding in decodings), strict=True))
    )
    n = len(decodings)
    draw = functools.partial(uniform, jnp.tile(jnp.array([[9, 0]], jnp.uint32), (n, 1)), jnp.zeros(n, jnp.int32))
    together = select_tokens(
        jnp.repeat(logits, n, 0), jnp.zeros((n, 300), bool), draw, options, SamplingSteps.required_by(decodings)
    )
    assert together.tolist() == alone
    assert alone[0] == int(logits.argmax())


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sampling")
    tiny_models.save_folder(tiny_models.gpt_bigcode(vocab_size=393), folder / "model")
    lines = [{"instruction": f"Add {i} numbers.", "id": f"p{i}"} for i in range(6)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def arguments(place, output, *more):
    named = ["--model", place / "model", "--output", output, "--cache-dir", place / "cache", "--max-length", "120"]
    return [str(part) for part in [*named, *more]]


def prompted(place, output, *more):
    sampled = ["--num-samples", "2", "--temperature", "0.8", "--top-p", "0.95", "--batch-size", "3"]
    return arguments(place, output, "--prompts", place / "prompts.jsonl", *sampled, *more)


@pytest.fixture(scope="module")
def whole(place):
    sample.main(prompted(place, place / "whole.jsonl"))
    return place / "whole.jsonl"


def test_samples_and_settings_are_written(whole):
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [(row["task_id"], row["sample_index"]) for row in rows] == [(f"p{i}", j) for i in range(6) for j in range(2)]
    for row in rows:
        assert set(row) == {"task_id", "sample_index", "completion", "raw", "num_tokens", "finish_reason"}
        assert row["completion"] == row["raw"]
        assert row["finish_reason"] in ("stop", "length")
        assert row["num_tokens"] > 0 or row["finish_reason"] == "stop"
    meta = json.loads((whole.parent / "whole.meta.json").read_text())
    decoding = {name: meta[name] for name in ("seed", "temperature", "top_p", "max_length", "num_samples", "protocol")}
    assert decoding == {"seed": 0, "temperature": 0.8, "top_p": 0.95, "max_length": 120, "num_samples": 2, "protocol": None}
    assert meta["model"] == str(whole.parent / "model")
    assert not list(whole.parent.glob(".*"))


def test_log_probabilities_are_written_where_they_are_asked_for(place, whole, tmp_path):
    sample.main(prompted(place, tmp_path / "told.jsonl", "--logprobs", "2"))
    plain = [json.loads(line) for line in whole.read_text().splitlines()]
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    for row, expected in zip(told, plain, strict=True):
        assert {name: row[name] for name in expected} == expected
        assert len(row["tokens"]) == len(row["logprobs"]) == len(row["likeliest"]) == row["num_tokens"]
        for own, ((_, first), (_, second)) in zip(row["logprobs"], row["likeliest"], strict=True):
            assert own <= first <= 0 and second <= first


@pytest.mark.parametrize(
    "more", [["--top-k", "3"], ["--min-p", "0.5"], ["--repetition-penalty", "2"], ["--top-k", "1", "--temperature", "2"]]
)
def test_every_setting_of_the_draw_changes_answers_and_none_is_greedy_but_the_narrowest(place, whole, tmp_path, more):
    sample.main(prompted(place, tmp_path / "other.jsonl", *more))
    assert (tmp_path / "other.jsonl").read_bytes() != whole.read_bytes()
    texts = [json.loads(line)["raw"] for line in (tmp_path / "other.jsonl").read_text().splitlines()]
    assert all((a == b) == ("1" in more) for a, b in zip(texts[::2], texts[1::2], strict=True))


def test_prompts_in_the_form_of_the_originals_script_are_read(place, whole, tmp_path):
    lines = [json.loads(line) for line in (place / "prompts.jsonl").read_text().splitlines()]
    theirs = [{"idx": line["id"], "Instruction": line["instruction"]} for line in lines]
    (tmp_path / "theirs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in theirs))
    arguments_ = prompted(place, tmp_path / "same.jsonl")
    arguments_[arguments_.index("--prompts") + 1] = str(tmp_path / "theirs.jsonl")
    sample.main(arguments_)
    assert (tmp_path / "same.jsonl").read_bytes() == whole.read_bytes()


def test_a_limit_takes_the_first_prompts(place, whole, tmp_path):
    sample.main(prompted(place, tmp_path / "few.jsonl", "--limit", "2"))
    assert (tmp_path / "few.jsonl").read_text().splitlines() == whole.read_text().splitlines()[:4]


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(place, whole, tmp_path):
    args = prompted(place, tmp_path / "samples.jsonl")
    killed = run_python("-c", KILLED_RUN, 5, *args)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == [".samples.jsonl.journal"]
    sample.main(args)
    assert (tmp_path / "samples.jsonl").read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl", "samples.meta.json"]


def test_the_seed_changes_answers_and_the_batch_size_does_not(place, whole, tmp_path):
    sample.main(prompted(place, tmp_path / "same.jsonl", "--batch-size", "8"))
    assert (tmp_path / "same.jsonl").read_bytes() == whole.read_bytes()
    sample.main(prompted(place, tmp_path / "other.jsonl", "--seed", "1"))
    assert (tmp_path / "other.jsonl").read_bytes() != whole.read_bytes()


def test_a_2x4_mesh_gives_the_greedy_answers_of_one_device(place, tmp_path):
    runs = [
        arguments(
            place,
            tmp_path / f"{mesh}.jsonl",
            "--prompts",
            place / "prompts.jsonl",
            "--mesh",
            mesh,
            "--batch-size",
            "4",
            "--max-length",
            "100",
        )
        for mesh in ("1x1", "2x4")
    ]
    (tmp_path / "runs.json").write_text(json.dumps(runs))
    done = run_python("-c", MANY_RUNS, tmp_path / "runs.json", num_devices=8)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "1x1.jsonl").read_bytes() == (tmp_path / "2x4.jsonl").read_bytes()


def test_a_benchmark_is_sampled_under_its_protocol(place, tmp_path):
    problem = {"task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n", "test": ""}
    (tmp_path / "problems.jsonl").write_text(json.dumps({**problem, "test": "def check(candidate):\n    pass\n"}) + "\n")
    more = ["--benchmark", "humaneval", "--benchmark-file", tmp_path / "problems.jsonl"]
    sample.main(arguments(place, tmp_path / "samples.jsonl", *more))
    [row] = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert (row["task_id"], row["sample_index"]) == ("T/0", 0)
    assert json.loads((tmp_path / "samples.meta.json").read_text())["protocol"] == "wizardcoder-humaneval-v1"


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--benchmark", "no-such"], "no-such"),
        (["--prompts", "{place}/none.jsonl"], "cannot read"),
        (["--prompts", "{place}/bad.jsonl"], 'bad.jsonl:1: the key "instruction" is missing or not a string'),
        (["--prompts", "{place}/empty.jsonl"], "empty.jsonl contains no prompt"),
        (["--prompts", "{place}/prompts.jsonl", "--max-length", "20"], "the prompt of p0 has "),
        (["--prompts", "{place}/prompts.jsonl", "--max-length", "300"], "max_length 300 exceeds the model's 256 positions"),
        (["--prompts", "{place}/prompts.jsonl", "--model", "/nowhere"], "no model at /nowhere"),
        (["--prompts", "{place}/prompts.jsonl", "--mesh", "2x2"], "mesh 2x2 needs 4 devices, this run has 1"),
        (["--prompts", "{place}/prompts.jsonl", "--output", "{place}/prompts.jsonl/x"], "cannot create the folder"),
        (["--prompts", "{place}/prompts.jsonl", "--num-samples", "2"], "temperature 0 gives 2 equal answers"),
        (["--benchmark", "mini", "--protocol", "chat"], "this model has no chat template"),
        (["--prompts", "{place}/prompts.jsonl", "--top-k", "0"], "top_k must be at least 1, got 0"),
        (["--prompts", "{place}/prompts.jsonl", "--min-p", "1.5"], "min_p must be in [0, 1], got 1.5"),
        (["--prompts", "{place}/prompts.jsonl", "--repetition-penalty", "0"], "repetition_penalty must be > 0, got 0"),
        (["--prompts", "{place}/prompts.jsonl", "--logprobs", "21"], "logprobs must be in 0 to 20, got 21"),
        (["--prompts", "{place}/prompts.jsonl", "--model", "api:m", "--logprobs", "1"], "not for api:NAME"),
        ([], "give either --benchmark NAME or --prompts FILE"),
    ],
)
def test_a_bad_setting_is_one_line_and_nothing_is_left(place, monkeypatch, capsys, tmp_path, more, complaint):
    (place / "bad.jsonl").write_text('{"text": "a"}\n')
    (place / "empty.jsonl").write_text("")
    more = [part.replace("{place}", str(place)) for part in more]
    monkeypatch.setattr(sys, "argv", ["sample", *arguments(place, tmp_path / "out.jsonl", *more)])
    with pytest.raises(SystemExit) as stop:
        run_command(sample.main)
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert complaint in line
    assert list(tmp_path.iterdir()) == []

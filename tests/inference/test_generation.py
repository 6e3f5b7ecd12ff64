"""Token selection against transformers, and sampling through the `sample` command."""

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
from wizardcoder_jax.core.resume_log import ResumeLog
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_programs import uniform
from wizardcoder_jax.inference.request import BatchSamplingParams, GenerationRequest, SamplingParams, SamplingSteps
from wizardcoder_jax.inference.token_selection import select_tokens

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
# Runs `sample`, and kills the process right after it has recorded a number of answers.
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
SEVERAL_RUNS = """
import json, sys
from wizardcoder_jax.sample import main
for arguments in json.load(open(sys.argv[1])):
    main(arguments)
"""


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


def test_samples_of_one_prompt_only_differ_by_their_key(model, prompts):
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


def draw_tokens(logits, num_draws, params, seen=None):
    """Draw tokens from one row of logits, each with its own key."""
    rows = jnp.repeat(logits, num_draws, 0)
    keys = jnp.stack([jnp.full(num_draws, 9), jnp.arange(num_draws)], -1).astype(jnp.uint32)
    batch = jax.tree.map(lambda value: jnp.repeat(value, num_draws), BatchSamplingParams.from_params(params, logits.shape[1]))
    seen = jnp.zeros(rows.shape, bool) if seen is None else jnp.repeat(seen, num_draws, 0)
    draw = functools.partial(uniform, keys, jnp.zeros(num_draws, jnp.int32))
    select = jax.jit(select_tokens, static_argnums=(2, 4))
    return np.asarray(select(rows, seen, draw, batch, SamplingSteps.required_by([params])))


def distribution_of_transformers(logits, params, seen_ids):
    """Return the distribution that transformers samples from."""
    steps = transformers.LogitsProcessorList([transformers.RepetitionPenaltyLogitsProcessor(params.repetition_penalty)])
    steps.append(transformers.TemperatureLogitsWarper(params.temperature))
    if params.top_k is not None:
        steps.append(transformers.TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        steps.append(transformers.TopPLogitsWarper(params.top_p))
    if params.min_p:
        steps.append(transformers.MinPLogitsWarper(params.min_p))
    ids = torch.tensor([seen_ids or [0]])
    if not seen_ids:
        steps.pop(0)
    return torch.softmax(steps(ids, torch.tensor(np.array(logits)))[0].double(), -1).numpy()


PARAMS = {
    "all": SamplingParams(temperature=1.0),
    "high temperature": SamplingParams(temperature=1.7),
    "nucleus": SamplingParams(temperature=0.8, top_p=0.9),
    "small nucleus": SamplingParams(temperature=1.0, top_p=0.3),
    "most likely token only": SamplingParams(temperature=1.0, top_p=0.01),
    "top-k": SamplingParams(temperature=1.0, top_k=7),
    "top-k then nucleus": SamplingParams(temperature=1.0, top_k=12, top_p=0.7),
    "min-p": SamplingParams(temperature=1.2, min_p=0.2),
    "penalty": SamplingParams(temperature=1.0, repetition_penalty=1.8),
    "everything": SamplingParams(temperature=0.9, top_k=30, top_p=0.95, min_p=0.05, repetition_penalty=1.3),
}


@pytest.mark.parametrize("case", PARAMS)
@pytest.mark.parametrize("vocab_size", [60, pytest.param(700, marks=pytest.mark.slow)])
def test_tokens_are_drawn_from_the_same_distribution_as_in_transformers(case, vocab_size):
    check_distribution(PARAMS[case], vocab_size)


@pytest.mark.parametrize("case", ["nucleus", "everything"])
def test_tokens_of_a_vocabulary_of_several_blocks_are_drawn_from_the_same_distribution(case):
    check_distribution(PARAMS[case], 700)


def check_distribution(params, vocab_size, num_draws=20_000):
    logits = 2 * jax.random.normal(jax.random.key(vocab_size), (1, vocab_size))
    seen_ids = list(range(0, vocab_size, 3)) if params.repetition_penalty != 1 else []
    seen = jnp.zeros((1, vocab_size), bool).at[0, jnp.array(seen_ids, int)].set(True)
    expected = distribution_of_transformers(logits, params, seen_ids)
    counts = np.bincount(draw_tokens(logits, num_draws, params, seen), minlength=vocab_size)
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    deviation = np.sqrt(num_draws * expected[kept] * (1 - expected[kept])) + 1
    assert (np.abs(counts[kept] - num_draws * expected[kept]) < 5 * deviation).all()


def test_random_numbers_are_uniform_and_differ_between_keys_positions_and_attempts():
    keys = jnp.stack(jnp.meshgrid(jnp.arange(50), jnp.arange(40), indexing="ij"), -1).reshape(-1, 2).astype(jnp.uint32)
    draws = np.stack([uniform(keys, jnp.full(len(keys), p), jnp.int32(n)) for p, n in ((5, 0), (5, 1), (6, 0), (700, 0))])
    assert len(np.unique(draws)) > 0.999 * draws.size
    counts = np.histogram(draws, bins=20, range=(0, 1))[0]
    chi_square = ((counts - draws.size / 20) ** 2 / (draws.size / 20)).sum()
    assert chi_square < 19 + 4 * np.sqrt(2 * 19)  # four standard deviations above its mean


@pytest.mark.parametrize("params", [SamplingParams(temperature=1.0), SamplingParams(temperature=1.0, top_p=0.95)])
def test_extreme_random_numbers_select_a_possible_token(params):
    logits = jnp.array([[0.0, 1.0, -jnp.inf, 2.0, -jnp.inf]])
    largest = jnp.nextafter(jnp.float32(1), jnp.float32(0))
    steps = SamplingSteps.required_by([params])
    for number, possible in ((jnp.float32(0), {0, 1}), (largest, {3})):
        batch, draw = BatchSamplingParams.from_params(params, 5), lambda _, number=number: number[None]
        assert int(select_tokens(logits, jnp.zeros((1, 5), bool), draw, batch, steps)[0]) in possible


def test_the_rows_of_a_batch_each_use_their_own_parameters():
    logits = 2 * jax.random.normal(jax.random.key(5), (1, 300))
    params = [SamplingParams(), *PARAMS.values()]
    alone = [draw_tokens(logits, 1, row)[0] for row in params]
    rows = [BatchSamplingParams.from_params(row, 300) for row in params]
    batch = BatchSamplingParams(*map(jnp.concatenate, zip(*rows, strict=True)))
    n = len(params)
    draw = functools.partial(uniform, jnp.tile(jnp.array([[9, 0]], jnp.uint32), (n, 1)), jnp.zeros(n, jnp.int32))
    seen = jnp.zeros((n, 300), bool)
    together = select_tokens(jnp.repeat(logits, n, 0), seen, draw, batch, SamplingSteps.required_by(params))
    assert together.tolist() == alone
    assert alone[0] == int(logits.argmax())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample")
    tiny_models.save_folder(tiny_models.gpt_bigcode(vocab_size=393), folder / "model")
    lines = [{"instruction": f"Add {i} numbers.", "id": f"p{i}"} for i in range(6)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def arguments(folder, output, *more):
    paths = ["--model", folder / "model", "--output", output, "--cache-dir", folder / "cache"]
    return [str(part) for part in [*paths, "--max-length", "120", *more]]


def sampled_arguments(folder, output, *more):
    options = ["--num-samples", "2", "--temperature", "0.8", "--top-p", "0.95", "--batch-size", "3"]
    return arguments(folder, output, "--prompts", folder / "prompts.jsonl", *options, *more)


@pytest.fixture(scope="module")
def whole(folder):
    sample.main(sampled_arguments(folder, folder / "whole.jsonl"))
    return folder / "whole.jsonl"


def test_the_samples_and_their_settings_are_written(whole):
    rows = [json.loads(line) for line in whole.read_text().splitlines()]
    assert [(row["task_id"], row["sample_index"]) for row in rows] == [(f"p{i}", j) for i in range(6) for j in range(2)]
    for row in rows:
        assert set(row) == {"task_id", "sample_index", "completion", "raw", "num_tokens", "finish_reason"}
        assert row["completion"] == row["raw"]
        assert row["finish_reason"] in ("stop", "length")
        assert row["num_tokens"] > 0 or row["finish_reason"] == "stop"
    meta = json.loads((whole.parent / "whole.meta.json").read_text())
    settings = {name: meta[name] for name in ("seed", "temperature", "top_p", "max_length", "num_samples", "protocol")}
    assert settings == {"seed": 0, "temperature": 0.8, "top_p": 0.95, "max_length": 120, "num_samples": 2, "protocol": None}
    assert meta["model"] == str(whole.parent / "model")
    assert not list(whole.parent.glob(".*"))


def test_log_probabilities_are_written_on_request(folder, whole, tmp_path):
    sample.main(sampled_arguments(folder, tmp_path / "logprobs.jsonl", "--logprobs", "2"))
    plain = [json.loads(line) for line in whole.read_text().splitlines()]
    rows = [json.loads(line) for line in (tmp_path / "logprobs.jsonl").read_text().splitlines()]
    for row, expected in zip(rows, plain, strict=True):
        assert {name: row[name] for name in expected} == expected
        assert len(row["tokens"]) == len(row["logprobs"]) == len(row["likeliest"]) == row["num_tokens"]
        for own, ((_, first), (_, second)) in zip(row["logprobs"], row["likeliest"], strict=True):
            assert own <= first <= 0 and second <= first


@pytest.mark.parametrize(
    "more", [["--top-k", "3"], ["--min-p", "0.5"], ["--repetition-penalty", "2"], ["--top-k", "1", "--temperature", "2"]]
)
def test_every_sampling_option_changes_answers_and_only_top_k_1_makes_them_equal(folder, whole, tmp_path, more):
    sample.main(sampled_arguments(folder, tmp_path / "other.jsonl", *more))
    assert (tmp_path / "other.jsonl").read_bytes() != whole.read_bytes()
    texts = [json.loads(line)["raw"] for line in (tmp_path / "other.jsonl").read_text().splitlines()]
    assert all((a == b) == ("1" in more) for a, b in zip(texts[::2], texts[1::2], strict=True))


def test_prompts_in_the_format_of_the_original_script_are_read(folder, whole, tmp_path):
    lines = [json.loads(line) for line in (folder / "prompts.jsonl").read_text().splitlines()]
    theirs = [{"idx": line["id"], "Instruction": line["instruction"]} for line in lines]
    (tmp_path / "theirs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in theirs))
    same = sampled_arguments(folder, tmp_path / "same.jsonl")
    same[same.index("--prompts") + 1] = str(tmp_path / "theirs.jsonl")
    sample.main(same)
    assert (tmp_path / "same.jsonl").read_bytes() == whole.read_bytes()


def test_a_limit_selects_the_first_prompts(folder, whole, tmp_path):
    sample.main(sampled_arguments(folder, tmp_path / "few.jsonl", "--limit", "2"))
    assert (tmp_path / "few.jsonl").read_text().splitlines() == whole.read_text().splitlines()[:4]


def test_an_interrupted_run_resumes_to_the_same_bytes(folder, whole, tmp_path, monkeypatch):
    append = ResumeLog.append

    def append_and_stop(self, record):
        append(self, record)
        if len(self.records) == 5:
            raise KeyboardInterrupt

    args = sampled_arguments(folder, tmp_path / "samples.jsonl")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ResumeLog, "append", append_and_stop)
        sample.main(args)
    assert [path.name for path in tmp_path.iterdir()] == [".samples.jsonl.journal"]
    sample.main(args)
    assert (tmp_path / "samples.jsonl").read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl", "samples.meta.json"]


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bytes(folder, whole, tmp_path):
    args = sampled_arguments(folder, tmp_path / "samples.jsonl")
    killed = run_python("-c", KILLED_RUN, 5, *args)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert [path.name for path in tmp_path.iterdir()] == [".samples.jsonl.journal"]
    sample.main(args)
    assert (tmp_path / "samples.jsonl").read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["samples.jsonl", "samples.meta.json"]


def test_the_seed_changes_answers_but_the_batch_size_does_not(folder, whole, tmp_path):
    sample.main(sampled_arguments(folder, tmp_path / "same.jsonl", "--batch-size", "8"))
    assert (tmp_path / "same.jsonl").read_bytes() == whole.read_bytes()
    sample.main(sampled_arguments(folder, tmp_path / "other.jsonl", "--seed", "1"))
    assert (tmp_path / "other.jsonl").read_bytes() != whole.read_bytes()


@pytest.mark.slow
def test_a_2x4_mesh_gives_the_greedy_answers_of_one_device(folder, tmp_path):
    runs = [
        arguments(
            folder,
            tmp_path / f"{mesh}.jsonl",
            "--prompts",
            folder / "prompts.jsonl",
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
    done = run_python("-c", SEVERAL_RUNS, tmp_path / "runs.json", num_devices=8)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "1x1.jsonl").read_bytes() == (tmp_path / "2x4.jsonl").read_bytes()


def test_a_benchmark_is_sampled_with_its_protocol(folder, tmp_path):
    problem = {"task_id": "T/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n", "test": ""}
    (tmp_path / "problems.jsonl").write_text(json.dumps({**problem, "test": "def check(candidate):\n    pass\n"}) + "\n")
    more = ["--benchmark", "humaneval", "--benchmark-file", tmp_path / "problems.jsonl"]
    sample.main(arguments(folder, tmp_path / "samples.jsonl", *more))
    [row] = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert (row["task_id"], row["sample_index"]) == ("T/0", 0)
    assert json.loads((tmp_path / "samples.meta.json").read_text())["protocol"] == "wizardcoder-humaneval-v1"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "no-such"], "no-such"),
        (["--prompts", "{folder}/none.jsonl"], "cannot read"),
        (["--prompts", "{folder}/bad.jsonl"], 'bad.jsonl:1: the key "instruction" is missing or not a string'),
        (["--prompts", "{folder}/empty.jsonl"], "empty.jsonl contains no prompt"),
        (["--prompts", "{folder}/prompts.jsonl", "--max-length", "20"], "the prompt of p0 has "),
        (["--prompts", "{folder}/prompts.jsonl", "--max-length", "300"], "max_length 300 exceeds the model's 256 positions"),
        (["--prompts", "{folder}/prompts.jsonl", "--model", "/nowhere"], "no model at /nowhere"),
        (["--prompts", "{folder}/prompts.jsonl", "--mesh", "2x2"], "mesh 2x2 needs 4 devices, this run has 1"),
        (["--prompts", "{folder}/prompts.jsonl", "--output", "{folder}/prompts.jsonl/x"], "cannot create the folder"),
        (["--prompts", "{folder}/prompts.jsonl", "--num-samples", "2"], "temperature 0 gives 2 equal answers"),
        (["--benchmark", "mini", "--protocol", "chat"], "this model has no chat template"),
        (["--prompts", "{folder}/prompts.jsonl", "--top-k", "0"], "top_k must be at least 1, got 0"),
        (["--prompts", "{folder}/prompts.jsonl", "--min-p", "1.5"], "min_p must be in [0, 1], got 1.5"),
        (["--prompts", "{folder}/prompts.jsonl", "--repetition-penalty", "0"], "repetition_penalty must be > 0, got 0"),
        (["--prompts", "{folder}/prompts.jsonl", "--logprobs", "21"], "logprobs must be in 0 to 20, got 21"),
        (["--prompts", "{folder}/prompts.jsonl", "--model", "api:m", "--logprobs", "1"], "not for api:NAME"),
        ([], "give either --benchmark NAME or --prompts FILE"),
    ],
)
def test_a_bad_setting_is_reported_in_one_line_and_leaves_no_file(folder, monkeypatch, capsys, tmp_path, options, message):
    (folder / "bad.jsonl").write_text('{"text": "a"}\n')
    (folder / "empty.jsonl").write_text("")
    options = [part.replace("{folder}", str(folder)) for part in options]
    monkeypatch.setattr(sys, "argv", ["sample", *arguments(folder, tmp_path / "out.jsonl", *options)])
    with pytest.raises(SystemExit) as stop:
        run_command(sample.main)
    assert stop.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []

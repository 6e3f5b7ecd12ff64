import json

import jax
import jax.numpy as jnp
import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import run_python, start_together
from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.problem import HUMANEVAL_STOPS
from wizardcoder_jax.benchmarks.prompts import EVALPLUS_ANSWER_PREFIX
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.config.train import ValidationConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.evaluation.benchmark_evaluator import BenchmarkEvaluator
from wizardcoder_jax.evaluation.prompt_set import PromptSet
from wizardcoder_jax.inference.decode_state import new_cache
from wizardcoder_jax.inference.engine_weights import copy_engine_weights
from wizardcoder_jax.sandbox import bubblewrap

# Examines the model of a folder as a training would hold it, several times; prints what was found.
EXAMINATIONS = """
import json, sys
import jax, jax.numpy as jnp
from wizardcoder_jax.config.train import ValidationConfig
from wizardcoder_jax.evaluation.benchmark_evaluator import BenchmarkEvaluator
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.core.distributed import initialize_distributed
from wizardcoder_jax.core.sharding import RULES, make_mesh
initialize_distributed()
opened = open_model(sys.argv[1])
settings = ValidationConfig(benchmark="mini-dev", limit=3, batch_size=2, max_length=256, num_logged=3, protocol="completion")
for case in sys.argv[2:]:
    name, strategy = case.split(":")
    mesh, rules = make_mesh(name), RULES[strategy]
    with jax.set_mesh(mesh):
        model = opened.weights(rules, mesh, jnp.float32).model
    score = BenchmarkEvaluator(settings, opened.tokenizer, opened.arch.max_positions, jnp.float32).evaluate(model, mesh)
    print(json.dumps([score.pass_at_1, score.num_problems, [asked.answer for asked in score.answers]]), flush=True)
"""
COMPILED = "/jax/core/compile/backend_compile_duration"
PROBLEMS = [
    {
        "task_id": f"T/{i}",
        "prompt": f"def f{i}():\n",
        "entry_point": f"f{i}",
        "canonical_solution": "    return 1\n",
        "test": f"def check(candidate):\n    assert {i % 2} == 0\n",
    }
    for i in range(4)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scoring")
    tiny_models.save_folder(tiny_models.gpt_bigcode(vocab_size=393), folder / "model")
    (folder / "problems.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in PROBLEMS))
    return folder


@pytest.fixture(scope="module")
def opened(place):
    from wizardcoder_jax.hf.load_model import open_model

    return open_model(str(place / "model"))


@pytest.fixture(scope="module")
def model(opened):
    from wizardcoder_jax.core.sharding import RULES

    return opened.weights(RULES["fsdp"], make_mesh("1x1"), jnp.float32).model


def settings(place, **changes):
    chosen = {"benchmark": "humaneval", "benchmark_file": str(place / "problems.jsonl"), "max_length": 60, "batch_size": 2}
    return ValidationConfig(**{**chosen, "protocol": "completion", "num_logged": 2, **changes})


def examiner(place, opened, **changes):
    return BenchmarkEvaluator(settings(place, **changes), opened.tokenizer, opened.arch.max_positions, jnp.float32)


def with_answers(monkeypatch, body):
    """The model's answers stand fixed, so that the score is known."""
    monkeypatch.setattr(BenchmarkEvaluator, "_generate_answers", lambda self, *_: dict.fromkeys(self._prompts, body))


def test_the_score_is_the_share_of_problems_whose_program_passes(place, opened, model, monkeypatch):
    with_answers(monkeypatch, "    return 1\n")
    score = examiner(place, opened).evaluate(model, make_mesh("1x1"))
    assert (score.pass_at_1, score.num_problems) == (0.5, 4)  # the tests of half of them hold
    assert [(asked.task_id, asked.answer) for asked in score.answers] == [("T/0", "    return 1\n"), ("T/1", "    return 1\n")]
    assert score.answers[0].prompt == "def f0():\n"


def test_later_examinations_compile_nothing(place, opened, model):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    try:
        examined = examiner(place, opened, batch_size=3)  # a size of its own: nothing was compiled for it
        first = examined.evaluate(model, make_mesh("1x1"))
        num_first = compiled.count(COMPILED)
        changed = jax.tree.map(lambda leaf: leaf * 1.5, model)
        compiled.clear()
        second = examined.evaluate(changed, make_mesh("1x1"))
    finally:
        jax.monitoring.clear_event_listeners()
    assert num_first > 0 == compiled.count(COMPILED)
    assert first.answers != second.answers  # the weights are those that were handed over, not the first ones


def test_weights_are_cast_for_sampling_and_the_master_weights_stay(model):
    copy = copy_engine_weights(model, make_mesh("1x1"), jnp.dtype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(copy)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.float32)}
    assert len(copy.blocks) == len(new_cache(copy, 1, 8, jnp.dtype(jnp.float32))) == model.arch.num_layers


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"benchmark": "no-such"}, "no benchmark 'no-such'"),
        ({"protocol": "chat"}, "has no chat template"),
        ({"protocol": "stored"}, "has no prompt to sample with"),
        ({"max_length": 5}, "the prompt of T/0 has"),
        ({"max_length": 257}, "validation.max_length 257 exceeds the model's 256 positions"),
    ],
)
def test_what_cannot_be_examined_is_refused_before_training(place, opened, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        examiner(place, opened, **changes)


def test_a_missing_sandbox_is_refused_before_training(place, opened, monkeypatch):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda *_, **__: None)
    monkeypatch.setenv("WIZARDCODER_SANDBOX", "bubblewrap")  # not the next tier
    with pytest.raises(InputError, match="bubblewrap"):
        examiner(place, opened)


@pytest.fixture(scope="module")
def one_device(place):
    done = run_python("-c", EXAMINATIONS, place / "model", "1x1:fsdp", "2x4:fsdp", "2x4:fsdp_tensor", num_devices=8)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_mesh_gives_the_answers_of_one_device_under_every_strategy(one_device):
    assert one_device[0] == one_device[1] == one_device[2]
    assert one_device[0][1] == len(one_device[0][2]) == 3 and any(one_device[0][2])


def test_two_processes_find_what_one_finds(place, one_device):
    run = start_together(2, "-c", EXAMINATIONS, place / "model", "2x4:fsdp", num_devices=4)
    said = [process.communicate(timeout=300) for process in run]
    assert [process.returncode for process in run] == [0, 0], said[0][1][-3000:]
    # Gloo, which joins CPU processes, talks on stdout too
    assert [json.loads(out.splitlines()[-1]) for out, _ in said] == [one_device[0], one_device[0]]


def test_stop_strings_are_those_of_the_protocol_for_the_benchmark():
    benchmark = load_benchmark("mini")
    assert set(PromptSet.of_benchmark(benchmark, get_protocol("completion")).stops) == set(HUMANEVAL_STOPS)
    assert "\n```\n" in PromptSet.of_benchmark(benchmark, get_protocol("evalplus")).stops
    wizardcoder = PromptSet.of_benchmark(benchmark, get_protocol("wizardcoder-humaneval-v1"))
    assert wizardcoder.stops == () and wizardcoder.stop_condition(Spelling()) is None


class Spelling:
    """A tokenizer whose tokens are characters."""

    def encode(self, text):
        return [ord(character) for character in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def chat_prompt(self, message):
        return f"<user>{message}<assistant>"


def test_a_completion_is_stopped_and_an_evalplus_answer_begins_in_its_fence():
    benchmark, spelling = load_benchmark("mini").first(1), Spelling()
    stopped = PromptSet.of_benchmark(benchmark, get_protocol("completion")).stop_condition(spelling)
    assert stopped(spelling.encode("    return 1\nprint")) and not stopped(spelling.encode("    return 1\n"))
    (ids,) = PromptSet.of_benchmark(benchmark, get_protocol("evalplus")).prompt_ids(spelling, 10_000).values()
    assert spelling.decode(ids).endswith("<assistant>" + EVALPLUS_ANSWER_PREFIX)

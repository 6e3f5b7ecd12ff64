import json

import jax
import jax.numpy as jnp
import pytest

from tests.helpers import tiny_models
from tests.helpers.processes import run_python, start_together
from wizardcoder_jax.config.train import ValidationConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.evaluation.benchmark_evaluator import BenchmarkEvaluator
from wizardcoder_jax.inference.decode_state import new_cache
from wizardcoder_jax.inference.engine_weights import copy_engine_weights
from wizardcoder_jax.sandbox import bubblewrap

# Evaluates the model of a folder as a training would, on each given mesh under each strategy, and prints the scores.
EVALUATIONS = """
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
    print(json.dumps([score.pass_at_1, score.num_problems, [answered.answer for answered in score.answers]]), flush=True)
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
    folder = tmp_path_factory.mktemp("evaluator")
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


def evaluator(place, opened, **changes):
    return BenchmarkEvaluator(settings(place, **changes), opened.tokenizer, opened.arch.max_positions, jnp.float32)


def replace_answers(monkeypatch, body):
    """Replace the model's answers, so that the score is known."""
    monkeypatch.setattr(BenchmarkEvaluator, "_generate_answers", lambda self, *_: dict.fromkeys(self._prompts, body))


def test_the_score_is_the_fraction_of_problems_with_a_passing_program(place, opened, model, monkeypatch):
    replace_answers(monkeypatch, "    return 1\n")
    score = evaluator(place, opened).evaluate(model, make_mesh("1x1"))
    assert (score.pass_at_1, score.num_problems) == (0.5, 4)  # the tests of every other problem pass
    answers = [(answered.task_id, answered.answer) for answered in score.answers]
    assert answers == [(task_id, "    return 1\n") for task_id in ("T/0", "T/1")]
    assert score.answers[0].prompt == "def f0():\n"


def test_later_evaluations_compile_nothing(place, opened, model):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    try:
        evaluated = evaluator(place, opened, batch_size=3)  # a batch size that no other test has compiled
        first = evaluated.evaluate(model, make_mesh("1x1"))
        num_first = compiled.count(COMPILED)
        changed = jax.tree.map(lambda leaf: leaf * 1.5, model)
        compiled.clear()
        second = evaluated.evaluate(changed, make_mesh("1x1"))
    finally:
        jax.monitoring.clear_event_listeners()
    assert num_first > 0 == compiled.count(COMPILED)
    assert first.answers != second.answers  # each evaluation uses the weights it is given


def test_weights_are_cast_for_sampling_and_the_master_weights_are_unchanged(model):
    copy = copy_engine_weights(model, make_mesh("1x1"), jnp.dtype(jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(copy)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype(jnp.float32)}
    assert len(copy.blocks) == len(new_cache(copy, 1, 8, jnp.dtype(jnp.float32))) == model.arch.num_layers


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"benchmark": "no-such"}, "unknown benchmark 'no-such'"),
        ({"protocol": "chat"}, "has no chat template"),
        ({"protocol": "stored"}, "has no prompt to sample with"),
        ({"max_length": 5}, "the prompt of T/0 has"),
        ({"max_length": 257}, "validation.max_length 257 exceeds the model's 256 positions"),
    ],
)
def test_settings_that_cannot_be_evaluated_are_errors_before_training(place, opened, changes, message):
    with pytest.raises(InputError, match=message):
        evaluator(place, opened, **changes)


def test_a_missing_sandbox_is_an_error_before_training(place, opened, monkeypatch):
    monkeypatch.setattr(bubblewrap.shutil, "which", lambda *_, **__: None)
    monkeypatch.setenv("WIZARDCODER_SANDBOX", "bubblewrap")  # do not fall back to Landlock
    with pytest.raises(InputError, match="bubblewrap"):
        evaluator(place, opened)


def summary(score):
    return [score.pass_at_1, score.num_problems, [answered.answer for answered in score.answers]]


@pytest.fixture(scope="module")
def score_of_one_device(opened, model):
    chosen = {"limit": 3, "batch_size": 2, "max_length": 256, "num_logged": 3, "protocol": "completion"}
    validation = ValidationConfig(benchmark="mini-dev", **chosen)
    evaluator = BenchmarkEvaluator(validation, opened.tokenizer, opened.arch.max_positions, jnp.float32)
    score = summary(evaluator.evaluate(model, make_mesh("1x1")))
    assert score[1] == len(score[2]) == 3 and any(score[2])
    return score


@pytest.mark.slow
def test_two_processes_on_a_mesh_give_the_score_and_answers_of_one_device(place, score_of_one_device):
    run = start_together(2, "-c", EVALUATIONS, place / "model", "2x4:fsdp", num_devices=4)
    outputs = [process.communicate(timeout=1200) for process in run]
    assert [process.returncode for process in run] == [0, 0], outputs[0][1][-3000:]
    # Gloo, which connects CPU processes, also prints to stdout.
    assert [json.loads(out.splitlines()[-1]) for out, _ in outputs] == [score_of_one_device, score_of_one_device]


@pytest.mark.slow
def test_every_strategy_on_a_mesh_gives_the_answers_of_one_device(place, score_of_one_device):
    done = run_python("-c", EVALUATIONS, place / "model", "2x4:fsdp", "2x4:fsdp_tensor", num_devices=8, timeout_s=1200)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [json.loads(line) for line in done.stdout.splitlines()] == [score_of_one_device, score_of_one_device]

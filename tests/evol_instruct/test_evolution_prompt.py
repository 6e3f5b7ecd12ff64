from collections import Counter

import pytest

from wizardcoder_jax.evol_instruct.code_tasks import TASK_NAMES, TASKS
from wizardcoder_jax.evol_instruct.evolution_prompt import EvolutionSampler
from wizardcoder_jax.evol_instruct.languages import LANGUAGE_NAMES
from wizardcoder_jax.evol_instruct.methods import BREADTH, METHODS
from wizardcoder_jax.evol_instruct.records import Record, seed_id
from wizardcoder_jax.evol_instruct.teacher_artifacts import find_leaked_words

pytestmark = pytest.mark.quick

CODE = "def f(x):\n    return {x}"


def record(instruction="Do it.", task="generate", language=None, **fields):
    id_ = seed_id(instruction, "y", task, language)
    fields = {"id": id_, "seed_id": id_, "parent_id": None, "round": 0, "method": None, **fields}
    return Record(instruction=instruction, output="y", teacher=None, task=task, language=language, **fields)


def test_the_prompts_for_generate_are_exactly_the_papers():
    parent = record("Sort {these}.")
    request = EvolutionSampler(run_seed=0).sample(parent, 1)
    assert request.prompt == request.method.prompt("Sort {these}.")
    assert request.answer_prompt("Sort {those}.") == "Sort {those}."
    assert (request.language, request.candidate("x", "stop").task) == (None, "generate")


@pytest.mark.parametrize("task", TASK_NAMES)
def test_every_task_has_its_own_five_methods_and_includes_the_whole_instruction(task):
    prompts = {TASKS[task].evolution_prompt(method, CODE, None) for method in (*METHODS, BREADTH)}
    assert len(prompts) == 6
    assert all(prompt.endswith(f"\n\n{CODE}") and TASKS[task].subject in prompt for prompt in prompts)
    assert all(TASKS[task].kept in prompt for prompt in prompts)
    answer = TASKS[task].answer_prompt(CODE)
    assert answer.startswith(CODE) and (answer == CODE) == (task == "generate")


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_teacher_that_repeats_the_prompt_is_detected(task):
    for method in (*METHODS, BREADTH):
        first_line = TASKS[task].evolution_prompt(method, CODE, "rust").split("\n")[0]
        assert find_leaked_words(first_line, CODE)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_a_language_adds_one_line_to_the_prompt(task):
    plain = TASKS[task].evolution_prompt(METHODS[1], CODE, None)
    asked = TASKS[task].evolution_prompt(METHODS[1], CODE, "cpp")
    (line,) = [line for line in asked.split("\n") if line not in plain.split("\n")]
    assert "C++" in line and asked.replace(f"{line}\n\n", "") == plain


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_task_and_language_of_a_seed_are_kept(task):
    request = EvolutionSampler(run_seed=0).sample(record(CODE, task, "go"), 1)
    candidate = request.candidate("x", "stop")
    assert (candidate.task, candidate.language, candidate.parent_instruction) == (task, "go", CODE)
    assert LANGUAGE_NAMES["go"] in request.prompt


def test_languages_are_sampled_uniformly_once_per_seed_for_generate_only():
    sampler = EvolutionSampler(run_seed=1, languages=("python", "rust", "go"))
    seeds = [record(f"Do {i}.") for i in range(600)]
    drawn = {seed.id: sampler.sample(seed, 1).language for seed in seeds}
    assert all(150 < count < 250 for count in Counter(drawn.values()).values()) and len(set(drawn.values())) == 3
    child = record("Harder.", id="evol-1", seed_id=seeds[0].id, language=drawn[seeds[0].id], round=1)
    assert sampler.sample(child, 2).language == drawn[seeds[0].id]
    assert sampler.sample(record(CODE, "explain", "java"), 1).language == "java"
    assert any(
        EvolutionSampler(run_seed=2, languages=sampler.languages).sample(seed, 1).language != drawn[seed.id] for seed in seeds
    )


def test_sampler_settings_reach_the_request():
    parent = record()
    assert EvolutionSampler(run_seed=0, breadth_rate=1.0).sample(parent, 1).method is BREADTH
    assert EvolutionSampler(run_seed=0, method_weights=(0, 0, 0, 1, 0)).sample(parent, 1).method is METHODS[3]

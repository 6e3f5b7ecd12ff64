import pytest

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.problem import HUMANEVAL_STOPS
from wizardcoder_jax.benchmarks.prompts import EVALPLUS_ANSWER_PREFIX
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.evaluation.prompt_set import PromptSet

pytestmark = pytest.mark.quick


class CharacterTokenizer:
    """A tokenizer in which each character is a token."""

    def encode(self, text):
        return [ord(character) for character in text]

    def decode(self, ids):
        return "".join(map(chr, ids))

    def chat_prompt(self, message):
        return f"<user>{message}<assistant>"


def prompt_set(protocol, num_problems=None):
    return PromptSet.of_benchmark(load_benchmark("mini").first(num_problems), get_protocol(protocol))


def test_stop_strings_are_those_of_the_protocol_for_the_benchmark():
    assert set(prompt_set("completion").stops) == set(HUMANEVAL_STOPS)
    assert "\n```\n" in prompt_set("evalplus").stops
    assert prompt_set("wizardcoder-humaneval-v1").stops == ()
    assert prompt_set("wizardcoder-humaneval-v1").stop_condition(CharacterTokenizer()) is None


def test_a_completion_stops_at_a_stop_string():
    tokenizer = CharacterTokenizer()
    should_stop = prompt_set("completion", 1).stop_condition(tokenizer)
    assert should_stop(tokenizer.encode("    return 1\nprint"))
    assert not should_stop(tokenizer.encode("    return 1\n"))


def test_an_evalplus_prompt_ends_with_the_beginning_of_the_answer():
    tokenizer = CharacterTokenizer()
    (ids,) = prompt_set("evalplus", 1).prompt_ids(tokenizer, 10_000).values()
    assert tokenizer.decode(ids).endswith("<assistant>" + EVALPLUS_ANSWER_PREFIX)


def test_a_prompt_that_fills_the_context_is_an_error():
    (length,) = {len(ids) for ids in prompt_set("completion", 1).prompt_ids(CharacterTokenizer(), 10_000).values()}
    with pytest.raises(InputError, match=f"has {length} tokens; raise max_length, which is {length}"):
        prompt_set("completion", 1).prompt_ids(CharacterTokenizer(), length)


def test_answers_of_a_prompts_file_are_not_cleaned():
    prompts = PromptSet(version="v", texts={"a": "Add."}, protocol=None)
    raw = "Sure:\n```python\nx\n```"
    assert prompts.clean_answer(Sample(task_id="a", sample_index=0, raw=raw)) == raw
    task_id = load_benchmark("mini").problems[0].task_id
    assert prompt_set("chat").clean_answer(Sample(task_id=task_id, sample_index=0, raw=raw)) == "x\n"

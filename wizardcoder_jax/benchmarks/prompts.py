"""The prompts of the evaluation protocols: how each protocol asks a model for a program.

Source: nlpxucan/WizardLM, WizardCoder/src/humaneval_gen.py @cd4b4cc (HumanEval wording; with two blank lines since
2023-08-26, which is variant v2), src/mbpp_gen.py @de100f9, and src/mbppplus_gen.py @76c686d with data/mbppplus.json @cf7a22d
(MBPP wordings). evalplus 0.3.1, evalplus/codegen.py and provider/utility.py (chat wording and answer prefix).
"""

from collections.abc import Sequence

from wizardcoder_jax.core.instruction_template import HEADER, wizardcoder_prompt

EVALPLUS_ANSWER_PREFIX = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n"
)
"""The text that evalplus puts at the beginning of a chat model's answer."""


def wizardcoder_humaneval_v1(problem_prompt: str) -> str:
    """Return the HumanEval prompt with one blank line before the instruction, as in training and for the published 59.8 %."""
    return wizardcoder_prompt(_python_script_instruction(problem_prompt))


def wizardcoder_humaneval_v2(problem_prompt: str) -> str:
    """Return the HumanEval prompt with two blank lines before the instruction, as in WizardCoder's code since 2023-08-26."""
    return _with_two_blank_lines(wizardcoder_humaneval_v1(problem_prompt))


def wizardcoder_mbpp(question: str, examples: Sequence[str]) -> str:
    """Return the zero-shot MBPP prompt: the question and its test examples."""
    return wizardcoder_prompt(_python_script_instruction("\n".join(["", question, "Test examples:", *examples])))


def wizardcoder_mbppplus(question: str, example: str) -> str:
    """Return the MBPP+ prompt: the question and one assertion, with two blank lines before the instruction."""
    instruction = f"{question} Your code should satisfy the following assertion:\n```python\n{example}\n```"
    return _with_two_blank_lines(wizardcoder_prompt(instruction.replace("    ", "\t")))


def chat_message(problem_prompt: str) -> str:
    """Return the user message that asks a chat model for a program; the caller applies the model's chat template."""
    return (
        "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
        f"```\n{problem_prompt.strip()}\n```\n"
    )


def _python_script_instruction(problem_prompt: str) -> str:
    """Return the instruction for a problem; every four spaces become a tab, as in WizardCoder's scripts."""
    return f"Create a Python script for this problem:\n{problem_prompt.replace('    ', chr(9))}"


def _with_two_blank_lines(prompt: str) -> str:
    return prompt.replace(f"{HEADER}\n\n", f"{HEADER}\n\n\n", 1)

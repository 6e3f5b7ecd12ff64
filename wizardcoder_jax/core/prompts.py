"""The texts that carry an instruction to the model; training, sampling and evaluation share them.

Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py and src/inference_wizardcoder.py (header and
template); src/humaneval_gen.py (HumanEval wording; two blank lines since 2023-08-26 are variant v2); src/mbpp_gen.py @de100f9
and src/mbppplus_gen.py @76c686d with data/mbppplus.json @cf7a22d (MBPP wordings).
"""

from collections.abc import Sequence

HEADER = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
RESPONSE_MARK = "### Response:"
EVALPLUS_ANSWER_PREFIX = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:\n"
    "```python\n"
)
"""How evalplus makes a chat model's answer begin (evalplus 0.3.1, evalplus/codegen.py and provider/utility.py)."""


def wizardcoder(instruction: str) -> str:
    """The prompt of training and inference; the response follows it directly."""
    return f"{HEADER}\n\n### Instruction:\n{instruction}\n\n{RESPONSE_MARK}"


def problem_instruction(problem_prompt: str) -> str:
    """The instruction that asks for a program: every four spaces of the problem become a tab, as in the original."""
    return f"Create a Python script for this problem:\n{problem_prompt.replace('    ', chr(9))}"


def wizardcoder_humaneval_v1(problem_prompt: str) -> str:
    """HumanEval prompt with one blank line before the instruction, as in training; gave the published 59.8."""
    return wizardcoder(problem_instruction(problem_prompt))


def wizardcoder_humaneval_v2(problem_prompt: str) -> str:
    """HumanEval prompt with two blank lines before the instruction: the repository's HEAD since 2023-08-26."""
    return _with_two_blank_lines(wizardcoder_humaneval_v1(problem_prompt))


def _with_two_blank_lines(prompt: str) -> str:
    return prompt.replace(f"{HEADER}\n\n", f"{HEADER}\n\n\n", 1)


def wizardcoder_mbpp(question: str, examples: Sequence[str]) -> str:
    """MBPP prompt: the question and its test examples, zero-shot."""
    return wizardcoder(problem_instruction("\n".join(["", question, "Test examples:", *examples])))


def wizardcoder_mbppplus(question: str, example: str) -> str:
    """MBPP+ prompt: the question and one assertion, with two blank lines before the instruction."""
    asked = f"{question} Your code should satisfy the following assertion:\n```python\n{example}\n```"
    return _with_two_blank_lines(wizardcoder(asked.replace("    ", "\t")))


def chat_instruction(problem_prompt: str) -> str:
    """What a chat model is asked, inside its own chat template (wording: evalplus, evalplus/codegen.py)."""
    return (
        "Please provide a self-contained Python script that solves the following problem in a markdown code block:\n"
        f"```\n{problem_prompt.strip()}\n```\n"
    )


def with_input(instruction: str, extra_input: str | None) -> str:
    """An Alpaca record's instruction and its non-empty input, joined to one instruction."""
    return f"{instruction}\n{extra_input}" if extra_input else instruction


WIZARDCODER_CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}"
    "{%- elif message['role'] == 'user' %}"
    "{%- if loop.first %}{{ '" + HEADER + "\\n\\n' }}{%- endif %}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n" + RESPONSE_MARK + "' }}"
    "{%- elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{%- endif %}{%- endfor %}"
)
"""`wizardcoder` as a chat template (Jinja): what an exported model carries."""

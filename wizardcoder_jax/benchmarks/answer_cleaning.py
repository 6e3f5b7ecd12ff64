"""Answer cleaners, one function per protocol: each extracts the completion to test from a raw answer, and never raises."""

import re
from collections.abc import Iterable

from wizardcoder_jax.benchmarks.evalplus_sanitizer import sanitize
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.core.instruction_template import HEADER, RESPONSE_MARK

_FENCED_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_MAIN_LINE, _EXAMPLE = 'if __name__ == "__main__":', "# Example usage"


def clean_wizardcoder_humaneval(raw: str, problem: Problem) -> str:
    """Clean a HumanEval answer as WizardCoder does.

    The result equals that of WizardCoder's script wherever the script does not raise an exception. The script raises one if
    the answer contains `__name__ == "__main__"` but not the exact line that it then searches for; this function leaves such
    an answer uncut. An answer that no rule matches keeps its leading and trailing whitespace.

    Source: nlpxucan/WizardLM @c75efca, WizardCoder/src/humaneval_gen.py (splitting at the response mark, replacing tabs) and
    src/process_humaneval.py --add_prompt (all other rules).
    """
    answer = _first_answer(raw).replace("\t", "    ").replace("\r", "")
    return _cut(_unfenced(answer, "```"), (_MAIN_LINE, _EXAMPLE))


def clean_wizardcoder_mbpp(raw: str, problem: Problem) -> str:
    """Clean an MBPP answer as WizardCoder does.

    Unlike for HumanEval, carriage returns are kept, a closing fence counts only at the start of a line, and the answer is
    also cut at "# Test examples".

    Source: nlpxucan/WizardLM @de100f9, WizardCoder/src/mbpp_gen.py and src/process_mbpp.py --add_prompt.
    """
    return _cut(_unfenced(_last_answer(raw).replace("\t", "    "), "\n```"), (_MAIN_LINE, _EXAMPLE, "# Test examples"))


def clean_wizardcoder_mbppplus(raw: str, problem: Problem) -> str:
    """Clean an MBPP+ answer as WizardCoder does, which also cuts it at the first "assert".

    Source: nlpxucan/WizardLM @25a86c5, WizardCoder/src/mbppplus_gen.py and src/mbppplus_process_preds.py --add_prompt.
    """
    answer = _last_answer(raw).replace("\t", "    ").replace("\r", "")
    return _cut(_unfenced(answer, "\n```"), (_MAIN_LINE, _EXAMPLE, "assert"))


def _first_answer(raw: str) -> str:
    """Return the answer without the prompt, if `raw` begins with the prompt; a second response mark ends the answer."""
    parts = raw.split(RESPONSE_MARK)
    begins_with_prompt = len(parts) > 1 and (not parts[0].strip() or parts[0].lstrip().startswith(HEADER))
    return parts[1] if begins_with_prompt else parts[0]


def _last_answer(raw: str) -> str:
    """Return the text after the last response mark, as WizardCoder's MBPP scripts do."""
    return raw.rpartition(RESPONSE_MARK)[2]


def _unfenced(answer: str, end: str) -> str:
    """Return the text between the first "```python" and the next `end`, or the whole answer if it has no "```python"."""
    start = answer.find("```python")
    if start < 0:
        return answer
    answer = answer[start:].strip().replace("```python", "")
    fence = answer.find(end)
    return answer if fence < 0 else answer[:fence].strip()


def _cut(answer: str, marks: Iterable[str]) -> str:
    """Cut the answer at the first occurrence of each mark, in turn; strip it if it was cut."""
    for mark in marks:
        start = answer.find(mark)
        answer = answer if start < 0 else answer[:start].strip()
    return answer


def clean_completion(raw: str, problem: Problem) -> str:
    """Cut a base model's completion at the first stop string; keep the indentation, which belongs to the function body."""
    ends = [end for end in map(raw.find, problem.stop_strings) if end >= 0]
    return raw[: min(ends)] if ends else raw


def clean_chat(raw: str, problem: Problem) -> str:
    """Return the first fenced code block of a chat answer (up to the end if it is not closed), or else the whole answer."""
    block = _FENCED_BLOCK.search(raw)
    return block.group(1) if block else raw


def clean_evalplus(raw: str, problem: Problem) -> str:
    """Sanitize an answer as evalplus does; prepend the prompt first if the answer does not define the entry point.

    evalplus sanitizes an instruct model's answer alone, and a base model's answer after the prompt and a newline.
    """
    if problem.entry_point is None:
        return sanitize(raw, None)
    sanitized = sanitize(raw, problem.entry_point)
    if re.search(rf"^(?:async )?def\s+{re.escape(problem.entry_point)}\b", sanitized, re.MULTILINE):
        return sanitized
    return sanitize(f"{problem.prompt}\n{raw}", problem.entry_point)


def keep_unchanged(raw: str, problem: Problem) -> str:
    """Return the answer unchanged."""
    return raw


def legacy_decode(text: str) -> str:
    """Remove spaces as decoding with clean_up_tokenization_spaces=True does; the published answers were decoded that way.

    Source: huggingface/transformers (Apache-2.0), PreTrainedTokenizerBase.clean_up_tokenization.
    """
    for before, after in _CLEAN_UP_SPACES:
        text = text.replace(before, after)
    return text


_CLEAN_UP_SPACES = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)

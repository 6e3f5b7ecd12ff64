"""From a model's raw answer to the completion that is tested; one function a protocol, all free of exceptions."""

import re
from collections.abc import Iterable

from wizardcoder_jax.benchmarks.evalplus_sanitizer import sanitize
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.core.prompts import HEADER, RESPONSE_MARK

_FENCED_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_MAIN_LINE, _EXAMPLE = 'if __name__ == "__main__":', "# Example usage"


def wizardcoder_humaneval(raw: str, problem: Problem) -> str:
    """WizardCoder's cleaning of a HumanEval answer.

    Equal to the author's wherever the author's does not raise; it raises where `__name__ == "__main__"` occurs but the
    line it then looks for does not, and ours leaves such an answer uncut. An answer that no rule touches keeps its
    leading indentation and line ends.

    Source: nlpxucan/WizardLM @c75efca, WizardCoder/src/humaneval_gen.py (split at the response mark, tabs) and
    src/process_humaneval.py --add_prompt (the rest).
    """
    answer = _first_answer(raw).replace("\t", "    ").replace("\r", "")
    return _cut(_unfenced(answer, "```"), (_MAIN_LINE, _EXAMPLE))


def wizardcoder_mbpp(raw: str, problem: Problem) -> str:
    """WizardCoder's cleaning of an MBPP answer: carriage returns stay, a fence ends at a line of its own, examples are cut too.

    Source: nlpxucan/WizardLM @de100f9, WizardCoder/src/mbpp_gen.py and src/process_mbpp.py --add_prompt.
    """
    return _cut(_unfenced(_last_answer(raw).replace("\t", "    "), "\n```"), (_MAIN_LINE, _EXAMPLE, "# Test examples"))


def wizardcoder_mbppplus(raw: str, problem: Problem) -> str:
    """WizardCoder's cleaning of an MBPP+ answer: cut at the first "assert" too.

    Source: nlpxucan/WizardLM @25a86c5, WizardCoder/src/mbppplus_gen.py and src/mbppplus_process_preds.py --add_prompt.
    """
    answer = _last_answer(raw).replace("\t", "    ").replace("\r", "")
    return _cut(_unfenced(answer, "\n```"), (_MAIN_LINE, _EXAMPLE, "assert"))


def _first_answer(raw: str) -> str:
    """The answer alone, whether or not `raw` begins with the prompt; a second mark ends it, as in the author's split."""
    parts = raw.split(RESPONSE_MARK)
    begins_with_prompt = len(parts) > 1 and (not parts[0].strip() or parts[0].lstrip().startswith(HEADER))
    return parts[1] if begins_with_prompt else parts[0]


def _last_answer(raw: str) -> str:
    """What follows the last response mark, as the author's MBPP scripts take it."""
    return raw.rpartition(RESPONSE_MARK)[2]


def _unfenced(answer: str, end: str) -> str:
    """From the first "```python" on, without any of these, up to the next `end`."""
    start = answer.find("```python")
    if start < 0:
        return answer
    answer = answer[start:].strip().replace("```python", "")
    fence = answer.find(end)
    return answer if fence < 0 else answer[:fence].strip()


def _cut(answer: str, marks: Iterable[str]) -> str:
    """Cuts at each of the marks in turn; what is cut is stripped, what is not stays as it is."""
    for mark in marks:
        start = answer.find(mark)
        answer = answer if start < 0 else answer[:start].strip()
    return answer


def completion(raw: str, problem: Problem) -> str:
    """A base model's completion: cut at the problem's first stop string, otherwise untouched (indentation is the body's)."""
    ends = [end for end in map(raw.find, problem.stop_strings) if end >= 0]
    return raw[: min(ends)] if ends else raw


def chat(raw: str, problem: Problem) -> str:
    """The first fenced code block of a chat answer (to the end where the fence is not closed), else the whole answer."""
    block = _FENCED_BLOCK.search(raw)
    return block.group(1) if block else raw


def evalplus(raw: str, problem: Problem) -> str:
    """The sanitizer of evalplus over the answer; over prompt and answer, where the answer does not define the entry point.

    evalplus reads instruct answers as a `solution`, and base models' as prompt, newline and `completion`.
    """
    if problem.entry_point is None:
        return sanitize(raw, None)
    alone = sanitize(raw, problem.entry_point)
    if re.search(rf"^(?:async )?def\s+{re.escape(problem.entry_point)}\b", alone, re.MULTILINE):
        return alone
    return sanitize(f"{problem.prompt}\n{raw}", problem.entry_point)


def stored(raw: str, problem: Problem) -> str:
    """The completion as it stands."""
    return raw


def legacy_decode(text: str) -> str:
    """What decoding with clean_up_tokenization_spaces did to a text, as in the author's published answers.

    Source: huggingface/transformers (Apache-2.0), PreTrainedTokenizerBase.clean_up_tokenization.
    """
    for before, after in _TIDIED:
        text = text.replace(before, after)
    return text


_TIDIED = (
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

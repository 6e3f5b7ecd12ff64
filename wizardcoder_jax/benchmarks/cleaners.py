"""From a model's raw answer to the completion that is tested; one function a protocol, all free of exceptions."""

import re

from wizardcoder_jax.prompts import HEADER, RESPONSE_MARK

COMPLETION_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
"""Where a base model's completion ends. Source: bigcode-evaluation-harness, bigcode_eval/tasks/humaneval.py, plus "\\n```"."""

_FENCED_BLOCK = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)


def wizardcoder_humaneval(raw: str) -> str:
    """WizardCoder's cleaning of a HumanEval answer.

    Equal to the author's wherever the author's does not raise; it raises where `__name__ == "__main__"` occurs but the
    line it then looks for does not, and ours leaves such an answer uncut. An answer that no rule touches keeps its
    leading indentation and line ends.

    Source: nlpxucan/WizardLM @c75efca, WizardCoder/src/humaneval_gen.py (split at the response mark, tabs) and
    src/process_humaneval.py --add_prompt (the rest).
    """
    answer = _after_response_mark(raw).replace("\t", "    ").replace("\r", "")
    if "```python" in answer:
        answer = answer[answer.index("```python") :].strip().replace("```python", "")
        fence = answer.find("```")
        answer = answer if fence < 0 else answer[:fence].strip()
    for mark in ('if __name__ == "__main__":', "# Example usage"):
        start = answer.find(mark)
        answer = answer if start < 0 else answer[:start].strip()
    return answer


def _after_response_mark(raw: str) -> str:
    """The answer alone, whether or not `raw` begins with the prompt; a second mark ends it, as in the author's split."""
    parts = raw.split(RESPONSE_MARK)
    begins_with_prompt = len(parts) > 1 and (not parts[0].strip() or parts[0].lstrip().startswith(HEADER))
    return parts[1] if begins_with_prompt else parts[0]


def completion(raw: str) -> str:
    """A base model's completion: cut at the first stop string, otherwise untouched (its indentation is the body's)."""
    ends = [end for end in map(raw.find, COMPLETION_STOPS) if end >= 0]
    return raw[: min(ends)] if ends else raw


def chat(raw: str) -> str:
    """The first fenced code block of a chat answer (to the end where the fence is not closed), else the whole answer."""
    block = _FENCED_BLOCK.search(raw)
    return block.group(1) if block else raw


def stored(raw: str) -> str:
    """The completion as it stands."""
    return raw

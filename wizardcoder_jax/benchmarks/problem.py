"""One problem, and a benchmark: its problems with the version they come from."""

import dataclasses

HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
"""Where a base model's completion ends. Source: bigcode-evaluation-harness, bigcode_eval/tasks/humaneval.py, plus "\\n```"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A programming problem, ready to be asked and tested."""

    task_id: str  # e.g. "HumanEval/0"
    prompt: str  # what a base model goes on from
    test: str  # trusted source that runs after the candidate and raises unless it is correct
    entry_point: str | None = None  # name of the tested function; None where there is none
    canonical_solution: str | None = None  # reference completion; None where the benchmark has none
    follows_prompt: bool = True  # a completion goes on from the prompt in the program; else it is the whole program
    sanitized_alone: bool = False  # a completion that `evalplus` has sanitized is the whole program
    helpers: tuple[str, ...] = ()  # what else of the candidate the test calls
    isolated: bool = True  # calls are all that the test needs of the candidate, so that it can run in another process
    text_name: str | None = None  # the test takes the candidate as text under this name, and runs it itself
    question: str | None = None  # what is to be written, in words
    examples: tuple[str, ...] = ()  # asserts that are shown with the question
    stop_strings: tuple[str, ...] = HUMANEVAL_STOPS  # where a base model's completion ends
    language: str = "python"
    library: str | None = None  # the group in which its score is also reported


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Problems in their published order."""

    name: str  # e.g. "humaneval"
    version: str  # where the problems come from, and a hash of that file's (decompressed) content
    problems: tuple[Problem, ...]
    timeout_s: float = 3.0  # CPU seconds of one program
    runs_anywhere: bool = True  # else which references pass depends on the installed libraries

    def first(self, limit: int | None) -> "Benchmark":
        """The benchmark cut to its first `limit` problems; None keeps all."""
        return self if limit is None else dataclasses.replace(self, problems=self.problems[:limit])

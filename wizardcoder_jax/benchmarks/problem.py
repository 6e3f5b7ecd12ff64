"""A benchmark problem, and a benchmark: its problems and their version."""

import dataclasses

HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
"""Stop strings of base models. Source: bigcode-evaluation-harness, bigcode_eval/tasks/humaneval.py, plus "\\n```"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A programming problem with its prompt and test."""

    task_id: str  # e.g. "HumanEval/0"
    prompt: str  # the text that a base model completes
    test: str  # trusted source that runs after the candidate and raises an exception unless it is correct
    entry_point: str | None = None  # name of the tested function, if there is one
    canonical_solution: str | None = None  # reference completion, if the benchmark has one
    follows_prompt: bool = True  # the program is prompt + completion; otherwise the completion alone
    sanitized_alone: bool = False  # a completion sanitized by the protocol `evalplus` is the whole program
    helpers: tuple[str, ...] = ()  # other names of the candidate that the test calls
    isolated: bool = True  # the test only calls the candidate, which can therefore run in another process
    text_name: str | None = None  # the test receives the candidate as a string under this name, and runs it itself
    question: str | None = None  # the task in words
    examples: tuple[str, ...] = ()  # asserts shown with the question
    stop_strings: tuple[str, ...] = HUMANEVAL_STOPS  # they end a base model's completion
    language: str = "python"
    library: str | None = None  # the group whose score is reported separately


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The problems of a benchmark, in their published order."""

    name: str  # e.g. "humaneval"
    version: str  # the source of the problems, and a hash of that file's decompressed content
    problems: tuple[Problem, ...]
    timeout_s: float = 3.0  # CPU seconds per program
    runs_anywhere: bool = True  # False if the installed libraries decide which references pass

    def first(self, limit: int | None) -> "Benchmark":
        """Return the benchmark with only its first `limit` problems; None keeps all."""
        return self if limit is None else dataclasses.replace(self, problems=self.problems[:limit])

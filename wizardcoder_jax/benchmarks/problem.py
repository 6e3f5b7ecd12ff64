"""The data types of benchmarks: `Problem`, and `Benchmark`, a versioned collection of problems."""

import dataclasses

HUMANEVAL_STOPS = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
"""Stop strings of base models. Source: bigcode-evaluation-harness, bigcode_eval/tasks/humaneval.py, plus "\\n```"."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A programming problem with its prompt and test."""

    task_id: str  # e.g. "HumanEval/0"
    prompt: str  # the text that a base model completes
    test: str  # trusted source code that runs after the candidate, and fails unless the candidate is correct
    entry_point: str | None = None  # name of the tested function, if there is one
    canonical_solution: str | None = None  # reference completion, if the benchmark has one
    follows_prompt: bool = True  # whether the program is prompt + completion; if not, it is the completion alone
    sanitized_alone: bool = False  # whether a completion sanitized by the protocol `evalplus` needs no prompt before it
    helpers: tuple[str, ...] = ()  # names of the candidate's other functions that the test calls
    isolated: bool = True  # whether the test only calls functions of the candidate, which can then run in another process
    text_name: str | None = None  # name of the string variable that gives the test the candidate's source
    question: str | None = None  # the task in plain English, for prompts that are built from it
    examples: tuple[str, ...] = ()  # asserts that the prompt shows after the question
    stop_strings: tuple[str, ...] = HUMANEVAL_STOPS  # strings that end a base model's completion
    language: str = "python"
    library: str | None = None  # name of the library that the problem is about; each library gets its own score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """The problems of a benchmark, in their published order."""

    name: str  # e.g. "humaneval"
    version: str  # label of the problem file, and a hash of its decompressed content
    problems: tuple[Problem, ...]
    timeout_s: float = 3.0  # CPU seconds per program
    runs_anywhere: bool = True  # whether all reference solutions pass regardless of the installed libraries

    def first(self, limit: int | None) -> "Benchmark":
        """Return the benchmark with only its first `limit` problems; None keeps all."""
        return self if limit is None else dataclasses.replace(self, problems=self.problems[:limit])

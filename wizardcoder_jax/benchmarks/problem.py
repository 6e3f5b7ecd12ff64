"""One problem, and a benchmark: its problems with the version they come from."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
    """A programming problem in HumanEval form."""

    task_id: str  # e.g. "HumanEval/0"
    prompt: str  # imports, signature and docstring: the program up to where the completion starts
    entry_point: str  # name of the function that is tested
    canonical_solution: str  # reference completion
    test: str  # defines check(candidate)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Problems in their published order."""

    name: str  # e.g. "humaneval"
    version: str  # where the problems come from, and a hash of that file's (decompressed) content
    problems: tuple[Problem, ...]

    def first(self, limit: int | None) -> "Benchmark":
        """The benchmark cut to its first `limit` problems; None keeps all."""
        return self if limit is None else dataclasses.replace(self, problems=self.problems[:limit])

"""From a sample to the program that is run, as the part that the model wrote and the part that tests it."""

import dataclasses

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.samples_file import Sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assembled:
    """A program to be run: run one after the other, its parts raise (or end with an error) unless the sample is correct."""

    candidate: str  # what the model wrote
    test: str
    entry_point: str | None  # the tested function, where the two parts can run in separate processes
    helpers: tuple[str, ...]  # what else of the candidate the test calls
    language: str


def completion_of(problem: Problem, sample: Sample, protocol: EvaluationProtocol) -> str:
    """The sample's cleaned completion: from `raw` where it is kept, else from `completion`.

    Under the protocol `stored` the completion that the file holds comes first: it is used as it stands.
    """
    ordered = (sample.completion, sample.raw) if protocol.name == "stored" else (sample.raw, sample.completion)
    text = next((text for text in ordered if text is not None), None)
    if text is None:
        raise ValueError(f"sample {sample.sample_index} of {sample.task_id} has neither raw nor completion")
    return protocol.clean(text, problem)


def candidate_of(problem: Problem, sample: Sample, protocol: EvaluationProtocol) -> str:
    """The program that the model wrote, with the problem's prompt where a completion goes on from it.

    A self-contained `solution` stands for prompt and completion; of the protocols only `evalplus` cleans it.
    """
    sanitizes = protocol.name == "evalplus"
    if sample.solution is not None:
        return protocol.clean(sample.solution, problem) if sanitizes else sample.solution
    completion = completion_of(problem, sample, protocol)
    follows = problem.follows_prompt and not (sanitizes and problem.sanitized_alone)
    return problem.prompt + completion if follows else completion


def assemble(problem: Problem, sample: Sample, protocol: EvaluationProtocol) -> Assembled:
    """The program of a sample."""
    return _assembled(problem, candidate_of(problem, sample, protocol))


def reference(problem: Problem) -> Assembled | None:
    """The program of the benchmark's own solution; None where it has none."""
    if problem.canonical_solution is None:
        return None
    return _assembled(problem, (problem.prompt if problem.follows_prompt else "") + problem.canonical_solution)


def _assembled(problem: Problem, candidate: str) -> Assembled:
    return Assembled(
        candidate=candidate if problem.text_name is None else f"{problem.text_name} = {candidate!r}\n",
        test=problem.test,
        entry_point=problem.entry_point if problem.isolated else None,
        helpers=problem.helpers,
        language=problem.language,
    )

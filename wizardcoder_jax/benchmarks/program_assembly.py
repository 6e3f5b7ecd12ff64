"""Assembles programs from the code of a sample or reference solution, followed by the problem's test."""

from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.program import PYTHON, Program


def sample_program(problem: Problem, sample: Sample, protocol: EvaluationProtocol, python: str | None = None) -> Program:
    """Return the program that tests a sample: it passes only if the sample is correct.

    Args:
        problem: the problem that the sample answers.
        sample: the model's answer, which is cleaned by the protocol.
        protocol: the protocol under which the sample is evaluated.
        python: path of the interpreter for Python programs; None for the current one.
    """
    answer = protocol.clean_answer(sample, problem)
    is_complete = sample.solution is not None or not problem.follows_prompt
    is_complete |= protocol.sanitizes and problem.sanitized_alone
    return _program(problem, answer if is_complete else problem.prompt + answer, python)


def reference_program(problem: Problem, python: str | None = None) -> Program | None:
    """Return the program that tests the problem's reference solution, or None if the problem has none."""
    if problem.canonical_solution is None:
        return None
    return _program(problem, (problem.prompt if problem.follows_prompt else "") + problem.canonical_solution, python)


def _program(problem: Problem, candidate: str, python: str | None) -> Program:
    return Program(
        candidate=candidate if problem.text_name is None else f"{problem.text_name} = {candidate!r}\n",
        test=problem.test,
        entry_point=problem.entry_point if problem.isolated else None,
        helpers=problem.helpers,
        language=problem.language,
        python=python if problem.language == PYTHON else None,
    )

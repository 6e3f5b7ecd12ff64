"""Builds the programs of a benchmark's samples and reference solutions, and runs them; does not import jax."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from wizardcoder_jax.benchmarks.evalplus_check import CallTimeout
from wizardcoder_jax.benchmarks.problem import Benchmark
from wizardcoder_jax.benchmarks.program_assembly import reference_program, sample_program
from wizardcoder_jax.benchmarks.protocols import EvaluationProtocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.sandbox.program_runner import ProgramRunner
from wizardcoder_jax.sandbox.sandbox import Sandbox
from wizardcoder_jax.sandbox.verdict import Verdict

Key = TypeVar("Key", bound=Hashable)


def sample_programs(
    benchmark: Benchmark,
    samples: Mapping[str, Sequence[Sample]],
    protocol: EvaluationProtocol,
    python: str | None = None,
) -> dict[tuple[str, int], Program]:
    """Return the program that tests each sample, by (task id, sample index), in problem order.

    Args:
        benchmark: the problems.
        samples: the samples to evaluate, by task id.
        protocol: the protocol that cleans the answers.
        python: path of the interpreter for Python programs; None for the current one.
    """
    programs: dict[tuple[str, int], Program] = {}
    for problem in benchmark.problems:
        for sample in samples.get(problem.task_id, ()):
            programs[problem.task_id, sample.sample_index] = sample_program(problem, sample, protocol, python)
    return programs


def reference_programs(benchmark: Benchmark, python: str | None = None) -> dict[str, Program]:
    """Return the program that tests each reference solution, by task id; problems without one are left out."""
    programs = {problem.task_id: reference_program(problem, python) for problem in benchmark.problems}
    return {task_id: program for task_id, program in programs.items() if program is not None}


def open_runner(timeout_s: float, num_workers: int, *, unsafe: bool = False) -> ProgramRunner:
    """Open a sandbox and return a runner for a benchmark's programs.

    A call that exceeds evalplus' own wall-clock limit for single calls counts as a timeout.

    Raises:
        InputError: programs cannot be isolated on this host.
    """
    sandbox = Sandbox.open(unsafe=unsafe)
    return ProgramRunner(sandbox, timeout_s=timeout_s, num_workers=num_workers, timeout_exceptions=(CallTimeout.__name__,))


def run_distinct(
    runner: ProgramRunner,
    programs: Mapping[Key, Program],
    known: Mapping[str, Verdict] | None = None,
    on_verdict: Callable[[str, Verdict], None] = lambda digest, verdict: None,
) -> dict[Key, Verdict]:
    """Run programs and return their verdicts; identical programs run once.

    Args:
        runner: runs the programs.
        programs: the programs, by any key.
        known: verdicts of programs that need not run again, by program digest.
        on_verdict: called with (digest, verdict) whenever a program has ended.
    """
    digests = {key: program.digest() for key, program in programs.items()}
    verdicts = dict(known or {})
    waiting = {digest: programs[key] for key, digest in digests.items() if digest not in verdicts}
    for digest, verdict in runner.run_all(waiting):
        verdicts[digest] = verdict
        on_verdict(digest, verdict)
    return {key: verdicts[digest] for key, digest in digests.items()}

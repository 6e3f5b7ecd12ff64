"""Convert hand-written seeds and evolutions to the demo's data: configs/demo/{seeds,teacher,tests}.jsonl.

    python scripts/record_round.py AUTHORED.jsonl... [--output-dir configs/demo]

Each authored line is {"instruction", "output", "tests", "evolved": {"method", "instruction", "output", "tests"}}, where `tests`
are Python asserts. The script writes the seeds, the calls that the teacher replays (evolve, answer and judge for each seed, by
the model "recorded") and the tests of every answer. The recorded token counts are 0, because no tokenizer is involved.

It writes nothing unless every entry has the method that `evolve` draws for its seed, every answer passes its tests in a fresh
process, and no entry shares a function name, problem text or long token sequence with a problem of `mini` or `mini-dev`.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import wizardcoder_jax
from wizardcoder_jax.core.record_files import read_records, write_jsonl
from wizardcoder_jax.evol_instruct.contamination.contamination_detector import ContaminationDetector
from wizardcoder_jax.evol_instruct.elimination_rules import EQUALITY_PROMPT
from wizardcoder_jax.evol_instruct.methods import draw_method
from wizardcoder_jax.evol_instruct.records import seed_id

MODEL = "recorded"
RUN_SEED = 0
TIMEOUT_S = 20
PROBLEMS_DIR = Path(wizardcoder_jax.__file__).parent / "benchmarks" / "problems"
_FENCE = re.compile(r"```python\n(.*?)```", re.DOTALL)


def main() -> int:
    """Check all authored entries and write the files. Return 1, without writing anything, if an entry has a fault, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("authored", nargs="+")
    parser.add_argument("--output-dir", type=Path, default=Path("configs/demo"))
    args = parser.parse_args()
    entries = [entry for path in args.authored for entry in read_records(path)]
    faults = [fault for place, entry in entries for fault in entry_faults(place, entry)]
    faults += repeats(entries) + list(shared_with_benchmarks(entries))
    for fault in faults:
        print(fault, file=sys.stderr)
    if faults:
        return 1
    authored = [entry for _, entry in entries]
    write_jsonl(args.output_dir / "seeds.jsonl", ({k: entry[k] for k in ("instruction", "output")} for entry in authored))
    write_jsonl(args.output_dir / "teacher.jsonl", (call for entry in authored for call in calls(entry)))
    write_jsonl(
        args.output_dir / "tests.jsonl",
        ({k: part[k] for k in ("instruction", "tests")} for entry in authored for part in (entry, entry["evolved"])),
    )
    print(f"{len(authored)} seeds and evolutions -> {args.output_dir}", file=sys.stderr)
    return 0


def entry_faults(place: str, entry: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each fault of one authored entry."""
    evolved = entry["evolved"]
    drawn = draw_method(RUN_SEED, seed_id(entry["instruction"], entry["output"]), 1).number
    if evolved["method"] != drawn:
        yield f"{place}: method {evolved['method']}, but evolve draws {drawn}"
    if evolved["instruction"] != evolved["instruction"].strip():
        yield f"{place}: the evolved instruction has leading or trailing spaces, which evolve strips"
    for label, part in (("seed", entry), ("evolution", evolved)):
        reason = failure(part["output"], part["tests"])
        if reason is not None:
            yield f"{place}: the {label}'s answer fails: {reason}"


def program(output: str) -> str | None:
    """Return the Python code in the fenced blocks of an answer, or None if there is none."""
    blocks = _FENCE.findall(output)
    return "\n".join(blocks) if blocks else None


def failure(output: str, tests: str) -> str | None:
    """Run an answer and its tests in a fresh process; return the reason for a failure, or None if the tests pass."""
    code = program(output)
    if code is None:
        return "no ```python block"
    if "assert" not in tests:
        return "no assert in its tests"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", f"{code}\n\n{tests}\n"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"still running after {TIMEOUT_S} s"
    return (done.stderr.strip().splitlines() or ["failed"])[-1] if done.returncode else None


def repeats(entries: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return a message for each instruction that occurs more than once among seeds and evolutions."""
    first: dict[str, str] = {}
    faults = []
    for place, entry in entries:
        for part in (entry, entry["evolved"]):
            key = " ".join(part["instruction"].split()).casefold()
            if key in first:
                faults.append(f"{place}: the same instruction as {first[key]}: {part['instruction'][:60]!r}")
            first.setdefault(key, place)
    return faults


def shared_with_benchmarks(entries: list[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """Yield a message for each overlap of seeds and evolutions with the problems of `mini` and `mini-dev`."""
    contamination = ContaminationDetector(str(PROBLEMS_DIR))
    problems = [problem for path in sorted(PROBLEMS_DIR.glob("*.jsonl")) for _, problem in read_records(path)]
    names = {problem["entry_point"]: problem["task_id"] for problem in problems}
    statements = {statement(problem["prompt"]): problem["task_id"] for problem in problems}
    for place, entry in entries:
        for part in (entry, entry["evolved"]):
            for name in sorted(defined_names(program(part["output"]) or "") & names.keys()):
                yield f"{place}: function {name} is the entry point of {names[name]}"
            words = statement(part["instruction"])
            for text, task_id in statements.items():
                if text in words:
                    yield f"{place}: the instruction contains the text of {task_id}"
            found = contamination.find_evidence(part["instruction"]) or contamination.find_evidence(part["output"])
            if found is not None:
                yield f"{place}: shares text with {found}"


def statement(text: str) -> str:
    """Return the lower-case words of a problem: those of its docstring up to the examples, or of the whole text without one."""
    docstring = re.search(r'"""(.*?)"""', text, re.DOTALL)
    described = docstring.group(1).split(">>>")[0] if docstring else text
    return " ".join(re.findall(r"[^\W_]+", described.lower()))


def defined_names(code: str) -> set[str]:
    """Return the names of all functions that `code` defines."""
    try:
        return {node.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.FunctionDef)}
    except SyntaxError:
        return set()


def calls(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the three calls (evolve, answer, judge) that record a seed's evolution."""
    seed, evolved = entry["instruction"], entry["evolved"]
    method = draw_method(RUN_SEED, seed_id(seed, entry["output"]), 1)
    yield _call(method.prompt(seed), evolved["instruction"])
    yield _call(evolved["instruction"], evolved["output"])
    yield _call(EQUALITY_PROMPT.format(first=seed, second=evolved["instruction"]), "Not Equal")


def _call(prompt: str, content: str) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": prompt}],
        "content": content,
        "finish_reason": "stop",
        "usage": {"prompt_tokens": 0, "completion_tokens": 0},
        "model": MODEL,
    }


if __name__ == "__main__":
    sys.exit(main())

"""Measures one GPU or TPU: agreement with the CPU, and the speed of training and sampling, here and with transformers + torch.

    python scripts/bench/accelerator.py [--output-dir DIR] [--budget-s SECONDS] [--smoke]
    python scripts/bench/accelerator.py --requirements

Weights and data are random, and nothing is downloaded. The cases run one after the other, the most informative first, each in
a process of its own. When the budget is spent, the case that is running is stopped. results.json and results.md in DIR are
replaced after every result, and are valid at any time. `--requirements` lists what must be installed in addition to jax, flax,
optax, orbax-checkpoint, transformers and torch. `--smoke` measures tiny models, on any machine.

It uses the first device, of whose memory JAX may allocate 95 %. `mfu` is 6 N T FLOPs, without attention, over the peak of the
data sheet. torch runs eagerly, with autocast to bfloat16, fused AdamW and checkpointed blocks; its logits are not chunked, and
its attention is purely causal, where ours has a mask of packed examples.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path[:0] = [str(REPOSITORY), str(Path(__file__).parent)]  # the package need not be installed

B1, B3 = "bigcode/starcoderbase-1b", "bigcode/starcoderbase-3b"
# The largest of `batches` that fits; 32 x 2048 tokens are enough to keep a device busy.
STEP = {"length": 2048, "attention": "auto", "remat": "full", "batches": [32, 16, 8, 4, 2, 1]}
DECODE = {"prompt_length": 256, "num_new": 128, "batches": [1, 8, 64, 256]}
CASES: list[dict[str, Any]] = [  # most informative first; `kind` is a function in on_device/
    {"kind": "device", "size": 8192},
    {"kind": "parity", "num_tokens": 64},
    {"kind": "attention", "length": 512},
    {"kind": "train", "model": B1, **STEP},
    {"kind": "train", "model": B3, **STEP},
    {"kind": "decode", "model": B1, "int8": False, **DECODE},
    {"kind": "torch_train", "model": B1, **STEP},
    {"kind": "train", "model": B1, **STEP, "attention": "dot"},
    {"kind": "torch_decode", "model": B1, **DECODE},
    {"kind": "decode", "model": B1, "int8": True, **DECODE},
    {"kind": "train", "model": B3, **STEP, "attention": "dot"},
    *({"kind": "train", "model": B1, **STEP, "remat": remat} for remat in ("mlp", "attention", "none")),
    {"kind": "train", "model": B1, **STEP, "length": 4096, "batches": [16, 8, 4, 2, 1]},
    {"kind": "train", "model": B1, **STEP, "length": 8192, "batches": [8, 4, 2, 1]},
]
TINY_STEP = {"length": 128, "attention": "dot", "remat": "full", "batches": [2, 1]}
TINY_DECODE = {"prompt_length": 16, "num_new": 48, "batches": [1, 2]}
SMOKE_CASES: list[dict[str, Any]] = [
    {"kind": "device", "size": 256},
    {"kind": "parity", "num_tokens": 4},
    {"kind": "attention", "length": 128},
    {"kind": "train", "model": "tiny", **TINY_STEP},
    {"kind": "decode", "model": "tiny", "int8": True, **TINY_DECODE},
    {"kind": "torch_train", "model": "tiny", **TINY_STEP},
    {"kind": "torch_decode", "model": "tiny", **TINY_DECODE},
]
ASSUMED_INSTALLED = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "torch")
PLATFORMS = {"gpu": "cuda,cpu", "tpu": "tpu,cpu", "cpu": "cpu"}  # JAX_PLATFORMS by the platform of the first device
MIN_CASE_S = 5.0  # do not start a case with less time left
RESULT = "RESULT "  # start of a line that a case prints for each of its results


def main() -> None:
    """Run the cases and write the results."""
    parser = argparse.ArgumentParser(description="Measure one host with a GPU or TPUs; see the top of this file.")
    parser.add_argument("--output-dir", default="runs/accelerator", help="folder for results.json, results.md and logs")
    parser.add_argument("--budget-s", type=float, default=480.0, help="seconds after which it stops (default: 480)")
    parser.add_argument("--smoke", action="store_true", help="measure tiny models")
    parser.add_argument("--requirements", action="store_true", help="list packages to install beyond a plain jax installation")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.requirements:
        print("\n".join(list_requirements()))
    elif args.case:
        run_case(json.loads(args.case))
    else:
        run_all(SMOKE_CASES if args.smoke else CASES, Path(args.output_dir), args.budget_s)


def run_all(cases: list[dict[str, Any]], folder: Path, budget_s: float) -> None:
    """Run `cases` within `budget_s` seconds; write the results into `folder` after each."""
    deadline = time.monotonic() + budget_s
    folder.mkdir(parents=True, exist_ok=True)
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    report: dict[str, Any] = {"command": sys.argv, "started": started, "budget_s": budget_s, "results": []}
    environment = {"TF_CPP_MIN_LOG_LEVEL": "1", "HF_HUB_OFFLINE": "1", "JAX_TRACEBACK_FILTERING": "off", **os.environ}
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "wizardcoder-accelerator"))
    if "XLA_CLIENT_MEM_FRACTION" not in environment:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    write_report(folder, report)
    for number, case in enumerate(cases, start=1):
        print(f"accelerator: case {number} of {len(cases)}: {describe(case)}", file=sys.stderr, flush=True)
        for result in results_of(case, deadline, folder / "log.txt", environment):
            report["results"].append({"case": case, **result})
            write_report(folder, report)
            if result.get("platform") == "cpu" and cases is CASES:
                sys.exit("error: JAX sees only the CPU of this machine; measure tiny models on it with --smoke")
            if "platform" in result:  # from here on, a case must not fall back to the CPU
                environment["JAX_PLATFORMS"] = PLATFORMS[result["platform"]]
    print(f"accelerator: see {folder / 'results.md'}", file=sys.stderr)


def results_of(case: dict[str, Any], deadline: float, log_path: Path, environment: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Run a case in a child process and yield its results; the last one says how it ended."""
    began = time.monotonic()
    if deadline - began < MIN_CASE_S:
        yield {"status": "no time left"}
        return
    command = [sys.executable, os.path.abspath(__file__), "--case", json.dumps(case)]
    ended = {"status": "done"}
    with open(log_path, "a", encoding="utf-8") as log:
        print(f"== {describe(case)}", file=log, flush=True)
        with subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as child:
            lines: queue.Queue[str | None] = queue.Queue()
            threading.Thread(target=_read_lines, args=(child.stdout, lines), daemon=True).start()
            try:
                while (line := lines.get(timeout=max(deadline - time.monotonic(), 0.0))) is not None:
                    if line.startswith(RESULT):
                        result = json.loads(line.removeprefix(RESULT))
                        if "error" in result:
                            ended |= result
                        else:
                            yield {"status": "result", **result}
                if child.wait(timeout=max(deadline - time.monotonic(), 1.0)):
                    ended = {"error": f"exit status {child.returncode}; see log.txt", **ended, "status": "failed"}
            except (queue.Empty, subprocess.TimeoutExpired):
                ended["status"] = "stopped, the budget is spent"
            finally:
                child.kill()
    yield {**ended, "seconds": round(time.monotonic() - began, 1)}


def _read_lines(stream: Any, lines: queue.Queue) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def run_case(case: dict[str, Any]) -> None:
    """Run one case in this process and print its results, or its error, one JSON object per line."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    kind = case.pop("kind")
    try:
        module = importlib.import_module("on_device.torch_reference" if kind.startswith("torch") else "on_device.ours")
        for result in getattr(module, kind)(**case):
            finite = {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in result.items()}
            print(RESULT + json.dumps(finite), flush=True)
    except Exception as error:
        print(RESULT + json.dumps({"error": f"{type(error).__name__}: {error}"[:1000]}), flush=True)
        raise


def _exit_with_parent() -> None:
    with contextlib.suppress(OSError):
        os.read(sys.stdin.fileno(), 1)  # returns when the parent ends, even if it was killed
    os._exit(1)


def list_requirements() -> list[str]:
    """Return "name==version" of each package that a run imports and that ASSUMED_INSTALLED does not require."""
    from on_device import ours, torch_reference  # noqa: F401

    files = [getattr(module, "__file__", None) for name, module in sys.modules.items() if name.startswith("wizardcoder_jax.")]
    nodes = [node for file in files if file for node in ast.parse(Path(file).read_text(encoding="utf-8")).body]
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    distributions = importlib.metadata.packages_distributions()
    modules = {name.partition(".")[0] for name in imported} - {"wizardcoder_jax"}
    needed = _with_dependencies(name for module in modules for name in distributions.get(module, ()))
    return sorted(f"{name}=={importlib.metadata.version(name)}" for name in needed - _with_dependencies(ASSUMED_INSTALLED))


def _with_dependencies(names: Iterable[str]) -> set[str]:
    """Return the normalized names of installed packages and of all packages that they require."""
    found: set[str] = set()
    pending = list(names)
    while pending:
        name = re.sub(r"[-_.]+", "-", pending.pop()).lower()
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if name not in found and importlib.metadata.version(name):
                found.add(name)
                required = importlib.metadata.requires(name) or []
                pending += [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in required if "extra ==" not in line]
    return found


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Replace results.json and results.md, such that a reader sees the old or the new content at any time."""
    from wizardcoder_jax.core.filesystem import write_text

    write_text(folder / "results.json", json.dumps(report, indent=1, allow_nan=False))
    write_text(folder / "results.md", to_markdown(report))


def describe(case: dict[str, Any]) -> str:
    """Return a case as one line."""
    return ", ".join([case["kind"], *(f"{name} {value}" for name, value in case.items() if name != "kind")])


def to_markdown(report: dict[str, Any]) -> str:
    """Return the report as Markdown: one table for each kind of case, then the cases that did not finish."""
    lines = [f"# Accelerator report, {report['started']}", "", "`" + " ".join(report["command"]) + "`", ""]
    for kind in dict.fromkeys(result["case"]["kind"] for result in report["results"]):
        rows = [r for r in report["results"] if r["case"]["kind"] == kind and r["status"] == "result"]
        if not rows:
            continue
        settings = [name for name in rows[0]["case"] if name not in ("kind", "batches")]
        figures = list(dict.fromkeys(name for row in rows for name in row if name not in ("case", "status")))
        lines += [f"## {kind}", "", "| " + " | ".join([*settings, *figures]) + " |", "|---" * len([*settings, *figures]) + "|"]
        lines += ["| " + " | ".join(_cell(v) for v in _values(row, settings, figures)) + " |" for row in rows] + [""]
    ended = [result for result in report["results"] if result["status"] not in ("result", "done")]
    if ended:
        lines += ["## Not finished", ""]
        lines += [f"* {describe(each['case'])}: {each['status']}. {each.get('error', '')[:300]}" for each in ended]
    return "\n".join(lines) + "\n"


def _values(row: dict[str, Any], settings: list[str], figures: list[str]) -> list[Any]:
    return [*(row["case"].get(name, "") for name in settings), *(row.get(name, "") for name in figures)]


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "\\|")


if __name__ == "__main__":
    main()

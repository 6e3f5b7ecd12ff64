"""One turn of the whole loop: evolve -> measure -> train -> measure -> export -> report. Each stage is a door of its own."""

import dataclasses
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wizardcoder_jax.config import EvaluateConfig, ExportConfig, Measurement, Protocol, ReproduceConfig, SampleConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import EXIT_RESUMABLE, StoppedEarlyError
from wizardcoder_jax.core.filesystem import ensure_dir, read_json, write_json, write_text
from wizardcoder_jax.core.record_files import read_records
from wizardcoder_jax.reports.loop_report import build_loop_report, describe_score


def main(argv: Sequence[str] | None = None) -> None:
    """Runs, or goes on with, the loop in `output_dir`."""
    config = parse_command_line(ReproduceConfig, argv)
    root = Path(config.output_dir)
    loop = Loop(root)
    if config.overwrite:
        shutil.rmtree(root, ignore_errors=True)
    ensure_dir(root)
    write_json(root / "config.json", to_json(config))
    train = dataclasses.replace(config.train, output_dir=str(root / "model"))
    if config.evolve is not None:
        loop.run("evolve", "evolve", dataclasses.replace(config.evolve, output_dir=str(root / "data")))
        train = dataclasses.replace(train, data=(str(root / "data" / "evolved.jsonl"),))
    for measurement in config.measurements:
        loop.measure(config, measurement, "base", train.base, config.baseline_protocol)
        loop.measure(config, measurement, "base", train.base, config.protocol)
    loop.run("train", "train", train)
    for measurement in config.measurements:
        loop.measure(config, measurement, "tuned", train.output_dir, config.protocol)
    tuned = tuple(loop.result_file("tuned", measurement, config.protocol) for measurement in config.measurements)
    export = ExportConfig(checkpoint=train.output_dir, output=str(root / "export"), results=tuned, overwrite=True)
    loop.run("export", "export", export)

    results = {
        "scores": loop.scores,
        "data": None if config.evolve is None else read_json(root / "data" / "summary.json"),
        "training": _training(config, root / "model"),
        "stages": loop.stages,
        "environment": {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()},
        "config": to_json(config),
    }
    write_json(root / "results.json", results)
    report = build_loop_report(results)
    write_text(root / "report.md", report.to_markdown())
    write_text(root / "report.html", report.to_html())
    for score in loop.scores:
        print(describe_score(score))
    print(f"report: {root / 'report.md'}, model: {root / 'export'}")


class Loop:
    """Runs stages in order; one that an earlier run finished with the same settings, after the same stages, is passed over.

    Ctrl-C and SIGTERM are passed on to the stage, which ends in its own way; then the loop ends too.

    Args:
        root: the loop's folder.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._history = root, hashlib.sha256()
        self.stages: dict[str, dict[str, Any]] = {}  # name -> wall time and memory
        self.scores: list[dict[str, Any]] = []
        self._asked: int | None = None  # the signal that asked the loop to stop
        self._stage: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._pass_on)

    def run(self, name: str, door: str, config: Any) -> None:
        """Runs `door` with `config` in a process of its own, which gives its memory back."""
        settings = to_json(config)
        self._history.update(json.dumps([name, settings], sort_keys=True).encode())
        folder = self._root / "stages"
        record_file, fingerprint = folder / f"{name}.done.json", self._history.hexdigest()
        if record_file.exists():
            record = read_json(record_file)
            if record["fingerprint"] == fingerprint:
                self.stages[name] = record
                print(f"{name}: done already", file=sys.stderr)
                return
        print(f"== {name}", file=sys.stderr, flush=True)
        write_json(folder / f"{name}.json", settings)
        began = time.monotonic()
        peak_bytes = self._run_door(name, [f"wizardcoder_jax.{door}", "--config", str(folder / f"{name}.json")])
        wall_s = time.monotonic() - began
        self.stages[name] = {"fingerprint": fingerprint, "wall_s": wall_s, "peak_memory_bytes": peak_bytes}
        write_json(record_file, self.stages[name])

    def _run_door(self, name: str, command: list[str]) -> int:
        """Runs `python -m command` to its end; returns its peak memory in bytes."""
        self._stage = stage = subprocess.Popen([sys.executable, "-m", *command], process_group=0)
        if self._asked is not None:  # before there was a stage to pass it on to
            stage.send_signal(self._asked)
        _, status, usage = os.wait4(stage.pid, 0)
        code = stage.returncode = os.waitstatus_to_exitcode(status)
        if code == EXIT_RESUMABLE or self._asked is not None:
            raise StoppedEarlyError(f"stage {name} stopped; the same command resumes")
        if code:
            print(f"stage {name} failed; mend what it says and run the same command again", file=sys.stderr)
            sys.exit(code if code > 0 else 1)
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _pass_on(self, number: int, frame: object) -> None:
        self._asked = number
        if self._stage is not None:
            self._stage.send_signal(number)

    def result_file(self, label: str, measurement: Measurement, protocol: Protocol) -> str:
        """Where the scores of one measurement go."""
        return str(self._root / "scores" / f"{label}-{measurement.benchmark}-{protocol}.json")

    def measure(self, config: ReproduceConfig, measurement: Measurement, label: str, model: str, protocol: Protocol) -> None:
        """Samples greedy answers and scores them."""
        output = self.result_file(label, measurement, protocol)
        name = Path(output).stem
        samples = self._root / "samples" / f"{name}.jsonl"
        sample = SampleConfig(
            model=model,
            benchmark=measurement.benchmark,
            limit=measurement.limit,
            protocol=protocol,
            max_length=config.max_length,
            batch_size=config.sample_batch_size,
            output=str(samples),
        )
        self.run(f"sample-{name}", "sample", sample)
        evaluate = EvaluateConfig(benchmark=measurement.benchmark, limit=measurement.limit, samples=str(samples), output=output)
        self.run(f"evaluate-{name}", "evaluate", evaluate)
        result = read_json(output)
        score = {"model": label, "pass_at_1": result["pass_at_k"]["1"], "confidence_95": result["confidence_95"]["1"]}
        kept = ("benchmark", "benchmark_version", "protocol", "num_problems", "sandbox")
        self.scores.append({**{key: result[key] for key in kept}, **score})


def _training(config: ReproduceConfig, run_dir: Path) -> dict[str, Any]:
    entries = [entry for _, entry in read_records(run_dir / "metrics.jsonl")]
    return {
        "base": config.train.base,
        "batch_size": config.train.batch_size,
        "max_length": config.train.max_length,
        "peak_lr": config.train.optim.peak_lr,
        "first": entries[0],
        "last": entries[-1],
        "tokens_per_s": statistics.median(entry["tokens_per_s"] for entry in entries),
    }


if __name__ == "__main__":
    run_command(main)

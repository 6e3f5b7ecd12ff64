"""Run the whole loop: evolve -> evaluate the base model -> train -> evaluate -> export -> report. Each stage is a command."""

import dataclasses
import hashlib
import json
import logging
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

logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Run or resume the loop in `output_dir`."""
    config = parse_command_line(ReproduceConfig, argv)
    root = Path(config.output_dir)
    if config.overwrite:
        shutil.rmtree(root, ignore_errors=True)
    ensure_dir(root)
    write_json(root / "config.json", to_json(config))
    stages = StageRunner(root)
    scores = _run_stages(config, stages, root)
    results = {
        "scores": scores,
        "data": None if config.evolve is None else read_json(root / "data" / "summary.json"),
        "training": _summarize_training(config, root / "model"),
        "stages": stages.records,
        "environment": {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()},
        "config": to_json(config),
    }
    write_json(root / "results.json", results)
    report = build_loop_report(results)
    write_text(root / "report.md", report.to_markdown())
    write_text(root / "report.html", report.to_html())
    for score in scores:
        print(describe_score(score))
    print(f"report: {root / 'report.md'}, model: {root / 'export'}")


def _run_stages(config: ReproduceConfig, stages: "StageRunner", root: Path) -> list[dict[str, Any]]:
    """Run all stages in order and return the scores before and after training."""
    scores = []
    train = dataclasses.replace(config.train, output_dir=str(root / "model"))
    if config.evolve is not None:
        stages.run("evolve", "evolve", dataclasses.replace(config.evolve, output_dir=str(root / "data")))
        train = dataclasses.replace(train, data=(str(root / "data" / "evolved.jsonl"),))
    for measurement in config.measurements:
        for protocol in (config.baseline_protocol, config.protocol):
            scores.append(_measure(config, stages, root, measurement, "base", train.base, protocol))
    stages.run("train", "train", train)
    for measurement in config.measurements:
        scores.append(_measure(config, stages, root, measurement, "tuned", train.output_dir, config.protocol))
    tuned = tuple(str(_result_file(root, "tuned", measurement, config.protocol)) for measurement in config.measurements)
    export = ExportConfig(checkpoint=train.output_dir, output=str(root / "export"), results=tuned, overwrite=True)
    stages.run("export", "export", export)
    return scores


def _result_file(root: Path, label: str, measurement: Measurement, protocol: Protocol) -> Path:
    return root / "scores" / f"{label}-{measurement.benchmark}-{protocol}.json"


def _measure(
    config: ReproduceConfig,
    stages: "StageRunner",
    root: Path,
    measurement: Measurement,
    label: str,
    model: str,
    protocol: Protocol,
) -> dict[str, Any]:
    """Sample greedy answers from a model, evaluate them, and return the score. `label` is "base" or "tuned"."""
    output = _result_file(root, label, measurement, protocol)
    name = output.stem
    samples = root / "samples" / f"{name}.jsonl"
    sample = SampleConfig(
        model=model,
        benchmark=measurement.benchmark,
        limit=measurement.limit,
        protocol=protocol,
        max_length=config.max_length,
        batch_size=config.sample_batch_size,
        output=str(samples),
    )
    stages.run(f"sample-{name}", "sample", sample)
    evaluate = EvaluateConfig(
        benchmark=measurement.benchmark, limit=measurement.limit, samples=str(samples), output=str(output)
    )
    stages.run(f"evaluate-{name}", "evaluate", evaluate)
    result = read_json(output)
    score = {"model": label, "pass_at_1": result["pass_at_k"]["1"], "confidence_95": result["confidence_95"]["1"]}
    copied = ("benchmark", "benchmark_version", "protocol", "num_problems", "sandbox")
    return {**{key: result[key] for key in copied}, **score}


class StageRunner:
    """Runner of stages. It skips a stage that has already finished, unless a setting of it or of an earlier stage has changed.

    Ctrl-C and SIGTERM are forwarded to the running stage, which stops as its command does; then the loop stops too.

    Args:
        root: output folder of the loop.

    Attributes:
        records: fingerprint, wall time and peak memory of each finished stage, by its name.
    """

    def __init__(self, root: Path) -> None:
        self._folder, self._history = root / "stages", hashlib.sha256()
        self.records: dict[str, dict[str, Any]] = {}
        self._received: int | None = None  # signal that asked the loop to stop
        self._process: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._forward)

    def run(self, name: str, command: str, config: Any) -> None:
        """Run a command with `config` in a separate process, which frees its memory when it ends."""
        settings = to_json(config)
        self._history.update(json.dumps([name, settings], sort_keys=True).encode())
        record_file, fingerprint = self._folder / f"{name}.done.json", self._history.hexdigest()
        if record_file.exists():
            record = read_json(record_file)
            if record["fingerprint"] == fingerprint:
                self.records[name] = record
                logger.info("%s: already done", name)
                return
        logger.info("== %s", name)
        settings_file = self._folder / f"{name}.json"
        write_json(settings_file, settings)
        started = time.monotonic()
        peak_bytes = self._run_process(name, [f"wizardcoder_jax.{command}", "--config", str(settings_file)])
        wall_s = time.monotonic() - started
        self.records[name] = {"fingerprint": fingerprint, "wall_s": wall_s, "peak_memory_bytes": peak_bytes}
        write_json(record_file, self.records[name])

    def _run_process(self, name: str, arguments: list[str]) -> int:
        """Run `python -m ARGUMENTS` to its end and return its peak memory in bytes."""
        self._process = process = subprocess.Popen([sys.executable, "-m", *arguments], process_group=0)
        if self._received is not None:  # the signal arrived before the process started
            process.send_signal(self._received)
        _, status, usage = os.wait4(process.pid, 0)
        code = process.returncode = os.waitstatus_to_exitcode(status)
        if code == EXIT_RESUMABLE or self._received is not None:
            raise StoppedEarlyError(f"stage {name} stopped early; the same command resumes")
        if code:
            logger.error("stage %s failed; fix the error above and rerun the same command", name)
            sys.exit(code if code > 0 else 1)
        return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _forward(self, number: int, frame: object) -> None:
        self._received = number
        if self._process is not None:
            self._process.send_signal(number)


def _summarize_training(config: ReproduceConfig, run_dir: Path) -> dict[str, Any]:
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

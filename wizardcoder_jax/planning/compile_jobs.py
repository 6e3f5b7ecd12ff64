"""Compilation of programs in child processes, and collection of what the compiler reports."""

import dataclasses
import glob
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.serialization import to_json
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.hlo_reader import Collective, CompiledProgram
from wizardcoder_jax.planning.memory_report import Buffer, parse_memory_report, parse_required_bytes
from wizardcoder_jax.planning.topology import LIBTPU_ENVIRONMENT, Topology

LIBTPU = os.path.join(sys.prefix, "libtpu")  # put here by `make setup`; on sys.path it would make JAX look for TPUs
NUM_LARGEST = 8  # number of buffers in a report
LOG_EVERY_S = 15.0  # seconds between progress messages

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileResult:
    """Memory and costs of a program on one chip, as reported by the compiler."""

    fits: bool  # whether the program fits in HBM
    hbm_bytes: int  # bytes of HBM in total
    state_bytes: dict[str, int]  # kind ("params", "optimizer", "weights", "cache") -> bytes kept between calls
    largest: list[Buffer]  # the largest buffers
    program: CompiledProgram | None  # None if only memory was requested, or if the program does not fit
    host_bytes: int  # bytes of host memory
    compile_s: float  # seconds of compilation


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileJob:
    """A program to compile."""

    name: str  # name of the program in messages
    topology: Topology
    mesh: str  # sizes of the mesh, DATAxMODEL
    arch: ArchConfig
    settings: dict[str, Any]  # settings of the program: {"train": ...} or {"decode": ...}

    @classmethod
    def of_step(cls, topology: Topology, arch: ArchConfig, config: TrainConfig) -> "CompileJob":
        """Return the job that compiles the train step."""
        return cls(name="train step", topology=topology, mesh=config.mesh, arch=arch, settings={"train": to_json(config)})

    @classmethod
    def of_decode(
        cls, topology: Topology, arch: ArchConfig, mesh: str, *, batch_size: int, cache_length: int, int8: bool
    ) -> "CompileJob":
        """Return the job that compiles greedy decoding in bfloat16, with bfloat16 or int8 weights."""
        settings = {"batch_size": batch_size, "cache_length": cache_length, "dtype": "bfloat16", "int8": int8}
        name = f"decoding with {'int8' if int8 else 'bfloat16'} weights"
        return cls(name=name, topology=topology, mesh=mesh, arch=arch, settings={"decode": settings})


def compile_job(job: CompileJob, *, memory_only: bool = False) -> CompileResult:
    """Compile a program in a child process.

    Args:
        job: the program.
        memory_only: stop as soon as the memory is known (less than a minute); a full compilation can take several minutes.

    Raises:
        InputError: the topology's compiler is missing, or rejects the program for a reason other than memory.
    """
    with tempfile.TemporaryDirectory(prefix="plan-") as folder:
        path, log = os.path.join(folder, "job.json"), os.path.join(folder, "log")
        content = {"topology": job.topology.name, "mesh": job.mesh, "arch": dataclasses.asdict(job.arch), **job.settings}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(content, file)
        command = [sys.executable, "-m", "wizardcoder_jax.planning.compile_worker", path, folder]
        with open(log, "wb") as output:
            child = subprocess.Popen(command, env=compiler_environment(), stdout=output, stderr=output)
        started = logged_at = time.monotonic()
        try:
            while child.poll() is None and not (memory_only and _find_report(folder) is not None):
                time.sleep(0.2)
                if time.monotonic() - logged_at >= LOG_EVERY_S:
                    logged_at = time.monotonic()
                    where = f"{job.topology.name}, mesh {job.mesh}"
                    logger.info("plan: still compiling the %s for %s after %.0f s", job.name, where, logged_at - started)
        finally:
            child.kill()
            child.wait()
        with open(log, encoding="utf-8", errors="replace") as file:
            return _collect(job, folder, file.read(), time.monotonic() - started)


def compiler_environment() -> dict[str, str]:
    """Return the environment variables with which a process finds libtpu and compiles for TPUs without looking for hardware."""
    folders = [os.environ.get("PYTHONPATH"), LIBTPU]
    return {**os.environ, **LIBTPU_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, folders))}


def _collect(job: CompileJob, folder: str, log: str, seconds: float) -> CompileResult:
    """Build the result from the files in `folder` and the child's output."""
    report, required = _find_report(folder), parse_required_bytes(log)
    state, result = _read_json(folder, "state.json"), _read_json(folder, "result.json")
    if state is None or (result is None and report is None and required is None):
        error = next((line for line in log.splitlines() if line.startswith("error: ")), None)
        reason = f"the compiler failed: {' '.join(log.split())[-600:]}" if error is None else error.removeprefix("error: ")
        raise InputError(f"{job.name} on {job.topology.name}, mesh {job.mesh}: {reason}")
    total = report[0] if report else result["peak_bytes"] if result else required or 0
    return CompileResult(
        fits=total <= job.topology.chip.hbm_bytes and required is None,
        hbm_bytes=total,
        state_bytes=state,
        largest=report[1] if report else [],
        program=_parse_program(result["program"]) if result else None,
        host_bytes=result["host_bytes"] if result else 0,
        compile_s=result["compile_s"] if result else seconds,
    )


def _find_report(folder: str) -> tuple[int, list[Buffer]] | None:
    for path in glob.glob(f"{folder}/*jit_*memory-usage-report.txt"):
        with open(path, encoding="utf-8") as file:
            found = parse_memory_report(file.read(), NUM_LARGEST)
        if found is not None:
            return found
    return None


def _read_json(folder: str, name: str) -> dict[str, Any] | None:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _parse_program(content: dict[str, Any]) -> CompiledProgram:
    return CompiledProgram(**{**content, "collectives": tuple(Collective(**entry) for entry in content["collectives"])})

"""Compiles programs in child processes, and gathers what the compiler says of them."""

import dataclasses
import glob
import json
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
from wizardcoder_jax.planning.memory_report import Buffer, bytes_when_exhausted, read_report
from wizardcoder_jax.planning.topology import ENVIRONMENT, Topology

LIBTPU = os.path.join(sys.prefix, "libtpu")  # where `make setup` puts it: all processes would look for a TPU if they found it
NUM_LARGEST = 8
SAY_EVERY_S = 15.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
    """What is known of a program on one chip; compiled, not run."""

    fits: bool
    hbm_bytes: int  # in all
    held_bytes: dict[str, int]  # between calls, by what it is: params, optimizer or weights, cache
    largest: list[Buffer]
    program: CompiledProgram | None  # None where only its memory was asked for, or where it does not fit
    host_bytes: int  # of the host's memory, beside
    compile_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompileJob:
    """A program to compile."""

    what: str  # for people
    topology: Topology
    mesh: str  # DATAxMODEL
    arch: ArchConfig
    settings: dict[str, Any]  # of the program: {"train": ...} or {"decode": ...}

    @classmethod
    def of_step(cls, topology: Topology, arch: ArchConfig, config: TrainConfig) -> "CompileJob":
        """The train step."""
        return cls(what="train step", topology=topology, mesh=config.mesh, arch=arch, settings={"train": to_json(config)})

    @classmethod
    def of_decode(
        cls, topology: Topology, arch: ArchConfig, mesh: str, *, batch: int, num_slots: int, int8: bool
    ) -> "CompileJob":
        """The sampler's greedy decoding in bfloat16, with weights in int8 or not; see `programs.lower_decode`."""
        settings = {"batch": batch, "num_slots": num_slots, "dtype": "bfloat16", "int8": int8}
        what = f"decoding with {'int8' if int8 else 'bfloat16'} weights"
        return cls(what=what, topology=topology, mesh=mesh, arch=arch, settings={"decode": settings})


def compiled(job: CompileJob, *, memory_only: bool = False) -> Compiled:
    """What the compiler says of a program.

    Args:
        job: the program.
        memory_only: stop once memory is known, within a minute; the rest takes up to several.

    Raises:
        InputError: the topology's compiler is missing, or refuses the program for another reason than its memory.
    """
    with tempfile.TemporaryDirectory(prefix="plan-") as dump:
        path, log = os.path.join(dump, "job.json"), os.path.join(dump, "log")
        told = {"topology": job.topology.name, "mesh": job.mesh, "arch": dataclasses.asdict(job.arch), **job.settings}
        with open(path, "w", encoding="utf-8") as file:
            json.dump(told, file)
        command = [sys.executable, "-m", "wizardcoder_jax.planning.compile_worker", path, dump]
        with open(log, "wb") as said:
            child = subprocess.Popen(command, env=environment(), stdout=said, stderr=said)
        began = last = time.monotonic()
        try:
            while child.poll() is None and not (memory_only and _report(dump) is not None):
                time.sleep(0.2)
                if time.monotonic() - last >= SAY_EVERY_S:
                    last = time.monotonic()
                    message = f"plan: compiling the {job.what} for {job.topology.name}, mesh {job.mesh}: {last - began:.0f} s"
                    print(message, file=sys.stderr, flush=True)
        finally:
            child.kill()
            child.wait()
        with open(log, encoding="utf-8", errors="replace") as file:
            return _gathered(job, dump, file.read(), time.monotonic() - began)


def environment() -> dict[str, str]:
    """A compiling process's: it finds the compiler for TPUs."""
    folders = [os.environ.get("PYTHONPATH"), LIBTPU]
    return {**os.environ, **ENVIRONMENT, "PYTHONPATH": os.pathsep.join(filter(None, folders))}


def _gathered(job: CompileJob, dump: str, log: str, seconds: float) -> Compiled:
    report, limit = _report(dump), job.topology.chip.hbm_bytes
    held, found = _read_json(dump, "held.json"), _read_json(dump, "found.json")
    if held is None or (found is None and report is None and bytes_when_exhausted(log) is None):
        complaint = next((line for line in log.splitlines() if line.startswith("error: ")), None)
        if complaint is None:
            complaint = f"error: the compiler ended: {' '.join(log.split())[-600:]}"
        raise InputError(f"{job.what} on {job.topology.name}, mesh {job.mesh}: {complaint.removeprefix('error: ')}")
    total = report[0] if report else found["peak_bytes"] if found else bytes_when_exhausted(log) or 0
    return Compiled(
        fits=total <= limit and bytes_when_exhausted(log) is None,
        hbm_bytes=total,
        held_bytes={name.removesuffix("_bytes"): size for name, size in held.items()},
        largest=report[1] if report else [],
        program=_program(found["program"]) if found else None,
        host_bytes=found["host_bytes"] if found else 0,
        compile_s=found["compile_s"] if found else seconds,
    )


def _report(dump: str) -> tuple[int, list[Buffer]] | None:
    for path in glob.glob(f"{dump}/*jit_*memory-usage-report.txt"):
        with open(path, encoding="utf-8") as file:
            found = read_report(file.read(), NUM_LARGEST)
        if found is not None:
            return found
    return None


def _read_json(dump: str, name: str) -> dict[str, Any] | None:
    path = os.path.join(dump, name)
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _program(told: dict[str, Any]) -> CompiledProgram:
    return CompiledProgram(**{**told, "collectives": tuple(Collective(**entry) for entry in told["collectives"])})

"""A plan and its representations as text and as plan.json. All figures come from programs that were compiled, not run."""

import collections
import dataclasses
from typing import Any

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import parse_mesh
from wizardcoder_jax.inference.engine_programs import DECODE_STEPS
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.compile_jobs import CompileResult
from wizardcoder_jax.planning.compiled_time import (
    TimeEstimate,
    estimate_time,
    ideal_step_s,
    min_decode_step_s,
    model_flops,
    splash_flops,
)
from wizardcoder_jax.planning.hlo_reader import CompiledProgram
from wizardcoder_jax.planning.memory_estimator import block_sizes
from wizardcoder_jax.planning.step_time import forward_fraction
from wizardcoder_jax.planning.topology import Topology

GIB = 2**30
LABEL = "compiled, not run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingPlan:
    """The compiled decoding program for weights of one dtype."""

    weights: str  # dtype of the weights
    mesh: str  # sizes of the mesh, DATAxMODEL
    compiled: CompileResult

    def time(self, topology: Topology) -> TimeEstimate | None:
        """Estimate the time of one call, which decodes DECODE_STEPS steps; None if it is unknown."""
        program = self.compiled.program
        return estimate_time(program, topology, 0.0) if program is not None else None

    def min_step_s(self, topology: Topology) -> float:
        """Return a lower bound of the seconds per step: the time to read weights and cache once."""
        return min_decode_step_s(sum(self.compiled.state_bytes.values()), topology.chip)

    def to_json(self, topology: Topology) -> dict[str, Any]:
        """Return this plan as an entry of "decoding" in plan.json."""
        time = self.time(topology)
        return {
            "weights": self.weights,
            "mesh": self.mesh,
            "fits": self.compiled.fits,
            "hbm_bytes_per_chip": self.compiled.hbm_bytes,
            "estimated_step_s": time and time.total_s / DECODE_STEPS,
            "estimated_step_waits_s": time and time.exposed_s / DECODE_STEPS,
            "floor_step_s": self.min_step_s(topology),
            "collective_bytes": collective_bytes(self.compiled.program, DECODE_STEPS),
        }

    def to_text(self, topology: Topology) -> str:
        """Return this plan as one line of text."""
        line = f"{self.compiled.hbm_bytes / GIB:.2f} GiB per chip" + ("" if self.compiled.fits else ", DOES NOT FIT")
        time = self.time(topology)
        if time is not None:
            step_ms, exposed_ms = 1e3 * time.total_s / DECODE_STEPS, 1e3 * time.exposed_s / DECODE_STEPS
            line += f", {step_ms:.2f} ms per step, {exposed_ms:.2f} of it exposed collectives"
            line += f" (reading weights and cache alone: {1e3 * self.min_step_s(topology):.2f})"
        return f"  {self.weights + ', mesh ' + self.mesh:<22} {line}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerifiedSuggestion:
    """Other settings, which were compiled and fit."""

    flags: str  # flags to add to the command
    hbm_bytes: int  # bytes of HBM per chip
    estimated_step_s: float  # seconds per step, estimated by arithmetic

    def to_json(self) -> dict[str, Any]:
        """Return this suggestion as an entry of "suggestions" in plan.json."""
        return {
            "flags": self.flags,
            "fits": True,
            "hbm_bytes_per_chip": self.hbm_bytes,
            "estimated_step_s": self.estimated_step_s,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a training run on a topology, and what compiling them has shown."""

    topology: Topology
    arch: ArchConfig
    train: TrainConfig
    step: CompileResult
    decoding: tuple[DecodingPlan, ...] = ()
    suggestions: tuple[VerifiedSuggestion, ...] = ()

    @property
    def time(self) -> TimeEstimate | None:
        """Time of a train step; None if only its memory is known, or if the compiler reports no cycles."""
        program = self.step.program
        if program is None:
            return None
        return estimate_time(program, self.topology, splash_flops(program, self.arch, self.train))

    @property
    def flops(self) -> float | None:
        """FLOPs of a train step over all chips, including recomputation, attention and padding; None if they are unknown."""
        program = self.step.program
        if program is None:
            return None
        return self.topology.num_chips * (program.flops + splash_flops(program, self.arch, self.train))

    @property
    def ideal_step_s(self) -> float:
        """Seconds of a train step that does only the model's FLOPs, at peak FLOPs."""
        return ideal_step_s(self.arch, self.train, self.topology)

    @property
    def microbatch(self) -> int:
        """Number of sequences per microbatch."""
        return self.train.batch_size // self.train.accumulation

    def rank(self) -> tuple[bool, float]:
        """Return a sort key: plans that fit come first, then shorter times, or less memory if no time is known."""
        time = self.time
        return (not self.step.fits, self.step.hbm_bytes if time is None else time.total_s)

    def summary(self) -> str:
        """Return the settings, memory and time in one line."""
        config, time = self.train, self.time
        memory = f"{self.step.hbm_bytes / GIB:.2f} GiB per chip" + ("" if self.step.fits else ", too much")
        seconds = f", {time.total_s:.3f} s per step" if time else ""
        flags = (
            f"--strategy {config.strategy} --mesh {config.mesh} --remat {config.remat} --accumulation {config.accumulation}"
            + (f" --loss-chunk {config.loss_chunk}" if config.loss_chunk else "")
        )
        return f"{flags} (microbatches of {self.microbatch}): {memory}{seconds}"

    def to_json(self, versions: dict[str, str]) -> dict[str, Any]:
        """Return the contents of plan.json."""
        time, config, step = self.time, self.train, self.step
        return {
            "label": LABEL,
            "topology": self.topology.name,
            "mesh": config.mesh,
            "strategy": config.strategy,
            "remat": config.remat,
            "microbatch": self.microbatch,
            "accumulation": config.accumulation,
            "loss_chunk": config.loss_chunk,
            "fits": step.fits,
            "hbm_bytes_per_chip": step.hbm_bytes,
            "hbm_limit_bytes": self.topology.chip.hbm_bytes,
            "hbm_bytes_by_kind": bytes_by_kind(step),
            "host_bytes_per_chip": step.host_bytes,
            "estimated_step_s": time and time.total_s,
            "estimated_step_parts_s": time and dataclasses.asdict(time),
            "estimated_mfu": time and self.ideal_step_s / time.total_s,
            "ideal_step_s": self.ideal_step_s,
            "flops": self.flops,
            "model_flops": model_flops(self.arch, config),
            "collective_bytes": collective_bytes(step.program),
            "largest_buffers": [{"bytes": buffer.num_bytes, "values": buffer.values} for buffer in step.largest],
            "decoding": [decoding.to_json(self.topology) for decoding in self.decoding],
            "suggestions": [suggestion.to_json() for suggestion in self.suggestions],
            "compile_s": step.compile_s,
            "versions": versions,
        }

    def to_text(self) -> str:
        """Return the plan as the table that `plan` prints."""
        config, chip, step = self.train, self.topology.chip, self.step
        lines = [
            f"{config.base} on {self.topology.name} ({self.topology.num_chips} chips), mesh {config.mesh}, strategy "
            f"{config.strategy}, remat {config.remat}, {config.accumulation} x {self.microbatch} sequences of "
            f"{config.max_length} tokens; {LABEL}",
            "",
            f"memory      {step.hbm_bytes / GIB:.2f} of {chip.hbm_bytes / GIB:.2f} GiB per chip: "
            + ("it fits" if step.fits else "IT DOES NOT FIT"),
            *(f"  {kind:<22}{size / GIB:7.2f}" for kind, size in bytes_by_kind(step).items()),
            *([f"  {'on the host':<22}{step.host_bytes / GIB:7.2f}"] if step.host_bytes else []),
            *(f"  buffer of {buffer.num_bytes / GIB:.2f}: {_shorten(buffer.values)}" for buffer in step.largest[:4]),
            *self._time_lines(),
        ]
        if self.decoding:
            lines += ["", "decoding", *(decoding.to_text(self.topology) for decoding in self.decoding)]
        if self.suggestions:
            lines += ["", "these changes fit when compiled (seconds are estimated by arithmetic):"]
            for found in self.suggestions:
                memory = f"{found.hbm_bytes / GIB:.2f} GiB per chip"
                lines.append(f"  {found.flags}: {memory}, {found.estimated_step_s:.2f} s per step")
        return "\n".join(lines)

    def _time_lines(self) -> list[str]:
        time, flops, ideal_s = self.time, self.flops, self.ideal_step_s
        needed = model_flops(self.arch, self.train)
        ideal = f"  at the peak           {ideal_s:8.3f} s for the model's {needed:.3g} FLOPs (6 N T)"
        if flops is not None:
            ideal += f"; the program does {flops / needed:.2f} times as many"
        if time is None:
            return ["", "step", ideal]
        moved = ", ".join(f"{kind} {size / 1e9:.1f} GB" for kind, size in collective_bytes(self.step.program).items())
        return [
            "",
            f"step        {time.total_s:.3f} s estimated: MFU {ideal_s / time.total_s:.1%}, "
            f"{64 * time.total_s / self.train.batch_size:.3f} s per 64 sequences",
            f"  operations            {time.operations_s:8.3f} s by the compiler's cycles",
            f"  attention kernels     {time.kernels_s:8.3f} s by their FLOPs",
            f"  exposed collectives   {time.exposed_s:8.3f} s; {time.hidden_s:.3f} s more overlap with other operations",
            f"  moved per chip        {moved or 'nothing'}",
            *self._host_lines(time.total_s),
            ideal,
        ]

    def _host_lines(self, step_s: float) -> list[str]:
        """Describe the transfers of activations to the host and back. The estimated step time does not include them."""
        sent = self.train.accumulation * self.step.host_bytes
        sizes = block_sizes(self.arch, self.train, parse_mesh(self.train.mesh))
        forward_s = step_s * forward_fraction(self.arch, self.train, sizes)
        needed = f"hidden if a chip has {sent / forward_s / 1e9:.0f} GB/s to its host"
        return [f"  to the host and back  {sent / 1e9:.0f} GB each way per chip; {needed}"] if sent else []


def bytes_by_kind(compiled: CompileResult) -> dict[str, int]:
    """Return the bytes per chip of each kind of state that is kept between calls, and of everything else."""
    state = {kind: size for kind, size in compiled.state_bytes.items() if size}
    return {**state, "activations and buffers": max(compiled.hbm_bytes - sum(state.values()), 0)}


def collective_bytes(program: CompiledProgram | None, num_runs: int = 1) -> dict[str, float]:
    """Return the bytes that each chip gathers, reduces or sends, by kind of collective, divided by `num_runs`."""
    total: collections.Counter[str] = collections.Counter()
    for found in program.collectives if program else ():
        total[found.kind] += found.num_runs * found.num_bytes
    return {kind: size / num_runs for kind, size in total.most_common()}


def _shorten(values: str, max_chars: int = 70) -> str:
    return values if len(values) <= max_chars else values[: values.rfind(",", 0, max_chars)] + ", ..."

"""A plan as people read it, and as plan.json has it. All figures are of programs that were compiled, not run."""

import collections
import dataclasses
from typing import Any

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import parse_mesh
from wizardcoder_jax.inference.decode_state import DECODE_STEPS
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.compile_jobs import Compiled
from wizardcoder_jax.planning.compiled_time import (
    TimeEstimate,
    decode_floor_s,
    estimate,
    ideal_step_s,
    model_flops,
    splash_flops,
)
from wizardcoder_jax.planning.hlo_reader import CompiledProgram
from wizardcoder_jax.planning.memory_estimator import sizes_of
from wizardcoder_jax.planning.step_time import forward_share
from wizardcoder_jax.planning.topology import Topology

GIB = 2**30
LABEL = "compiled, not run"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecodingPlan:
    """The sampler's decoding in one dtype of the weights."""

    dtype: str
    mesh: str
    compiled: Compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedSuggestion:
    """Other settings, and what the compiler says of them."""

    flags: str  # to add to the command
    hbm_bytes: int  # which fits
    estimated_step_s: float  # by arithmetic


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known of one choice of settings."""

    topology: Topology
    arch: ArchConfig
    train: TrainConfig
    step: Compiled
    decoding: tuple[DecodingPlan, ...] = ()
    suggestions: tuple[CheckedSuggestion, ...] = ()

    @property
    def time(self) -> TimeEstimate | None:
        """Of the step; None where only its memory is known, or no cycles."""
        program = self.step.program
        if program is None:
            return None
        return estimate(program, self.topology, splash_flops(program, self.arch, self.train))

    @property
    def flops(self) -> float | None:
        """Of a step over all chips, as the program has them: recomputation, attention and padding too."""
        program = self.step.program
        if program is None:
            return None
        return self.topology.num_chips * (program.flops + splash_flops(program, self.arch, self.train))

    def rank(self) -> tuple[bool, float]:
        """Less is better: one that fits, the fastest; by memory where no time is known."""
        time = self.time
        return (not self.step.fits, self.step.hbm_bytes if time is None else time.total_s)

    def summary(self) -> str:
        """One line."""
        config, time = self.train, self.time
        microbatch = config.batch_size // config.accumulation
        says = f"{self.step.hbm_bytes / GIB:.2f} GiB a chip" + ("" if self.step.fits else ", too much")
        took = f", {time.total_s:.3f} s a step" if time else ""
        chosen = (
            f"--strategy {config.strategy} --mesh {config.mesh} --remat {config.remat} --accumulation {config.accumulation}"
            + (f" --loss-chunk {config.loss_chunk}" if config.loss_chunk else "")
        )
        return f"{chosen} (microbatches of {microbatch}): {says}{took}"

    def to_json(self, versions: dict[str, str]) -> dict[str, Any]:
        """plan.json."""
        time, ideal_s, config = self.time, ideal_step_s(self.arch, self.train, self.topology), self.train
        return {
            "label": LABEL,
            "topology": self.topology.name,
            "mesh": config.mesh,
            "strategy": config.strategy,
            "remat": config.remat,
            "microbatch": config.batch_size // config.accumulation,
            "accumulation": config.accumulation,
            "loss_chunk": config.loss_chunk,
            "fits": self.step.fits,
            "hbm_bytes_per_chip": self.step.hbm_bytes,
            "hbm_limit_bytes": self.topology.chip.hbm_bytes,
            "hbm_bytes_by_kind": by_kind(self.step),
            "host_bytes_per_chip": self.step.host_bytes,
            "estimated_step_s": time and time.total_s,
            "estimated_step_parts_s": time and dataclasses.asdict(time),
            "estimated_mfu": time and ideal_s / time.total_s,
            "ideal_step_s": ideal_s,
            "flops": self.flops,
            "model_flops": model_flops(self.arch, config),
            "collective_bytes": collective_bytes(self.step.program),
            "largest_buffers": [{"bytes": buffer.num_bytes, "values": buffer.values} for buffer in self.step.largest],
            "decoding": [self._decoding_json(decoding) for decoding in self.decoding],
            "suggestions": [
                {
                    "flags": suggestion.flags,
                    "fits": True,
                    "hbm_bytes_per_chip": suggestion.hbm_bytes,
                    "estimated_step_s": suggestion.estimated_step_s,
                }
                for suggestion in self.suggestions
            ],
            "compile_s": self.step.compile_s,
            "versions": versions,
        }

    def _decoding_json(self, decoding: DecodingPlan) -> dict[str, Any]:
        found, time = decoding.compiled, decode_time(decoding.compiled, self.topology)
        return {
            "weights": decoding.dtype,
            "mesh": decoding.mesh,
            "fits": found.fits,
            "hbm_bytes_per_chip": found.hbm_bytes,
            "estimated_step_s": time and time.total_s / DECODE_STEPS,
            "estimated_step_waits_s": time and time.exposed_s / DECODE_STEPS,
            "floor_step_s": decode_floor_s(sum(found.held_bytes.values()), self.topology.chip),
            "collective_bytes": collective_bytes(found.program, DECODE_STEPS),
        }

    def to_text(self) -> str:
        """The table."""
        config, chip, step = self.train, self.topology.chip, self.step
        microbatch = config.batch_size // config.accumulation
        lines = [
            f"{config.base} on {self.topology.name} ({self.topology.num_chips} chips), mesh {config.mesh}, strategy "
            f"{config.strategy}, remat {config.remat}, {config.accumulation} x {microbatch} sequences of {config.max_length} "
            f"tokens; {LABEL}",
            "",
            f"memory      {step.hbm_bytes / GIB:.2f} of {chip.hbm_bytes / GIB:.2f} GiB a chip: "
            + ("it fits" if step.fits else "IT DOES NOT FIT"),
            *(f"  {kind:<22}{size / GIB:7.2f}" for kind, size in by_kind(step).items()),
            *([f"  {'on the host':<22}{step.host_bytes / GIB:7.2f}"] if step.host_bytes else []),
            *(f"  buffer of {buffer.num_bytes / GIB:.2f}: {_short(buffer.values)}" for buffer in step.largest[:4]),
            *self._time_lines(),
            *self._decoding_lines(),
        ]
        if self.suggestions:
            lines += ["", "what would fit, as compiling it has shown (seconds by arithmetic):"]
            for found in self.suggestions:
                lines.append(f"  {found.flags}: {found.hbm_bytes / GIB:.2f} GiB a chip, {found.estimated_step_s:.2f} s a step")
        return "\n".join(lines)

    def _time_lines(self) -> list[str]:
        time, flops, ideal_s = self.time, self.flops, ideal_step_s(self.arch, self.train, self.topology)
        needed = model_flops(self.arch, self.train)
        ideal = f"  at the peak           {ideal_s:8.3f} s for the model's {needed:.3g} FLOPs (6 N T)"
        if flops is not None:
            ideal += f"; the program has {flops / needed:.2f} times as many"
        if time is None:
            return ["", "step", ideal]
        moved = ", ".join(f"{kind} {size / 1e9:.1f} GB" for kind, size in collective_bytes(self.step.program).items())
        return [
            "",
            f"step        {time.total_s:.3f} s estimated: MFU {ideal_s / time.total_s:.1%}, "
            f"{64 * time.total_s / self.train.batch_size:.3f} s for 64 sequences",
            f"  operations            {time.operations_s:8.3f} s by the compiler's cycles",
            f"  attention kernels     {time.kernels_s:8.3f} s by their FLOPs",
            f"  waits for collectives {time.exposed_s:8.3f} s; {time.hidden_s:.3f} s of them beside other work",
            f"  they move             {moved or 'nothing'}, each chip",
            *self._host_lines(time.total_s),
            ideal,
        ]

    def _host_lines(self, step_s: float) -> list[str]:
        """What goes to the host's memory in the forward passes; its time is in no estimate."""
        sent = self.train.accumulation * self.step.host_bytes
        sizes = sizes_of(self.arch, self.train, parse_mesh(self.train.mesh))
        forward_s = step_s * forward_share(self.arch, self.train, sizes)
        needed = f"hidden where a chip has {sent / forward_s / 1e9:.0f} GB/s to its host"
        return [f"  to the host and back  {sent / 1e9:.0f} GB each way, each chip; {needed}"] if sent else []

    def _decoding_lines(self) -> list[str]:
        lines = []
        for decoding in self.decoding:
            found, time = decoding.compiled, decode_time(decoding.compiled, self.topology)
            says = f"{found.hbm_bytes / GIB:.2f} GiB a chip" + ("" if found.fits else ", DOES NOT FIT")
            if time is not None:
                floor_s = decode_floor_s(sum(found.held_bytes.values()), self.topology.chip)
                each, waits = time.total_s / DECODE_STEPS, time.exposed_s / DECODE_STEPS
                says += f", {1e3 * each:.2f} ms a step, {1e3 * waits:.2f} of it waiting (reading alone {1e3 * floor_s:.2f})"
            lines.append(f"  {decoding.dtype + ', mesh ' + decoding.mesh:<22} {says}")
        return ["", "decoding", *lines] if lines else []


def by_kind(compiled: Compiled) -> dict[str, int]:
    """Bytes a chip by what they are; what is not held between steps is one of them."""
    held = {kind: size for kind, size in compiled.held_bytes.items() if size}
    return {**held, "activations and buffers": max(compiled.hbm_bytes - sum(held.values()), 0)}


def collective_bytes(program: CompiledProgram | None, runs: int = 1) -> dict[str, float]:
    """Bytes by kind of collective that each chip gathers, reduces or passes on in one of so many runs."""
    total: collections.Counter[str] = collections.Counter()
    for found in program.collectives if program else ():
        total[found.kind] += found.times * found.num_bytes
    return {kind: size / runs for kind, size in total.most_common()}


def decode_time(compiled: Compiled, topology: Topology) -> TimeEstimate | None:
    """Of DECODE_STEPS steps."""
    return estimate(compiled.program, topology, 0.0) if compiled.program is not None else None


def _short(values: str, limit: int = 70) -> str:
    return values if len(values) <= limit else values[: values.rfind(",", 0, limit)] + ", ..."

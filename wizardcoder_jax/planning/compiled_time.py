"""How long a program would take, from what the compiler says of its operations and what it does not.

Operations: the compiler's own cycles over the chip's clock. Kernels, which carry none: their FLOPs at KERNEL_EFFICIENCY of the
peak. Collectives, which carry none either: bytes over the links of the torus and the way from chip to chip; what operations
carry on beside their own work counts only as far as it takes longer than they do. What no compiler knows (stragglers, the
host) is not in it.
"""

import dataclasses

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.accelerators import Accelerator
from wizardcoder_jax.core.sharding import parse_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.hlo_reader import Collective, CompiledProgram
from wizardcoder_jax.planning.memory_estimator import attention_flops, sizes_of
from wizardcoder_jax.planning.topology import Topology

KERNEL_EFFICIENCY = 0.45  # of the peak, of splash attention in bfloat16
HOP_S = 1e-6  # from a chip to its neighbour (jax-ml/scaling-book, "How to Think About TPUs")
# Products of [T, T] by [T, H] or the like that a kernel does, against the two of a forward pass.
PRODUCTS = {"fwd": 1.0, "dq": 1.5, "dkv": 2.0, "dkv with dq": 2.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Seconds of one run of a program on each chip."""

    operations_s: float
    kernels_s: float
    exposed_s: float  # of collectives that all else waits for
    hidden_s: float  # of collectives beside other work

    @property
    def total_s(self) -> float:
        """All that is waited for."""
        return self.operations_s + self.kernels_s + self.exposed_s


def estimate(program: CompiledProgram, topology: Topology, kernel_flops: float) -> TimeEstimate | None:
    """The time of a program; None for chips whose compiler gives no cycles."""
    clock = topology.chip.clock_hz
    if clock is None:
        return None
    operations_s = program.cycles / clock
    kernels_s = kernel_flops / (KERNEL_EFFICIENCY * topology.chip.peak_flops)
    seconds = [(collective_s(found, topology), found.beside_cycles / clock) for found in program.collectives]
    exposed_s = sum(max(0.0, taken_s - beside_s) for taken_s, beside_s in seconds)
    hidden_s = sum(taken_s for taken_s, _ in seconds) - exposed_s
    return TimeEstimate(operations_s=operations_s, kernels_s=kernels_s, exposed_s=exposed_s, hidden_s=hidden_s)


def collective_s(collective: Collective, topology: Topology) -> float:
    """Seconds of all runs of a collective: each device takes in what the others of its group have."""
    group, size = collective.group, collective.num_bytes
    if group < 2 and collective.kind != "collective-permute":
        return 0.0
    num_axes, spanned, hops = 0, 1, 0
    for along in sorted(topology.shape, reverse=True):
        if spanned < group:
            num_axes, spanned, hops = num_axes + 1, spanned * along, hops + along // 2
    bandwidth = max(num_axes, 1) * topology.chip.link_bandwidth
    share = 1.0 if group < 2 else (group - 1) / group
    rounds = 2 if collective.kind == "all-reduce" else 1  # it is a reduce-scatter and an all-gather
    return collective.times * rounds * (size * share / bandwidth + max(hops, 1) * HOP_S)


def splash_flops(program: CompiledProgram, arch: ArchConfig, config: TrainConfig) -> float:
    """FLOPs of the attention kernels of a step on each chip."""
    forward = attention_flops(arch, config, sizes_of(arch, config, parse_mesh(config.mesh)))
    kernels = {name: times for name, times in program.kernels.items() if name.startswith("splash")}
    has_dq = any("_dq" in name for name in kernels)
    total = 0.0
    for name, times in kernels.items():
        kind = "dkv" if "dkv" in name else "dq" if "_dq" in name else "fwd"
        total += times * forward * PRODUCTS["dkv with dq" if kind == "dkv" and not has_dq else kind]
    return total


def model_flops(arch: ArchConfig, config: TrainConfig) -> float:
    """Of a step over all chips: six for each parameter and token."""
    return 6.0 * arch.num_params * config.batch_size * config.max_length


def ideal_step_s(arch: ArchConfig, config: TrainConfig, topology: Topology) -> float:
    """Seconds of a step that does nothing but the model's FLOPs, at the peak."""
    return model_flops(arch, config) / (topology.num_chips * topology.chip.peak_flops)


def decode_floor_s(held_bytes: int, chip: Accelerator) -> float:
    """Seconds in which a chip reads what it holds of weights and cache once: no step of decoding is faster."""
    return held_bytes / chip.hbm_bandwidth

"""Estimated run time of a compiled program.

For most operations, the time is the compiler's own cycle count divided by the clock rate. The compiler gives no cycles for
attention kernels and collectives. An attention kernel is assumed to reach KERNEL_EFFICIENCY of the peak FLOPs. A collective
takes its bytes divided by the bandwidth of the torus links, plus the latency of each hop; if it overlaps with other operations,
only the excess over their time counts. Delays outside the program, such as stragglers and the host, are not included.
"""

import dataclasses

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.accelerators import Accelerator
from wizardcoder_jax.core.sharding import parse_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.hlo_reader import Collective, CompiledProgram
from wizardcoder_jax.planning.memory_estimator import attention_flops, block_sizes
from wizardcoder_jax.planning.topology import Topology

KERNEL_EFFICIENCY = 0.45  # fraction of peak FLOPs that splash attention reaches in bfloat16
HOP_S = 1e-6  # seconds of latency from a chip to its neighbor (jax-ml/scaling-book, "How to Think About TPUs")
# Number of matrix products in each attention kernel, relative to the two of the forward kernel.
KERNEL_MATMULS = {"fwd": 1.0, "dq": 1.5, "dkv": 2.0, "dkv with dq": 2.5}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeEstimate:
    """Seconds that each chip needs to run a program once. The field names are keys of plan.json."""

    operations_s: float  # seconds of operations other than kernels and collectives
    kernels_s: float  # seconds of attention kernels
    exposed_s: float  # seconds of collectives while nothing else runs
    hidden_s: float  # seconds of collectives that overlap with other operations

    @property
    def total_s(self) -> float:
        """Seconds of the whole program."""
        return self.operations_s + self.kernels_s + self.exposed_s


def estimate_time(program: CompiledProgram, topology: Topology, kernel_flops: float) -> TimeEstimate | None:
    """Estimate the time of a program; return None if the chip's compiler reports no cycles."""
    clock = topology.chip.clock_hz
    if clock is None:
        return None
    operations_s = program.cycles / clock
    kernels_s = kernel_flops / (KERNEL_EFFICIENCY * topology.chip.peak_flops)
    times = [(collective_time_s(found, topology), found.overlapped_cycles / clock) for found in program.collectives]
    exposed_s = sum(max(0.0, collective_s - overlapped_s) for collective_s, overlapped_s in times)
    hidden_s = sum(collective_s for collective_s, _ in times) - exposed_s
    return TimeEstimate(operations_s=operations_s, kernels_s=kernels_s, exposed_s=exposed_s, hidden_s=hidden_s)


def collective_time_s(collective: Collective, topology: Topology) -> float:
    """Return the seconds of all executions of a collective, which gives each device the data of all others in its group."""
    group_size, num_bytes = collective.group_size, collective.num_bytes
    if group_size < 2 and collective.kind != "collective-permute":
        return 0.0
    num_axes, num_spanned, num_hops = 0, 1, 0
    for axis_size in sorted(topology.shape, reverse=True):
        if num_spanned < group_size:
            num_axes, num_spanned, num_hops = num_axes + 1, num_spanned * axis_size, num_hops + axis_size // 2
    bandwidth = max(num_axes, 1) * topology.chip.link_bandwidth
    received = 1.0 if group_size < 2 else (group_size - 1) / group_size
    num_passes = 2 if collective.kind == "all-reduce" else 1  # an all-reduce is a reduce-scatter and an all-gather
    return collective.num_runs * num_passes * (num_bytes * received / bandwidth + max(num_hops, 1) * HOP_S)


def splash_flops(program: CompiledProgram, arch: ArchConfig, config: TrainConfig) -> float:
    """Return the FLOPs per chip of the attention kernels in a train step."""
    forward = attention_flops(arch, config, block_sizes(arch, config, parse_mesh(config.mesh)))
    kernels = {name: num_runs for name, num_runs in program.kernels.items() if name.startswith("splash")}
    has_dq = any("_dq" in name for name in kernels)
    total = 0.0
    for name, num_runs in kernels.items():
        kind = "dkv" if "dkv" in name else "dq" if "_dq" in name else "fwd"
        total += num_runs * forward * KERNEL_MATMULS["dkv with dq" if kind == "dkv" and not has_dq else kind]
    return total


def model_flops(arch: ArchConfig, config: TrainConfig) -> float:
    """Return the FLOPs of a train step over all chips by the usual count: six per parameter and token."""
    return 6.0 * arch.num_params * config.batch_size * config.max_length


def ideal_step_s(arch: ArchConfig, config: TrainConfig, topology: Topology) -> float:
    """Return how many seconds a train step would take that performs only `model_flops`, at the chips' peak FLOP/s."""
    return model_flops(arch, config) / (topology.num_chips * topology.chip.peak_flops)


def min_decode_step_s(state_bytes: int, chip: Accelerator) -> float:
    """Return a lower bound of a decode step in seconds: the time to read weights and cache from HBM once."""
    return state_bytes / chip.hbm_bandwidth

"""Accelerators in figures, one table: memory, arithmetic and links of one chip.

Sources: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e (FLOP/s, HBM, Gbit/s over all links of a chip, torus); the host's
memory of cloud.google.com/compute/docs machine types ct4p, ct5lp, ct5p, ct6e, a2-ultragpu and a3-highgpu, over its chips;
NVIDIA's H100 and A100 data sheets. What a program may use of HBM, and TPU clocks, are what libtpu 0.0.42 compiles for.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """One accelerator: what jax calls a device (a pair of TensorCores on v4 and v5p)."""

    name: str  # as topologies name it, e.g. "v5e" of v5e:4x8
    device_kind: str  # jax's name of it
    hbm_bytes: int  # what a program may use
    host_bytes: int  # of the host's memory, one chip's share
    peak_flops: float  # FLOP/s, dense bf16
    hbm_bandwidth: float  # bytes/s
    link_bandwidth: float  # bytes/s one way, of one link; of a GPU, of all its NVLinks together
    num_axes: int  # dims of the torus that links make; 1: any chip reaches any other through a switch
    clock_hz: float | None = None  # of what libtpu counts in cycles
    waits: bool = False  # for every exchange: libtpu carries none on inside products


CHIPS: dict[str, Accelerator] = {
    chip.name: chip
    for chip in (
        Accelerator(
            name="v4",
            device_kind="TPU v4",
            hbm_bytes=int(30.75 * GIB),
            host_bytes=100 * GIB,
            peak_flops=275e12,
            hbm_bandwidth=1228e9,
            link_bandwidth=45e9,
            num_axes=3,
            clock_hz=1.05e9,
            waits=True,
        ),
        Accelerator(
            name="v5e",
            device_kind="TPU v5 lite",
            hbm_bytes=int(15.75 * GIB),
            host_bytes=48 * GIB,
            peak_flops=197e12,
            hbm_bandwidth=819e9,
            link_bandwidth=45e9,
            num_axes=2,
            clock_hz=1.503e9,
        ),
        Accelerator(
            name="v5p",
            device_kind="TPU v5",
            hbm_bytes=95 * GIB,
            host_bytes=112 * GIB,
            peak_flops=459e12,
            hbm_bandwidth=2765e9,
            link_bandwidth=90e9,
            num_axes=3,
            clock_hz=1.75e9,
        ),
        Accelerator(
            name="v6e",
            device_kind="TPU v6 lite",
            hbm_bytes=int(31.25 * GIB),
            host_bytes=180 * GIB,
            peak_flops=918e12,
            hbm_bandwidth=1640e9,
            link_bandwidth=90e9,
            num_axes=2,
            clock_hz=1.75e9,
        ),
        # Of a GPU's memory the driver, the CUDA context, NCCL and cuBLAS take part: 95 % of what CUDA reports, which is
        # also the most that XLA can be told to allocate (XLA_PYTHON_CLIENT_MEM_FRACTION=0.95; by default it is 75 %).
        Accelerator(
            name="a100",
            device_kind="NVIDIA A100-SXM4-80GB",
            hbm_bytes=75 * GIB,
            host_bytes=170 * GIB,
            peak_flops=312e12,
            hbm_bandwidth=2039e9,
            link_bandwidth=300e9,
            num_axes=1,
        ),
        Accelerator(
            name="h100",
            device_kind="NVIDIA H100 80GB HBM3",
            hbm_bytes=75 * GIB,
            host_bytes=234 * GIB,
            peak_flops=989e12,
            hbm_bandwidth=3352e9,
            link_bandwidth=450e9,
            num_axes=1,
        ),
    )
}


def chip_of(device_kind: str) -> Accelerator | None:
    """The chip that jax calls `device_kind`, e.g. "TPU v5 lite"; None where the table has none."""
    return next((chip for chip in CHIPS.values() if chip.device_kind == device_kind), None)

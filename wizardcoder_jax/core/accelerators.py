"""Memory, FLOP/s and link bandwidth of each accelerator, in one table.

Sources: cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e (FLOP/s, HBM, Gbit/s over all links of a chip, torus); NVIDIA's
A100, H100 and H200 data sheets; for host memory, the memory of the machine types ct4p, ct5lp, ct5p, ct6e, a2-ultragpu,
a3-highgpu and a3-ultragpu (cloud.google.com/compute/docs) divided by their number of chips. The usable HBM and the clock rates
of TPUs are the values that libtpu 0.0.42 assumes when it compiles.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A kind of accelerator. One accelerator is one JAX device (on v4 and v5p, a pair of TensorCores)."""

    name: str  # name in a topology, e.g. "v5e" in v5e:4x8
    device_kind: str  # device_kind that JAX reports
    hbm_bytes: int  # bytes of device memory that a program can use
    host_bytes: int  # bytes of host memory per accelerator
    peak_flops: float  # peak FLOP/s of dense bf16 matrix products
    hbm_bandwidth: float  # bytes/s read from or written to device memory
    link_bandwidth: float  # bytes/s in one direction over one link; for a GPU, over all its NVLinks together
    num_axes: int  # number of dims of the torus of links; 1 if a switch connects all chips directly
    clock_hz: float | None = None  # frequency of the cycles that libtpu counts, Hz
    blocks_on_collectives: bool = False  # whether libtpu cannot overlap collectives with matrix products on this chip


ACCELERATORS: dict[str, Accelerator] = {
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
            blocks_on_collectives=True,
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
        # 95 % of the memory that CUDA reports: the driver, the CUDA context, NCCL and cuBLAS use the rest. It is also the most
        # that XLA can be told to allocate (XLA_PYTHON_CLIENT_MEM_FRACTION=0.95; the default is 75 %).
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
        Accelerator(
            name="h200",
            device_kind="NVIDIA H200",
            hbm_bytes=132 * GIB,
            host_bytes=343 * GIB,
            peak_flops=989e12,
            hbm_bandwidth=4800e9,
            link_bandwidth=450e9,
            num_axes=1,
        ),
    )
}


def find_accelerator(device_kind: str) -> Accelerator | None:
    """Return the accelerator that JAX calls `device_kind`, e.g. "TPU v5 lite", or None if it is not in ACCELERATORS."""
    return next((chip for chip in ACCELERATORS.values() if chip.device_kind == device_kind), None)

"""Topologies of accelerators, by name, and their devices, for which programs can be compiled without the hardware.

The compiler for TPUs is libtpu, which works without a TPU. The compiler for GPUs is XLA's CUDA plugin, which works without a
GPU if it gets a description of the device.
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np

from wizardcoder_jax.core.accelerators import ACCELERATORS, Accelerator
from wizardcoder_jax.core.errors import InputError

LIBTPU_ENVIRONMENT = {  # environment variables that let libtpu compile on a machine without TPUs
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "none",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_HOST_SHAPES = {"v4": (2, 2, 1), "v5p": (2, 2, 1), "v5e": (2, 2), "v6e": (2, 2)}  # chips per host; slices have whole hosts
_GPUS_PER_HOST = 8
# XLA's description of the GPU (xla/backends/gpu/target_config/specs/h100_sxm.txtpb), without the fields that
# do not affect compilation.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """A slice: chips of one kind and the shape in which they are connected."""

    name: str  # name of the topology, e.g. v5e:4x8
    chip: Accelerator
    shape: tuple[int, ...]  # number of chips along each axis of the torus; for GPUs, (number of GPUs,)

    @property
    def num_chips(self) -> int:
        """Number of chips in the slice."""
        return math.prod(self.shape)

    @property
    def is_tpu(self) -> bool:
        """Whether the chips are TPUs."""
        return self.chip.device_kind.startswith("TPU")


def parse_topology(name: str) -> Topology:
    """Return the topology with a name such as "v5e:4x8" (kind of TPU and shape of the slice) or "h100:8" (number of GPUs).

    Raises:
        InputError: the chip is unknown, or the shape is not made of whole hosts.
    """
    examples = "e.g. v5e:4x8, v6e:4x8, v5p:2x4x4, v4:2x4x4 or h100:8"
    kind, colon, shape = re.sub(r"^h100 ?x", "h100:", name.lower()).partition(":")
    chip = ACCELERATORS[kind] if kind in (*_HOST_SHAPES, "h100") else None
    sizes = tuple(int(size) for size in shape.split("x") if re.fullmatch(r"[1-9]\d{0,3}", size))
    if chip is None:
        raise InputError(f"topology {name!r} has an unknown chip; choose one of {', '.join(_HOST_SHAPES)} and h100, {examples}")
    num_axes = len(_HOST_SHAPES[kind]) if kind in _HOST_SHAPES else 1
    if not colon or len(sizes) != shape.count("x") + 1 or len(sizes) != num_axes:
        raise InputError(f"topology {name!r} must have {num_axes} sizes after {kind}: {examples}")
    topology = Topology(name=name, chip=chip, shape=sizes)
    if not topology.is_tpu and topology.num_chips > _GPUS_PER_HOST and topology.num_chips % _GPUS_PER_HOST:
        raise InputError(f"topology {name!r} must consist of hosts of {_GPUS_PER_HOST} GPUs, {examples}")
    host = _HOST_SHAPES.get(kind, (1,))
    if topology.num_chips > 1 and any(size % on_host for size, on_host in zip(sizes, host, strict=True)):
        raise InputError(f"topology {name!r} must consist of hosts of {'x'.join(map(str, host))} chips, {examples}")
    return topology


def topology_devices(topology: Topology) -> np.ndarray:
    """Return the devices of a topology, shape [num_chips], in the compiler's order.

    Raises:
        InputError: the compiler is not installed, or it rejects the topology.
    """
    from jax.experimental import topologies

    shape = "x".join(map(str, topology.shape))
    settings: dict[str, Any] = {"topology_name": f"{topology.chip.name}:{shape}", "platform": "tpu"}
    if topology.chip.name == "v4":  # a v4 chip has two cores that act as one device
        settings |= {"chip_config_name": "megacore", "chips_per_host_bounds": _HOST_SHAPES["v4"]}
    elif topology.num_chips == 1 and topology.is_tpu:
        settings |= {"topology_name": f"{topology.chip.name}:1x1", "chips_per_host_bounds": (1, 1, 1)}
    elif not topology.is_tpu:
        num_hosts, num_gpus = max(topology.num_chips // _GPUS_PER_HOST, 1), min(topology.num_chips, _GPUS_PER_HOST)
        grid = f"1x{num_hosts}x{num_gpus}"
        settings = {"topology_name": "h100", "platform": "cuda", "target_config": _H100, "topology": grid}
    extra = "tpu" if topology.is_tpu else "gpu"
    try:
        return np.array(topologies.get_topology_desc(**settings).devices)
    except Exception as error:  # the exception type depends on what is missing
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"cannot compile for topology {topology.name}: {reason}; install the compiler with "
            f"`make setup EXTRA={extra}` (or pip install 'wizardcoder-jax[{extra}]')"
        ) from error

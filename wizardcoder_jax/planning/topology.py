"""Slices of accelerators by name, as devices that programs can be compiled for though there are none.

TPUs: the compiler is libtpu, which needs no TPU. GPUs: XLA's CUDA plugin, which takes a description of the device instead.
"""

import dataclasses
import math
import re
from typing import Any

import numpy as np

from wizardcoder_jax.core.accelerators import ACCELERATORS, Accelerator
from wizardcoder_jax.core.errors import InputError

ENVIRONMENT = {  # in which libtpu compiles on a machine that is no TPU's
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "none",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_SMALLEST = {"v4": (2, 2, 1), "v5p": (2, 2, 1), "v5e": (2, 2), "v6e": (2, 2)}  # a host's chips: a topology is made of these
_GPUS = 8  # of a host
# XLA's own description (xla/backends/gpu/target_config/specs/h100_sxm.txtpb), as far as a program depends on it.
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
    """Chips of one kind and how they are joined."""

    name: str  # e.g. v5e:4x8
    chip: Accelerator
    shape: tuple[int, ...]  # chips along each axis of the torus; of GPUs, their number

    @property
    def num_chips(self) -> int:
        """Chips in all."""
        return math.prod(self.shape)

    @property
    def is_tpu(self) -> bool:
        """Whether these are TPUs."""
        return self.chip.device_kind.startswith("TPU")


def topology_of(name: str) -> Topology:
    """The topology that a name means: v4, v5e, v5p or v6e and the shape of a slice, or h100 and a number.

    Raises:
        InputError: there is none of this name.
    """
    examples = "e.g. v5e:4x8, v6e:4x8, v5p:2x4x4, v4:2x4x4 or h100:8"
    kind, colon, shape = re.sub(r"^h100 ?x", "h100:", name.lower()).partition(":")
    chip = ACCELERATORS[kind] if kind in (*_SMALLEST, "h100") else None
    sizes = tuple(int(size) for size in shape.split("x") if re.fullmatch(r"[1-9]\d{0,3}", size))
    if chip is None:
        raise InputError(f"topology {name!r} is of no known chip; there are {', '.join(_SMALLEST)} and h100, {examples}")
    num_axes = len(_SMALLEST[kind]) if kind in _SMALLEST else 1
    if not colon or len(sizes) != shape.count("x") + 1 or len(sizes) != num_axes:
        raise InputError(f"topology {name!r} needs {num_axes} sizes after {kind}:, {examples}")
    topology = Topology(name=name, chip=chip, shape=sizes)
    if not topology.is_tpu and topology.num_chips > _GPUS and topology.num_chips % _GPUS:
        raise InputError(f"topology {name!r} is not made of hosts of {_GPUS} GPUs, {examples}")
    if topology.num_chips > 1 and any(size % least for size, least in zip(sizes, _SMALLEST.get(kind, (1,)), strict=True)):
        hosts = "x".join(map(str, _SMALLEST[kind]))
        raise InputError(f"topology {name!r} is not made of hosts of {hosts} chips, {examples}")
    return topology


def devices_of(topology: Topology) -> np.ndarray:
    """The devices, [num_chips], in the compiler's order.

    Raises:
        InputError: the compiler is not installed, or refuses the topology.
    """
    from jax.experimental import topologies

    shape = "x".join(map(str, topology.shape))
    settings: dict[str, Any] = {"topology_name": f"{topology.chip.name}:{shape}", "platform": "tpu"}
    if topology.chip.name == "v4":  # two cores that act as one device
        settings |= {"chip_config_name": "megacore", "chips_per_host_bounds": _SMALLEST["v4"]}
    elif topology.num_chips == 1 and topology.is_tpu:
        settings |= {"topology_name": f"{topology.chip.name}:1x1", "chips_per_host_bounds": (1, 1, 1)}
    elif not topology.is_tpu:
        hosts, gpus = max(topology.num_chips // _GPUS, 1), min(topology.num_chips, _GPUS)
        settings = {"topology_name": "h100", "platform": "cuda", "target_config": _H100, "topology": f"1x{hosts}x{gpus}"}
    extra = "tpu" if topology.is_tpu else "gpu"
    try:
        return np.array(topologies.get_topology_desc(**settings).devices)
    except Exception as error:  # of several kinds, by what is missing
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"no compiler for topology {topology.name}: {said}; `make setup EXTRA={extra}` (or pip install "
            f"'wizardcoder-jax[{extra}]') installs it"
        ) from error

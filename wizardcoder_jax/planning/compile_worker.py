"""Compiles one program and says what it is: a process of its own, because a compiler may take minutes, or end its process.

    python -m wizardcoder_jax.planning.compile_worker JOB.json DUMP_DIR

The compiler's reports go to DUMP_DIR; what is held between calls to DUMP_DIR/held.json, and all else to DUMP_DIR/found.json.
"""

import dataclasses
import json
import math
import os
import sys
import time
from typing import Any

import jax

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.serialization import from_json
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import write_json
from wizardcoder_jax.core.sharding import RULES, bytes_per_device, mesh_from_devices, num_batch_shards
from wizardcoder_jax.inference.decode_state import DECODE_STEPS
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.hlo_reader import read_program
from wizardcoder_jax.planning.lowering import lower_decode, lower_step
from wizardcoder_jax.planning.step_time import PRODUCT_EFFICIENCY
from wizardcoder_jax.planning.topology import devices_of, topology_of
from wizardcoder_jax.training.objectives.chunked_cross_entropy import chunk_length


def main(job_path: str, dump: str) -> None:
    """Compiles what JOB.json asks for."""
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    topology = topology_of(job["topology"])
    mesh, arch = mesh_from_devices(devices_of(topology).tolist(), job["mesh"]), ArchConfig(**job["arch"])
    began = time.monotonic()
    with jax.set_mesh(mesh):
        if "decode" in job:
            lowered, (model, cache) = lower_decode(arch, mesh, **job["decode"])
            found: dict[str, Any] = {"weights_bytes": bytes_per_device(model), "cache_bytes": bytes_per_device(cache)}
            trips = DECODE_STEPS
        else:
            config = from_json(TrainConfig, job["train"])
            lowered, state = lower_step(arch, config, mesh)
            found = {
                "params_bytes": bytes_per_device((state.trained, state.frozen, state.ema)),
                "optimizer_bytes": bytes_per_device(state.opt_state),
            }
            num_rows = config.batch_size // config.accumulation // num_batch_shards(mesh, RULES[config.strategy])
            trips = -(
                -config.max_length // chunk_length(num_rows, config.max_length, config.loss_chunk)
            )  # of the loss: all places supervised
        dumps = {"xla_dump_to": dump, "xla_dump_hlo_as_text": True} if topology.is_tpu else {}
        write_json(os.path.join(dump, "held.json"), found)
        lowered_at = time.monotonic()
        compiled = lowered.compile(compiler_options=dumps)
    found = {"lower_s": lowered_at - began, "compile_s": time.monotonic() - lowered_at}
    memory, chip = compiled.memory_analysis(), topology.chip
    flops_per_cycle = PRODUCT_EFFICIENCY * chip.peak_flops / chip.clock_hz if chip.clock_hz else math.inf
    found["peak_bytes"] = memory.peak_memory_in_bytes
    found["host_bytes"] = memory.host_temp_size_in_bytes + memory.host_argument_size_in_bytes
    found["program"] = dataclasses.asdict(read_program(compiled.as_text(), trips, flops_per_cycle))
    write_json(os.path.join(dump, "found.json"), found)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")

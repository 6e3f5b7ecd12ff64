"""Command that compiles one program and writes its costs. It runs as a child process, because a compiler may crash.

    python -m wizardcoder_jax.planning.compile_worker JOB.json OUTPUT_DIR

The compiler writes its own reports to OUTPUT_DIR. This command adds state.json (bytes that stay in memory between calls) before
compilation, and result.json (everything else) after it.
"""

import dataclasses
import json
import math
import os
import sys
import time
from typing import Any

import jax
from jax.sharding import Mesh

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.serialization import from_json
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import write_json
from wizardcoder_jax.core.sharding import RULES, bytes_per_device, mesh_from_devices, num_batch_shards
from wizardcoder_jax.inference.engine_programs import DECODE_STEPS
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.hlo_reader import read_program
from wizardcoder_jax.planning.lowering import lower_decode, lower_step
from wizardcoder_jax.planning.step_time import MATMUL_EFFICIENCY
from wizardcoder_jax.planning.topology import parse_topology, topology_devices
from wizardcoder_jax.training.objectives.chunked_cross_entropy import chunk_length


def main(job_path: str, output_dir: str) -> None:
    """Compile the program that JOB.json describes."""
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    topology = parse_topology(job["topology"])
    mesh = mesh_from_devices(topology_devices(topology).tolist(), job["mesh"])
    started = time.monotonic()
    with jax.set_mesh(mesh):
        lowered, state_bytes, guessed_trips = _lower(job, mesh)
        write_json(os.path.join(output_dir, "state.json"), state_bytes)
        lowered_at = time.monotonic()
        options = {"xla_dump_to": output_dir, "xla_dump_hlo_as_text": True} if topology.is_tpu else {}
        compiled = lowered.compile(compiler_options=options)
    compile_s = time.monotonic() - lowered_at
    memory, chip = compiled.memory_analysis(), topology.chip
    flops_per_cycle = MATMUL_EFFICIENCY * chip.peak_flops / chip.clock_hz if chip.clock_hz else math.inf
    result = {
        "lower_s": lowered_at - started,
        "compile_s": compile_s,
        "peak_bytes": memory.peak_memory_in_bytes,
        "host_bytes": memory.host_temp_size_in_bytes + memory.host_argument_size_in_bytes,
        "program": dataclasses.asdict(read_program(compiled.as_text(), guessed_trips, flops_per_cycle)),
    }
    write_json(os.path.join(output_dir, "result.json"), result)


def _lower(job: dict[str, Any], mesh: Mesh) -> tuple[Any, dict[str, int], int]:
    """Lower the program that a job describes.

    Returns:
        The lowered program, the bytes of its state on each chip by kind, and the assumed trip count of the loop whose bound
        depends on data: the number of decode steps, or of loss chunks if the loss covers every position.
    """
    arch = ArchConfig(**job["arch"])
    if "decode" in job:
        lowered, (model, cache) = lower_decode(arch, mesh, **job["decode"])
        return lowered, {"weights": bytes_per_device(model), "cache": bytes_per_device(cache)}, DECODE_STEPS
    config = from_json(TrainConfig, job["train"])
    lowered, state = lower_step(arch, config, mesh)
    state_bytes = {
        "params": bytes_per_device((state.trained, state.frozen, state.ema)),
        "optimizer": bytes_per_device(state.opt_state),
    }
    num_rows = config.batch_size // config.accumulation // num_batch_shards(mesh, RULES[config.strategy])
    num_chunks = math.ceil(config.max_length / chunk_length(num_rows, config.max_length, config.loss_chunk))
    return lowered, state_bytes, num_chunks


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InputError as error:
        sys.exit(f"error: {error}")

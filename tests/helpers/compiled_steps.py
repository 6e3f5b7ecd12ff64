"""Compiles the training step of a model for TPUs: `compiled_steps.py HUB_ID NUM_LAYERS` prints its properties as JSON.

A separate program, because environment variables select the compiler. tests/planning/test_compiled_step.py runs it.
"""

import dataclasses
import json
import math
import re
import sys
import time

import jax

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.sharding import mesh_from_devices
from wizardcoder_jax.models.families.registry import published_arch
from wizardcoder_jax.planning.hlo_reader import read_program
from wizardcoder_jax.planning.lowering import lower_step
from wizardcoder_jax.planning.topology import parse_topology, topology_devices

ROWS, LENGTH, MESH = 64, 2048, "32x1"
# Smaller windows of matrix products halve the compile time without changing the properties that are printed.
SMALL_WINDOWS = {"xla_tpu_scoped_vmem_limit_kib": 24_576}


def main(hub_id, num_layers):
    arch = dataclasses.replace(published_arch(hub_id), num_layers=num_layers)
    config = TrainConfig(mesh=MESH, batch_size=ROWS, accumulation=1, max_length=LENGTH)
    topology = parse_topology("v5e:4x8")
    mesh = mesh_from_devices(topology_devices(topology).tolist(), MESH)
    with jax.set_mesh(mesh):
        lowered, _ = lower_step(arch, config, mesh)
        started = time.process_time()
        text = lowered.compile(compiler_options=SMALL_WINDOWS).as_text()
        seconds = time.process_time() - started
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"(?:f32|bf16)\[([\d,]+)\]", text)}
    vocab = arch.padded_vocab_size
    embedding = {arch.embed_dim, arch.embed_dim // 32}  # sizes of the embedding's second dim, whole and sharded
    logits = [shape for shape in shapes if vocab in shape and not embedding & set(shape)]
    program = read_program(text, guessed_trips=1)
    per_layer = [collective for collective in program.collectives if collective.num_runs == num_layers]
    found = {
        "compile_cpu_s": seconds,
        "kernels": program.kernels,
        "exposed": [each.num_bytes for each in per_layer if not each.overlapped_cycles],
        "overlapped": [each.num_bytes for each in per_layer if each.overlapped_cycles],
        "tokens_with_logits": max(math.prod(shape) // vocab for shape in logits),
        "tokens": ROWS * LENGTH // 32,
        "windowed": text.count("windowed_dot_general"),
        "all_to_all": len(re.findall(r" all-to-all(?:-start)?\(", text)),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

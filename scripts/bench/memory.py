"""Memory a chip of training StarCoder-15.5B, by optimizer and adapter, compiled ahead of time for TPU: compiled, not run.

    .venv/bin/python scripts/bench/memory.py [TOPOLOGY ...]        (needs libtpu: make setup EXTRA=tpu; no TPU)

The real train step is compiled for each choice: one sequence of 2048 tokens a chip, bfloat16 compute, full remat, splash
attention, strategy fsdp over all chips. The compiler reports the memory right after it has assigned buffers, within seconds;
then it is stopped, since generating code takes minutes. Each line is one JSON object; "fits" is against what a chip has free.
"""

import glob
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

# What a program may use of a chip's memory, GiB, as the compiler says where it runs out.
CHIPS = {"v5e:2x4": 15.75, "v5e:4x8": 15.75, "v6e:2x4": 31.25}
CHOICES: dict[str, tuple[str, ...]] = {
    "adamw, float32 moments": (),
    "adamw, bfloat16 moments": ("--optim.moment-dtype", "bfloat16"),
    "adamw, int8 moments": ("--optim.moment-dtype", "int8"),
    "adafactor": ("--optim.name", "adafactor"),
    "lion, bfloat16 momentum": ("--optim.name", "lion", "--optim.moment-dtype", "bfloat16"),
    "muon, bfloat16 momentum": ("--optim.name", "muon", "--optim.moment-dtype", "bfloat16"),
    "LoRA, rank 64, bfloat16 base": ("--lora.rank", "64"),
    "LoRA, rank 64, int8 base": ("--lora.rank", "64", "--lora.base-weights", "int8"),
    "QLoRA, rank 64, nf4 base": ("--lora.rank", "64", "--lora.base-weights", "nf4"),
}
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
}
TIMEOUT_S = 900


def compile_step(topology: str, dump: str, flags: list[str]) -> None:
    """Compiles the step; the compiler's reports go to `dump`."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.experimental import topologies
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from wizardcoder_jax.arch import ARCHS, ArchConfig
    from wizardcoder_jax.cli import parse_cli
    from wizardcoder_jax.config import TrainConfig
    from wizardcoder_jax.sharding import MESH_AXES, RULES
    from wizardcoder_jax.training.loss import Batch
    from wizardcoder_jax.training.step import abstract_state, make_step
    from wizardcoder_jax.training.trainable import Partition, abstract_subject

    devices = np.array(topologies.get_topology_desc(topology_name=topology, platform="tpu").devices)
    num, rules = devices.size, RULES["fsdp"]
    mesh = Mesh(devices.reshape(num, 1), MESH_AXES, axis_types=(AxisType.Auto,) * 2)
    config = parse_cli(TrainConfig, ["--batch-size", str(num), "--accumulation", "1", *flags])
    arch = ArchConfig(  # bigcode/starcoder's config.json, [PAD] added
        **ARCHS["gpt_bigcode"],
        vocab_size=49153,
        embed_dim=6144,
        num_layers=40,
        num_heads=48,
        num_kv_heads=1,
        head_dim=128,
        mlp_dim=24576,
        max_positions=8192,
        norm_eps=1e-5,
        mlp="gelu_tanh",
        tie_embeddings=True,
    )
    model, sharding = abstract_subject(arch, rules, config), NamedSharding(mesh, PartitionSpec(None, rules.batch))
    with jax.set_mesh(mesh):
        kinds = {"weights": jnp.float32, "seeds": jnp.uint32}
        shapes = {name: (1, num) if name == "seeds" else (1, num, config.max_length) for name in Batch._fields}
        fields: dict[str, Any] = {
            name: jax.ShapeDtypeStruct(shape, kinds.get(name, jnp.int32), sharding=sharding) for name, shape in shapes.items()
        }
        batch = Batch(**fields)
        state = abstract_state(model, config, mesh, rules)
        lowered = make_step(config, Partition.of(model, config), unroll=False).lower(state, batch)
        options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1000000}
        lowered.compile(compiler_options={**options, "xla_dump_to": dump, "xla_dump_hlo_as_text": True})


def gib_per_chip(topology: str, flags: tuple[str, ...]) -> float:
    """What the compiler reports, in GiB a chip."""
    with tempfile.TemporaryDirectory() as dump:
        command = [sys.executable, __file__, "--compile", topology, dump, *flags]
        log = os.path.join(dump, "log")
        with open(log, "wb") as said:
            process = subprocess.Popen(command, env={**os.environ, **ENVIRONMENT}, stdout=said, stderr=said)
        deadline = time.monotonic() + TIMEOUT_S
        try:
            while time.monotonic() < deadline:
                for report in glob.glob(f"{dump}/*jit_step*memory-usage-report.txt"):
                    with open(report, encoding="utf-8") as file:
                        found = re.search(r"Memory Space: default.*\nTotal bytes: (\d+)", file.read())
                    if found:
                        return int(found[1]) / 2**30
                if process.poll() is not None:
                    break
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        with open(log, encoding="utf-8", errors="replace") as file:
            text = file.read()
        out = re.search(r"Used ([\d.]+)G of [\d.]+G hbm", text)
        if out:
            return float(out[1])
        raise SystemExit(f"{topology} {' '.join(flags)}: no report; the compiler said: {text[-2000:]}")


def main() -> None:
    """Prints one JSON object a topology and choice."""
    if sys.argv[1:2] == ["--compile"]:
        compile_step(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    for topology in sys.argv[1:] or CHIPS:
        for name, flags in CHOICES.items():
            gib = gib_per_chip(topology, flags)
            told = {"topology": topology, "choice": name, "gib_per_chip": round(gib, 2), "fits": gib <= CHIPS[topology]}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

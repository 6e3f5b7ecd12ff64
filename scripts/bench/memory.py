"""Memory per chip of training StarCoder-15.5B, by optimizer and adapter, compiled ahead of time for TPU, not run.

    .venv/bin/python scripts/bench/memory.py [TOPOLOGY ...]        (after `make setup`; no TPU is needed)

The real train step is compiled for each choice: one sequence of 2048 tokens per chip, bfloat16 compute, full remat, splash
attention, strategy fsdp over all chips. The output has one JSON object per line; "fits" says whether a chip has enough memory.
"""

import json
import sys

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.command_line import parse_command_line
from wizardcoder_jax.planning.compile_jobs import CompileJob, compile_job
from wizardcoder_jax.planning.planned_model import resolve_arch
from wizardcoder_jax.planning.topology import parse_topology

TOPOLOGIES = ("v5e:2x4", "v6e:2x4", "v5e:4x8")
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


def main() -> None:
    """Print one JSON object for each topology and choice of optimizer and adapter."""
    for name in sys.argv[1:] or TOPOLOGIES:
        topology = parse_topology(name)
        num_chips = str(topology.num_chips)
        for choice, flags in CHOICES.items():
            config = parse_command_line(
                TrainConfig, ["--mesh", f"{num_chips}x1", "--batch-size", num_chips, "--accumulation", "1", *flags]
            )
            found = compile_job(CompileJob.of_step(topology, resolve_arch(config), config), memory_only=True)
            line = {"topology": name, "choice": choice, "gib_per_chip": round(found.hbm_bytes / 2**30, 2), "fits": found.fits}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()

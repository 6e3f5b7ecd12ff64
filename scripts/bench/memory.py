"""Memory a chip of training StarCoder-15.5B, by optimizer and adapter, compiled ahead of time for TPU: compiled, not run.

    .venv/bin/python scripts/bench/memory.py [TOPOLOGY ...]        (after `make setup`; no TPU)

The real train step is compiled for each choice: one sequence of 2048 tokens a chip, bfloat16 compute, full remat, splash
attention, strategy fsdp over all chips. Each line is one JSON object; "fits" is against what a chip has free.
"""

import json
import sys

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.command_line import parse_command_line
from wizardcoder_jax.planning.compile_jobs import CompileJob, compiled
from wizardcoder_jax.planning.planned_model import planned_arch
from wizardcoder_jax.planning.topology import topology_of

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
    """Prints one JSON object a topology and choice."""
    for name in sys.argv[1:] or TOPOLOGIES:
        topology = topology_of(name)
        rows = str(topology.num_chips)
        for choice, flags in CHOICES.items():
            config = parse_command_line(
                TrainConfig, ["--mesh", f"{rows}x1", "--batch-size", rows, "--accumulation", "1", *flags]
            )
            found = compiled(CompileJob.of_step(topology, planned_arch(config), config), memory_only=True)
            told = {"topology": name, "choice": choice, "gib_per_chip": round(found.hbm_bytes / 2**30, 2), "fits": found.fits}
            print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()

"""Figures of the train step and of the sampler on TPU slices, compiled ahead of time: compiled, not run. No TPU is needed.

    .venv/bin/python scripts/bench/aot.py [NAME ...] > aot.json        (after `make setup`; each step takes minutes to compile)

One JSON object: versions, and of each case what `plan` says of it (plan.json), with the seconds of 64 sequences. A step is
estimated by the cycles of the compiler, attention kernels at 45 % of the peak, and what it waits for of collectives; all
places count as supervised. `auto` compiles the 12 choices that arithmetic finds best for StarCoder-15.5B on v5e:4x8, to see
how near the one that `--mesh auto` takes (of the first three) comes to the best of them.
"""

import dataclasses
import json
import sys
from typing import Any

from wizardcoder_jax.config import PlanConfig
from wizardcoder_jax.config.command_line import parse_command_line
from wizardcoder_jax.planning.plan_search import candidates
from wizardcoder_jax.planning.planned_model import planned_arch
from wizardcoder_jax.planning.planner import decodings, planned, versions
from wizardcoder_jax.planning.topology import topology_of

STARCODER = ("--config", "configs/wizardcoder_15b.py")
NUM_SWEPT = 12
OF_32 = (*STARCODER, "--mesh", "32x1")
CASES: dict[str, tuple[str, ...]] = {  # remat and microbatches that leave little to wait for, of those that fit
    "StarCoder-15.5B, v5e:4x8": (*OF_32, "--topology", "v5e:4x8"),
    "StarCoder-15.5B, v6e:4x8": (*OF_32, "--topology", "v6e:4x8", "--remat", "full", "--accumulation", "2"),
    "StarCoder-15.5B, v5p:2x4x4": (*OF_32, "--topology", "v5p:2x4x4", "--remat", "mlp", "--accumulation", "2"),
    "StarCoder-15.5B, v4:2x4x4": (*OF_32, "--topology", "v4:2x4x4", "--remat", "offload_middle", "--accumulation", "1"),
    "LoRA of StarCoder-15.5B, v5e:2x4": (
        *(*STARCODER, "--topology", "v5e:2x4", "--mesh", "8x1", "--lora.rank", "64", "--lora.base-weights", "bfloat16"),
        *("--remat", "offload_up", "--accumulation", "16"),
    ),
    "CodeLlama-34B, v5p:2x4x4": (
        *(*OF_32, "--base", "codellama/CodeLlama-34b-hf", "--topology", "v5p:2x4x4"),
        *("--remat", "mlp", "--accumulation", "4"),
    ),
}


def of_case(name: str) -> dict[str, Any]:
    """What `plan` says of a case."""
    config = parse_command_line(PlanConfig, CASES[name])
    topology, arch = topology_of(config.topology), planned_arch(config.train)
    plan = planned(config.train, arch, topology)
    if "StarCoder" in name:
        plan = dataclasses.replace(plan, decoding=decodings(config, topology, arch))
    told = plan.to_json({})
    seconds = told["estimated_step_s"]
    return {**told, "estimated_s_per_64": seconds and 64 * seconds / config.batch_size}


def swept() -> list[dict[str, Any]]:
    """The choices for StarCoder-15.5B on v5e:4x8 that arithmetic finds best, in its order, with both seconds of a step."""
    config = parse_command_line(PlanConfig, [*STARCODER, "--topology", "v5e:4x8"])
    topology, arch = topology_of(config.topology), planned_arch(config.train)
    told = []
    for choice in candidates(config.train, arch, topology)[:NUM_SWEPT]:
        plan = planned(choice.config, arch, topology)
        time, said = plan.time, plan.summary()
        by_arithmetic = {"hbm_bytes": choice.memory.total, "step_s": choice.pace.total_s}
        print(f"aot: {said}; {choice.pace.total_s:.3f} s by arithmetic", file=sys.stderr, flush=True)
        told.append({"choice": said, "by_arithmetic": by_arithmetic, "step_s": time and time.total_s})
    return told


def main() -> None:
    """Prints the table."""
    names = sys.argv[1:] or [*CASES, "auto"]
    found: dict[str, Any] = {"label": "compiled, not run", "versions": versions()}
    for name in names:
        found[name] = swept() if name == "auto" else of_case(name)
        print(f"aot: {name} done", file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

"""Estimates of the train step and of the sampler on TPU slices, compiled ahead of time, not run. No TPU is needed.

    .venv/bin/python scripts/bench/aot.py [NAME ...] > aot.json        (after `make setup`; each step takes minutes to compile)

Prints one JSON object with the versions and, for each case, its plan.json and the seconds per 64 sequences. The time of a step
is the sum of the compiler's cycles, attention kernels at 45 % of peak FLOPs, and exposed collectives. The loss is assumed to
cover all positions. The case `auto` compiles the 12 best choices by arithmetic for StarCoder-15.5B on v5e:4x8, to see how close
the choice of `--mesh auto`, which compiles only the first three, comes to the best.
"""

import dataclasses
import json
import sys
from typing import Any

from wizardcoder_jax.config import PlanConfig
from wizardcoder_jax.config.command_line import parse_command_line
from wizardcoder_jax.planning.plan_search import rank_candidates
from wizardcoder_jax.planning.planned_model import resolve_arch
from wizardcoder_jax.planning.planner import compiler_versions, make_plan, plan_decoding
from wizardcoder_jax.planning.topology import parse_topology

STARCODER = ("--config", "configs/wizardcoder_15b.py")
NUM_CHOICES = 12
ON_32 = (*STARCODER, "--mesh", "32x1")
CASES: dict[str, tuple[str, ...]] = {  # flags of `plan`, with remat and microbatches chosen by hand
    "StarCoder-15.5B, v5e:4x8": (*ON_32, "--topology", "v5e:4x8"),
    "StarCoder-15.5B, v6e:4x8": (*ON_32, "--topology", "v6e:4x8", "--remat", "full", "--accumulation", "2"),
    "StarCoder-15.5B, v5p:2x4x4": (*ON_32, "--topology", "v5p:2x4x4", "--remat", "mlp", "--accumulation", "2"),
    "StarCoder-15.5B, v4:2x4x4": (*ON_32, "--topology", "v4:2x4x4", "--remat", "offload_middle", "--accumulation", "1"),
    "LoRA of StarCoder-15.5B, v5e:2x4": (
        *(*STARCODER, "--topology", "v5e:2x4", "--mesh", "8x1", "--lora.rank", "64", "--lora.base-weights", "bfloat16"),
        *("--remat", "offload_up", "--accumulation", "16"),
    ),
    "CodeLlama-34B, v5p:2x4x4": (
        *(*ON_32, "--base", "codellama/CodeLlama-34b-hf", "--topology", "v5p:2x4x4"),
        *("--remat", "mlp", "--accumulation", "4"),
    ),
}


def plan_case(name: str) -> dict[str, Any]:
    """Return the contents of plan.json for a case."""
    config = parse_command_line(PlanConfig, CASES[name])
    topology, arch = parse_topology(config.topology), resolve_arch(config.train)
    plan = make_plan(config.train, arch, topology)
    if "StarCoder" in name:
        plan = dataclasses.replace(plan, decoding=plan_decoding(config, topology, arch))
    content = plan.to_json({})
    seconds = content["estimated_step_s"]
    return {**content, "estimated_s_per_64": seconds and 64 * seconds / config.batch_size}


def compile_best_choices() -> list[dict[str, Any]]:
    """Compile the NUM_CHOICES best choices for StarCoder-15.5B on v5e:4x8; return their estimated and compiled figures."""
    config = parse_command_line(PlanConfig, [*STARCODER, "--topology", "v5e:4x8"])
    topology, arch = parse_topology(config.topology), resolve_arch(config.train)
    found = []
    for choice in rank_candidates(config.train, arch, topology)[:NUM_CHOICES]:
        plan = make_plan(choice.config, arch, topology)
        time, summary = plan.time, plan.summary()
        by_arithmetic = {"hbm_bytes": choice.memory.total, "step_s": choice.time.total_s}
        print(f"aot: {summary}; {choice.time.total_s:.3f} s by arithmetic", file=sys.stderr, flush=True)
        found.append({"choice": summary, "by_arithmetic": by_arithmetic, "step_s": time and time.total_s})
    return found


def main() -> None:
    """Print the plans of the requested cases as one JSON object."""
    names = sys.argv[1:] or [*CASES, "auto"]
    found: dict[str, Any] = {"label": "compiled, not run", "versions": compiler_versions()}
    for name in names:
        found[name] = compile_best_choices() if name == "auto" else plan_case(name)
        print(f"aot: {name} done", file=sys.stderr, flush=True)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()

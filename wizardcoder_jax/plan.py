"""Whether a run fits a slice of accelerators, and how fast it would be: config + topology -> a table, plan.json.

No accelerator is needed: the real train step and the real sampler are compiled for it, and not run.
"""

import importlib.metadata
import sys
from collections.abc import Sequence

from wizardcoder_jax.cli import parse_cli, run_door
from wizardcoder_jax.config import PlanConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import write_json

COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the plan and writes it; status 1 where it does not fit."""
    config = parse_cli(PlanConfig, argv)

    from wizardcoder_jax.planning.compile import Job, compiled
    from wizardcoder_jax.planning.report import Plan
    from wizardcoder_jax.planning.topology import topology_of

    topology = topology_of(config.topology)
    arch = planned_arch(config.train)
    step = compiled(Job.of_step(topology, arch, config.train), memory_only=config.fast)
    plan = Plan(topology=topology, arch=arch, train=config.train, step=step)
    print(plan.to_text())
    if config.output is not None:
        write_json(config.output, plan.to_json(versions()))
    if not step.fits:
        sys.exit(1)


if __name__ == "__main__":
    run_door(main)

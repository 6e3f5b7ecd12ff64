"""Plan a training run: config + topology -> whether it fits, and how fast it would be, as a table and plan.json.

No accelerator is needed: the real train step and sampler are compiled for the topology, but not run.
"""

import dataclasses
import sys
from collections.abc import Sequence

from wizardcoder_jax.config import PlanConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.filesystem import write_json


def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan and write it to `output`; exit with status 1 if the run does not fit."""
    config = parse_command_line(PlanConfig, argv)

    from wizardcoder_jax.planning.planned_model import check_mesh, resolve_arch
    from wizardcoder_jax.planning.planner import (
        compiler_versions,
        make_plan,
        plan_decoding,
        search_plan,
        verify_suggestions,
    )
    from wizardcoder_jax.planning.topology import parse_topology

    topology = parse_topology(config.topology)
    arch = resolve_arch(config.train)
    if config.mesh == "auto":
        plan = search_plan(config.train, arch, topology, is_fast=config.fast)
    else:
        check_mesh(config.train, topology)
        plan = make_plan(config.train, arch, topology, is_fast=config.fast)
    if not plan.step.fits:
        plan = dataclasses.replace(plan, suggestions=verify_suggestions(plan))
    elif not config.fast:
        plan = dataclasses.replace(plan, decoding=plan_decoding(config, topology, arch))
    print(plan.to_text())
    if config.output is not None:
        write_json(config.output, plan.to_json(compiler_versions()))
    if not plan.step.fits:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)

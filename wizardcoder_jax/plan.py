"""Whether a run fits a slice of accelerators, and how fast it would be: config + topology -> a table, plan.json.

No accelerator is needed: the real train step and the real sampler are compiled for it, and not run.
"""

import dataclasses
import sys
from collections.abc import Sequence

from wizardcoder_jax.config import PlanConfig
from wizardcoder_jax.config.command_line import parse_command_line, run_command
from wizardcoder_jax.core.filesystem import write_json


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the plan and writes it; status 1 where it does not fit."""
    config = parse_command_line(PlanConfig, argv)

    from wizardcoder_jax.planning.planned_model import check_mesh, planned_arch
    from wizardcoder_jax.planning.planner import decodings, planned, searched, shown_to_fit, versions
    from wizardcoder_jax.planning.topology import topology_of

    topology = topology_of(config.topology)
    arch = planned_arch(config.train)
    if config.mesh == "auto":
        plan = searched(config.train, arch, topology, is_fast=config.fast)
    else:
        check_mesh(config.train, arch, topology)
        plan = planned(config.train, arch, topology, is_fast=config.fast)
    if not plan.step.fits:
        plan = dataclasses.replace(plan, suggestions=shown_to_fit(plan))
    elif not config.fast:
        plan = dataclasses.replace(plan, decoding=decodings(config, topology, arch))
    print(plan.to_text())
    if config.output is not None:
        write_json(config.output, plan.to_json(versions()))
    if not plan.step.fits:
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)

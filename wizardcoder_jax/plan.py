"""Whether a run fits a slice of accelerators, and how fast it would be: config + topology -> a table, plan.json.

No accelerator is needed: the real train step and the real sampler are compiled for it, and not run.
"""

import importlib.metadata
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wizardcoder_jax.cli import parse_cli, run_door
from wizardcoder_jax.config import PlanConfig
from wizardcoder_jax.files import write_json

if TYPE_CHECKING:
    from wizardcoder_jax.arch import ArchConfig
    from wizardcoder_jax.planning.report import Decoding
    from wizardcoder_jax.planning.topology import Topology

COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the plan and writes it; status 1 where it does not fit."""
    config = parse_cli(PlanConfig, argv)

    from wizardcoder_jax.planning.compile import Job, compiled
    from wizardcoder_jax.planning.report import Plan
    from wizardcoder_jax.planning.subject import check_mesh, planned_arch
    from wizardcoder_jax.planning.topology import topology_of

    topology = topology_of(config.topology)
    arch = planned_arch(config.train)
    check_mesh(config.train, arch, topology)
    step = compiled(Job.of_step(topology, arch, config.train), memory_only=config.fast)
    decoding = () if config.fast else decodings(config, topology, arch)
    plan = Plan(topology=topology, arch=arch, train=config.train, step=step, decoding=decoding)
    print(plan.to_text())
    if config.output is not None:
        write_json(config.output, plan.to_json(versions()))
    if not step.fits:
        sys.exit(1)


def decodings(config: PlanConfig, topology: "Topology", arch: "ArchConfig") -> tuple["Decoding", ...]:
    """The sampler with weights of either dtype."""
    from wizardcoder_jax.planning.compile import Job, compiled
    from wizardcoder_jax.planning.report import Decoding
    from wizardcoder_jax.planning.subject import decoding_mesh

    mesh, length = decoding_mesh(arch, topology), min(config.decode_length, arch.max_positions)
    found = []
    for int8 in (False, True):
        job = Job.of_decode(topology, arch, mesh, batch=config.decode_batch_size, num_slots=length, int8=int8)
        found.append(Decoding(dtype="int8" if int8 else "bfloat16", mesh=mesh, compiled=compiled(job)))
    return tuple(found)


def versions() -> dict[str, str]:
    """Of the compilers that are installed."""
    names = {dist.metadata["Name"] for dist in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in COMPILERS if name in names}


if __name__ == "__main__":
    run_door(main)

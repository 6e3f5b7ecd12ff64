"""Whether a run fits a slice of accelerators, and how fast it would be: config + topology -> a table, plan.json.

No accelerator is needed: the real train step and the real sampler are compiled for it, and not run.
"""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wizardcoder_jax.cli import parse_cli, run_door
from wizardcoder_jax.config import PlanConfig, TrainConfig
from wizardcoder_jax.errors import InputError
from wizardcoder_jax.files import write_json

if TYPE_CHECKING:
    from wizardcoder_jax.arch import ArchConfig
    from wizardcoder_jax.planning.report import Decoding, Plan, Suggestion
    from wizardcoder_jax.planning.topology import Topology

NUM_COMPILED, NUM_TRIED = 3, 6  # of the choices that arithmetic finds best: as many that fit, of at most so many
NUM_SUGGESTED = 4
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
    if config.mesh == "auto":
        plan = searched(config.train, arch, topology, is_fast=config.fast)
    else:
        check_mesh(config.train, arch, topology)
        step = compiled(Job.of_step(topology, arch, config.train), memory_only=config.fast)
        plan = Plan(topology=topology, arch=arch, train=config.train, step=step)
    if not plan.step.fits:
        plan = dataclasses.replace(plan, suggestions=shown_to_fit(plan))
    elif not config.fast:
        plan = dataclasses.replace(plan, decoding=decodings(config, topology, arch))
    print(plan.to_text())
    if config.output is not None:
        write_json(config.output, plan.to_json(versions()))
    if not plan.step.fits:
        sys.exit(1)


def searched(train: TrainConfig, arch: "ArchConfig", topology: "Topology", *, is_fast: bool) -> "Plan":
    """The fastest plan that fits, of the few that arithmetic finds best; where none fits, what needs least."""
    from wizardcoder_jax.planning.compile import Job, compiled
    from wizardcoder_jax.planning.report import Plan
    from wizardcoder_jax.planning.search import candidates

    found = candidates(train, arch, topology)
    if not found:
        raise InputError(f"no mesh of {topology.num_chips} chips divides batches of {train.batch_size}; change --batch-size")
    said = f"{len(found)} choices of mesh, strategy, remat and microbatch by arithmetic; compiling the best"
    print(f"plan: {said}", file=sys.stderr, flush=True)
    best: Plan | None = None
    num_fitting = 0
    for choice in found[: NUM_TRIED if found[0].fits() else 1]:
        step = compiled(Job.of_step(topology, arch, choice.config), memory_only=is_fast)
        plan = Plan(topology=topology, arch=arch, train=choice.config, step=step)
        print(f"plan: {plan.summary()}", file=sys.stderr, flush=True)
        if best is None or plan.rank() < best.rank():
            best = plan
        num_fitting += step.fits
        if num_fitting == (1 if is_fast else NUM_COMPILED):
            break
    assert best is not None
    return best


def shown_to_fit(plan: "Plan") -> tuple["Suggestion", ...]:
    """Changes that make a plan fit, as the compiler says; what does not fit after all is left out."""
    from wizardcoder_jax.planning.compile import Job, compiled
    from wizardcoder_jax.planning.report import Suggestion
    from wizardcoder_jax.planning.search import suggestions

    found = []
    for change in suggestions(plan.train, plan.arch, plan.topology):
        choice = change.choice
        step = compiled(Job.of_step(choice.topology, plan.arch, choice.config), memory_only=True)
        if step.fits:
            seconds = choice.pace.total_s
            found.append(Suggestion(flags=" ".join(change.flags), hbm_bytes=step.hbm_bytes, estimated_step_s=seconds))
        if len(found) == NUM_SUGGESTED:
            break
    return tuple(found)


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

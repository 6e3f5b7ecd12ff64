"""Makes plans: of given settings, of the best that a search finds, and of what would fit in the place of what does not."""

import importlib.metadata
import sys

from wizardcoder_jax.config import PlanConfig, TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.compile_jobs import LIBTPU, CompileJob, compiled
from wizardcoder_jax.planning.plan_report import CheckedSuggestion, DecodingPlan, Plan
from wizardcoder_jax.planning.plan_search import candidates, suggestions
from wizardcoder_jax.planning.planned_model import decoding_mesh
from wizardcoder_jax.planning.topology import Topology

NUM_COMPILED, NUM_TRIED = 3, 6  # of the choices that arithmetic finds best: as many that fit, of at most so many
NUM_SUGGESTED = 4
COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")


def planned(train: TrainConfig, arch: ArchConfig, topology: Topology, *, is_fast: bool = False) -> Plan:
    """The plan of settings as they are; where it is to be fast, without times."""
    step = compiled(CompileJob.of_step(topology, arch, train), memory_only=is_fast)
    return Plan(topology=topology, arch=arch, train=train, step=step)


def searched(train: TrainConfig, arch: ArchConfig, topology: Topology, *, is_fast: bool) -> Plan:
    """The fastest plan that fits, of the few that arithmetic finds best; where none fits, what needs least."""
    found = candidates(train, arch, topology)
    if not found:
        raise InputError(f"no mesh of {topology.num_chips} chips divides batches of {train.batch_size}; change --batch-size")
    said = f"{len(found)} choices of mesh, strategy, remat, microbatch and loss chunk by arithmetic; compiling the best"
    print(f"plan: {said}", file=sys.stderr, flush=True)
    best: Plan | None = None
    num_fitting = 0
    for choice in found[: NUM_TRIED if found[0].fits() else 1]:
        plan = planned(choice.config, arch, topology, is_fast=is_fast)
        print(f"plan: {plan.summary()}", file=sys.stderr, flush=True)
        if best is None or plan.rank() < best.rank():
            best = plan
        num_fitting += plan.step.fits
        if num_fitting == (1 if is_fast else NUM_COMPILED):
            break
    assert best is not None
    return best


def shown_to_fit(plan: Plan) -> tuple[CheckedSuggestion, ...]:
    """Changes that make a plan fit, as the compiler says; what does not fit after all is left out."""
    found = []
    for change in suggestions(plan.train, plan.arch, plan.topology):
        choice = change.choice
        step = planned(choice.config, plan.arch, choice.topology, is_fast=True).step
        if step.fits:
            seconds = choice.pace.total_s
            found.append(CheckedSuggestion(flags=" ".join(change.flags), hbm_bytes=step.hbm_bytes, estimated_step_s=seconds))
        if len(found) == NUM_SUGGESTED:
            break
    return tuple(found)


def decodings(config: PlanConfig, topology: Topology, arch: ArchConfig) -> tuple[DecodingPlan, ...]:
    """The sampler with weights of either dtype."""
    mesh, length = decoding_mesh(arch, topology), min(config.decode_length, arch.max_positions)
    found = []
    for int8 in (False, True):
        job = CompileJob.of_decode(topology, arch, mesh, batch=config.decode_batch_size, num_slots=length, int8=int8)
        found.append(DecodingPlan(dtype="int8" if int8 else "bfloat16", mesh=mesh, compiled=compiled(job)))
    return tuple(found)


def versions() -> dict[str, str]:
    """Of the compilers that are installed."""
    installed = importlib.metadata.distributions(path=[*sys.path, LIBTPU])
    found = {dist.metadata["Name"]: dist.version for dist in installed}
    return {name: found[name] for name in COMPILERS if name in found}

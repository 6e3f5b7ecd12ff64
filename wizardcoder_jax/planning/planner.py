"""Planner: compiles the given settings, the best settings that a search finds, or changes that would make a run fit."""

import importlib.metadata
import logging
import sys

from wizardcoder_jax.config import PlanConfig, TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.planning.compile_jobs import LIBTPU, CompileJob, compile_job
from wizardcoder_jax.planning.plan_report import DecodingPlan, Plan, VerifiedSuggestion
from wizardcoder_jax.planning.plan_search import rank_candidates, suggest_changes
from wizardcoder_jax.planning.planned_model import choose_decoding_mesh
from wizardcoder_jax.planning.topology import Topology

# Compile the best choices by arithmetic in order until NUM_FITTING of them fit, but at most MAX_COMPILED.
NUM_FITTING, MAX_COMPILED = 3, 6
NUM_SUGGESTIONS = 4  # maximum number of suggestions
COMPILERS = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin")

logger = logging.getLogger(__name__)


def make_plan(train: TrainConfig, arch: ArchConfig, topology: Topology, *, is_fast: bool = False) -> Plan:
    """Compile the train step with the given settings. If `is_fast`, the plan has only its memory, not its time."""
    step = compile_job(CompileJob.of_step(topology, arch, train), memory_only=is_fast)
    return Plan(topology=topology, arch=arch, train=train, step=step)


def search_plan(train: TrainConfig, arch: ArchConfig, topology: Topology, *, is_fast: bool) -> Plan:
    """Compile the best choices by arithmetic; return the fastest that fits, or the one with the least memory if none fits.

    Raises:
        InputError: no mesh divides the batch.
    """
    candidates = rank_candidates(train, arch, topology)
    if not candidates:
        raise InputError(f"no mesh of {topology.num_chips} chips divides batches of {train.batch_size}; change --batch-size")
    logger.info(
        "plan: compared %d choices of mesh, strategy, remat, microbatch and loss chunk; compiling the best", len(candidates)
    )
    best: Plan | None = None
    num_fitting = 0
    for choice in candidates[: MAX_COMPILED if candidates[0].fits() else 1]:
        plan = make_plan(choice.config, arch, topology, is_fast=is_fast)
        logger.info("plan: %s", plan.summary())
        if best is None or plan.rank() < best.rank():
            best = plan
        num_fitting += plan.step.fits
        if num_fitting == (1 if is_fast else NUM_FITTING):
            break
    assert best is not None
    return best


def verify_suggestions(plan: Plan) -> tuple[VerifiedSuggestion, ...]:
    """Return changes that make a plan fit. Each is compiled, and omitted if it does not fit after all."""
    verified = []
    for suggestion in suggest_changes(plan.train, plan.arch, plan.topology):
        choice = suggestion.choice
        step = make_plan(choice.config, plan.arch, choice.topology, is_fast=True).step
        if step.fits:
            flags, time_s = " ".join(suggestion.flags), choice.time.total_s
            verified.append(VerifiedSuggestion(flags=flags, hbm_bytes=step.hbm_bytes, estimated_step_s=time_s))
        if len(verified) == NUM_SUGGESTIONS:
            break
    return tuple(verified)


def plan_decoding(config: PlanConfig, topology: Topology, arch: ArchConfig) -> tuple[DecodingPlan, ...]:
    """Compile the decoding program with bfloat16 and with int8 weights."""
    mesh, length = choose_decoding_mesh(arch, topology), min(config.decode_length, arch.max_positions)
    plans = []
    for int8 in (False, True):
        job = CompileJob.of_decode(topology, arch, mesh, batch_size=config.decode_batch_size, cache_length=length, int8=int8)
        plans.append(DecodingPlan(weights="int8" if int8 else "bfloat16", mesh=mesh, compiled=compile_job(job)))
    return tuple(plans)


def compiler_versions() -> dict[str, str]:
    """Return the versions of the installed compilers."""
    installed = importlib.metadata.distributions(path=[*sys.path, LIBTPU])
    found = {dist.metadata["Name"]: dist.version for dist in installed}
    return {name: found[name] for name in COMPILERS if name in found}

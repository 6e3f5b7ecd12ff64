"""Search by arithmetic: which mesh, strategy, remat and microbatch suit a run best, and which changes would make it fit."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import MESH_AXES, RULES, parse_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.remat import REMAT_POLICIES
from wizardcoder_jax.planning.memory_estimator import StepMemory, estimate_memory
from wizardcoder_jax.planning.step_time import StepTime, estimate_step_time
from wizardcoder_jax.planning.topology import Topology, parse_topology

MAX_MODEL = 16  # devices along "model": with more, a step mostly waits for collectives
# Estimates are not exact. A suggestion leaves MARGIN of a chip's memory free. A choice that needs up to TOLERANCE more than the
# chip has may still fit, because the compiler lets buffers share memory: the fastest choice for StarCoder on v5e does.
MARGIN, TOLERANCE = 0.05, 0.08
LORA_RANK = 64
BASE_WEIGHTS = ("float32", "bfloat16", "int8", "nf4")  # largest first
MAX_DOUBLINGS = 3  # of the number of chips


_Change = tuple[Iterable[TrainConfig], Topology]  # configs, and the topology that they run on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings for a run, with their estimates."""

    config: TrainConfig
    topology: Topology
    memory: StepMemory
    time: StepTime

    @classmethod
    def of(cls, config: TrainConfig, arch: ArchConfig, topology: Topology) -> "Choice":
        """Estimate a config whose mesh has the topology's number of chips."""
        mesh = parse_mesh(config.mesh)
        memory = estimate_memory(arch, config, mesh)
        time = estimate_step_time(arch, config, mesh, topology.chip, memory)
        return cls(config=config, topology=topology, memory=memory, time=time)

    def fits(self, margin: float = -TOLERANCE) -> bool:
        """Whether chip and host have enough memory, with a margin of the chip's; by default, whether that is possible."""
        chip = self.topology.chip
        return self.memory.total <= (1 - margin) * chip.hbm_bytes and self.memory.host <= chip.host_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A change that makes a config fit."""

    flags: tuple[str, ...]  # to add to the command
    choice: Choice


def rank_candidates(config: TrainConfig, arch: ArchConfig, topology: Topology) -> list[Choice]:
    """Rank all meshes, strategies, kinds of remat and microbatches: those that may fit first, the fastest first among them.

    Args:
        config: all other settings of the run. Its mesh, strategy, remat, accumulation and, unless it is set, loss_chunk are
            chosen.
        arch: of the model that is trained.
        topology: each mesh uses all of its chips.
    """
    found = [
        min((Choice.of(chunked, arch, topology) for chunked in _vary_loss_chunk(candidate)), key=_rank)
        for meshed in _vary_mesh(config, arch, topology.num_chips)
        for candidate in _vary_schedule(meshed)
    ]
    return sorted(found, key=_rank)


def _rank(choice: Choice) -> tuple[int, float]:
    return (0, choice.time.total_s) if choice.fits() else (1, choice.memory.total)


def suggest_changes(config: TrainConfig, arch: ArchConfig, topology: Topology) -> list[Suggestion]:
    """Suggest changes that make a config fit, by arithmetic and with a margin.

    First come up to two suggestions that change neither the mesh nor the result, then one of each kind: another mesh, smaller
    optimizer moments, more chips, adapters. Each is the smallest change of bits or chips that fits, and the fastest choice
    with it.

    Args:
        config: the run, with a mesh of the topology's size.
        arch: of the model that is trained.
        topology: its chips.
    """
    found: list[Suggestion] = []
    for alternatives in _list_changes(config, arch, topology):
        for configs, chips in alternatives:
            fitting = [choice for choice in (Choice.of(each, arch, chips) for each in configs) if choice.fits(MARGIN)]
            fitting.sort(key=lambda choice: choice.time.total_s)
            changes = [Suggestion(flags=_changed_flags(config, topology, choice), choice=choice) for choice in fitting]
            if new := [change for change in changes if change.flags]:
                found += new[: 1 if found else 2]
                break
    return found


def _list_changes(config: TrainConfig, arch: ArchConfig, topology: Topology) -> Iterator[Iterable[_Change]]:
    """Yield, for each kind of change, its alternatives, the smallest change first."""
    yield [(_vary_schedule(config), topology)]
    others = [other for other in _vary_mesh(config, arch, topology.num_chips) if other.mesh != config.mesh]
    yield [((each for other in others for each in _vary_schedule(other)), topology)]
    is_lora, optim, lora = config.lora.rank is not None, config.optim, config.lora
    if optim.name != "adafactor" and optim.moment_dtype == "float32" and not is_lora:
        smaller = [dataclasses.replace(optim, moment_dtype=dtype) for dtype in ("bfloat16", "int8")]
        yield [(_vary_schedule(dataclasses.replace(config, optim=optim)), topology) for optim in smaller]
    yield _double_chips(config, topology)
    if not config.freeze and not config.freeze_layers:
        dtypes = BASE_WEIGHTS[BASE_WEIGHTS.index(lora.base_weights) + 1 if is_lora else 1 :]
        adapters = [dataclasses.replace(lora, rank=lora.rank or LORA_RANK, base_weights=dtype) for dtype in dtypes]
        yield [(_vary_schedule(dataclasses.replace(config, lora=lora)), topology) for lora in adapters]


def _double_chips(config: TrainConfig, topology: Topology) -> Iterator[_Change]:
    """Yield the config on 2, 4, ... times the chips: the shortest axis of the slice and "data" of the mesh are doubled."""
    shape, mesh = topology.shape, parse_mesh(config.mesh)
    for _ in range(MAX_DOUBLINGS):
        shortest, *others = sorted(shape)
        shape, mesh = tuple(sorted((2 * shortest, *others))), (2 * mesh[0], mesh[1])
        name = f"{topology.chip.name}:{'x'.join(map(str, shape))}"
        with contextlib.suppress(InputError):  # half a host
            yield _vary_schedule(dataclasses.replace(config, mesh=f"{mesh[0]}x{mesh[1]}")), parse_topology(name)


def _vary_mesh(config: TrainConfig, arch: ArchConfig, num_chips: int) -> Iterator[TrainConfig]:
    """Yield the config with each mesh of `num_chips` chips, and the strategy for it."""
    yield dataclasses.replace(config, strategy="fsdp", mesh=f"{num_chips}x1")
    for model in range(2, min(MAX_MODEL, num_chips) + 1):
        if num_chips % model == arch.num_heads % model == arch.mlp_dim % model == 0:
            yield dataclasses.replace(config, strategy="fsdp_tensor", mesh=f"{num_chips // model}x{model}")


def _vary_schedule(config: TrainConfig) -> Iterator[TrainConfig]:
    """Yield the config with each kind of remat and each size of microbatch that its mesh divides."""
    sizes: dict[str, int] = dict(zip(MESH_AXES, parse_mesh(config.mesh), strict=True))
    num_shards = math.prod(sizes[name] for name in RULES[config.strategy].batch)
    # The loss of the original objective is a mean over each microbatch, unless groups are set.
    is_free = config.objective == "token_mean" or config.loss_group is not None
    for accumulation in range(1, config.batch_size + 1) if is_free else (config.accumulation,):
        if config.batch_size % accumulation == 0 and (config.batch_size // accumulation) % num_shards == 0:
            for remat in REMAT_POLICIES:
                yield dataclasses.replace(config, accumulation=accumulation, remat=remat)


def _vary_loss_chunk(config: TrainConfig) -> Iterator[TrainConfig]:
    """Yield the config unchanged and, unless it sets loss_chunk, also with the logits of whole sequences at once."""
    yield config
    if config.loss_chunk is None:
        yield dataclasses.replace(config, loss_chunk=config.max_length)


def _changed_flags(config: TrainConfig, topology: Topology, choice: Choice) -> tuple[str, ...]:
    """Return the difference between a config and a choice as flags of plan."""

    def settings(config: TrainConfig, topology: Topology) -> dict[str, object]:
        return {
            "topology": topology.name,
            "strategy": config.strategy,
            "mesh": config.mesh,
            "remat": config.remat,
            "accumulation": config.accumulation,
            "optim.moment-dtype": config.optim.moment_dtype,
            "lora.rank": config.lora.rank,
            "lora.base-weights": config.lora.base_weights,
        }

    old, new = settings(config, topology), settings(choice.config, choice.topology)
    changed = [(f"--{name}", str(value)) for name, value in new.items() if value != old[name]]
    return tuple(word for pair in changed for word in pair)

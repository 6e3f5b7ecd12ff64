"""Search, by arithmetic, for the fastest mesh, strategy, remat policy and microbatch, and for changes that make a run fit."""

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

MAX_MODEL = 16  # largest "model" axis; beyond it, a step mostly waits for collectives
# Estimates are not exact. A suggestion leaves the fraction MARGIN of a chip's memory free. A choice whose estimate exceeds the
# memory by up to the fraction TOLERANCE is still tried, because the compiler lets buffers share memory: the fastest choice for
# StarCoder on v5e fits only for this reason.
MARGIN, TOLERANCE = 0.05, 0.08
LORA_RANK = 64  # rank of suggested adapters
BASE_WEIGHTS = ("float32", "bfloat16", "int8", "nf4")  # dtypes of a frozen base model, the largest first
MAX_DOUBLINGS = 3  # how often a suggestion may double the number of chips


_Change = tuple[Iterable[TrainConfig], Topology]  # alternative configs, and the topology to run them on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Settings for a run, with estimates of memory and time."""

    config: TrainConfig
    topology: Topology
    memory: StepMemory
    time: StepTime

    @classmethod
    def of(cls, config: TrainConfig, arch: ArchConfig, topology: Topology) -> "Choice":
        """Estimate memory and time of a config; its mesh must use all chips of the topology."""
        mesh = parse_mesh(config.mesh)
        memory = estimate_memory(arch, config, mesh)
        time = estimate_step_time(arch, config, mesh, topology.chip, memory)
        return cls(config=config, topology=topology, memory=memory, time=time)

    def fits(self, margin: float = -TOLERANCE) -> bool:
        """Return whether the chip, with the fraction `margin` left free, and the host have enough memory.

        The default margin is negative: it also accepts choices that may fit because the compiler lets buffers share memory.
        """
        chip = self.topology.chip
        return self.memory.total <= (1 - margin) * chip.hbm_bytes and self.memory.host <= chip.host_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A change that makes a config fit."""

    flags: tuple[str, ...]  # flags to add to the command
    choice: Choice


def rank_candidates(config: TrainConfig, arch: ArchConfig, topology: Topology) -> list[Choice]:
    """Rank all combinations of mesh, strategy, remat policy and microbatch size.

    Choices that may fit come first, sorted by time; the others follow, sorted by memory.

    Args:
        config: settings of the run. Its mesh, strategy, remat and accumulation are replaced, and loss_chunk if it is None.
        arch: architecture of the trained model.
        topology: the chips; every mesh uses all of them.
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
    """Suggest changes that make a config fit according to the estimates, with MARGIN of the memory free.

    The first suggestions, at most two, change neither the mesh nor the trained model. Then comes at most one of each kind:
    another mesh, smaller optimizer moments, more chips, adapters. Each is the smallest change of its kind that fits (for
    smaller moments, the highest precision; for more chips, the fewest), with the fastest settings that fit after that change.

    Args:
        config: settings of the run; its mesh uses all chips of the topology.
        arch: architecture of the trained model.
        topology: the chips.
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
    """Yield the alternatives of each kind of change, the smallest change first."""
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
    """Yield the config on 2, 4, ... times as many chips, doubling the slice's shortest axis and the mesh's "data" axis."""
    shape, mesh = topology.shape, parse_mesh(config.mesh)
    for _ in range(MAX_DOUBLINGS):
        shortest, *others = sorted(shape)
        shape, mesh = tuple(sorted((2 * shortest, *others))), (2 * mesh[0], mesh[1])
        name = f"{topology.chip.name}:{'x'.join(map(str, shape))}"
        with contextlib.suppress(InputError):  # the shape may not be made of whole hosts
            yield _vary_schedule(dataclasses.replace(config, mesh=f"{mesh[0]}x{mesh[1]}")), parse_topology(name)


def _vary_mesh(config: TrainConfig, arch: ArchConfig, num_chips: int) -> Iterator[TrainConfig]:
    """Yield the config with each possible mesh of `num_chips` chips and the strategy that suits the mesh."""
    yield dataclasses.replace(config, strategy="fsdp", mesh=f"{num_chips}x1")
    for model in range(2, min(MAX_MODEL, num_chips) + 1):
        if num_chips % model == arch.num_heads % model == arch.mlp_dim % model == 0:
            yield dataclasses.replace(config, strategy="fsdp_tensor", mesh=f"{num_chips // model}x{model}")


def _vary_schedule(config: TrainConfig) -> Iterator[TrainConfig]:
    """Yield the config with each remat policy and each microbatch size that can be split over its mesh."""
    sizes: dict[str, int] = dict(zip(MESH_AXES, parse_mesh(config.mesh), strict=True))
    num_shards = math.prod(sizes[name] for name in RULES[config.strategy].batch)
    # Objective "original" averages over each microbatch unless loss_group is set, so another size would change the loss.
    is_free = config.objective == "token_mean" or config.loss_group is not None
    for accumulation in range(1, config.batch_size + 1) if is_free else (config.accumulation,):
        if config.batch_size % accumulation == 0 and (config.batch_size // accumulation) % num_shards == 0:
            for remat in REMAT_POLICIES:
                yield dataclasses.replace(config, accumulation=accumulation, remat=remat)


def _vary_loss_chunk(config: TrainConfig) -> Iterator[TrainConfig]:
    """Yield the config unchanged and, unless it sets loss_chunk, a copy that computes the logits of whole sequences at once."""
    yield config
    if config.loss_chunk is None:
        yield dataclasses.replace(config, loss_chunk=config.max_length)


def _changed_flags(config: TrainConfig, topology: Topology, choice: Choice) -> tuple[str, ...]:
    """Return the flags of `plan` that turn `config` and `topology` into `choice`."""

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

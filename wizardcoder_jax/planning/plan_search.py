"""Which mesh, strategy, remat and microbatches a run would best have, and what would make one fit: by arithmetic."""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import MESH_AXES, RULES, parse_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.remat import REMAT_POLICIES
from wizardcoder_jax.planning.memory_estimator import StepMemory, memory
from wizardcoder_jax.planning.step_time import StepTime, pace
from wizardcoder_jax.planning.topology import Topology, topology_of

MAX_MODEL = 16  # devices of "model": more than that wait for one another for most of a step
# The arithmetic is not exact. Of a chip's memory what is suggested leaves a part free; and what needs a little more than all
# may fit yet, when the compiler finds buffers that can share a place: so it was with the fastest choice for StarCoder on v5e.
MARGIN, DOUBT = 0.05, 0.08
LORA_RANK = 64
BASE_WEIGHTS = ("float32", "bfloat16", "int8", "nf4")  # the larger first
MOST_DOUBLINGS = 3  # of the chips


_Change = tuple[Iterable[TrainConfig], Topology]  # configs, and the chips that they run on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One way to run a config."""

    config: TrainConfig
    topology: Topology
    memory: StepMemory
    pace: StepTime

    @classmethod
    def of(cls, config: TrainConfig, arch: ArchConfig, topology: Topology) -> "Choice":
        """What arithmetic says of a config whose mesh is of the topology's size."""
        mesh = parse_mesh(config.mesh)
        needed = memory(arch, config, mesh)
        taken = pace(arch, config, mesh, topology.chip, needed)
        return cls(config=config, topology=topology, memory=needed, pace=taken)

    def fits(self, margin: float = -DOUBT) -> bool:
        """Whether host and chip have the memory, and a share of the chip's besides; by default whether it may be."""
        chip = self.topology.chip
        return self.memory.total <= (1 - margin) * chip.hbm_bytes and self.memory.host <= chip.host_bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A change that makes a config fit."""

    flags: tuple[str, ...]  # to add to the command
    choice: Choice


def candidates(config: TrainConfig, arch: ArchConfig, topology: Topology) -> list[Choice]:
    """All meshes, strategies, kinds of remat and microbatches of a run: those that may fit first, the fastest of them in front.

    Args:
        config: all else of the run; its mesh, strategy, remat, accumulation and, where none is set, loss_chunk are
            what is chosen.
        arch: of what is trained.
        topology: chips, all of which the mesh is made of.
    """
    found = [
        min((Choice.of(chunked, arch, topology) for chunked in _chunkings(candidate)), key=_rank)
        for meshed in _meshes(config, arch, topology.num_chips)
        for candidate in _schedules(meshed)
    ]
    return sorted(found, key=_rank)


def _rank(choice: Choice) -> tuple[int, float]:
    return (0, choice.pace.total_s) if choice.fits() else (1, choice.memory.total)


def suggestions(config: TrainConfig, arch: ArchConfig, topology: Topology) -> list[Suggestion]:
    """What makes a config fit that does not, by arithmetic and with a margin.

    First what leaves mesh and result as they are, two of it, then one of each: another mesh, moments in fewer bits, more chips,
    adapters. It changes no more than is needed (bits, chips), and else is the fastest that fits.

    Args:
        config: the run, with a mesh of the topology's size.
        arch: of what is trained.
        topology: its chips.
    """
    found: list[Suggestion] = []
    for alternatives in _changes(config, arch, topology):
        for changed, chips in alternatives:
            fitting = [choice for choice in (Choice.of(each, arch, chips) for each in changed) if choice.fits(MARGIN)]
            fitting.sort(key=lambda choice: choice.pace.total_s)
            told = [Suggestion(flags=_flags(config, topology, choice), choice=choice) for choice in fitting]
            if new := [suggestion for suggestion in told if suggestion.flags]:
                found += new[: 1 if found else 2]
                break
    return found


def _changes(config: TrainConfig, arch: ArchConfig, topology: Topology) -> Iterator[Iterable[_Change]]:
    """Kinds of changes, of each the alternatives, the least first."""
    yield [(_schedules(config), topology)]
    others = [other for other in _meshes(config, arch, topology.num_chips) if other.mesh != config.mesh]
    yield [((each for other in others for each in _schedules(other)), topology)]
    adapts, optim, lora = config.lora.rank is not None, config.optim, config.lora
    if optim.name != "adafactor" and optim.moment_dtype == "float32" and not adapts:
        smaller = [dataclasses.replace(optim, moment_dtype=dtype) for dtype in ("bfloat16", "int8")]
        yield [(_schedules(dataclasses.replace(config, optim=optim)), topology) for optim in smaller]
    yield _on_more_chips(config, topology)
    if not config.freeze and not config.freeze_layers:
        held = BASE_WEIGHTS[BASE_WEIGHTS.index(lora.base_weights) + 1 if adapts else 1 :]
        adapters = [dataclasses.replace(lora, rank=lora.rank or LORA_RANK, base_weights=weights) for weights in held]
        yield [(_schedules(dataclasses.replace(config, lora=lora)), topology) for lora in adapters]


def _on_more_chips(config: TrainConfig, topology: Topology) -> Iterator[_Change]:
    """The config on twice the chips, and so on: the shortest axis and the mesh's "data" are doubled."""
    shape, mesh = topology.shape, parse_mesh(config.mesh)
    for _ in range(MOST_DOUBLINGS):
        least, *others = sorted(shape)
        shape, mesh = tuple(sorted((2 * least, *others))), (2 * mesh[0], mesh[1])
        name = f"{topology.chip.name}:{'x'.join(map(str, shape))}"
        with contextlib.suppress(InputError):  # half a host
            yield _schedules(dataclasses.replace(config, mesh=f"{mesh[0]}x{mesh[1]}")), topology_of(name)


def _meshes(config: TrainConfig, arch: ArchConfig, num_chips: int) -> Iterator[TrainConfig]:
    """The config with each mesh of so many chips that its strategy can use."""
    yield dataclasses.replace(config, strategy="fsdp", mesh=f"{num_chips}x1")
    for model in range(2, min(MAX_MODEL, num_chips) + 1):
        if num_chips % model == arch.num_heads % model == arch.mlp_dim % model == 0:
            yield dataclasses.replace(config, strategy="fsdp_tensor", mesh=f"{num_chips // model}x{model}")


def _schedules(config: TrainConfig) -> Iterator[TrainConfig]:
    """The config with each kind of remat and each size of microbatch that its mesh divides."""
    sizes: dict[str, int] = dict(zip(MESH_AXES, parse_mesh(config.mesh), strict=True))
    shards = math.prod(sizes[name] for name in RULES[config.strategy].batch)
    # under the original objective the loss is a mean over each microbatch, unless groups are given
    is_free = config.objective == "token_mean" or config.loss_group is not None
    for accumulation in range(1, config.batch_size + 1) if is_free else (config.accumulation,):
        if config.batch_size % accumulation == 0 and (config.batch_size // accumulation) % shards == 0:
            for remat in REMAT_POLICIES:
                yield dataclasses.replace(config, accumulation=accumulation, remat=remat)


def _chunkings(config: TrainConfig) -> Iterator[TrainConfig]:
    """The config with logits by chunks and, unless it says how long these are, with those of whole rows."""
    yield config
    if config.loss_chunk is None:
        yield dataclasses.replace(config, loss_chunk=config.max_length)


def _flags(config: TrainConfig, topology: Topology, choice: Choice) -> tuple[str, ...]:
    """What differs between a config and a choice, as flags of plan."""

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

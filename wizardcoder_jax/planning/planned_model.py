"""What is planned for: the architecture of a run's base, on a mesh that a topology has."""

import math

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import MESH_AXES, RULES, parse_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.models.add_token import arch_with_token
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import published_arch
from wizardcoder_jax.planning.topology import Topology


def planned_arch(train: TrainConfig) -> ArchConfig:
    """The architecture that is trained: by what is published of a hub's model, without network, else by the model itself.

    Raises:
        InputError: there is no such model, or rows are longer than its context.
    """
    arch = _arch(train)
    if train.max_length > arch.max_positions:
        raise InputError(f"max_length {train.max_length} exceeds the model's context of {arch.max_positions} positions")
    return arch


def _arch(train: TrainConfig) -> ArchConfig:
    arch = published_arch(train.base)
    if arch is not None:  # its tokenizer is not at hand: a row for a padding token, as nearly all of these need one
        return arch if train.pad_token is None else arch_with_token(arch, arch.vocab_size)
    opened = open_model(train.base)
    tokenizer = opened.tokenizer.with_pad_token(train.pad_token)
    is_new = tokenizer.vocab_size > opened.tokenizer.vocab_size
    return arch_with_token(opened.arch, tokenizer.vocab_size - 1) if is_new else opened.arch


def check_mesh(train: TrainConfig, arch: ArchConfig, topology: Topology) -> None:
    """Refuses what `train` would refuse.

    Raises:
        InputError: the mesh is not one of the topology's chips, or rows and mesh do not go together.
    """
    sizes: dict[str, int] = dict(zip(MESH_AXES, parse_mesh(train.mesh), strict=True))
    num, microbatch = math.prod(sizes.values()), train.batch_size // train.accumulation
    if num != topology.num_chips:
        raise InputError(
            f"mesh {train.mesh} is of {num} chips, topology {topology.name} has {topology.num_chips}; --mesh auto finds one"
        )
    num_shards = math.prod(sizes[name] for name in RULES[train.strategy].batch)
    if microbatch % num_shards:
        raise InputError(
            f"microbatches of {microbatch} sequences (batch_size / accumulation) do not divide over the {num_shards} chips "
            f"that split sequences under mesh {train.mesh} with strategy {train.strategy}; change --accumulation"
        )


def decoding_mesh(arch: ArchConfig, topology: Topology) -> str:
    """How the sampler would lie: weights over as many chips as divide the heads, up to eight, sequences over the rest."""
    sizes = (size for size in (8, 4, 2, 1) if topology.num_chips % size == 0 and arch.num_heads % size == 0)
    num_model = next(sizes)
    return f"{topology.num_chips // num_model}x{num_model}"

"""What a plan is about: the architecture of the run's base model, and meshes that fit a topology."""

import math

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import MESH_AXES, RULES, parse_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.models.add_token import arch_with_token
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import published_arch
from wizardcoder_jax.planning.topology import Topology


def resolve_arch(train: TrainConfig) -> ArchConfig:
    """Return the architecture that a run trains: from the table of published models if it is there, else from the model.

    Raises:
        InputError: there is no such model, or sequences are longer than its context.
    """
    arch = _arch(train)
    if train.max_length > arch.max_positions:
        raise InputError(f"max_length {train.max_length} exceeds the model's context of {arch.max_positions} positions")
    return arch


def _arch(train: TrainConfig) -> ArchConfig:
    arch = published_arch(train.base)
    if arch is not None:  # its tokenizer is not available: assume a new padding token, which nearly all of these models need
        return arch if train.pad_token is None else arch_with_token(arch, arch.vocab_size)
    opened = open_model(train.base)
    tokenizer = opened.tokenizer.with_pad_token(train.pad_token)
    is_new = tokenizer.vocab_size > opened.tokenizer.vocab_size
    return arch_with_token(opened.arch, tokenizer.vocab_size - 1) if is_new else opened.arch


def check_mesh(train: TrainConfig, topology: Topology) -> None:
    """Check what `train` would check.

    Raises:
        InputError: the mesh does not have the topology's number of chips, or does not divide the microbatches.
    """
    sizes: dict[str, int] = dict(zip(MESH_AXES, parse_mesh(train.mesh), strict=True))
    num_chips, microbatch = math.prod(sizes.values()), train.batch_size // train.accumulation
    if num_chips != topology.num_chips:
        raise InputError(
            f"mesh {train.mesh} has {num_chips} chips, but topology {topology.name} has {topology.num_chips}; "
            "--mesh auto chooses a mesh"
        )
    num_shards = math.prod(sizes[name] for name in RULES[train.strategy].batch)
    if microbatch % num_shards:
        raise InputError(
            f"microbatches of {microbatch} sequences (batch_size / accumulation) do not divide over the {num_shards} chips "
            f"that split sequences under mesh {train.mesh} with strategy {train.strategy}; change --accumulation"
        )


def choose_decoding_mesh(arch: ArchConfig, topology: Topology) -> str:
    """Choose the sampler's mesh: weights over as many chips as divide the heads, up to eight; sequences over the rest."""
    sizes = (size for size in (8, 4, 2, 1) if topology.num_chips % size == 0 and arch.num_heads % size == 0)
    num_model = next(sizes)
    return f"{topology.num_chips // num_model}x{num_model}"

"""Inputs of a plan: the architecture of the trained model, and meshes that match the topology."""

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
    """Return the architecture of the trained model, from the table of published models or else from the model's files.

    Raises:
        InputError: there is no such model, or its context is shorter than max_length.
    """
    arch = _arch(train)
    if train.max_length > arch.max_positions:
        raise InputError(f"max_length {train.max_length} exceeds the model's context of {arch.max_positions} positions")
    return arch


def _arch(train: TrainConfig) -> ArchConfig:
    arch = published_arch(train.base)
    if arch is not None:  # without its tokenizer, assume that the padding token is new, as for nearly all of these models
        return arch if train.pad_token is None else arch_with_token(arch, arch.vocab_size)
    opened = open_model(train.base)
    tokenizer = opened.tokenizer.with_pad_token(train.pad_token)
    is_new = tokenizer.vocab_size > opened.tokenizer.vocab_size
    return arch_with_token(opened.arch, tokenizer.vocab_size - 1) if is_new else opened.arch


def check_mesh(train: TrainConfig, topology: Topology) -> None:
    """Check the mesh and the size of microbatches, as `train` does.

    Raises:
        InputError: the mesh and the topology have different numbers of chips, or a microbatch cannot be split over the mesh.
    """
    sizes: dict[str, int] = dict(zip(MESH_AXES, parse_mesh(train.mesh), strict=True))
    num_chips, microbatch = math.prod(sizes.values()), train.batch_size // train.accumulation
    if num_chips != topology.num_chips:
        raise InputError(
            f"mesh {train.mesh} has {num_chips} chips, but topology {topology.name} has {topology.num_chips}; "
            "change --mesh, or let --mesh auto choose one"
        )
    num_shards = math.prod(sizes[name] for name in RULES[train.strategy].batch)
    if microbatch % num_shards:
        raise InputError(
            f"microbatches of {microbatch} sequences (batch_size / accumulation) cannot be split over the {num_shards} batch "
            f"shards of mesh {train.mesh} with strategy {train.strategy}; change --accumulation"
        )


def choose_decoding_mesh(arch: ArchConfig, topology: Topology) -> str:
    """Choose a mesh for decoding: "model" is the largest of 8, 4, 2, 1 that divides heads and chips, "data" is the rest."""
    sizes = (size for size in (8, 4, 2, 1) if topology.num_chips % size == 0 and arch.num_heads % size == 0)
    num_model = next(sizes)
    return f"{topology.num_chips // num_model}x{num_model}"

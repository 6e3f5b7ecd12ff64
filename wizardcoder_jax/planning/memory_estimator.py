"""Estimate of a train step's memory by arithmetic, which takes milliseconds, so that a search can compare many settings.

The estimate is the sum of four parts: the train state (from its shapes and sharding), the gradients, the activations of each
block that remat saves, and the temporary memory of the phase that needs most (embedding lookup, cross-entropy, backward pass
of a block, or optimizer update). No constant is fitted. Fragmentation is not included.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from wizardcoder_jax.config import Remat, TrainConfig
from wizardcoder_jax.core.sharding import MESH_AXES, RULES, Axes, ShardingRules
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.remat import ATTENDED, INPUT, MIDDLE, QKV, REMAT_POLICIES, UP
from wizardcoder_jax.models.splash_attention import unsupported_by_splash
from wizardcoder_jax.training.abstract_state import state_arrays
from wizardcoder_jax.training.objectives.chunked_cross_entropy import chunk_length

Mesh = tuple[int, int]  # sizes of the mesh axes, in the order of MESH_AXES
ALL_TENSORS = (INPUT, QKV, ATTENDED, MIDDLE, UP)
_FLOAT32 = 4  # bytes of one element


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes of memory per chip that a train step needs, by kind."""

    params: int  # bytes of trained and frozen parameters and of their moving average
    optimizer: int  # bytes of optimizer state
    gradients: int  # bytes of gradients; with several microbatches, also of their sum
    activations: int  # bytes of the activations of all blocks that are saved for the backward pass
    temporary: int  # bytes of temporary buffers in `phase`
    phase: str  # name of the phase that needs most temporary memory
    host: int  # bytes of host memory

    @property
    def total(self) -> int:
        """Bytes of HBM in total."""
        return self.params + self.optimizer + self.gradients + self.activations + self.temporary


class BlockSizes(NamedTuple):
    """Number of elements per chip of each tensor of one block, for one microbatch."""

    residual: float  # residual stream, sharded along positions if the strategy does so
    full_residual: float  # residual stream with all positions
    queries: float  # queries; the output of attention has the same size
    kv: float  # keys and values
    mlp: float  # hidden units of the MLP before the activation function
    softmax_sums: float  # softmax denominators, one per query and head
    kernels: float  # all weight matrices of a block, after all-gather
    largest_kernel: float  # the largest weight matrix of a block, after all-gather
    embedding: float  # token embedding, gathered as far as the logits need it
    embedding_shard: float  # the shard of the token embedding that a chip stores
    rows: float  # number of sequences, not of elements


def estimate_memory(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> StepMemory:
    """Estimate the memory of a train step on each chip of a mesh."""
    state, sizes = _state_bytes(arch, config, mesh), block_sizes(arch, config, mesh)
    item = activation_bytes(config)
    block, offloaded = (
        _saved_bytes(arch, sizes, item),
        REMAT_POLICIES[config.remat].on_host if config.remat in REMAT_POLICIES else (),
    )
    on_host = sum(block[name] for name in offloaded)
    on_device = sum(block[name] for name in saved_tensors(config.remat) if name not in offloaded)
    num_copies = 1 if config.accumulation == 1 else 2
    gradients = num_copies * state["trained"]
    saved = arch.num_layers * on_device
    is_lora = config.lora.rank is not None
    # Before a microbatch has gradients, only the sum over the earlier microbatches exists.
    gradient_sum = (num_copies - 1) * state["trained"]
    phases = {
        "lookup": gradient_sum - gradients - saved + _FLOAT32 * sizes.embedding,
        "cross-entropy": gradient_sum - gradients + _cross_entropy_bytes(config, sizes, item, arch),
        "block backward": 3 * on_host + _block_backward_bytes(arch, config, sizes, item),
        "lookup backward": (0 if is_lora else 2 * _FLOAT32 * sizes.embedding) - saved,
        "update": state["update"] - saved,
    }
    phase = max(phases, key=lambda name: phases[name])
    return StepMemory(
        params=state["trained"] + state["frozen"] + state["ema"],
        optimizer=state["optimizer"],
        gradients=gradients,
        activations=int(saved),
        temporary=int(phases[phase]),
        phase=phase,
        host=int(arch.num_layers * on_host),
    )


def block_sizes(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> BlockSizes:
    """Compute the sizes of one block's tensors on one chip of a mesh."""
    rules = RULES[config.strategy]
    shape: dict[str, int] = dict(zip(MESH_AXES, mesh, strict=True))

    def num_shards(axis: str, dim: int) -> int:
        return _num_shards(rules, shape, (dim,), (axis,))

    d, n, k, h, f = arch.embed_dim, arch.num_heads, arch.num_kv_heads, arch.head_dim, arch.mlp_dim
    rows = config.batch_size / config.accumulation / num_shards("batch", config.batch_size // config.accumulation)
    tokens = rows * config.max_length
    heads, kv, mlp = n * h / num_shards("heads", n), 2 * k * h / num_shards("kv_heads", k), f / num_shards("mlp", f)
    vocab = arch.padded_vocab_size
    return BlockSizes(
        residual=tokens * d / num_shards("sequence", config.max_length),
        full_residual=tokens * d,
        queries=tokens * heads,
        kv=tokens * kv,
        mlp=tokens * mlp,
        softmax_sums=tokens * heads / h,
        kernels=d * (2 * heads + kv + (num_up_projections(arch) + 1) * mlp),
        largest_kernel=d * max(mlp, heads),
        embedding=vocab * d / num_shards("logits", vocab),
        embedding_shard=vocab * d / num_shards("vocab", vocab),
        rows=rows,
    )


def activation_bytes(config: TrainConfig) -> int:
    """Return the bytes of one element of an activation."""
    return jnp.dtype(config.compute_dtype).itemsize


def attention_flops(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes) -> float:
    """Return the FLOPs of one block's attention in the forward pass, counting only pairs inside the causal mask."""
    length, window = config.max_length, arch.sliding_window or config.max_length
    num_keys = length / 2 if window >= length else window * (1 - window / (2 * length))  # average number per query
    return 2 * 2 * num_keys * sizes.queries


def loss_chunk_length(config: TrainConfig, sizes: BlockSizes) -> int:
    """Return the number of positions per sequence for which the loss computes logits at the same time."""
    return chunk_length(max(int(sizes.rows), 1), config.max_length, config.loss_chunk)


def num_up_projections(arch: ArchConfig) -> int:
    """Return the number of the MLP's input projections: 2 with a gate, else 1."""
    return 2 if arch.mlp == "swiglu" else 1


def saved_tensors(remat: Remat) -> tuple[str, ...]:
    """Return the names of each block's tensors that are saved for the backward pass, on the chip or on the host."""
    return ALL_TENSORS if remat == "none" else (INPUT, *REMAT_POLICIES[remat].on_device, *REMAT_POLICIES[remat].on_host)


def uses_reference_attention(arch: ArchConfig, config: TrainConfig) -> bool:
    """Return whether attention is computed without a kernel, because none supports the shapes or the config asks for none."""
    shape = {"length": config.max_length, "head_dim": arch.head_dim, "dropout": config.regularisation.dropout}
    return config.attention == "dot" or (config.attention == "auto" and bool(unsupported_by_splash(**shape)))


def _saved_bytes(arch: ArchConfig, sizes: BlockSizes, item: int) -> dict[str, float]:
    """Return the bytes of each tensor of a block that remat can save."""
    return {
        INPUT: item * sizes.residual,
        QKV: item * (sizes.queries + sizes.kv),
        ATTENDED: item * sizes.queries + _FLOAT32 * sizes.softmax_sums,
        MIDDLE: item * sizes.residual,
        UP: item * num_up_projections(arch) * sizes.mlp,
    }


def _block_backward_bytes(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes, item: int) -> float:
    """Return the temporary bytes of a block's backward pass: two blocks' weights, one weight gradient and the activations."""
    # Outputs of the up projection and of the activation function, and one gradient.
    mlp = item * (3 if arch.mlp != "swiglu" else 5) * sizes.mlp + 4 * item * sizes.full_residual
    # Queries, keys, values and attention output, and their gradients. The attention kernel writes its results in float32.
    attention = item * (4 * sizes.queries + 2 * sizes.kv) + _FLOAT32 * (2 * sizes.queries + sizes.kv)
    attention += 2 * item * sizes.full_residual
    if uses_reference_attention(arch, config):
        attention += (2 * _FLOAT32 + item) * sizes.softmax_sums * config.max_length / 4  # scores of one in four query chunks
    return item * (2 * sizes.kernels + sizes.largest_kernel) + max(mlp, attention)


def _cross_entropy_bytes(config: TrainConfig, sizes: BlockSizes, item: int, arch: ArchConfig) -> float:
    """Return the temporary bytes of the loss and its gradients: embedding, hidden states, and the logits of one chunk."""
    positions = sizes.rows * loss_chunk_length(config, sizes)
    logits = positions * sizes.embedding / arch.embed_dim
    return (item + _FLOAT32) * sizes.embedding + 3 * item * sizes.full_residual + (2 * _FLOAT32 + item) * logits


def _state_bytes(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> dict[str, int]:
    """Return the bytes per chip of each component of the train state; "update" has the temporary bytes of the update."""
    rules = RULES[config.strategy]
    shape: dict[str, int] = dict(zip(MESH_AXES, mesh, strict=True))
    settings = {name: getattr(config, name) for name in ("optim", "lora", "freeze", "freeze_layers")}
    found: dict[str, int] = dict.fromkeys(("trained", "frozen", "optimizer", "ema", "update"), 0)
    for array in state_arrays(arch, TrainConfig(**settings)):
        num_bytes = math.prod(array.shape) * array.item_bytes // _num_shards(rules, shape, array.shape, array.axes)
        found[array.component] += num_bytes
        if array.component == "trained":  # stacked arrays are updated layer by layer
            found["update"] = max(found["update"], 2 * num_bytes // (array.shape[0] if array.is_stacked else 1))
    return found


def _num_shards(rules: ShardingRules, mesh: dict[str, int], shape: tuple[int, ...], axes: Axes) -> int:
    spec: list[Any] = [*rules.spec(mesh, shape, axes)]
    return math.prod(mesh[name] for part in spec if part for name in ((part,) if isinstance(part, str) else part))

"""Memory of a train step by arithmetic, within milliseconds: what a search compares, before the compiler has the last word.

It follows the program: what is held between steps is counted from the real state's shapes and splits; beside it are gradients,
what remat keeps of each block, and what the phase that needs most (look-up, cross-entropy, a block backward, update) has
meanwhile. Nothing is fitted; what the compiler adds by its placing of buffers is not in it.
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

Mesh = tuple[int, int]  # sizes of MESH_AXES
EVERYTHING = (INPUT, QKV, ATTENDED, MIDDLE, UP)
_FLOAT32 = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepMemory:
    """Bytes a chip, by what they are of; the phases' share is of the one that needs most."""

    params: int  # trained and frozen, and a moving average
    optimizer: int
    gradients: int  # and, where microbatches are summed, the sum
    kept: int  # of all blocks for the backward pass
    meanwhile: int  # of the phase that needs most
    phase: str
    host: int  # of the host's memory

    @property
    def total(self) -> int:
        """On the chip."""
        return self.params + self.optimizer + self.gradients + self.kept + self.meanwhile


class Sizes(NamedTuple):
    """Numbers (not bytes) on a chip of the tensors of one block and one microbatch."""

    residual: float  # what blocks hand on, its places split where the strategy asks for it
    whole: float  # the same with every place
    heads: float  # queries, or what is attended
    kv: float  # keys and values
    units: float  # of the MLP, before the activation
    sums: float  # of the softmax, one a query
    kernels: float  # a block's, gathered as they are computed with
    largest_kernel: float
    table: float  # of tokens, as it is computed with
    held_table: float  # as it is held
    rows: float  # sequences


def memory(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> StepMemory:
    """Memory of a step on each chip of a mesh."""
    held, sizes = _held(arch, config, mesh), sizes_of(arch, config, mesh)
    item = item_bytes(config)
    block, away = _kept(arch, sizes, item), REMAT_POLICIES[config.remat].on_host if config.remat in REMAT_POLICIES else ()
    on_host = sum(block[name] for name in away)
    on_device = sum(block[name] for name in kept_of(config.remat) if name not in away)
    copies = 1 if config.accumulation == 1 else 2
    gradients = copies * held["trained"]
    saved = arch.num_layers * on_device
    is_lora = config.lora.rank is not None
    # While gradients are not there yet the sum of the earlier microbatches' is.
    before = (copies - 1) * held["trained"]
    phases = {
        "look-up": before - gradients - saved + _FLOAT32 * sizes.table,
        "cross-entropy": before - gradients + _cross_entropy(config, sizes, item, arch, is_lora),
        "block": 3 * on_host + _block(arch, config, sizes, item),
        "look-up backward": (0 if is_lora else 2 * _FLOAT32 * sizes.table) - saved,
        "update": held["update"] - saved,
    }
    phase = max(phases, key=lambda name: phases[name])
    return StepMemory(
        params=held["trained"] + held["frozen"] + held["ema"],
        optimizer=held["optimizer"],
        gradients=gradients,
        kept=int(saved),
        meanwhile=int(phases[phase]),
        phase=phase,
        host=int(arch.num_layers * on_host),
    )


def sizes_of(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> Sizes:
    """What a chip of a mesh has of the tensors of one block."""
    rules = RULES[config.strategy]
    shape: dict[str, int] = dict(zip(MESH_AXES, mesh, strict=True))

    def split(axis: str, dim: int) -> int:
        return _num_parts(rules, shape, (dim,), (axis,))

    d, n, k, h, f = arch.embed_dim, arch.num_heads, arch.num_kv_heads, arch.head_dim, arch.mlp_dim
    rows = config.batch_size / config.accumulation / split("batch", config.batch_size // config.accumulation)
    tokens = rows * config.max_length
    heads, kv, units = n * h / split("heads", n), 2 * k * h / split("kv_heads", k), f / split("mlp", f)
    vocab = arch.padded_vocab_size
    return Sizes(
        residual=tokens * d / split("sequence", config.max_length),
        whole=tokens * d,
        heads=tokens * heads,
        kv=tokens * kv,
        units=tokens * units,
        sums=tokens * heads / h,
        kernels=d * (2 * heads + kv + (num_up(arch) + 1) * units),
        largest_kernel=d * max(units, heads),
        table=vocab * d / split("logits", vocab),
        held_table=vocab * d / split("vocab", vocab),
        rows=rows,
    )


def item_bytes(config: TrainConfig) -> int:
    """Of a number of an activation."""
    return jnp.dtype(config.compute_dtype).itemsize


def attention_flops(arch: ArchConfig, config: TrainConfig, sizes: Sizes) -> float:
    """FLOPs of one block's scores and sums of values, forward: of half of all pairs of places, or of a window."""
    length, window = config.max_length, arch.sliding_window or config.max_length
    seen = length / 2 if window >= length else window * (1 - window / (2 * length))
    return 2 * 2 * seen * sizes.heads


def chunk_of(config: TrainConfig, sizes: Sizes) -> int:
    """Places of a row whose logits exist at a time."""
    return chunk_length(max(int(sizes.rows), 1), config.max_length, config.loss_chunk)


def num_up(arch: ArchConfig) -> int:
    """Projections to the MLP's units."""
    return 2 if arch.mlp == "swiglu" else 1


def kept_of(remat: Remat) -> tuple[str, ...]:
    """Names of what the backward pass finds of each block, wherever it is."""
    return EVERYTHING if remat == "none" else (INPUT, *REMAT_POLICIES[remat].on_device, *REMAT_POLICIES[remat].on_host)


def _kept(arch: ArchConfig, sizes: Sizes, item: int) -> dict[str, float]:
    """Bytes of what can be kept of a block, by name."""
    return {
        INPUT: item * sizes.residual,
        QKV: item * (sizes.heads + sizes.kv),
        ATTENDED: item * sizes.heads + _FLOAT32 * sizes.sums,
        MIDDLE: item * sizes.residual,
        UP: item * num_up(arch) * sizes.units,
    }


def _block(arch: ArchConfig, config: TrainConfig, sizes: Sizes, item: int) -> float:
    """Bytes of a block's backward pass: kernels gathered and the next ones on their way, one's gradient, the activations."""
    # what comes out of up and of the activation, and the gradient of one
    mlp = item * (3 if arch.mlp != "swiglu" else 5) * sizes.units + 4 * item * sizes.whole
    # queries, keys and values, what is attended and the gradients of each; the kernel's results are float32
    attention = item * (4 * sizes.heads + 2 * sizes.kv) + _FLOAT32 * (2 * sizes.heads + sizes.kv) + 2 * item * sizes.whole
    if attends_by_dot(arch, config):
        attention += (2 * _FLOAT32 + item) * sizes.sums * config.max_length / 4  # of four chunks of queries one
    return item * (2 * sizes.kernels + sizes.largest_kernel) + max(mlp, attention)


def _cross_entropy(config: TrainConfig, sizes: Sizes, item: int, arch: ArchConfig, is_lora: bool) -> float:
    """Bytes of logits and gradients: table, states and the logits of a chunk of places."""
    places = sizes.rows * chunk_of(config, sizes)
    logits = places * sizes.table / arch.embed_dim
    return (item + _FLOAT32) * sizes.table + 3 * item * sizes.whole + (2 * _FLOAT32 + item) * logits


def attends_by_dot(arch: ArchConfig, config: TrainConfig) -> bool:
    """Whether attention holds scores: no kernel fits, or none is wanted."""
    sizes = {"length": config.max_length, "head_dim": arch.head_dim, "dropout": config.regularisation.dropout}
    return config.attention == "dot" or (config.attention == "auto" and bool(unsupported_by_splash(**sizes)))


def _held(arch: ArchConfig, config: TrainConfig, mesh: Mesh) -> dict[str, int]:
    """Bytes a chip of what is held between steps, by part of the state; "update": of the largest part of an update."""
    rules = RULES[config.strategy]
    shape: dict[str, int] = dict(zip(MESH_AXES, mesh, strict=True))
    given = {name: getattr(config, name) for name in ("optim", "lora", "freeze", "freeze_layers")}
    found: dict[str, int] = dict.fromkeys(("trained", "frozen", "optimizer", "ema", "update"), 0)
    for array in state_arrays(arch, TrainConfig(**given)):
        num_bytes = math.prod(array.shape) * array.item_bytes // _num_parts(rules, shape, array.shape, array.axes)
        found[array.component] += num_bytes
        if array.component == "trained":  # stacks are updated layer by layer
            found["update"] = max(found["update"], 2 * num_bytes // (array.shape[0] if array.is_stacked else 1))
    return found


def _num_parts(rules: ShardingRules, mesh: dict[str, int], shape: tuple[int, ...], axes: Axes) -> int:
    split: list[Any] = [*rules.spec(mesh, shape, axes)]
    return math.prod(mesh[name] for part in split if part for name in ((part,) if isinstance(part, str) else part))

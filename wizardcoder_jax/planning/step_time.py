"""Estimate of a train step's time by arithmetic: FLOPs, HBM traffic and chip-to-chip traffic, each divided by the chip's rate.

The estimates are meant to rank settings for one model, not to predict its step time. The efficiencies below come from the
compiler's cycles for a train step of StarCoder-15.5B on v5e.
"""

import dataclasses

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.accelerators import Accelerator
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.remat import ATTENDED, MIDDLE, QKV, UP
from wizardcoder_jax.planning.compiled_time import KERNEL_EFFICIENCY, KERNEL_MATMULS
from wizardcoder_jax.planning.memory_estimator import (
    BlockSizes,
    Mesh,
    StepMemory,
    activation_bytes,
    attention_flops,
    block_sizes,
    loss_chunk_length,
    num_up_projections,
    saved_tensors,
    uses_reference_attention,
)

MATMUL_EFFICIENCY = 0.95  # fraction of peak FLOPs that matrix products reach
EMBED_PASSES, MLP_PASSES = 10, 4  # how often a block's forward pass reads or writes tensors [T, D] and [T, F]
HOST_BANDWIDTH = 15e9  # bytes/s between a chip and its host, each way (jax-ml/scaling-book, "How to Think About TPUs")
_FLOAT32 = 4  # bytes of one element
_QUANTIZED_BYTES = {"int8": 1.0, "nf4": 0.53}  # bytes of one frozen weight


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of a train step, by activity of the chip."""

    matmul_s: float  # seconds of matrix products
    attention_s: float  # seconds of attention
    elementwise_s: float  # seconds of elementwise operations
    update_s: float  # seconds of gradient accumulation and the optimizer update
    exposed_s: float  # seconds of collectives and host transfers that do not overlap with anything

    @property
    def total_s(self) -> float:
        """Seconds of the whole step."""
        return self.matmul_s + self.attention_s + self.elementwise_s + self.update_s + self.exposed_s


def estimate_step_time(arch: ArchConfig, config: TrainConfig, mesh: Mesh, chip: Accelerator, memory: StepMemory) -> StepTime:
    """Estimate the time of a train step.

    Args:
        arch: architecture of the trained model.
        config: settings of the run.
        mesh: sizes of "data" and "model".
        chip: the accelerator.
        memory: result of `memory_estimator.estimate_memory`.
    """
    sizes, accumulation = block_sizes(arch, config, mesh), config.accumulation
    matmul_s = accumulation * _matmul_flops(arch, config, sizes) / (MATMUL_EFFICIENCY * chip.peak_flops)
    attention_s = accumulation * _attention_flops(arch, config, sizes) / (KERNEL_EFFICIENCY * chip.peak_flops)
    elementwise_s = accumulation * _elementwise_bytes(arch, config, sizes) / chip.hbm_bandwidth
    gradients = memory.gradients // (1 if accumulation == 1 else 2)
    accumulated = 3 * gradients * accumulation if accumulation > 1 else 0  # read and write the sum, read the new gradients
    update_s = (accumulated + 3 * gradients + 2 * memory.optimizer) / chip.hbm_bandwidth
    # Offloaded activations go to the host during the forward pass and come back during the backward pass.
    to_host_s = accumulation * memory.host / HOST_BANDWIDTH
    forward_s = (matmul_s + attention_s + elementwise_s) * forward_fraction(arch, config, sizes)
    exposed_s = accumulation * _exposed_collectives_s(arch, config, sizes, mesh, chip) + max(0.0, to_host_s - forward_s)
    return StepTime(
        matmul_s=matmul_s, attention_s=attention_s, elementwise_s=elementwise_s, update_s=update_s, exposed_s=exposed_s
    )


def forward_fraction(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes) -> float:
    """Return the FLOPs of the blocks' forward passes as a fraction of all matrix products in a train step."""
    return 2 * _num_tokens(config, sizes) * arch.num_layers * sizes.kernels / _matmul_flops(arch, config, sizes)


def _num_tokens(config: TrainConfig, sizes: BlockSizes) -> float:
    return sizes.rows * config.max_length


def _kernel_sizes(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes) -> tuple[float, float, float]:
    """Return the number of weights per chip in the QKV, output and up projections of one block."""
    tokens = _num_tokens(config, sizes)
    widths = (sizes.queries + sizes.kv, sizes.queries, num_up_projections(arch) * sizes.mlp)
    qkv, out, up = ((width / tokens) * arch.embed_dim for width in widths)
    return qkv, out, up


def _matmul_flops(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes) -> float:
    """Return the FLOPs per chip of one microbatch's matrix products."""
    saved = saved_tensors(config.remat)
    weights = dict(zip((QKV, MIDDLE, UP), _kernel_sizes(arch, config, sizes), strict=True))
    recomputed = sum(number for name, number in weights.items() if name not in saved)
    num_passes = 3 if config.lora.rank is None else 2  # frozen weights need no gradient
    block = num_passes * sizes.kernels + recomputed
    return 2 * _num_tokens(config, sizes) * (arch.num_layers * block + 3 * sizes.embedding)


def _attention_flops(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes) -> float:
    """Return the FLOPs per chip of one microbatch's attention."""
    num_forward_passes = 1 + KERNEL_MATMULS["dkv with dq"] + (ATTENDED not in saved_tensors(config.remat))
    num_forward_passes *= 1.25 if uses_reference_attention(arch, config) else 1.0
    return arch.num_layers * num_forward_passes * attention_flops(arch, config, sizes)


def _elementwise_bytes(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes) -> float:
    """Return the bytes that norms, activations, residual sums and cross-entropy of one microbatch read and write."""
    saved, item = saved_tensors(config.remat), activation_bytes(config)
    num_passes = 3 + (0.0 if config.remat == "none" else 0.5 if UP in saved else 1.0)
    block = EMBED_PASSES * (sizes.residual + sizes.full_residual) / 2 + MLP_PASSES * num_up_projections(arch) * sizes.mlp
    num_chunks = config.max_length / loss_chunk_length(config, sizes)
    logits = _num_tokens(config, sizes) * sizes.embedding / arch.embed_dim
    blocks = arch.num_layers * num_passes * item * block
    return blocks + 2 * _FLOAT32 * num_chunks * sizes.embedding + 4 * _FLOAT32 * logits


def _exposed_collectives_s(arch: ArchConfig, config: TrainConfig, sizes: BlockSizes, mesh: Mesh, chip: Accelerator) -> float:
    """Return the seconds per microbatch in which a chip waits for collectives.

    Gathering weights and reducing their gradients overlaps with matrix products; only the excess over their time is exposed. In
    addition, each pass waits for its first weights, and if a block is not recomputed as a whole, its last gradient reduction is
    exposed too.
    """
    item, bandwidth = activation_bytes(config), min(chip.num_axes, 2) * chip.link_bandwidth
    data, model = mesh if config.strategy == "fsdp_tensor" else (mesh[0] * mesh[1], 1)
    is_lora, remote, saved = config.lora.rank is not None, 1 - 1 / data, saved_tensors(config.remat)
    # Seconds per weight: to gather it, to reduce its gradient, and to multiply by it.
    gather_s = (_QUANTIZED_BYTES.get(config.lora.base_weights, item) if is_lora else item) * remote / bandwidth
    # On a three-dimensional torus, libtpu uses an all-reduce for gradients, which costs twice a reduce-scatter.
    reduce_s = 0.0 if is_lora else (2 if chip.num_axes == 3 else 1) * item * remote / bandwidth
    matmul_s = 0.0 if chip.blocks_on_collectives else 2 * _num_tokens(config, sizes) / (MATMUL_EFFICIENCY * chip.peak_flops)
    kernels, (qkv, out, up) = sizes.kernels, _kernel_sizes(arch, config, sizes)
    forward_s = qkv * gather_s + max(
        0.0, up * gather_s - (qkv + out) * matmul_s, (kernels - qkv) * gather_s - kernels * matmul_s
    )
    gather_s = 0.0 if config.remat == "none" else gather_s
    first = qkv if QKV not in saved else up if UP not in saved else 0.0
    last = up if QKV in saved else 0.0
    backward_s = first * gather_s + last * reduce_s
    backward_s += max(0.0, (kernels - first) * gather_s + (kernels - last) * reduce_s - 2 * kernels * matmul_s)
    # In each pass (forward, recomputed, backward), a block all-gathers positions twice and reduce-scatters them twice.
    num_activations = 11 if config.remat != "none" else 8
    activations_s = num_activations * item * sizes.full_residual * (1 - 1 / model) / bandwidth
    # The embedding is gathered once; its gradients from the lookup and from the logits are reduced.
    embedding_s = (item + (0 if is_lora else 2 * _FLOAT32)) * (sizes.embedding - sizes.embedding_shard) / bandwidth
    return arch.num_layers * (forward_s + backward_s + activations_s) + embedding_s

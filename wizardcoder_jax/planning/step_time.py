"""Time of a train step by arithmetic: FLOPs, bytes of HBM and bytes between chips over what a chip does of each in a second.

It is for comparing choices of one model, not for promises: the shares of the peaks below are what the compiler's cycles of a
step of StarCoder-15.5B on v5e come to.
"""

import dataclasses

from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.core.accelerators import Accelerator
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.remat import ATTENDED, MIDDLE, QKV, UP
from wizardcoder_jax.planning.compiled_time import KERNEL_EFFICIENCY, PRODUCTS
from wizardcoder_jax.planning.memory_estimator import (
    Mesh,
    Sizes,
    StepMemory,
    attends_by_dot,
    attention_flops,
    chunk_of,
    item_bytes,
    kept_of,
    num_up,
    sizes_of,
)

PRODUCT_EFFICIENCY = 0.95  # of the peak, of matrix products
EMBED_PASSES, UNIT_PASSES = 10, 4  # over tensors of [T, D] and of [T, F] beside the products of a block's forward pass
HOST_BANDWIDTH = 15e9  # bytes/s one way to the host's memory, of one chip (jax-ml/scaling-book, "How to Think About TPUs")
_FLOAT32 = 4
_GATHERED_BYTES = {"int8": 1.0, "nf4": 0.53}  # of a number of a frozen kernel


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepTime:
    """Seconds of a step, by what is waited for."""

    products_s: float
    attention_s: float
    elementwise_s: float
    update_s: float
    exposed_s: float  # collectives and transfers that nothing hides

    @property
    def total_s(self) -> float:
        """Of a step."""
        return self.products_s + self.attention_s + self.elementwise_s + self.update_s + self.exposed_s


def pace(arch: ArchConfig, config: TrainConfig, mesh: Mesh, chip: Accelerator, memory: StepMemory) -> StepTime:
    """The time of a step on a mesh of chips.

    Args:
        arch: the model.
        config: the run.
        mesh: sizes of "data" and "model".
        chip: of which the mesh is made.
        memory: what `analytic.memory` found.
    """
    sizes, times = sizes_of(arch, config, mesh), config.accumulation
    flops = _product_flops(arch, config, sizes)
    products_s = times * flops / (PRODUCT_EFFICIENCY * chip.peak_flops)
    attention_s = times * _attention_flops(arch, config, sizes) / (KERNEL_EFFICIENCY * chip.peak_flops)
    elementwise_s = times * _elementwise_bytes(arch, config, sizes) / chip.hbm_bandwidth
    own = memory.gradients // (1 if times == 1 else 2)
    summed = 3 * own * times if times > 1 else 0  # the sum read and written, the new ones read
    update_s = (summed + 3 * own + 2 * memory.optimizer) / chip.hbm_bandwidth
    busy_s = products_s + attention_s + elementwise_s
    # what is kept goes to the host while blocks are computed, and comes back while they are differentiated
    to_host_s, forward_s = times * memory.host / HOST_BANDWIDTH, busy_s * forward_share(arch, config, sizes)
    exposed_s = times * _waited_s(arch, config, sizes, mesh, chip) + max(0.0, to_host_s - forward_s)
    return StepTime(
        products_s=products_s, attention_s=attention_s, elementwise_s=elementwise_s, update_s=update_s, exposed_s=exposed_s
    )


def forward_share(arch: ArchConfig, config: TrainConfig, sizes: Sizes) -> float:
    """How much of a step's products the blocks' forward passes are."""
    return 2 * _tokens(config, sizes) * arch.num_layers * sizes.kernels / _product_flops(arch, config, sizes)


def _tokens(config: TrainConfig, sizes: Sizes) -> float:
    return sizes.rows * config.max_length


def _product_flops(arch: ArchConfig, config: TrainConfig, sizes: Sizes) -> float:
    """FLOPs of one microbatch's matrix products on a chip."""
    tokens, d, kept = _tokens(config, sizes), arch.embed_dim, kept_of(config.remat)
    again = {  # numbers of kernels whose product is done again where its result is not kept
        QKV: (sizes.heads + sizes.kv) / tokens * d,
        MIDDLE: sizes.heads / tokens * d,
        UP: num_up(arch) * sizes.units / tokens * d,
    }
    recomputed = sum(numbers for name, numbers in again.items() if name not in kept)
    passes = 3 if config.lora.rank is None else 2  # a frozen kernel has no gradient
    return 2 * tokens * (arch.num_layers * (passes * sizes.kernels + recomputed) + 3 * sizes.table)


def _attention_flops(arch: ArchConfig, config: TrainConfig, sizes: Sizes) -> float:
    """FLOPs of one microbatch's attention on a chip."""
    times = 1 + PRODUCTS["dkv with dq"] + (ATTENDED not in kept_of(config.remat))
    times *= 1.25 if attends_by_dot(arch, config) else 1.0
    return arch.num_layers * times * attention_flops(arch, config, sizes)


def _elementwise_bytes(arch: ArchConfig, config: TrainConfig, sizes: Sizes) -> float:
    """Bytes that one microbatch's norms, activations and sums read and write, and its cross-entropy."""
    kept, item = kept_of(config.remat), item_bytes(config)
    times = 3 + (0.0 if config.remat == "none" else 0.5 if UP in kept else 1.0)
    block = EMBED_PASSES * (sizes.residual + sizes.whole) / 2 + UNIT_PASSES * num_up(arch) * sizes.units
    num_chunks = config.max_length / chunk_of(config, sizes)
    logits = _tokens(config, sizes) * sizes.table / arch.embed_dim
    return arch.num_layers * times * item * block + 2 * _FLOAT32 * num_chunks * sizes.table + 4 * _FLOAT32 * logits


def _waited_s(arch: ArchConfig, config: TrainConfig, sizes: Sizes, mesh: Mesh, chip: Accelerator) -> float:
    """Seconds that a chip waits in one microbatch for others.

    Kernels are gathered and their gradients summed beside products, as far as these take as long. Each pass waits for the
    kernel that it begins with; where a block is not computed again as a whole, the last sum of its gradients is waited for too.
    """
    item, links = item_bytes(config), min(chip.num_axes, 2) * chip.link_bandwidth
    data, model = mesh if config.strategy == "fsdp_tensor" else (mesh[0] * mesh[1], 1)
    is_lora, remote, kept = config.lora.rank is not None, 1 - 1 / data, kept_of(config.remat)
    gather_s = (_GATHERED_BYTES.get(config.lora.base_weights, item) if is_lora else item) * remote / links  # of a number
    # on a torus of three dims libtpu sums whole gradients on every chip, which is a gather more
    sum_s = 0.0 if is_lora else (2 if chip.num_axes == 3 else 1) * item * remote / links
    tokens, kernels = _tokens(config, sizes), sizes.kernels
    qkv, out = ((part / tokens) * arch.embed_dim for part in (sizes.heads + sizes.kv, sizes.heads))
    up = num_up(arch) * sizes.units / tokens * arch.embed_dim
    product_s = 0.0 if chip.blocks_on_collectives else 2 * tokens / (PRODUCT_EFFICIENCY * chip.peak_flops)  # of a number
    forward_s = qkv * gather_s + max(
        0.0, up * gather_s - (qkv + out) * product_s, (kernels - qkv) * gather_s - kernels * product_s
    )
    gather_s = 0.0 if config.remat == "none" else gather_s
    begins = qkv if QKV not in kept else up if UP not in kept else 0.0
    ends = up if QKV in kept else 0.0
    backward_s = begins * gather_s + ends * sum_s
    backward_s += max(0.0, (kernels - begins) * gather_s + (kernels - ends) * sum_s - 2 * kernels * product_s)
    # forward, again, and backward: each block brings its places together and splits them again, twice
    activations = 11 if config.remat != "none" else 8
    activations_s = activations * item * sizes.whole * (1 - 1 / model) / links
    # the table, gathered once, and its gradients of look-up and logits
    tables_s = (item + (0 if is_lora else 2 * _FLOAT32)) * (sizes.table - sizes.held_table) / links
    return arch.num_layers * (forward_s + backward_s + activations_s) + tables_s

"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) over frozen weights, optionally quantized (QLoRA, arXiv 2305.14314).

Why not qwix: it finds weights by tracing a model on example inputs while it replaces JAX operations. Our projections are
stacked and scanned, gather their weights before the product, and have logical axes, along which their adapters are split too.
qwix takes the sharding of adapters from concrete arrays, so it cannot add adapters to an abstract model, which restoring
checkpoints and compiling ahead of time require. Its NF4 has one float scale per block and no double quantization: 4.5 bits per
weight instead of the paper's 4.127. And we would have to write the merging of adapters ourselves anyway.
"""

import functools
import math
import zlib

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from wizardcoder_jax.config import LoraConfig
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import ShardingRules
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.int8 import quantize_int8
from wizardcoder_jax.models.layers import Projection
from wizardcoder_jax.models.nf4 import Nf4Kernel
from wizardcoder_jax.models.transformer import Transformer, abstract_transformer

ADAPTER_NAMES = ("lora_a", "lora_b")  # names of the trained parameters; all others are frozen


def add_adapters_on_mesh(model: Transformer, lora: LoraConfig, key: jax.Array, mesh: Mesh) -> Transformer:
    """Run `add_adapters`, compiled for the mesh. If the base weights stay in float32, `model` is donated."""
    donated = 0 if lora.base_weights == "float32" else ()  # buffers cannot be reused for another dtype
    with jax.set_mesh(mesh):
        return jax.jit(add_adapters, static_argnums=1, donate_argnums=donated)(model, lora, key)


def base_dtype(lora: LoraConfig) -> jnp.dtype:
    """Return the dtype in which a run loads its base model: bfloat16 if its matrices are then stored in 16 bits or fewer."""
    return jnp.dtype("float32" if lora.rank is None or lora.base_weights == "float32" else "bfloat16")


def abstract_lora_transformer(
    arch: ArchConfig, rules: ShardingRules, lora: LoraConfig, dtype: jnp.dtype | None = None
) -> Transformer:
    """Return a model with adapters whose parameters are shapes; `dtype` is that of the base model (None: float32)."""

    def build() -> Transformer:
        key = jax.random.key(0)  # inside eval_shape, because the devices of the current mesh may not exist
        model = Transformer(arch, rules, key)
        if dtype is not None:
            model = jax.tree.map(lambda leaf: leaf.astype(dtype), model)
        return add_adapters(model, lora, key)

    return jax.eval_shape(build)


def add_adapters(model: Transformer, lora: LoraConfig, key: jax.Array) -> Transformer:
    """Add adapters to the projections `lora.targets`, and convert the base weights to the dtype `lora.base_weights`.

    An adapter consists of a [*in, R] and b [R, *out], in float32 and stacked like the kernels. Initially a is uniform between
    -1/sqrt(inputs) and 1/sqrt(inputs), and b is zero, so that the output does not change. The authors' loralib and peft do the
    same (layers.py, reset_parameters: kaiming_uniform with a = sqrt(5)), although the paper says Gaussian. The values depend on
    the key and the projection's name, not on the mesh or other targets. With int8 and nf4, matrices outside the blocks are
    converted to bfloat16. Vectors (norms, biases) are not converted.

    Args:
        model: floating-point weights, stacked blocks.
        lora: the LoRA settings.
        key: PRNG key of the initialization.

    Raises:
        InputError: the model has none of the projections `lora.targets`.
    """
    assert lora.rank is not None
    model = nnx.clone(model)
    targets = {
        ".".join(map(str, path)): module
        for path, module in nnx.iter_modules(model.blocks)
        if isinstance(module, Projection) and path[-1] in lora.targets
    }
    if not targets:
        available = "query, key, value, out, up, down" + (", gate" if model.arch.mlp == "swiglu" else "")
        raise InputError(f"lora.targets {', '.join(lora.targets)}: this model has no such projection; choose from {available}")
    for name, projection in targets.items():
        _add_adapter(projection, jax.random.fold_in(key, zlib.crc32(name.encode())), lora.rank, lora.alpha)
    return _convert_base_weights(model, lora)


def _add_adapter(projection: Projection, key: jax.Array, rank: int, alpha: float) -> None:
    assert isinstance(projection.kernel, nnx.Param)
    kernel_shape, num_leading = projection.kernel.shape, projection.kernel.ndim - len(projection.axes)
    first_output = num_leading + projection.num_in
    layers, inputs = kernel_shape[:num_leading], kernel_shape[num_leading:first_output]
    outputs = kernel_shape[first_output:]
    bound = 1 / math.sqrt(math.prod(inputs))
    a = jax.random.uniform(key, (*layers, *inputs, rank), jnp.float32, -bound, bound)
    b = jnp.zeros((*layers, rank, *outputs), jnp.float32)
    axes_a, axes_b = (*projection.axes[: projection.num_in], None), (None, *projection.axes[projection.num_in :])
    projection.lora_a = nnx.data(nnx.Param(projection.rules.constrain(a, *axes_a), axes=axes_a))
    projection.lora_b = nnx.data(nnx.Param(projection.rules.constrain(b, *axes_b), axes=axes_b))
    projection.lora_scale = alpha / rank


def _convert_base_weights(model: Transformer, lora: LoraConfig) -> Transformer:
    """Convert all matrices except adapters to `lora.base_weights`."""
    dtype = jnp.dtype("float32" if lora.base_weights == "float32" else "bfloat16")
    for table in filter(None, (model.tokens, model.positions, model.head)):
        table.set_value(model.rules.constrain(table[...].astype(dtype), *table.axes))
    if lora.base_weights == "int8":
        return quantize_int8(model)
    for _, module in nnx.iter_modules(model.blocks):
        if isinstance(module, Projection) and isinstance(module.kernel, nnx.Param):
            if lora.base_weights == "nf4":
                module.kernel = Nf4Kernel(module.kernel[...], module.axes, module.rules)
            else:
                module.kernel.set_value(module.rules.constrain(module.kernel[...].astype(dtype), *module.axes))
    return model


@functools.partial(jax.jit, static_argnums=1)
def merge_adapters(model: Transformer, dtype: jnp.dtype) -> Transformer:
    """Merge the adapters into the kernels, and return a model of `dtype` with stacked blocks and without adapters.

    Each kernel becomes its dequantized value plus a b alpha/rank, computed layer by layer in float32.
    """
    plain, modules = abstract_transformer(model.arch, model.rules), dict(nnx.iter_modules(model))
    for path, module in nnx.iter_modules(plain):
        for name, param in vars(module).items():
            if not isinstance(param, nnx.Param):
                continue
            if isinstance(module, Projection) and name == "kernel":
                value = jax.lax.map(lambda layer: layer.merged_kernel().astype(dtype), modules[path])
            else:
                value = getattr(modules[path], name)[...].astype(dtype)
            param.set_value(model.rules.constrain(value, *param.axes))
    return plain

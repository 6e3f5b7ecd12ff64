"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) over frozen weights, optionally quantized (QLoRA, arXiv 2305.14314).

Why not qwix: it finds weights by tracing a model on example inputs while it replaces JAX's operations. Our projections are
stacked and scanned, gather their weights before they compute, and have logical axes by which adapters are split. Adapters of
qwix take the sharding of concrete arrays, so it cannot adapt an abstract model, which restoring and compiling ahead of time
need. Its NF4 has one float scale per block and no double quantization, 4.5 bits per weight instead of the paper's 4.127. And
the merge would have to be ours anyway.
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

ADAPTER_NAMES = ("lora_a", "lora_b")  # the trained parameters; all others are frozen


def add_adapters_on_mesh(model: Transformer, lora: LoraConfig, key: jax.Array, mesh: Mesh) -> Transformer:
    """Run `add_adapters`, compiled for the mesh. The buffers of base weights that stay in float32 are donated."""
    donated = 0 if lora.base_weights == "float32" else ()  # buffers of another dtype cannot be reused
    with jax.set_mesh(mesh):
        return jax.jit(add_adapters, static_argnums=1, donate_argnums=donated)(model, lora, key)


def abstract_lora_transformer(arch: ArchConfig, rules: ShardingRules, lora: LoraConfig) -> Transformer:
    """Return a model with adapters that has shapes instead of weights."""

    def build() -> Transformer:
        key = jax.random.key(0)  # inside eval_shape, since the devices of the current mesh may not exist
        return add_adapters(Transformer(arch, rules, key), lora, key)

    return jax.eval_shape(build)


def add_adapters(model: Transformer, lora: LoraConfig, key: jax.Array) -> Transformer:
    """Add adapters to the projections `lora.targets`, initialized so that they do not change the output, and freeze the rest.

    An adapter is a [*in, R] and b [R, *out], float32, stacked like the kernels. The initialization is that of the authors'
    loralib and of peft (layers.py, reset_parameters: kaiming_uniform with a = sqrt(5); the paper says Gaussian): a is uniform
    within 1/sqrt(inputs), b is zero. It depends on the key and the projection's name, not on the mesh or other targets.
    Frozen matrices are stored as `lora.base_weights`; for int8 and nf4, those outside the blocks in bfloat16. Vectors (norms,
    biases) are not changed.

    Args:
        model: floating-point weights, stacked blocks.
        lora: the LoRA settings.
        key: PRNG key of the initialization.

    Raises:
        InputError: the model has none of the targets.
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
        raise InputError(f"lora.targets {', '.join(lora.targets)}: no such projection in this model; it has {available}")
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
    """Merge adapters into the kernels and dequantize them; returns a plain model with stacked blocks in `dtype`.

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

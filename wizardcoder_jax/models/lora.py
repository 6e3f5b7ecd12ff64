"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) over frozen weights, which may be quantised (QLoRA, arXiv 2305.14314).

Why not qwix: it finds weights by tracing a model on example inputs and replacing jax's operations meanwhile. Our projections
have logical axes by which adapters are split, gather what they hold before they compute with it, and lie in stacks that are
scanned; its adapters take the sharding of concrete arrays, so that no model of mere shapes could be adapted, which is what
restoring and compiling ahead of time need. Its NF4 has a float scale a block and no double quantization, 4.5 bits a number
where the paper has 4.127. And its merge would have to be ours in any case.
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

ADAPTER_NAMES = ("lora_a", "lora_b")  # the parameters that are trained; all others are frozen


def add_adapters_on_mesh(model: Transformer, lora: LoraConfig, key: jax.Array, mesh: Mesh) -> Transformer:
    """`add_adapters`, compiled for the mesh. Of base weights that stay in float32 the buffers are taken over from `model`."""
    donated = 0 if lora.base_weights == "float32" else ()  # in another dtype none fits
    with jax.set_mesh(mesh):
        return jax.jit(add_adapters, static_argnums=1, donate_argnums=donated)(model, lora, key)


def abstract_lora_transformer(arch: ArchConfig, rules: ShardingRules, lora: LoraConfig) -> Transformer:
    """An adapted model with shapes in place of weights."""

    def made() -> Transformer:
        key = jax.random.key(0)  # in here, since the current mesh may be one of devices that nothing can run on
        return add_adapters(Transformer(arch, rules, key), lora, key)

    return jax.eval_shape(made)


def add_adapters(model: Transformer, lora: LoraConfig, key: jax.Array) -> Transformer:
    """The model with adapters that add nothing yet, over weights as `lora.base_weights` says.

    An adapter is a [*in, R] and b [R, *out], float32, stacked as the kernels are. Drawn as by the authors' loralib
    (layers.py, reset_parameters: kaiming_uniform with a = sqrt(5), as peft does, where the paper says Gaussian): a uniform
    within 1/sqrt(inputs), b zero. A draw depends on the key and the projection's name, not on the mesh or other targets.
    Of the frozen weights matrices are held as `base_weights`, where that is int8 or nf4 those outside the blocks in bfloat16;
    vectors (norms, biases) stay as they are.

    Args:
        model: float weights, blocks stacked.
        lora: rank and the rest.
        key: of the draws.

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
        there = "query, key, value, out, up, down" + (", gate" if model.arch.mlp == "swiglu" else "")
        raise InputError(f"lora.targets {', '.join(lora.targets)}: this model has none of them; it has {there}")
    for name, projection in targets.items():
        _add_adapter(projection, jax.random.fold_in(key, zlib.crc32(name.encode())), lora.rank, lora.alpha)
    return _frozen(model, lora)


def _add_adapter(projection: Projection, key: jax.Array, rank: int, alpha: float) -> None:
    assert isinstance(projection.kernel, nnx.Param)
    lead = projection.kernel.ndim - len(projection.axes)
    cut = lead + projection.num_in
    layers, inputs, outputs = (projection.kernel.shape[part] for part in (slice(lead), slice(lead, cut), slice(cut, None)))
    bound = 1 / math.sqrt(math.prod(inputs))
    a = jax.random.uniform(key, (*layers, *inputs, rank), jnp.float32, -bound, bound)
    b = jnp.zeros((*layers, rank, *outputs), jnp.float32)
    axes_a, axes_b = (*projection.axes[: projection.num_in], None), (None, *projection.axes[projection.num_in :])
    projection.lora_a = nnx.data(nnx.Param(projection.rules.constrain(a, *axes_a), axes=axes_a))
    projection.lora_b = nnx.data(nnx.Param(projection.rules.constrain(b, *axes_b), axes=axes_b))
    projection.lora_scale = alpha / rank


def _frozen(model: Transformer, lora: LoraConfig) -> Transformer:
    """The model with its matrices, adapters aside, held as `lora.base_weights`."""
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
    """The plain model that an adapted one (or one in int8, or NF4) amounts to, blocks stacked.

    A kernel becomes what it stands for, plus a b alpha/rank, computed layer by layer in float32.
    """
    plain, held = abstract_transformer(model.arch, model.rules), dict(nnx.iter_modules(model))
    for path, module in nnx.iter_modules(plain):
        for name, param in vars(module).items():
            if not isinstance(param, nnx.Param):
                continue
            if isinstance(module, Projection) and name == "kernel":
                value = jax.lax.map(lambda layer: layer.dense_kernel().astype(dtype), held[path])
            else:
                value = getattr(held[path], name)[...].astype(dtype)
            param.set_value(model.rules.constrain(value, *param.axes))
    return plain

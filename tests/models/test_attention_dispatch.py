"""Selection of the attention back end, and the call of cuDNN's kernel."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from tests.helpers.splash_cases import LENGTH, architecture
from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.sharding import RULES
from wizardcoder_jax.models.attention_dispatch import select_backend
from wizardcoder_jax.models.transformer import abstract_transformer

SUPPORTED = {"length": 256, "head_dim": 128, "dropout": 0.0, "dtype": jnp.dtype("bfloat16")}
TPU, GPU = ("TPU v5 lite", "tpu"), ("NVIDIA H100 80GB HBM3", "gpu")


def mesh_of(device_kind, platform):
    device = jax.sharding.AbstractDevice(device_kind=device_kind, num_cores=1, platform=platform)
    return jax.sharding.AbstractMesh((1, 1), ("data", "model"), abstract_device=device)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("splash", {"length": 100}, "a sequence length of 100 tokens (it must be a multiple of 128)"),
        ("splash", {"head_dim": 80}, "head_dim 80 (it must be a multiple of 64)"),
        ("splash", {"dropout": 0.1}, "dropout 0.1 of attention probabilities"),
        ("cudnn", {"length": 101}, "an odd sequence length (101 tokens)"),
        ("cudnn", {"head_dim": 100}, "head_dim 100 (it must be a multiple of 8, at most 128)"),
        ("cudnn", {"head_dim": 192}, "head_dim 192 (it must be a multiple of 8, at most 128)"),
        ("cudnn", {"dropout": 0.1}, "dropout 0.1 of attention probabilities"),
        ("cudnn", {"dtype": jnp.dtype("float32")}, "compute_dtype float32"),
    ],
)
def test_unsupported_shapes_are_rejected_for_a_kernel_and_use_dot_for_auto(kind, changes, message):
    with jax.sharding.use_abstract_mesh(mesh_of(*(TPU if kind == "splash" else GPU))):
        with pytest.raises(InputError, match=re.escape(message)) as error:
            select_backend(kind, **{**SUPPORTED, **changes})
        assert "\n" not in str(error.value)
        assert select_backend("auto", **{**SUPPORTED, **changes}) == "dot"
        assert select_backend("dot", **{**SUPPORTED, **changes}) == "dot"


def test_auto_selects_the_kernel_of_the_accelerator():
    assert select_backend("auto", **SUPPORTED) == "dot"  # this is a CPU
    for device, kernel in ((TPU, "splash"), (GPU, "cudnn")):
        with jax.sharding.use_abstract_mesh(mesh_of(*device)):
            assert select_backend("auto", **SUPPORTED) == kernel
        assert select_backend(kernel, **SUPPORTED) == kernel  # a kernel can also be required on another machine


@pytest.mark.parametrize("name", ["multi-query, learned", "grouped-query, rope, window"])
def test_on_gpu_forward_and_backward_passes_call_cudnn(name, monkeypatch):
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)  # pretend that it is installed
    model = abstract_transformer(architecture(name), RULES["fsdp"])

    def total(model, tokens):
        hidden = model(tokens, tokens, tokens, dtype=jnp.bfloat16, attention="auto", remat="full")
        return hidden.astype(jnp.float32).sum()

    with jax.sharding.use_abstract_mesh(mesh_of(*GPU)):
        traced = jax.jit(jax.grad(total)).trace(model, jax.ShapeDtypeStruct((2, LENGTH), jnp.int32))
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaScaleBiasSoftmax(" in text
    assert "__cudnn$fmhaScaleBiasSoftmaxBackward(" in text
    assert f"{LENGTH}x{LENGTH}xf32" not in text  # no scores

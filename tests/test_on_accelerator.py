"""Numerics on the accelerator of this machine; `make test-accelerator` runs these tests."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.processes import REPOSITORY
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams
from wizardcoder_jax.training.objectives.objective import LossOptions

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(jax.default_backend() == "cpu", reason="no accelerator: JAX sees only the CPU"),
]


@pytest.fixture(scope="module")
def ours():
    """The measurements of scripts/bench/accelerator.py."""
    sys.path.insert(0, str(REPOSITORY / "scripts/bench"))
    try:
        from on_device import ours

        yield ours
    finally:
        sys.path.remove(str(REPOSITORY / "scripts/bench"))


def test_loss_gradients_and_greedy_tokens_equal_those_of_the_cpu(ours):
    for found in ours.parity(num_tokens=64):
        assert found["loss_error"] < 1e-5, found
        assert found["gradient_error"] < 1e-5, found
        assert found["equal_tokens"] == "64 of 64", found


def test_the_fused_kernel_equals_matrix_products_in_bfloat16(ours):
    """Both round to bfloat16, at different places."""
    arch = dataclasses.replace(ours.tiny_arch("qwen2"), head_dim=64)
    mesh = make_mesh("1x1")
    with jax.set_mesh(mesh):
        model = ours.random_model(arch, mesh)
        options = (LossOptions(dtype=jnp.bfloat16, attention=kind) for kind in ("dot", "auto"))
        (loss, grads), (fused_loss, fused_grads) = (ours.loss_and_gradients(model, each, length=256) for each in options)
    assert fused_loss == pytest.approx(loss, rel=1e-2)
    for expected, found in zip(grads, fused_grads, strict=True):
        assert np.linalg.norm(found - expected) <= 0.05 * np.linalg.norm(expected) + 1e-6


def test_a_sample_does_not_depend_on_the_batch(ours):
    arch, mesh = ours.tiny_arch("llama"), make_mesh("1x1")
    rng = np.random.default_rng(0)
    prompts = [tuple(rng.integers(0, arch.vocab_size, n).tolist()) for n in (3, 40, 100, 9)]
    requests = [
        GenerationRequest(prompt=prompt, key=(7, i), max_length=len(prompt) + 40, params=SamplingParams(temperature=1.0))
        for i, prompt in enumerate(prompts)
    ]
    with jax.set_mesh(mesh), jax.default_matmul_precision("highest"):
        model = ours.random_model(arch, mesh).unstack_layers()
        engine = lambda n: Engine(model, num_slots=n, max_length=256, eos_ids=[], dtype=jnp.float32)  # noqa: E731
        together = dict(engine(4).generate(requests))
        alone = [dict(engine(1).generate([request]))[0] for request in requests]
    assert [together[i].tokens for i in range(4)] == [answer.tokens for answer in alone]

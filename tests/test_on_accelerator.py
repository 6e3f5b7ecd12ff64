"""Numerics on the accelerator of this machine; `make test-accelerator` runs these tests."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.processes import REPOSITORY
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams

pytestmark = pytest.mark.accelerator


@pytest.fixture(scope="module")
def ours():
    """The measurements of scripts/bench/accelerator.py."""
    if jax.default_backend() == "cpu":  # not at import: collecting tests must not start JAX, which takes a GPU's memory
        pytest.skip("no accelerator: JAX sees only the CPU")
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


def test_the_attention_kernel_equals_matrix_products_in_bfloat16(ours):
    """Both round to bfloat16, but not at the same operations."""
    [found] = ours.attention(length=512)
    assert found["kernel"] != "dot"
    assert found["loss_error"] < 0.05 and found["gradient_error"] < 0.05, found


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

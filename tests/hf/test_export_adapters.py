"""Export of LoRA checkpoints: adapters are merged into a plain Hugging Face folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import tests.models.test_lora as adapters
from tests.helpers import tiny_models
from wizardcoder_jax import export
from wizardcoder_jax.checkpoints.manager import CheckpointManager
from wizardcoder_jax.checkpoints.metadata import CheckpointCard
from wizardcoder_jax.config import LoraConfig
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.hf.model_source import ModelSource
from wizardcoder_jax.models.lora import add_adapters_on_mesh

RUNS = {
    "gpt_bigcode over nf4": (lambda: tiny_models.gpt_bigcode(), "nf4"),
    "starcoder2 over int8": (lambda: tiny_models.starcoder2(use_bias=True), "int8"),
    "llama over float32": (lambda: tiny_models.llama(), "float32"),
    "qwen2 over bfloat16": (lambda: tiny_models.qwen2(), "bfloat16"),
}
TOKENS = np.arange(2, 50)[None]


def saved_run(make, kind, root):
    """Save a checkpoint of a model with adapters, whose frozen weights are stored once for all steps; return the model."""
    base, mesh = tiny_models.ours(make(), root / "original"), make_mesh("1x1")
    lora = LoraConfig(rank=4, alpha=6.0, base_weights=kind)
    model = adapters.trained(add_adapters_on_mesh(base, lora, jax.random.key(0), mesh))
    leaves = adapters.by_name(model)
    parts = {
        "params": {name: leaf for name, leaf in leaves.items() if adapters.is_adapter(name)},
        "frozen": {name: leaf for name, leaf in leaves.items() if not adapters.is_adapter(name)},
    }
    settings = {"rank": 4, "alpha": 6.0, "targets": list(lora.targets), "base_weights": kind}
    card = CheckpointCard(arch=model.arch, tokenizer=ModelSource(str(root / "original")).tokenizer.to_files(), lora=settings)
    with CheckpointManager(str(root / "run"), keep=1) as checkpoints:
        checkpoints.save(3, card, parts)
    return model


@jax.jit
def logits(model):
    tokens = jnp.asarray(TOKENS)
    hidden = model(tokens, jnp.arange(tokens.shape[1])[None], jnp.ones_like(tokens), dtype=jnp.float32)
    return model.logits(hidden)[..., : model.arch.vocab_size]


def theirs(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.from_numpy(TOKENS)).logits.numpy(), model


# By default one run with adapters over quantized weights.
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if "nf4" in name else pytest.mark.slow) for name in RUNS])
def test_an_exported_lora_run_is_a_plain_model_with_the_same_logits(name, tmp_path):
    make, kind = RUNS[name]
    ours = logits(saved_run(make, kind, tmp_path))
    export.main(["--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "exported")])
    found, _ = theirs(tmp_path / "exported")
    np.testing.assert_allclose(found, ours, rtol=0, atol=1e-4)
    assert np.abs(found - theirs(tmp_path / "original")[0]).max() > 0.1
    again = open_model(str(tmp_path / "run")).weights(RULES["fsdp_tensor"], make_mesh("1x1"), jnp.dtype("bfloat16"))
    assert {leaf.dtype for leaf in jax.tree.leaves(again.model)} == {jnp.dtype("bfloat16")}


def test_exported_weights_are_the_base_weights_plus_b_a_alpha_over_rank(tmp_path):
    model = saved_run(tiny_models.llama, "float32", tmp_path)
    export.main(["--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "exported")])
    before, after = (theirs(tmp_path / folder)[1].state_dict() for folder in ("original", "exported"))
    parts = {"self_attn.q_proj": model.blocks.attention.query, "self_attn.o_proj": model.blocks.attention.out}
    parts |= {"mlp.gate_proj": model.blocks.mlp.gate, "mlp.down_proj": model.blocks.mlp.down}
    for i in range(2):
        for module, projection in parts.items():
            name = f"model.layers.{i}.{module}.weight"
            a, b = (np.asarray(param[...])[i] for param in (projection.lora_a, projection.lora_b))
            delta = 6.0 / 4 * b.reshape(4, -1).T @ a.reshape(-1, 4).T
            np.testing.assert_allclose(after[name].numpy() - before[name].numpy(), delta, atol=1e-5)
    unchanged = [name for name in before if "norm" in name or "embed" in name]
    assert unchanged and all(torch.equal(before[name], after[name]) for name in unchanged)

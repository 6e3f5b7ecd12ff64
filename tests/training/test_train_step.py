"""The training step equals torch: losses, gradients, AdamW, gradient accumulation."""

import copy
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from jax.sharding import PartitionSpec

from tests.helpers import tiny_models
from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy
from wizardcoder_jax.training.optimizers.factory import make_optimizer, make_schedule
from wizardcoder_jax.training.train_step import make_step, new_state
from wizardcoder_jax.training.trainable import Partition

pytestmark = pytest.mark.full_optimization

FAMILIES = {
    "gpt_bigcode": lambda **changes: tiny_models.gpt_bigcode(vocab_size=393, **changes),
    "llama": lambda **changes: tiny_models.llama(vocab_size=393, tie_word_embeddings=True, **changes),
}


def packed_batch(vocab_size, num_rows=8, length=32):
    """Return rows of two segments each; the last tokens of each segment are supervised."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, vocab_size, (num_rows, length + 1)).astype(np.int32)
    segment_ids = np.repeat([[1, 2, 0]], num_rows, axis=0).repeat([14, 12, 6], axis=1).astype(np.int32)
    positions = np.concatenate([np.arange(14), np.arange(12), np.arange(6)])[None].repeat(num_rows, axis=0).astype(np.int32)
    weights = ((positions >= 5) & (segment_ids > 0)).astype(np.float32)
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": weights / weights.sum(),
        "segment_ids": segment_ids,
        "positions": positions,
        "seeds": np.arange(num_rows, dtype=np.uint32),
    }


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    theirs = FAMILIES[request.param](attn_implementation="eager")
    return theirs, tiny_models.ours(theirs, tmp_path_factory.mktemp("pair"))


def torch_loss(model, rows):
    """Return the mean cross-entropy over all supervised tokens, with a separate forward pass for each segment."""
    total, count = 0.0, 0
    for segment in (1, 2):
        here = rows["segment_ids"][0] == segment
        tokens, targets = (torch.tensor(rows[name][:, here]).long() for name in ("tokens", "targets"))
        log_probabilities = torch.log_softmax(model(tokens).logits.float(), -1)
        supervised = torch.tensor(rows["weights"][:, here] > 0).long()
        total = total - (log_probabilities.gather(-1, targets[..., None])[..., 0] * supervised).sum()
        count += int(supervised.sum())
    return total / count


def test_the_loss_is_torchs_cross_entropy_over_weighted_tokens_of_packed_rows(pair):
    theirs, ours = pair
    rows = packed_batch(393)
    with torch.no_grad():
        expected = float(torch_loss(theirs, rows))
    total = jax.jit(lambda model, batch: weighted_cross_entropy(model, batch, LossOptions(dtype=jnp.float32)))(
        ours, Batch(**rows)
    )
    assert float(total) == pytest.approx(expected, rel=1e-5)


# a large eps, because the gradient of a key bias is rounding noise, which AdamW would scale up to a full step
OPTIM = OptimConfig(peak_lr=1e-3, warmup_steps=0, eps=1e-4, weight_decay=0.1)
CONFIG = TrainConfig(num_steps=10, batch_size=8, accumulation=1, compute_dtype="float32", remat="none", optim=OPTIM)


def steps_of(model, config, rows, num_steps=3):
    """Take `num_steps` steps on the same rows; return the losses, the gradient norms and the final state."""
    mesh, rules = make_mesh("1x1"), RULES["fsdp"]
    step = make_step(config, Partition.of(model, config), unroll=False)
    state, seen = new_state(jax.tree.map(jnp.copy, model), config, mesh, rules), []

    def read(places):
        return {name: array[places] for name, array in rows.items()}

    for _ in range(num_steps):
        state, metrics = step(state, put_batch(read, config.batch_size, config.accumulation, mesh, rules))
        seen.append((float(metrics.loss), float(metrics.grad_norm)))
    return seen, state


def test_three_training_steps_equal_those_of_torch(pair):
    theirs, ours = copy.deepcopy(pair[0]), pair[1]  # in eval mode: without dropout
    rows, seen = packed_batch(393), []
    schedule = make_schedule(OPTIM, 10)
    optimizer = torch.optim.AdamW(theirs.parameters(), betas=(0.9, 0.999), eps=OPTIM.eps, weight_decay=OPTIM.weight_decay)
    for i in range(3):
        optimizer.param_groups[0]["lr"] = float(schedule(i))
        loss = torch_loss(theirs, rows)
        optimizer.zero_grad()
        loss.backward()
        norm = math.sqrt(sum(float(p.grad.square().sum()) for p in theirs.parameters()))
        seen.append((loss.item(), norm))
        optimizer.step()
    np.testing.assert_allclose(steps_of(ours, CONFIG, rows)[0], seen, rtol=2e-5)
    assert seen[2][0] < seen[0][0]


def test_the_optimizer_equals_torchs_adamw_on_the_same_gradients():
    config = OptimConfig(peak_lr=1e-2, warmup_steps=2, weight_decay=0.1, b2=0.95)
    rng = np.random.default_rng(0)
    start, grads = rng.normal(size=50).astype(np.float32), rng.normal(size=(3, 50)).astype(np.float32)
    optimizer, schedule = make_optimizer(config, 10), make_schedule(config, 10)
    ours, state = jnp.asarray(start), make_optimizer(config, 10).init(jnp.asarray(start))
    theirs = torch.nn.Parameter(torch.tensor(start))
    other = torch.optim.AdamW([theirs], betas=(config.b1, config.b2), eps=config.eps, weight_decay=config.weight_decay)
    for i in range(3):
        updates, state = optimizer.update(jnp.asarray(grads[i]), state, ours)
        ours = optax.apply_updates(ours, updates)
        theirs.grad, other.param_groups[0]["lr"] = torch.tensor(grads[i]), float(schedule(i))
        other.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=1e-6)
    assert np.abs(np.asarray(ours) - start).max() > 1e-3


def test_the_schedule_warms_up_then_follows_half_a_cosine():
    schedule = make_schedule(OptimConfig(peak_lr=2e-5, warmup_steps=30), 200)
    assert [float(schedule(i)) for i in (0, 15, 30, 115, 200)] == pytest.approx([0, 1e-5, 2e-5, 1e-5, 0], abs=1e-11)
    assert float(make_schedule(OptimConfig(peak_lr=1.0, warmup_steps=0), 4)(0)) == 1.0
    short = make_schedule(OptimConfig(peak_lr=1.0, warmup_steps=30), 10)  # fewer steps than the warmup
    assert [float(short(i)) for i in (0, 5, 10)] == pytest.approx([0, 0.5, 1.0])


def test_gradients_are_clipped_by_their_global_norm():
    grads = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    optimizer = make_optimizer(OptimConfig(peak_lr=1.0, warmup_steps=0, b1=0.0, b2=0.0, eps=1.0, clip_norm=1.0), 10)
    updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
    np.testing.assert_allclose([updates["a"][0], updates["b"][0]], [-0.6 / 1.6, -0.8 / 1.8], rtol=1e-5)


def test_accumulated_microbatches_equal_one_batch(pair):
    rows = packed_batch(393)
    rows["weights"] = (rows["weights"] > 0) * (np.arange(8)[:, None] % 3 > 0)  # unequal numbers of supervised tokens
    rows["weights"] = (rows["weights"] / rows["weights"].sum()).astype(np.float32)
    whole, state = steps_of(pair[1], CONFIG, rows)
    split, other = steps_of(pair[1], dataclasses.replace(CONFIG, accumulation=4), rows)
    np.testing.assert_allclose(split, whole, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), state.trained, other.trained)


def test_padding_of_the_vocabulary_stays_zero_with_zero_moments(pair):
    _, state = steps_of(pair[1], CONFIG, packed_batch(393))
    tables = [leaf for leaf in jax.tree.leaves(state) if leaf.shape == (512, 32)]
    assert len(tables) == 3  # the tied embedding and its two moments
    for table in tables:
        assert np.abs(table[:393]).max() > 0
        assert not np.asarray(table[393:]).any()


def test_rows_without_supervised_tokens_have_no_loss_and_no_gradient(pair):
    rows = packed_batch(393)
    rows["weights"] *= 0
    assert steps_of(pair[1], CONFIG, rows, num_steps=1)[0] == [(0.0, 0.0)]


def test_a_split_of_one_mesh_axis_over_two_dims_is_refused():
    shape = {"data": 2, "model": 4}
    with pytest.raises(ValueError, match="use a mesh axis twice"):
        RULES["fsdp_tensor"].spec(shape, (8, 8), ("heads", "mlp"))
    assert RULES["fsdp_tensor"].spec(shape, (3, 8, 12), ("embed", "mlp")) == PartitionSpec(None, ("data",), ("model",))
    assert RULES["fsdp_tensor"].spec(shape, (8, 1, 4), ("embed", "kv_heads", None))[1] is None  # a single head is not split

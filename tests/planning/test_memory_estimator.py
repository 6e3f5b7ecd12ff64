"""Of a step's memory and time by arithmetic: against the TPU compiler's reports, and what jax says of the real state."""

import dataclasses
import math

import jax
import pytest

from tests.helpers.compiled_memory import COMPILED
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.config.command_line import parse_command_line
from wizardcoder_jax.core.accelerators import ACCELERATORS
from wizardcoder_jax.core.sharding import MESH_AXES, RULES
from wizardcoder_jax.models.families.registry import published_arch
from wizardcoder_jax.planning.memory_estimator import memory
from wizardcoder_jax.planning.step_time import PRODUCT_EFFICIENCY, pace
from wizardcoder_jax.training.train_step import abstract_state
from wizardcoder_jax.training.trainable import abstract_model

STARCODER = published_arch("bigcode/starcoder")


def of(flags, mesh=(32, 1), arch=STARCODER, chip="v5e"):
    config = parse_command_line(TrainConfig, flags.split())
    needed = memory(arch, config, mesh)
    return needed, pace(arch, config, mesh, ACCELERATORS[chip], needed)


@pytest.mark.parametrize(("hub_id", "topology", "mesh", "flags", "compiled_gib"), COMPILED)
def test_memory_is_within_15_percent_of_what_the_compiler_reports(hub_id, topology, mesh, flags, compiled_gib):
    needed, _ = of(flags, mesh, published_arch(hub_id))
    assert needed.total / 2**30 == pytest.approx(compiled_gib, rel=0.15)


@pytest.mark.parametrize("mesh", [(1, 1), (8, 1), (2, 4), (16, 2)])
@pytest.mark.parametrize("strategy", ["fsdp", "fsdp_tensor"])
@pytest.mark.parametrize(
    "flags",
    ["", "--lora.rank 8 --lora.base-weights nf4", "--optim.moment-dtype int8 --optim.ema-decay 0.9", "--optim.name muon"],
)
def test_what_is_held_is_what_the_shards_of_the_real_state_come_to(mesh, strategy, flags):
    arch = published_arch("bigcode/tiny_starcoder_py")
    config = parse_command_line(TrainConfig, ["--strategy", strategy, *flags.split()])
    model, places = abstract_model(arch, RULES[strategy], config), jax.sharding.AbstractMesh(mesh, MESH_AXES)
    state = abstract_state(model, config, places, RULES[strategy])._replace(guard=None)
    shards = [math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)]
    needed = memory(arch, config, mesh)
    assert needed.params + needed.optimizer == sum(shards)


def test_products_without_recomputation_are_six_flops_a_parameter_and_token():
    config = TrainConfig(batch_size=64, accumulation=1, remat="none")
    pure = (
        pace(STARCODER, config, (32, 1), ACCELERATORS["v5e"], memory(STARCODER, config, (32, 1))).products_s
        * PRODUCT_EFFICIENCY
    )
    positions = STARCODER.max_positions * STARCODER.embed_dim  # are looked up
    expected = 6 * (STARCODER.num_params - positions) * 64 * 2048 / (32 * ACCELERATORS["v5e"].peak_flops)
    assert pure == pytest.approx(expected, rel=0.01)


def test_the_time_of_starcoders_blocks_is_that_of_their_compiled_operations():
    """0.289 s: 4 layers, 64 sequences, v5e:4x8, with the loss and without splash and collectives, by libtpu's cycles."""
    four_layers = dataclasses.replace(STARCODER, num_layers=4)
    _, taken = of("--batch-size 64 --accumulation 1 --remat offload_middle", arch=four_layers)
    assert taken.products_s + taken.elementwise_s + taken.update_s == pytest.approx(0.289, rel=0.1)


def test_what_is_kept_is_not_computed_again_and_takes_memory():
    found = [of(f"--batch-size 64 --accumulation 2 --remat {remat}") for remat in ("full", "attention", "mlp")]
    kept, products = [needed.kept for needed, _ in found], [taken.products_s for _, taken in found]
    assert kept == sorted(set(kept))
    assert products == sorted(set(products), reverse=True)


def test_what_is_kept_on_the_host_is_on_no_chip():
    (there, _), (here, _) = (of(f"--batch-size 64 --accumulation 2 --remat {remat}") for remat in ("offload_middle", "mlp"))
    assert there.kept == 0 and here.host == 0
    input_qkv_attended_middle = 2 * 2048 * 40 * (2 * (3 * 6144 + 6144 + 2 * 128) + 4 * 48) / 2  # bytes: one row a chip
    assert there.host == pytest.approx(input_qkv_attended_middle)


def test_frozen_weights_have_neither_gradients_nor_moments():
    whole, adapters = (of(f"--batch-size 32 --accumulation 1{flags}")[0] for flags in ("", " --lora.rank 8"))
    assert adapters.gradients < whole.gradients / 20 and adapters.optimizer < whole.optimizer / 20

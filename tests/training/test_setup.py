"""What a run trains: the state before the first step, and the abstract state that checkpoints are restored into."""

import jax
import pytest

from tests.helpers import tiny_models
from wizardcoder_jax.config import LoraConfig, TrainConfig
from wizardcoder_jax.training.setup import TrainingSetup


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return str(tiny_models.save_folder(tiny_models.gpt_bigcode(vocab_size=393), tmp_path_factory.mktemp("setup") / "base"))


@pytest.mark.parametrize("base_weights", ["float32", "bfloat16", "int8", "nf4", None])
def test_a_checkpoint_is_restored_into_the_shapes_and_dtypes_of_the_first_state(base, base_weights):
    lora = LoraConfig() if base_weights is None else LoraConfig(rank=2, base_weights=base_weights)
    setup = TrainingSetup.open(TrainConfig(base=base, max_length=128, lora=lora, batch_size=2, accumulation=1))
    first, expected = setup.init_state(), setup.abstract_state()
    assert jax.tree.structure(first) == jax.tree.structure(expected)
    describe = lambda leaf: (leaf.shape, leaf.dtype)  # noqa: E731
    differing = [
        (jax.tree_util.keystr(path), describe(leaf), describe(shape))
        for (path, leaf), shape in zip(jax.tree_util.tree_leaves_with_path(first), jax.tree.leaves(expected), strict=True)
        if describe(leaf) != describe(shape)
    ]
    assert differing == []

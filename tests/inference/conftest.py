import jax
import pytest

from tests.helpers import tiny_models
from wizardcoder_jax.models.transformer import Transformer


@pytest.fixture(scope="session")
def load_engine_model(tmp_path_factory):
    """Return a function that converts a transformers model to our model in the layout of the engine."""

    def load(theirs):
        return jax.jit(Transformer.unstack_layers)(tiny_models.ours(theirs, tmp_path_factory.mktemp("model")))

    return load

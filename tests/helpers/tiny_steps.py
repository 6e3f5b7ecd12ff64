"""Takes training steps with a tiny random model on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.sharded_steps import compiled
from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.models.arch import ArchConfig
from wizardcoder_jax.models.families.registry import FAMILIES
from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.train_step import make_step, new_state
from wizardcoder_jax.training.trainable import Partition

SIZES = {"vocab_size": 200, "embed_dim": 32, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_dim": 8, "mlp_dim": 64}
REST = {"max_positions": 32, "norm_eps": 1e-5, "tie_embeddings": True, "bias": "all", "mlp": "gelu_tanh"}
ARCH = ArchConfig(**{**FAMILIES["starcoder2"].arch_fields, **SIZES, **REST})
RULES_HERE = RULES["fsdp"]
ROWS, LENGTH = 8, 16
# Every optimizer, with every moment dtype that needs different code.
OPTIMIZERS = [("adamw", "float32"), ("adamw", "bfloat16"), ("adamw", "int8"), ("lion", "float32"), ("lion", "int8")]
OPTIMIZERS += [("muon", "float32"), ("muon", "int8"), ("adafactor", "float32")]


def some_slow(optimizers, default=(("adamw", "float32"), ("muon", "int8"))):
    """Return the optimizers as pytest parameters, marked slow except for those in `default`."""
    return [case if case in default else pytest.param(*case, marks=pytest.mark.slow) for case in optimizers]


def config(optim=None, **changes):
    """Return the settings of ten float32 steps without warmup; `optim` overrides optimizer settings."""
    optim = OptimConfig(**{"peak_lr": 1e-2, "warmup_steps": 0, "schedule": "constant", **(optim or {})})
    sizes = {"num_steps": 10, "batch_size": ROWS, "accumulation": 1, "max_length": LENGTH}
    return TrainConfig(**{**sizes, "compute_dtype": "float32", "remat": "none", "optim": optim, **changes})


def model(seed=0):
    """Return a model with random weights; even biases and norms are not constant."""
    plain = Transformer(ARCH, RULES_HERE, jax.random.key(seed))
    leaves, treedef = jax.tree.flatten(plain)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(treedef, [leaf + 0.05 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


def rows(seed=0, factor=1.0):
    """Return a batch with one segment per row; the weights sum to `factor`."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, ARCH.vocab_size, (ROWS, LENGTH + 1)).astype(np.int32)
    supervised = rng.random((ROWS, LENGTH)) < np.linspace(0.1, 1, ROWS)[:, None]
    return {
        "tokens": tokens[:, :-1],
        "targets": tokens[:, 1:],
        "weights": np.where(supervised, factor / supervised.sum(), 0).astype(np.float32),
        "segment_ids": np.ones((ROWS, LENGTH), np.int32),
        "positions": np.arange(LENGTH, dtype=np.int32)[None].repeat(ROWS, axis=0),
        "seeds": np.arange(ROWS, dtype=np.uint32),
    }


class Training:
    """A training state, and the step that updates it."""

    def __init__(self, settings, start=None):
        start = model() if start is None else start
        self.settings, self.mesh = settings, make_mesh("1x1")
        self.partition = Partition.of(start, settings)
        self.state = new_state(jax.tree.map(jnp.copy, start), settings, self.mesh, RULES_HERE)
        self._step, self._compiled = make_step(settings, self.partition, unroll=False), None

    def step(self, batch):
        """Take one step on `batch` and return its metrics."""
        settings = self.settings
        read = lambda places: {name: array[places] for name, array in batch.items()}  # noqa: E731
        put = put_batch(read, settings.batch_size, settings.accumulation, self.mesh, RULES_HERE)
        if self._compiled is None:  # compile once, as the train command does
            self._compiled = compiled(self._step, self.state, put)
        self.state, metrics = self._compiled(self.state, put)
        return jax.tree.map(np.asarray, metrics)


def bits(tree):
    """Return the bytes of every array in a pytree by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()) for path, leaf in leaves}

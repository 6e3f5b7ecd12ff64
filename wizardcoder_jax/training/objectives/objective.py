"""The interface of a training objective: the fields of its batches, its loss and its metrics.

An objective has two halves, under one name (`--objective`). How an example is tokenized and which of its tokens are supervised
is its row in data/tokenization.py; its loss is a file in this folder and a row in objective_registry.py. Packing, sharding,
gradient accumulation, checkpoints, adapters and callbacks are shared by all objectives.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wizardcoder_jax.config import Remat, TrainConfig
from wizardcoder_jax.models.attention_dispatch import AttentionBackend
from wizardcoder_jax.models.transformer import Transformer


class Batch(NamedTuple):
    """Packed sequences, each array [B, T] unless stated otherwise; [A, B, T] for A microbatches."""

    tokens: jax.Array  # int32 inputs
    targets: jax.Array  # int32, the next token of each input
    weights: jax.Array  # float32 weight of each target: the loss of a step is the plain weighted sum over all its sequences
    segment_ids: jax.Array  # int32, the example's number within its sequence, from 1; 0 is padding
    positions: jax.Array  # int32, position within the example
    seeds: jax.Array  # uint32, [B]: the source of all randomness of a sequence (dropout, noise)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Settings of the forward pass, and the terms that regularize it; a term that is 0 adds nothing to the program."""

    dtype: jnp.dtype  # of activations and matmuls
    remat: Remat = "none"  # see models/remat.py
    attention: AttentionBackend = "auto"  # see models/transformer.py
    chunk: int | None = None  # see chunk_length in chunked_cross_entropy.py
    dropout: float = 0.0  # see models/dropout.py
    neftune_alpha: float = 0.0  # see models/dropout.py
    z_loss: float = 0.0  # times (log Z)^2 of every supervised token (PaLM, arXiv 2204.02311, section 5)
    label_smoothing: float = 0.0  # share of each target that is spread evenly over the vocabulary (arXiv 1512.00567)

    @classmethod
    def from_config(cls, config: TrainConfig) -> "LossOptions":
        """Return the options of a training step."""
        dtype, regularization = jnp.dtype(config.compute_dtype), dataclasses.asdict(config.regularisation)
        return cls(dtype=dtype, remat=config.remat, attention=config.attention, chunk=config.loss_chunk, **regularization)

    def without_regularization(self) -> "LossOptions":
        """Return the options of validation: the cross-entropy alone, without rematerialization."""
        return LossOptions(dtype=self.dtype, attention=self.attention, chunk=self.chunk)


class Objective(Protocol):
    """What a training step minimizes.

    A step sums loss and metrics over its microbatches, so any averaging must already be in the batch, e.g. in its weights.
    """

    @property
    def name(self) -> str:
        """Return the value of `TrainConfig.objective` that selects this objective."""
        ...

    @property
    def batch_type(self) -> type[Any]:
        """Return a NamedTuple of arrays whose leading dim is the sequence; data/batches.py must provide all its fields."""
        ...

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the names of the metrics that `loss` returns next to the loss."""
        ...

    def loss(self, model: Transformer, batch: Any, options: LossOptions) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of a microbatch and its metrics, all float32 scalars; metrics.jsonl shows the metrics by name."""
        ...

"""The interface of a training objective: the fields of its batches, its loss and its metrics.

An objective, chosen with `--objective`, has two parts. The entry in TOKENIZATIONS (data/tokenization.py) defines how an example
is tokenized and which tokens are supervised. The loss is a class in this folder, listed in objective_registry.py. Everything
else, such as packing, sharding, gradient accumulation and checkpoints, is the same for all objectives.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from wizardcoder_jax.config import Remat, TrainConfig
from wizardcoder_jax.models.attention_dispatch import AttentionBackend
from wizardcoder_jax.models.transformer import Transformer


class Batch(NamedTuple):
    """Packed sequences. Arrays are [B, T] unless stated otherwise, or [A, B, T] for A microbatches."""

    tokens: jax.Array  # int32, input token ids
    targets: jax.Array  # int32, the token id that follows each input token
    weights: jax.Array  # float32, weight of each target; the loss of a step is the weighted sum over all its sequences
    segment_ids: jax.Array  # int32, number of the example within its sequence, from 1; 0 is padding
    positions: jax.Array  # int32, position within the example
    seeds: jax.Array  # uint32, [B]: seeds of each sequence's dropout and noise


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossOptions:
    """Settings of the forward pass and the regularization; regularization terms that are 0 are not compiled into the step."""

    dtype: jnp.dtype  # dtype of activations and matmuls
    remat: Remat = "none"  # rematerialization policy; see models/remat.py
    attention: AttentionBackend = "auto"  # attention kernel; see models/transformer.py
    chunk: int | None = None  # positions of each sequence per chunk; see chunked_cross_entropy.py
    dropout: float = 0.0  # dropout rate; see models/dropout.py
    neftune_alpha: float = 0.0  # scale of the embedding noise; see models/dropout.py
    z_loss: float = 0.0  # weight of the term (log Z)^2 per supervised token (PaLM, arXiv 2204.02311, section 5)
    label_smoothing: float = 0.0  # share of the target's weight that is spread over all tokens (arXiv 1512.00567)

    @classmethod
    def from_config(cls, config: TrainConfig) -> "LossOptions":
        """Return the options that training with `config` uses."""
        dtype, regularization = jnp.dtype(config.compute_dtype), dataclasses.asdict(config.regularisation)
        return cls(dtype=dtype, remat=config.remat, attention=config.attention, chunk=config.loss_chunk, **regularization)

    def without_regularization(self) -> "LossOptions":
        """Return the options for validation: plain cross-entropy, without regularization and rematerialization."""
        return LossOptions(dtype=self.dtype, attention=self.attention, chunk=self.chunk)


class Objective(Protocol):
    """The loss that training minimizes, and its metrics.

    A step sums loss and metrics over its microbatches, so any averaging must be part of the batch, e.g. of its weights.
    """

    @property
    def name(self) -> str:
        """Return the value of `TrainConfig.objective` that selects this objective."""
        ...

    @property
    def batch_type(self) -> type[Any]:
        """Return the NamedTuple type of a batch. data/batches.py must provide all its fields, as arrays [B, ...]."""
        ...

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the names of the metrics that the method `loss` returns in addition to the loss."""
        ...

    def loss(self, model: Transformer, batch: Any, options: LossOptions) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the loss of a microbatch and its metrics by name (logged in metrics.jsonl), all float32 scalars."""
        ...

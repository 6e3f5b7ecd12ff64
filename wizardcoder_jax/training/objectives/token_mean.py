"""Objective token_mean: the mean cross-entropy over all supervised tokens of a step.

Its data half is `tokenize_token_mean` in data/tokenization.py. The mean is in the batch's weights (data/batches.py): every
supervised token of a step has the same weight.
"""

import dataclasses
from typing import Any

import jax

from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy


@dataclasses.dataclass(frozen=True)
class TokenMean:
    """See the module docstring."""

    name: str = "token_mean"
    batch_type: type[Any] = Batch
    metric_names: tuple[str, ...] = ()

    def loss(self, model: Transformer, batch: Batch, options: LossOptions) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the microbatch's part of the mean over the step's supervised tokens."""
        return weighted_cross_entropy(model, batch, options), {}

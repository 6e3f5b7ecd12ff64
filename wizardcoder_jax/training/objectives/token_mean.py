"""The objective "token_mean": the mean cross-entropy over all supervised tokens of a step.

Examples are tokenized by `tokenize_token_mean` in data/tokenization.py. The weights in the batch contain the average
(data/batches.py): each of the n supervised tokens of a step has the weight 1/n.
"""

import dataclasses
from typing import Any

import jax

from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy


@dataclasses.dataclass(frozen=True)
class TokenMean:
    """The objective "token_mean"; see the module docstring."""

    name: str = "token_mean"
    batch_type: type[Any] = Batch
    metric_names: tuple[str, ...] = ()

    def loss(self, model: Transformer, batch: Batch, options: LossOptions) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the microbatch's contribution to the mean; summed over microbatches, it is the loss of the step."""
        return weighted_cross_entropy(model, batch, options), {}

"""Objective original: the loss of the published WizardCoder training script.

Its data half is `tokenize_original` in data/tokenization.py. The script averages over the supervised tokens of each microbatch
of each device and then over these means, so tokens of long answers count less. Both means are in the batch's weights
(data/batches.py), which makes the loss independent of how a step is split over devices here.

Source: nlpxucan/WizardLM, WizardCoder/src/train_wizardcoder.py.
"""

import dataclasses
from typing import Any

import jax

from wizardcoder_jax.models.transformer import Transformer
from wizardcoder_jax.training.objectives.objective import Batch, LossOptions
from wizardcoder_jax.training.objectives.weighted_cross_entropy import weighted_cross_entropy


@dataclasses.dataclass(frozen=True)
class Original:
    """See the module docstring."""

    name: str = "original"
    batch_type: type[Any] = Batch
    metric_names: tuple[str, ...] = ()

    def loss(self, model: Transformer, batch: Batch, options: LossOptions) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the microbatch's part of the mean over the loss groups' means."""
        return weighted_cross_entropy(model, batch, options), {}

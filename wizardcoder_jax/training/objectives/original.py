"""The objective "original": the loss of the published WizardCoder training script.

Examples are tokenized by `tokenize_original` in data/tokenization.py. The script averages the loss over the supervised tokens
of each microbatch on each device, and then averages these means, so tokens of long responses count less. Here the weights in
the batch contain both averages (data/batches.py), so the loss does not depend on how a step is split over devices.

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
    """The objective "original"; see the module docstring."""

    name: str = "original"
    batch_type: type[Any] = Batch
    metric_names: tuple[str, ...] = ()

    def loss(self, model: Transformer, batch: Batch, options: LossOptions) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the microbatch's contribution to the mean of means; summed over microbatches, it is the loss of the step."""
        return weighted_cross_entropy(model, batch, options), {}

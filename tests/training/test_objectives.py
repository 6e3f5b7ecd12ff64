import dataclasses
import typing
from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.helpers.tiny_steps import Training, config, rows
from wizardcoder_jax.config import TrainConfig
from wizardcoder_jax.data.tokenization import TOKENIZATIONS
from wizardcoder_jax.training.metrics_log import describe_step
from wizardcoder_jax.training.objectives.objective import Batch
from wizardcoder_jax.training.objectives.objective_registry import OBJECTIVES
from wizardcoder_jax.training.objectives.token_mean import TokenMean


@dataclasses.dataclass(frozen=True)
class CountingObjective(TokenMean):
    """The objective token_mean, with the number of supervised tokens as an additional metric."""

    batch_type: type[Any] = Batch
    metric_names: tuple[str, ...] = ("num_supervised",)

    def loss(self, model, batch, options):
        loss, _ = super().loss(model, batch, options)
        return loss, {"num_supervised": jnp.count_nonzero(batch.weights).astype(jnp.float32)}


def test_every_objective_of_the_settings_has_a_loss_and_a_tokenization():
    names = typing.get_args(typing.get_type_hints(TrainConfig)["objective"])
    assert set(OBJECTIVES) == set(TOKENIZATIONS) == set(names)
    assert all(objective.name == name for name, objective in OBJECTIVES.items())


def test_metrics_of_an_objective_are_summed_over_microbatches_and_logged(monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "token_mean", CountingObjective())
    metrics = Training(config(accumulation=2)).step(rows())
    expected = np.count_nonzero(rows()["weights"])
    assert metrics.objective == {"num_supervised": expected}
    assert describe_step(metrics, (100, 50), 1.0, 1000)["num_supervised"] == expected

"""All training objectives, by name."""

from collections.abc import Mapping

from wizardcoder_jax.training.objectives.objective import Objective
from wizardcoder_jax.training.objectives.original import Original
from wizardcoder_jax.training.objectives.token_mean import TokenMean

_ALL: tuple[Objective, ...] = (TokenMean(), Original())
OBJECTIVES: Mapping[str, Objective] = {objective.name: objective for objective in _ALL}

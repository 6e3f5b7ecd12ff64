"""Settings of plan."""

import dataclasses

from wizardcoder_jax.config.field_checks import require
from wizardcoder_jax.config.train import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanConfig(TrainConfig):
    """Predict whether a training run fits a slice of accelerators, and how fast it is. Takes all options of train, too."""

    topology: str = "v5e:4x8"  # v4, v5e, v5p or v6e and the shape of a slice (v5p:2x4x4), or h100 and a number of GPUs (h100:8)
    mesh: str = "auto"  # device mesh: DATAxMODEL; auto: search mesh, strategy, remat, microbatch and loss chunk
    fast: bool = False  # compute only the memory of the training step, within a minute
    decode_batch_size: int = 64  # number of answers that the sampler decodes concurrently
    decode_length: int = 2048  # maximum tokens of prompt and answer together
    output: str | None = None  # file for the plan (JSON)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("decode_batch_size", "decode_length"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def train(self) -> TrainConfig:
        """The settings of `train` that these settings include."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in dataclasses.fields(TrainConfig)})

"""Settings of reproduce."""

import dataclasses

from wizardcoder_jax.config.evolve import EvolveConfig
from wizardcoder_jax.config.field_checks import Protocol, require
from wizardcoder_jax.config.train import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One benchmark, measured before and after training."""

    benchmark: str
    limit: int | None = None  # only the first so many problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """The whole loop: evolve -> train -> sample and evaluate, before and after -> export -> report."""

    output_dir: str  # where every stage writes
    evolve: EvolveConfig | None  # None trains on train.data as it is; its output_dir is set by the loop
    train: TrainConfig  # its output_dir, and data where something is evolved, are set by the loop
    measurements: tuple[Measurement, ...] = (Measurement(benchmark="mini"),)  # what is measured before and after training
    protocol: Protocol = "wizardcoder-humaneval-v1"  # of the scores before and after
    baseline_protocol: Protocol = "chat"  # the base model's own way of being asked
    max_length: int = 512  # tokens of prompt and answer together, when sampling
    sample_batch_size: int = 32  # answers decoded together
    overwrite: bool = False  # start anew instead of resuming

    def __post_init__(self) -> None:
        require(bool(self.measurements), "measurements names no benchmark")

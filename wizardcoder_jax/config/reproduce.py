"""Settings of reproduce."""

import dataclasses

from wizardcoder_jax.config.evolve import EvolveConfig
from wizardcoder_jax.config.field_checks import Protocol, require
from wizardcoder_jax.config.train import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """A benchmark that is run before and after training."""

    benchmark: str  # name of the benchmark; see evaluate
    limit: int | None = None  # use only the first N problems


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Run the whole loop: evolve, train, sample and evaluate before and after training, export, report."""

    output_dir: str  # folder for the output of every stage
    evolve: EvolveConfig | None  # settings of evolve, except output_dir; None: train on train.data without evolving
    train: TrainConfig  # settings of train, except output_dir and, after evolving, data
    measurements: tuple[Measurement, ...] = (Measurement(benchmark="mini"),)  # benchmarks to run before and after training
    protocol: Protocol = "wizardcoder-humaneval-v1"  # protocol of the scores before and after training
    baseline_protocol: Protocol = "chat"  # second protocol for the base model: the prompt format that it knows
    max_length: int = 512  # maximum tokens of prompt and answer together, when sampling
    sample_batch_size: int = 32  # number of answers decoded concurrently
    overwrite: bool = False  # start over instead of resuming

    def __post_init__(self) -> None:
        require(bool(self.measurements), "measurements is empty; name at least one benchmark")

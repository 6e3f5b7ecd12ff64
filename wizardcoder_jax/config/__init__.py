"""Every setting a user can change: frozen dataclasses, one a door, with units in the names."""

from wizardcoder_jax.config.evaluate import EvaluateConfig
from wizardcoder_jax.config.evolve import EvolveConfig, TeacherConfig
from wizardcoder_jax.config.optim import GuardConfig, LoraConfig, OptimConfig
from wizardcoder_jax.config.reproduce import Measurement, ReproduceConfig
from wizardcoder_jax.config.sample import SampleConfig
from wizardcoder_jax.config.shared import Protocol, default_cache_dir
from wizardcoder_jax.config.train import RegularisationConfig, TrainConfig, ValidationConfig
from wizardcoder_jax.config.weights import ConvertConfig, ExportConfig

__all__ = [
    "ConvertConfig",
    "EvaluateConfig",
    "EvolveConfig",
    "ExportConfig",
    "GuardConfig",
    "LoraConfig",
    "Measurement",
    "OptimConfig",
    "Protocol",
    "RegularisationConfig",
    "ReproduceConfig",
    "SampleConfig",
    "TeacherConfig",
    "TrainConfig",
    "ValidationConfig",
    "default_cache_dir",
]

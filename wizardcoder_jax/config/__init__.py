"""All user settings: one frozen dataclass for each command, with units in the field names."""

from wizardcoder_jax.config.convert import ConvertConfig
from wizardcoder_jax.config.decontaminate import DecontaminateConfig
from wizardcoder_jax.config.evaluate import EvaluateConfig
from wizardcoder_jax.config.evolve import EvolveConfig, TeacherConfig
from wizardcoder_jax.config.export import ExportConfig
from wizardcoder_jax.config.field_checks import Language, Protocol, default_cache_dir
from wizardcoder_jax.config.filters import FiltersConfig
from wizardcoder_jax.config.llm_server import ServerConfig
from wizardcoder_jax.config.optimizer import GuardConfig, LoraConfig, OptimConfig
from wizardcoder_jax.config.plan import PlanConfig
from wizardcoder_jax.config.report import ReportConfig
from wizardcoder_jax.config.reproduce import Measurement, ReproduceConfig
from wizardcoder_jax.config.sample import ApiConfig, SampleConfig
from wizardcoder_jax.config.serve import ServeConfig
from wizardcoder_jax.config.train import RegularizationConfig, Remat, TrainConfig, ValidationConfig

__all__ = [
    "ApiConfig",
    "ConvertConfig",
    "DecontaminateConfig",
    "EvaluateConfig",
    "EvolveConfig",
    "ExportConfig",
    "FiltersConfig",
    "GuardConfig",
    "Language",
    "LoraConfig",
    "Measurement",
    "OptimConfig",
    "PlanConfig",
    "Protocol",
    "RegularizationConfig",
    "Remat",
    "ReportConfig",
    "ReproduceConfig",
    "SampleConfig",
    "ServeConfig",
    "ServerConfig",
    "TeacherConfig",
    "TrainConfig",
    "ValidationConfig",
    "default_cache_dir",
]

"""Settings of evolve."""

import dataclasses
import math
import typing
from typing import ClassVar, Literal

from wizardcoder_jax.config.field_checks import Dtype, Language, require, require_range
from wizardcoder_jax.config.filters import FiltersConfig
from wizardcoder_jax.config.llm_server import ServerConfig, require_limits, require_prices

NUM_METHODS = 5  # methods of Code Evol-Instruct, defined in evol_instruct/methods.py


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(ServerConfig):
    """The model that evolves instructions and answers them."""

    section: ClassVar[str] = "teacher"

    kind: Literal["openai", "model", "replay"] = "openai"  # OpenAI-compatible server, local model, or recorded answers
    model: str = "gpt-3.5-turbo"  # name of the model on the server; for kind "model": checkpoint, folder, hub id or .gguf file
    replay_file: str | None = None  # JSONL file of recorded calls, for kind "replay"
    temperature: float = 1.0  # sampling temperature; WizardLM uses 1.0
    top_p: float = 0.95  # total probability of the tokens to sample from; WizardLM uses 0.95
    max_tokens: int = 2048  # maximum length of an answer; WizardLM uses 2048
    max_length: int = 4096  # maximum tokens of prompt and answer together, for kind "model"
    batch_size: int = 16  # number of answers decoded concurrently, for kind "model"
    mesh: str = "1x1"  # device mesh: DATAxMODEL, for kind "model"
    compute_dtype: Dtype = "float32"  # dtype of weights, activations and KV cache, for kind "model"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind != "replay" or self.replay_file is not None, "teacher kind 'replay' needs --teacher.replay-file FILE")
        require(self.temperature >= 0, f"teacher.temperature must be >= 0, got {self.temperature}")
        require(0 < self.top_p <= 1, f"teacher.top_p must be in (0, 1], got {self.top_p}")
        for name in ("max_tokens", "max_length", "batch_size"):
            require(getattr(self, name) >= 1, f"teacher.{name} must be at least 1, got {getattr(self, name)}")
        require_range("teacher.compute_dtype", self.compute_dtype)

    @property
    def num_in_flight(self) -> int:
        """Maximum number of concurrent calls."""
        return self.batch_size if self.kind == "model" else self.concurrency


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolveConfig:
    """Evolve seed instructions into evolved.jsonl, with a ledger of calls, rejected records and a data card."""

    seeds: str  # instruction file: JSONL, JSON array or parquet of {"instruction", "input"?, "output"}; see --seeds-kind
    output_dir: str  # folder for evolved.jsonl and the other files
    seeds_kind: Literal["instructions", "snippets"] = "instructions"  # snippets: --seeds is source code that inspires problems
    rounds: int = 3  # rounds of evolution; the paper's final set has 3
    seed: int = 0  # seed of all random choices
    teacher: TeacherConfig = TeacherConfig()
    method_weights: tuple[float, ...] = (1.0,) * NUM_METHODS  # relative frequencies of methods 1 to 5
    breadth_rate: float = 0.0  # fraction of evolutions that ask for a new instruction in the same domain instead (method 6)
    languages: tuple[Language, ...] = ()  # languages to evolve towards, one drawn per seed; empty: keep the seed's language
    judge_information_gain: bool = True  # by default, drop evolutions that the teacher judges equal to their parent
    filters: FiltersConfig = FiltersConfig()
    max_usd: float | None = None  # stop before this cost, including earlier runs
    max_requests: int | None = None  # stop before this number of answered calls, including earlier runs
    max_tokens: int | None = None  # stop before this number of prompt and answer tokens, including earlier runs
    seed_licence: str | None = None  # license of the seeds, for the data card; Code Alpaca's is known
    benchmarks_dir: str | None = None  # folder of JSONL files with problems that no record may contain
    exports: tuple[Literal["alpaca", "messages", "parquet"], ...] = ()  # further formats in which to write the evolved records
    lineage: bool = True  # by default, write lineage.html, which shows the tree of each seed's evolutions
    overwrite: bool = False  # start over instead of resuming

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}")
        require_limits("", max_usd=self.max_usd, max_requests=self.max_requests, max_tokens=self.max_tokens)
        require_weights(self.method_weights)
        require(0 <= self.breadth_rate <= 1, f"breadth_rate must be from 0 to 1, got {self.breadth_rate}")
        for name in ("languages", "exports"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{name} has a repeated value: {' '.join(values)}")
        known = typing.get_args(Language)
        unknown = [language for language in self.languages if language not in known]
        require(not unknown, f"unknown languages {' '.join(unknown)}; known languages are {', '.join(known)}")
        judges = self.filters.judge_contamination
        require(not judges or self.benchmarks_dir is not None, "filters.judge_contamination needs --benchmarks-dir DIR")
        if self.teacher.kind == "openai":
            require_prices(self.teacher, "", self.max_usd)


def require_weights(weights: tuple[float, ...]) -> None:
    """Raise ValueError unless there is one weight >= 0 for each method, and at least one above 0."""
    shown = " ".join(f"{weight:g}" for weight in weights)
    require(
        len(weights) == NUM_METHODS,
        f"method_weights must be {NUM_METHODS} numbers, one per method, got {shown}",
    )
    usable = all(weight >= 0 and math.isfinite(weight) for weight in weights) and sum(weights) > 0
    require(usable, f"method_weights must be 0 or more, and at least one above 0, got {shown}")

"""Settings of evolve."""

import dataclasses
import math
import typing
from typing import ClassVar, Literal

from wizardcoder_jax.config.field_checks import Dtype, Language, require, require_range
from wizardcoder_jax.config.filters import FiltersConfig
from wizardcoder_jax.config.llm_server import ServerConfig, require_limits, require_prices

NUM_METHODS = 5  # of Code Evol-Instruct; evol_instruct/methods.py has them


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(ServerConfig):
    """The model that evolves instructions and answers them."""

    section: ClassVar[str] = "teacher"

    kind: Literal["openai", "model", "replay"] = "openai"  # OpenAI-compatible server, model in this process, recorded answers
    model: str = "gpt-3.5-turbo"  # as the server knows the teacher; for kind "model" a checkpoint, folder, hub id or .gguf file
    replay_file: str | None = None  # JSONL of recorded calls, for kind "replay"
    temperature: float = 1.0  # WizardLM's own call: 1.0
    top_p: float = 0.95  # WizardLM's own call: 0.95
    max_tokens: int = 2048  # per answer; WizardLM's own call: 2048
    max_length: int = 4096  # tokens of prompt and answer together, for kind "model"
    batch_size: int = 16  # answers decoded together, for kind "model"
    mesh: str = "1x1"  # devices: DATAxMODEL, for kind "model"
    compute_dtype: Dtype = "float32"  # of weights, activations and KV cache, for kind "model"

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
        """Calls at the same time, at most."""
        return self.batch_size if self.kind == "model" else self.concurrency


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolveConfig:
    """seeds -> evolved.jsonl, with ledger, rejected records and a data card."""

    seeds: str  # instruction file: JSONL, JSON array or parquet of {"instruction", "input"?, "output"}; or code, see seeds_kind
    output_dir: str  # where evolved.jsonl and its companions go
    seeds_kind: Literal["instructions", "snippets"] = "instructions"  # snippets of code: the teacher makes problems of them
    rounds: int = 3  # times the pool is evolved; the paper's final set has 3
    seed: int = 0  # of every random choice
    teacher: TeacherConfig = TeacherConfig()
    method_weights: tuple[float, ...] = (1.0,) * NUM_METHODS  # how often methods 1 to 5 are drawn, relative to one another
    breadth_rate: float = 0.0  # share of evolutions that ask for a new instruction of the same domain instead (method 6)
    languages: tuple[Language, ...] = ()  # one is drawn a seed, and its evolutions ask for it; () leaves the seed's own
    judge_information_gain: bool = True  # ask the teacher whether an evolution equals its parent, and drop it if so
    filters: FiltersConfig = FiltersConfig()
    max_usd: float | None = None  # stop before this cost, earlier runs included
    max_requests: int | None = None  # stop before this number of answered calls, earlier runs included
    max_tokens: int | None = None  # stop before this number of tokens, prompts and answers together, earlier runs included
    seed_licence: str | None = None  # licence of the seeds, for the data card; Code Alpaca's is known
    benchmarks_dir: str | None = None  # problems that no record may contain: JSONL files, one folder
    exports: tuple[Literal["alpaca", "messages", "parquet"], ...] = ()  # further forms of evolved.jsonl
    lineage: bool = True  # write lineage.html, the trees of evolutions to look through
    overwrite: bool = False  # start anew instead of resuming

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}")
        require_limits("", max_usd=self.max_usd, max_requests=self.max_requests, max_tokens=self.max_tokens)
        require_weights(self.method_weights)
        require(0 <= self.breadth_rate <= 1, f"breadth_rate must be from 0 to 1, got {self.breadth_rate}")
        for name in ("languages", "exports"):
            values = getattr(self, name)
            require(len(set(values)) == len(values), f"{name} names one twice: {' '.join(values)}")
        known = typing.get_args(Language)
        unknown = [language for language in self.languages if language not in known]
        require(not unknown, f"languages holds {' '.join(unknown)}; known are {', '.join(known)}")
        judges = self.filters.judge_contamination
        require(not judges or self.benchmarks_dir is not None, "filters.judge_contamination needs --benchmarks-dir DIR")
        if self.teacher.kind == "openai":
            require_prices(self.teacher, "", self.max_usd)


def require_weights(weights: tuple[float, ...]) -> None:
    """Raises ValueError unless there is one weight, 0 or more, for each method, and one of them above 0."""
    shown = " ".join(f"{weight:g}" for weight in weights)
    require(
        len(weights) == NUM_METHODS, f"method_weights must be {NUM_METHODS} numbers, of methods 1 to {NUM_METHODS}, got {shown}"
    )
    usable = all(weight >= 0 and math.isfinite(weight) for weight in weights) and sum(weights) > 0
    require(usable, f"method_weights must be 0 or more, and one above 0, got {shown}")

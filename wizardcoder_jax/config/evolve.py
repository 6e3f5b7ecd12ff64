"""Settings of evolve."""

import dataclasses
from typing import ClassVar, Literal

from wizardcoder_jax.config.server import ServerConfig, require_limits, require_prices
from wizardcoder_jax.config.shared import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig(ServerConfig):
    """The model that evolves instructions and answers them."""

    section: ClassVar[str] = "teacher"

    kind: Literal["openai", "replay"] = "openai"  # any OpenAI-compatible server, or answers recorded in a file
    model: str = "gpt-3.5-turbo"  # name that the server knows the teacher by
    replay_file: str | None = None  # JSONL of recorded calls, for kind "replay"
    temperature: float = 1.0  # WizardLM's own call: 1.0
    top_p: float = 0.95  # WizardLM's own call: 0.95
    max_tokens: int = 2048  # per answer; WizardLM's own call: 2048

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind != "replay" or self.replay_file is not None, "teacher kind 'replay' needs --teacher.replay-file FILE")
        require(self.temperature >= 0, f"teacher.temperature must be >= 0, got {self.temperature}")
        require(0 < self.top_p <= 1, f"teacher.top_p must be in (0, 1], got {self.top_p}")
        require(self.max_tokens >= 1, f"teacher.max_tokens must be at least 1, got {self.max_tokens}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvolveConfig:
    """seeds -> evolved.jsonl, with ledger, rejected records and a data card."""

    seeds: str  # instruction file: JSONL, JSON array or parquet of {"instruction", "input"?, "output"}
    output_dir: str  # where evolved.jsonl and its companions go
    rounds: int = 3  # times the pool is evolved; the paper's final set has 3
    seed: int = 0  # of every random choice
    teacher: TeacherConfig = TeacherConfig()
    judge_information_gain: bool = True  # ask the teacher whether an evolution equals its parent, and drop it if so
    max_usd: float | None = None  # stop before this cost, earlier runs included
    max_requests: int | None = None  # stop before this number of answered calls, earlier runs included
    benchmarks_dir: str | None = None  # problems that no record may contain: JSONL files, one folder
    overwrite: bool = False  # start anew instead of resuming

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds must be at least 1, got {self.rounds}")
        require_limits("", max_usd=self.max_usd, max_requests=self.max_requests)
        if self.teacher.kind != "replay":
            require_prices(self.teacher, "", self.max_usd)

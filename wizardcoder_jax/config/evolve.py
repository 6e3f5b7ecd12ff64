"""Settings of evolve."""

import dataclasses
from typing import Literal

from wizardcoder_jax.config.shared import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """The model that evolves instructions and answers them."""

    kind: Literal["openai", "replay"] = "openai"  # any OpenAI-compatible server, or answers recorded in a file
    base_url: str = "https://api.openai.com/v1"  # of the server; its key comes from OPENAI_API_KEY
    model: str = "gpt-3.5-turbo"  # name that the server knows the teacher by
    replay_file: str | None = None  # JSONL of recorded calls, for kind "replay"
    temperature: float = 1.0  # WizardLM's own call: 1.0
    top_p: float = 0.95  # WizardLM's own call: 0.95
    max_tokens: int = 2048  # per answer; WizardLM's own call: 2048
    concurrency: int = 8  # requests in flight
    timeout_s: float = 120.0  # per request
    max_attempts: int = 6  # per request, on 429, 5xx and timeouts
    usd_per_million_prompt_tokens: float = 0.0  # price, for --max-usd and the cost report
    usd_per_million_completion_tokens: float = 0.0  # price, for --max-usd and the cost report

    def __post_init__(self) -> None:
        require(self.kind != "replay" or self.replay_file is not None, "teacher kind 'replay' needs --teacher.replay-file FILE")
        require(self.temperature >= 0, f"teacher.temperature must be >= 0, got {self.temperature}")
        require(0 < self.top_p <= 1, f"teacher.top_p must be in (0, 1], got {self.top_p}")
        for name in ("max_tokens", "concurrency", "max_attempts"):
            require(getattr(self, name) >= 1, f"teacher.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("usd_per_million_prompt_tokens", "usd_per_million_completion_tokens"):
            require(getattr(self, name) >= 0, f"teacher.{name} must be >= 0, got {getattr(self, name)}")
        require(self.timeout_s > 0, f"teacher.timeout_s must be > 0, got {self.timeout_s}")

    def cost_usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The price of so many tokens."""
        prompt_usd = prompt_tokens * self.usd_per_million_prompt_tokens
        return (prompt_usd + completion_tokens * self.usd_per_million_completion_tokens) / 1e6


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
        require(self.max_requests is None or self.max_requests >= 0, f"max_requests must be >= 0, got {self.max_requests}")
        require(self.max_usd is None or self.max_usd >= 0, f"max_usd must be >= 0, got {self.max_usd}")
        has_price = self.teacher.usd_per_million_prompt_tokens > 0 or self.teacher.usd_per_million_completion_tokens > 0
        require(
            self.max_usd is None or has_price or self.teacher.kind == "replay",
            "max_usd needs prices: --teacher.usd-per-million-prompt-tokens and --teacher.usd-per-million-completion-tokens",
        )

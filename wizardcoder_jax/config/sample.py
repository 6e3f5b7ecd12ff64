"""Settings of sample."""

import dataclasses
from typing import ClassVar

from wizardcoder_jax.config.field_checks import Dtype, Protocol, Split, default_cache_dir, require, require_range
from wizardcoder_jax.config.llm_server import ServerConfig, require_limits, require_prices

API = "api:"  # what a model behind a server begins with


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApiConfig(ServerConfig):
    """The server behind --model api:NAME. Limits hold for all runs into one output together."""

    section: ClassVar[str] = "api"

    max_usd: float | None = None  # stop before this cost
    max_requests: int | None = None  # stop before this number of answered calls
    max_tokens: int | None = None  # stop before this number of tokens, of prompts and answers

    def __post_init__(self) -> None:
        super().__post_init__()
        require_limits("api.", max_usd=self.max_usd, max_requests=self.max_requests, max_tokens=self.max_tokens)
        require_prices(self, "api.", self.max_usd)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Model + benchmark (or prompts) -> samples.jsonl."""

    model: str  # checkpoint folder, Hugging Face folder, hub id, .gguf file, or api:NAME (a model behind a server)
    output: str  # samples file; its .meta.json goes beside it
    benchmark: str | None = None  # humaneval, mbpp, mini, ... (see evaluate)
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    benchmark_version: str | None = None  # release of humaneval+ or mbpp+, e.g. v0.1.0; by default the newest
    split: Split | None = None  # part of mbpp or mbpp-sanitized
    prompts: str | None = None  # JSONL of {"instruction"} or {"prefix", "suffix"}: sample these instead of a benchmark
    protocol: Protocol = "wizardcoder-humaneval-v1"  # prompt variant and cleaner
    limit: int | None = None  # only the first so many problems or prompts
    num_samples: int = 1  # answers a problem
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0  # nucleus: the smallest set of tokens with this probability
    top_k: int | None = None  # only so many of the likeliest tokens
    min_p: float = 0.0  # only tokens at least this likely compared with the likeliest
    repetition_penalty: float = 1.0  # above 1: tokens that have occurred become less likely
    logprobs: int | None = None  # write each token's log-probability, and those of so many of the likeliest in its place
    seed: int = 0  # answer (task, index) depends on it, the task and the index only
    legacy_decode: bool = False  # tidy spaces before punctuation, as the author's published answers were
    max_length: int = 2048  # tokens of prompt and answer together; of the answer alone where a server counts them
    batch_size: int = 16  # sequences decoded together
    lookup: int = (
        0  # tokens that a step guesses from the text so far: same answers, faster for few sequences of repetitive text
    )
    mesh: str = "1x1"  # devices: DATAxMODEL
    compute_dtype: Dtype = "float32"  # of weights, activations and KV cache
    int8_weights: bool = False  # hold the blocks' kernels in int8: half the bytes of bfloat16, a little less accurate
    cache_dir: str = dataclasses.field(default_factory=default_cache_dir)  # compiled programs
    api: ApiConfig = ApiConfig()
    overwrite: bool = False  # start anew instead of resuming

    def __post_init__(self) -> None:
        require((self.benchmark is None) != (self.prompts is None), "give either --benchmark NAME or --prompts FILE")
        require(self.api_model != "", "the model's name is missing after api:, e.g. --model api:gpt-4o-mini")
        require(self.temperature >= 0, f"temperature must be >= 0, got {self.temperature}")
        require(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}")
        require(self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}")
        require(0 <= self.min_p <= 1, f"min_p must be in [0, 1], got {self.min_p}")
        require(self.repetition_penalty > 0, f"repetition_penalty must be > 0, got {self.repetition_penalty}")
        require(self.logprobs is None or 0 <= self.logprobs <= 20, f"logprobs must be in 0 to 20, got {self.logprobs}")
        require(self.logprobs is None or self.api_model is None, "logprobs are written for models of our own, not for api:NAME")
        require(0 <= self.lookup <= 16, f"lookup must be in 0 to 16, got {self.lookup}")
        for name in ("num_samples", "max_length", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require_range("compute_dtype", self.compute_dtype)
        require(self.limit is None or self.limit >= 1, f"limit must be at least 1, got {self.limit}")
        require(
            self.temperature > 0 or self.num_samples == 1,
            f"temperature 0 gives {self.num_samples} equal answers; use --temperature 0.2 or --num-samples 1",
        )

    @property
    def api_model(self) -> str | None:
        """The name that the server knows the model by; None for a model of our own."""
        return self.model.removeprefix(API) if self.model.startswith(API) else None

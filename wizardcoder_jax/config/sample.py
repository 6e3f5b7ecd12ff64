"""Settings of sample."""

import dataclasses
from typing import ClassVar

from wizardcoder_jax.config.field_checks import Dtype, Protocol, Split, default_cache_dir, require, require_range
from wizardcoder_jax.config.llm_server import ServerConfig, require_limits, require_prices

API = "api:"  # prefix of --model for a model behind a server


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApiConfig(ServerConfig):
    """The server of --model api:NAME. Limits apply to the sum over all runs with the same output."""

    section: ClassVar[str] = "api"

    max_usd: float | None = None  # stop before this cost
    max_requests: int | None = None  # stop before this number of answered calls
    max_tokens: int | None = None  # stop before this number of prompt and answer tokens

    def __post_init__(self) -> None:
        super().__post_init__()
        require_limits("api.", max_usd=self.max_usd, max_requests=self.max_requests, max_tokens=self.max_tokens)
        require_prices(self, "api.", self.max_usd)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sample a model's answers to a benchmark or to prompts, and write samples.jsonl."""

    model: str  # checkpoint folder, Hugging Face folder, hub id, .gguf file, or api:NAME (a model behind a server)
    output: str  # samples file; its .meta.json is written next to it
    benchmark: str | None = None  # humaneval, mbpp, mini, ... (see evaluate)
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    benchmark_version: str | None = None  # release of humaneval+ or mbpp+, e.g. v0.1.0; default: the newest
    split: Split | None = None  # part of mbpp or mbpp-sanitized
    prompts: str | None = None  # JSONL file of {"instruction"} or {"prefix", "suffix"}, instead of a benchmark
    protocol: Protocol = "wizardcoder-humaneval-v1"  # prompt and answer cleaner
    limit: int | None = None  # use only the first N problems or prompts
    num_samples: int = 1  # number of answers per problem
    temperature: float = 0.0  # sampling temperature; 0 is greedy
    top_p: float = 1.0  # nucleus sampling: sample from the smallest set of tokens with this total probability
    top_k: int | None = None  # sample only from the K likeliest tokens
    min_p: float = 0.0  # minimum probability of a token relative to that of the likeliest token
    repetition_penalty: float = 1.0  # above 1: make tokens that have occurred less likely
    logprobs: int | None = None  # write each token's log-probability, and those of the N likeliest tokens at its position
    seed: int = 0  # each answer depends only on this seed, its task and its index
    legacy_decode: bool = False  # remove spaces before punctuation, as in the authors' published answers
    max_length: int = 2048  # maximum tokens of prompt and answer together; with api:NAME, of the answer only
    batch_size: int = 16  # number of sequences decoded concurrently
    lookup: int = 0  # tokens to guess from earlier text per step; same answers, faster for small batches of repetitive text
    mesh: str = "1x1"  # device mesh: DATAxMODEL
    compute_dtype: Dtype = "float32"  # dtype of weights, activations and KV cache
    int8_weights: bool = False  # store the blocks' kernels in int8: half the size of bfloat16, slightly less accurate
    cache_dir: str = dataclasses.field(default_factory=default_cache_dir)  # folder of compiled programs
    api: ApiConfig = ApiConfig()
    overwrite: bool = False  # start over instead of resuming

    def __post_init__(self) -> None:
        require((self.benchmark is None) != (self.prompts is None), "give either --benchmark NAME or --prompts FILE")
        require(self.api_model != "", "--model api: lacks the model's name; write e.g. --model api:gpt-4o-mini")
        require(self.temperature >= 0, f"temperature must be >= 0, got {self.temperature}")
        require(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}")
        require(self.top_k is None or self.top_k >= 1, f"top_k must be at least 1, got {self.top_k}")
        require(0 <= self.min_p <= 1, f"min_p must be in [0, 1], got {self.min_p}")
        require(self.repetition_penalty > 0, f"repetition_penalty must be > 0, got {self.repetition_penalty}")
        require(self.logprobs is None or 0 <= self.logprobs <= 20, f"logprobs must be in 0 to 20, got {self.logprobs}")
        require(self.logprobs is None or self.api_model is None, "logprobs are not available for --model api:NAME")
        require(0 <= self.lookup <= 16, f"lookup must be in 0 to 16, got {self.lookup}")
        for name in ("num_samples", "max_length", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require_range("compute_dtype", self.compute_dtype)
        require(self.limit is None or self.limit >= 1, f"limit must be at least 1, got {self.limit}")
        require(
            self.temperature > 0 or self.num_samples == 1,
            f"temperature 0 would give {self.num_samples} equal answers; use --temperature 0.2 or --num-samples 1",
        )

    @property
    def api_model(self) -> str | None:
        """Name of the model on the server; None for a model that runs in this process."""
        return self.model.removeprefix(API) if self.model.startswith(API) else None

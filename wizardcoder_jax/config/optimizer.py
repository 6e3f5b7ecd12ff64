"""Settings of the optimizer, of low-rank adapters, and of the guard that skips bad steps."""

import dataclasses
from typing import Literal

from wizardcoder_jax.config.field_checks import require

LORA_TARGETS = ("query", "key", "value", "out", "gate", "up", "down")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimizer and its learning rate. The defaults are WizardCoder's: AdamW, warmup, cosine decay to 0."""

    name: Literal["adamw", "adafactor", "lion", "muon"] = "adamw"  # muon: for the blocks' matrices; AdamW for other weights
    peak_lr: float = 2e-5  # peak learning rate
    warmup_steps: int = 30  # steps of linear warmup from 0
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"  # decay after warmup; wsd: constant, then linear decay
    decay_fraction: float = 0.1  # wsd: fraction of the steps at the end over which the rate decays
    final_lr_fraction: float = 0.0  # final learning rate of a decaying schedule, as a fraction of peak_lr
    b1: float = 0.9  # decay of the first moment (muon: momentum)
    b2: float = 0.999  # decay of the second moment
    eps: float = 1e-8  # added to the square root of the second moment
    weight_decay: float = 0.0  # decoupled weight decay
    clip_norm: float | None = None  # maximum global gradient norm; default: no clipping, as in the published script
    moment_dtype: Literal["float32", "bfloat16", "int8"] = "float32"  # storage dtype of moments; int8: quantized in blocks
    ema_decay: float | None = None  # also keep an exponential moving average of the weights, e.g. 0.999

    def __post_init__(self) -> None:
        require(self.peak_lr > 0, f"optim.peak_lr must be > 0, got {self.peak_lr}")
        require(self.warmup_steps >= 0, f"optim.warmup_steps must be >= 0, got {self.warmup_steps}")
        require(self.clip_norm is None or self.clip_norm > 0, f"optim.clip_norm must be > 0, got {self.clip_norm}")
        require(0 < self.decay_fraction <= 1, f"optim.decay_fraction must be in (0, 1], got {self.decay_fraction}")
        require(0 <= self.final_lr_fraction <= 1, f"optim.final_lr_fraction must be in [0, 1], got {self.final_lr_fraction}")
        for name in ("b1", "b2"):
            require(0 <= getattr(self, name) < 1, f"optim.{name} must be in [0, 1), got {getattr(self, name)}")
        require(self.eps > 0, f"optim.eps must be > 0, got {self.eps}")
        require(self.weight_decay >= 0, f"optim.weight_decay must be >= 0, got {self.weight_decay}")
        require(self.ema_decay is None or 0 < self.ema_decay < 1, f"optim.ema_decay must be in (0, 1), got {self.ema_decay}")
        require(
            self.name != "adafactor" or self.moment_dtype == "float32",
            "adafactor stores its factored moments in float32 only; remove --optim.moment-dtype",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (arXiv 2106.09685), trained instead of the weights."""

    rank: int | None = None  # rank of the adapters; None: train the weights
    alpha: float = 16.0  # the outputs of the adapters are scaled by alpha / rank
    targets: tuple[str, ...] = LORA_TARGETS  # projections that get an adapter
    base_weights: Literal["float32", "bfloat16", "int8", "nf4"] = "bfloat16"  # dtype of the stored frozen weights; nf4: QLoRA

    def __post_init__(self) -> None:
        require(self.rank is None or self.rank >= 1, f"lora.rank must be at least 1, got {self.rank}")
        require(self.alpha > 0, f"lora.alpha must be > 0, got {self.alpha}")
        unknown = [target for target in self.targets if target not in LORA_TARGETS]
        require(not unknown, f"unknown lora.targets {', '.join(unknown)}; known targets are {', '.join(LORA_TARGETS)}")
        require(bool(self.targets), "lora.targets is empty; name at least one of " + ", ".join(LORA_TARGETS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """The guard against bad steps. It skips steps with a non-finite loss or gradient: weights and moments stay unchanged."""

    spike_factor: float | None = None  # also skip steps whose gradient norm exceeds this multiple of its running mean
    max_skipped: int = 10  # stop after this number of consecutive skipped steps

    def __post_init__(self) -> None:
        require(self.spike_factor is None or self.spike_factor > 1, f"guard.spike_factor must be > 1, got {self.spike_factor}")
        require(self.max_skipped >= 1, f"guard.max_skipped must be at least 1, got {self.max_skipped}")

"""StarCoder-15B with low-rank adapters on 4-bit weights (QLoRA), on eight small chips.

    python -m wizardcoder_jax.train --config configs/qlora_15b.py --mesh 8x1

Source: arXiv 2305.14314 (NF4, double quantization, adapters on every projection, rank 64, alpha 16, learning rate 1e-4 for
large models, constant after warmup); the batch size is WizardCoder's. The validation loss and mini-dev are measured every 25
steps, so that you can stop when they get worse.
Hardware: a TPU v5e 2x4 slice (8 chips); compiled ahead of time, not run. docs/measurements.md has the memory of other settings.
Expected: not measured.
"""

from wizardcoder_jax.config import GuardConfig, LoraConfig, OptimConfig, TrainConfig, ValidationConfig

config = TrainConfig(
    base="bigcode/starcoder",
    data=("data/evolved*.jsonl",),
    output_dir="runs/qlora_15b",
    mesh="8x1",
    strategy="fsdp",
    num_steps=200,
    batch_size=512,
    accumulation=64,
    max_length=2048,
    compute_dtype="bfloat16",
    remat="full",
    lora=LoraConfig(rank=64, alpha=16.0, base_weights="nf4"),
    optim=OptimConfig(peak_lr=1e-4, warmup_steps=30, schedule="constant", clip_norm=0.3),
    guard=GuardConfig(spike_factor=10.0),
    validation=ValidationConfig(every_steps=25, fraction=0.01, benchmark="mini-dev"),
    checkpoint_every_steps=25,
    keep_checkpoints=2,
)

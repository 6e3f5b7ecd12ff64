"""A training run of a minute with any tiny Hugging Face folder, to try the commands on a laptop or on fake devices.

    python -m wizardcoder_jax.train --config configs/tiny.py --base FOLDER --data FILE.jsonl --output-dir runs/tiny

Hardware: any; for several fake CPU devices set XLA_FLAGS=--xla_force_host_platform_device_count=8 and --mesh 2x4.
Expected: the loss falls; there is no score.
"""

from wizardcoder_jax.config import OptimConfig, TrainConfig

config = TrainConfig(
    base="tiny",
    data=("data/tiny.jsonl",),
    output_dir="runs/tiny",
    strategy="fsdp_tensor",
    num_steps=40,
    batch_size=8,
    accumulation=1,
    max_length=256,
    compute_dtype="float32",
    remat="none",
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=4),
    checkpoint_every_steps=10,
    keep_checkpoints=4,
    log_every_steps=1,
)

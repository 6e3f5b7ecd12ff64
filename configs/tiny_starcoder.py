"""The demo with a small StarCoder, for machines with a network: tiny_starcoder_py and Code Alpaca, both from the hub.

    python -m wizardcoder_jax.reproduce --config configs/tiny_starcoder.py
    python -m wizardcoder_jax.train --config configs/tiny_starcoder.py              (only the training)

Source: bigcode/tiny_starcoder_py (164M parameters, BigCode OpenRAIL-M) and sahil2801/CodeAlpaca-20k (CC-BY-NC-4.0); nothing is
evolved, because that would need a teacher. The base model has no chat template, so its baseline is plain completion.
Hardware: 2 CPU cores for some hours, or any GPU.
Expected: not measured, because we had no access to the hub; loading is tested with a synthetic folder of these shapes.
"""

from wizardcoder_jax.config import Measurement, OptimConfig, ReproduceConfig, TrainConfig

config = ReproduceConfig(
    output_dir="runs/tiny_starcoder",
    evolve=None,
    train=TrainConfig(
        base="bigcode/tiny_starcoder_py",
        data=("hf://datasets/sahil2801/CodeAlpaca-20k/code_alpaca_20k.json",),
        output_dir="runs/tiny_starcoder/model",
        num_steps=200,
        batch_size=8,
        accumulation=1,
        max_length=512,
        compute_dtype="float32",
        remat="none",
        optim=OptimConfig(peak_lr=2e-5, warmup_steps=10),
        checkpoint_every_steps=50,
    ),
    measurements=(Measurement(benchmark="mini"), Measurement(benchmark="humaneval", limit=20)),
    baseline_protocol="completion",
)

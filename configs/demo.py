"""The whole loop on a laptop: a recorded round of Code Evol-Instruct, SmolLM2-135M fine-tuned on CPU, scores before and after.

    python -m wizardcoder_jax.reproduce --config configs/demo.py        (or: make demo)

Source: ours; WizardCoder's recipe (arXiv 2306.08568), scaled down to a laptop. The seeds, evolved instructions and answers in
configs/demo/ were written by hand, and every answer was verified by running it. The teacher replays them, so neither a network
nor a key is needed.
Hardware: 2 CPU cores and less than 8 GiB of memory.
Expected: see docs/measurements.md for the scores on mini and HumanEval; the hyperparameters were tuned on mini-dev.
"""

from pathlib import Path

from wizardcoder_jax.config import EvolveConfig, Measurement, OptimConfig, ReproduceConfig, TeacherConfig, TrainConfig

_RECORDED = Path(__file__).parent / "demo"

config = ReproduceConfig(
    output_dir="runs/demo",
    evolve=EvolveConfig(
        seeds=str(_RECORDED / "seeds.jsonl"),
        output_dir="runs/demo/data",
        rounds=1,
        teacher=TeacherConfig(kind="replay", model="recorded", replay_file=str(_RECORDED / "teacher.jsonl")),
    ),
    train=TrainConfig(
        base="smollm2-135m-instruct",
        output_dir="runs/demo/model",
        num_steps=14,
        batch_size=4,
        accumulation=4,
        max_length=512,
        compute_dtype="float32",
        remat="none",
        optim=OptimConfig(peak_lr=2.5e-5, warmup_steps=3),
        checkpoint_every_steps=7,
        keep_checkpoints=1,
        async_checkpoints=False,  # asynchronous checkpoints would need memory for a second copy of the state
    ),
    measurements=(Measurement(benchmark="mini"), Measurement(benchmark="humaneval", limit=20)),
)

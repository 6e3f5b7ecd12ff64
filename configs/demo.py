"""The whole loop on a laptop: a recorded round of Code Evol-Instruct, SmolLM2-135M fine-tuned on CPU, scores before and after.

    python -m wizardcoder_jax.reproduce --config configs/demo.py        (or: make demo)

Source: ours; the recipe is WizardCoder's (arXiv 2306.08568) at a laptop's size. Seeds, evolved instructions and answers are in
configs/demo/, written by hand, every answer verified by running it; the teacher replays them, so no network and no key.
Hardware: 2 CPU cores, under 8 GiB. Tuned on mini-dev; mini and HumanEval are reported. See README for the scores.
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
        async_checkpoints=False,  # in the background they would hold a second state in the same memory
    ),
    measurements=(Measurement(benchmark="mini"), Measurement(benchmark="humaneval", limit=20)),
)

"""Speed of our train step compared with transformers + torch, alternating in one run with the same model.

    .venv/bin/python scripts/bench/train.py        (needs `make setup-test`: torch)

Models in float32 on CPU: SmolLM2-135M and a random GPTBigCode with 99 million weights. Each figure is a median over rounds;
"times_torch" is torch's time divided by ours, above 1 if ours is faster. A step consists of forward pass, backward pass and
AdamW for 4 sequences of 512 tokens, 40 % of them supervised (as in the demo). It is timed as one batch and as four
microbatches; the faster of both is also reported.

Findings about XLA on CPU: (1) a scan over stacked layers copies each layer's weights at every step, so blocks are unrolled; (2)
see sample.py; (3) logits of unsupervised tokens would be a fifth of a step's work, so only supervised positions get logits; (4)
temporary buffers of hundreds of MB cause page faults, so GLIBC_TUNABLES=glibc.malloc.hugetlb=1 (set below) makes a step faster
by a fifth, and microbatches, whose buffers are smaller, help about as much; (5) single matrix products are as fast as torch's
(190 GFLOP/s each on 2 cores) and take 70 % of a step; (6) operands of products are transposed by copies, and XLA fuses the
operations before them into the copies, so that exponentials are not vectorized; the gradients of the gated MLP are therefore
computed from saved activations; (7) attention was a quarter of a step; with a causal mask, chunks of queries skip three eighths
of it; (8) a layerwise update, as on accelerators, takes 4 s more than an update of all weights, because a loop's body runs on
one core.
"""

import os
import sys

if "GLIBC_TUNABLES" not in os.environ:  # the C library reads it only when a process starts
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})

import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers
from peers.alternating import compare, time_alternating
from peers.models import VOCAB, save_models

from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.train_step import make_step, new_state
from wizardcoder_jax.training.trainable import Partition

ROUNDS = 3
BATCH, LENGTH, SUPERVISED = 4, 512, 0.4


def training_rows(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return a batch [B, T] of random tokens; in each row, the last tokens (the fraction SUPERVISED) are supervised."""
    tokens = rng.integers(17, VOCAB, (BATCH, LENGTH + 1), dtype=np.int32)
    weights = np.broadcast_to(np.arange(LENGTH) >= (1 - SUPERVISED) * LENGTH, (BATCH, LENGTH)).astype(np.float32)
    positions = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (BATCH, LENGTH))
    ones = np.ones((BATCH, LENGTH), np.int32)
    rows = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segment_ids": ones, "positions": positions}
    return {**rows, "weights": weights / weights.sum(), "seeds": np.arange(BATCH, dtype=np.uint32)}


def our_step(folder: str, rows: dict[str, np.ndarray], accumulation: int) -> Callable[[], None]:
    """Return a function that runs our train step on `rows` with `accumulation` microbatches."""
    rules, mesh = RULES["fsdp"], make_mesh("1x1")
    settings = TrainConfig(
        batch_size=BATCH,
        accumulation=accumulation,
        max_length=LENGTH,
        compute_dtype="float32",
        remat="none",
        optim=OptimConfig(warmup_steps=0),
    )
    model = open_model(folder).weights(rules, mesh, jnp.float32).model
    step = make_step(settings, Partition.of(model, settings), unroll=True)
    state = [new_state(model, settings, mesh, rules)]

    def read(indices: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array[indices] for name, array in rows.items()}

    def run() -> None:
        state[0], metrics = step(state[0], put_batch(read, BATCH, accumulation, mesh, rules))
        metrics.loss.block_until_ready()

    return run


def torch_step(folder: str, rows: dict[str, np.ndarray], accumulation: int) -> Callable[[], None]:
    """Return a function that runs the same train step with transformers and torch."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adamw = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0)
    labels = np.where(rows["weights"] > 0, rows["targets"], -100)
    inputs, targets = torch.tensor(rows["tokens"]).long(), torch.tensor(labels).long()

    def run() -> None:
        for part, wanted in zip(inputs.chunk(accumulation), targets.chunk(accumulation), strict=True):
            logits = model(part, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), wanted.view(-1))
            (loss / accumulation).backward()
        adamw.step()
        adamw.zero_grad()

    return run


def time_training(folder: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Time a train step of both programs, as one batch and as microbatches of one sequence."""
    rows = training_rows(rng)
    steps = {("ours", pieces): our_step(folder, rows, pieces) for pieces in (1, BATCH)}
    steps |= {("torch", pieces): torch_step(folder, rows, pieces) for pieces in (1, BATCH)}
    times = time_alternating({f"{name} {pieces}": step for (name, pieces), step in steps.items()}, ROUNDS)
    names = ("ours", "torch")
    told = [{"pieces": pieces, **compare({name: times[f"{name} {pieces}"] for name in names})} for pieces in (1, BATCH)]
    best = lambda name: min((times[f"{name} {pieces}"] for pieces in (1, BATCH)), key=statistics.median)  # noqa: E731
    return [*told, {"pieces": "each its best", **compare({name: best(name) for name in names})}]


def main() -> None:
    """Print one JSON object per measurement."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for model in save_models(Path(folder)):
            for figures in time_training(str(model), rng):
                print(json.dumps({"model": model.name, "train": f"{BATCH}x{LENGTH}", **figures}), flush=True)


if __name__ == "__main__":
    main()

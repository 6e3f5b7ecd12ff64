"""Times our training step against that of transformers + torch: same model, same machine, same run, taking turns.

    .venv/bin/python scripts/bench/train.py        (needs `make setup-test`: torch)

Models in float32 on CPU: SmolLM2-135M and a random GPTBigCode of 99 million weights. Each figure is the median over rounds;
"times_torch" is the time of torch over ours, above 1 where ours is faster. The step is 4 sequences of 512 tokens, 40 % of them
supervised (the demo's share): forward, backward, AdamW; in one piece, in four microbatches, and each in its best.

What was found about XLA on CPU: (1) a scan over stacked layers copies each layer's weights at every step, so blocks are
unrolled; (2) see sample.py; (3) logits of unsupervised tokens are a fifth of a step's work, so only supervised places have
any; (4) temporary buffers of hundreds of MB fault page by page, so GLIBC_TUNABLES=glibc.malloc.hugetlb=1 speeds a step up by
a fifth (it is set below), and microbatches, whose buffers are smaller, by about as much; (5) single matrix products are as
fast as torch's today (190 GFLOP/s each on 2 cores), and take 70 % of a step; (6) the products' operands are transposed by
copies, with which XLA fuses what comes before: exponentials are then taken one by one, so the gradients of the gated MLP are
made of what the forward pass held; (7) attention was a quarter of a step: where no query sees a later key, chunks of queries
leave three eighths of it out; (8) an update in parts, as accelerators have it, takes 4 s more than one of all weights (a
loop's body runs on one core).
"""

import os
import sys

if "GLIBC_TUNABLES" not in os.environ:  # read by the C library when a process starts
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
from peers.models import VOCAB, save_models
from peers.turns import compared, taking_turns

from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.core.sharding import RULES, make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.training.global_batch import put_batch
from wizardcoder_jax.training.train_step import make_step, new_state
from wizardcoder_jax.training.trainable import Partition

ROUNDS = 3
BATCH, LENGTH, SUPERVISED = 4, 512, 0.4


def training_rows(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One batch [B, T] of random tokens, the last SUPERVISED share of each row supervised."""
    tokens = rng.integers(17, VOCAB, (BATCH, LENGTH + 1), dtype=np.int32)
    weights = np.broadcast_to(np.arange(LENGTH) >= (1 - SUPERVISED) * LENGTH, (BATCH, LENGTH)).astype(np.float32)
    places = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (BATCH, LENGTH))
    ones = np.ones((BATCH, LENGTH), np.int32)
    rows = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segment_ids": ones, "positions": places}
    return {**rows, "weights": weights / weights.sum(), "seeds": np.arange(BATCH, dtype=np.uint32)}


def our_step(folder: str, rows: dict[str, np.ndarray], accumulation: int) -> Callable[[], None]:
    """One optimizer step over `rows` in so many microbatches."""
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

    def read(places: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array[places] for name, array in rows.items()}

    def run() -> None:
        state[0], metrics = step(state[0], put_batch(read, BATCH, accumulation, mesh, rules))
        metrics.loss.block_until_ready()

    return run


def torch_step(folder: str, rows: dict[str, np.ndarray], accumulation: int) -> Callable[[], None]:
    """The same by transformers and torch."""
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
    """One optimizer step of each, in one piece and in microbatches of one sequence."""
    rows = training_rows(rng)
    steps = {("ours", pieces): our_step(folder, rows, pieces) for pieces in (1, BATCH)}
    steps |= {("torch", pieces): torch_step(folder, rows, pieces) for pieces in (1, BATCH)}
    times = taking_turns({f"{name} {pieces}": step for (name, pieces), step in steps.items()}, ROUNDS)
    names = ("ours", "torch")
    told = [{"pieces": pieces, **compared({name: times[f"{name} {pieces}"] for name in names})} for pieces in (1, BATCH)]
    best = lambda name: min((times[f"{name} {pieces}"] for pieces in (1, BATCH)), key=statistics.median)  # noqa: E731
    return [*told, {"pieces": "each its best", **compared({name: best(name) for name in names})}]


def main() -> None:
    """Prints one JSON object a figure."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for model in save_models(Path(folder)):
            for figures in time_training(str(model), rng):
                print(json.dumps({"model": model.name, "train": f"{BATCH}x{LENGTH}", **figures}), flush=True)


if __name__ == "__main__":
    main()

"""Times our training step and our sampler against transformers + torch: same model, same machine, same run, paired.

    .venv/bin/python scripts/bench/train_and_sample.py        (needs `make setup-test`: torch)

Model: SmolLM2-135M in float32 on CPU. Each figure is the median over rounds in which the two take turns; "ratio" is the
time of torch over ours, above 1 where ours is faster. The training step is 4 sequences of 512 tokens, 40 % of them supervised
(the demo's share): forward, backward, AdamW. The sampler decodes 64 tokens greedily after prompts of 128.

What was found about XLA on CPU: (1) a scan over stacked layers copies each layer's weights at every step, so blocks are
unrolled; (2) a KV cache that is not in the order of the attention's two products is transposed whole at every token;
(3) logits of unsupervised tokens are a fifth of a step's work, so only supervised places have any; (4) temporary buffers of
hundreds of MB fault page by page, so GLIBC_TUNABLES=glibc.malloc.hugetlb=1 speeds a step up by a fifth (it is set below).
"""

import os
import sys

if "GLIBC_TUNABLES" not in os.environ:  # read by the C library when a process starts
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers

from wizardcoder_jax.config import OptimConfig, TrainConfig
from wizardcoder_jax.hf.export import export_folder
from wizardcoder_jax.loading import open_model
from wizardcoder_jax.sampling.engine import Decoding, Engine, Request
from wizardcoder_jax.sharding import RULES, make_mesh
from wizardcoder_jax.training.feed import put_batch
from wizardcoder_jax.training.step import make_step, new_state
from wizardcoder_jax.training.trainable import Partition

ROUNDS = 3
BATCH, LENGTH, SUPERVISED = 4, 512, 0.4
PROMPT, NEW = 128, 64
VOCAB = 49152


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def paired(ours: Callable[[], object], theirs: Callable[[], object]) -> dict[str, float]:
    """Median seconds of both, after one warm-up of each, taking turns; and the median ratio."""
    ours()
    theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    return {
        "ours_s": round(statistics.median(a for a, _ in pairs), 3),
        "torch_s": round(statistics.median(b for _, b in pairs), 3),
        "ratio": round(statistics.median(b / a for a, b in pairs), 2),
    }


def training_rows(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One batch [B, T] of random tokens, the last SUPERVISED share of each row supervised."""
    tokens = rng.integers(17, VOCAB, (BATCH, LENGTH + 1), dtype=np.int32)
    weights = np.broadcast_to(np.arange(LENGTH) >= (1 - SUPERVISED) * LENGTH, (BATCH, LENGTH)).astype(np.float32)
    places = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), (BATCH, LENGTH))
    ones = np.ones((BATCH, LENGTH), np.int32)
    rows = {"tokens": tokens[:, :-1], "targets": tokens[:, 1:], "segment_ids": ones, "positions": places}
    return {**rows, "weights": weights / weights.sum(), "seeds": np.arange(BATCH, dtype=np.uint32)}


def time_training(folder: str, rng: np.random.Generator) -> dict[str, float]:
    """One optimizer step of each."""
    rows, rules, mesh = training_rows(rng), RULES["fsdp"], make_mesh("1x1")
    settings = TrainConfig(
        batch_size=BATCH,
        accumulation=1,
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

    def ours() -> None:
        state[0], metrics = step(
            state[0], put_batch(lambda places: {name: array[places] for name, array in rows.items()}, BATCH, 1, mesh, rules)
        )
        metrics.loss.block_until_ready()

    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    adamw = torch.optim.AdamW(peer.parameters(), lr=2e-5, weight_decay=0.0)
    labels = np.where(rows["weights"] > 0, rows["targets"], -100)
    inputs, targets = torch.tensor(rows["tokens"]), torch.tensor(labels, dtype=torch.long)

    def theirs() -> None:
        logits = peer(inputs.long(), use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.view(-1, VOCAB), targets.view(-1)).backward()
        adamw.step()
        adamw.zero_grad()

    return paired(ours, theirs)


def time_sampling(folder: str, rng: np.random.Generator, batch: int) -> dict[str, float]:
    """Greedy decoding of NEW tokens for `batch` prompts of PROMPT tokens."""
    prompts = rng.integers(17, VOCAB, (batch, PROMPT))
    model = jax.jit(lambda model: model.unstacked())(
        open_model(folder).weights(RULES["fsdp_tensor"], make_mesh("1x1"), jnp.float32).model
    )
    decoding = Decoding(temperature=0.0, top_p=1.0, eos_id=-1, max_length=PROMPT + NEW)
    engine = Engine(model, decoding, batch, jnp.dtype("float32"))
    requests = [Request(prompt=tuple(row.tolist()), key=(0, i)) for i, row in enumerate(prompts)]
    peer: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    inputs = torch.tensor(prompts)
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}

    def theirs() -> None:
        with torch.no_grad():
            peer.generate(inputs, attention_mask=torch.ones_like(inputs), **settings)

    figures = paired(lambda: list(engine.answer(requests)), theirs)
    return {**figures, "ours_tokens_per_s": round(batch * NEW / figures["ours_s"], 1)}


def main() -> None:
    """Prints one JSON object a figure."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        opened = open_model("smollm2-135m-instruct")
        target = str(Path(folder) / "smollm2")
        export_folder(opened.weights(RULES["fsdp"], make_mesh("1x1"), None), opened.tokenizer, target, None, 10**10)
        for batch in (1, 16, 64):
            print(json.dumps({"sample": f"batch {batch}", **time_sampling(target, rng, batch)}), flush=True)
        print(json.dumps({"train": f"{BATCH}x{LENGTH}", **time_training(target, rng)}), flush=True)


if __name__ == "__main__":
    main()

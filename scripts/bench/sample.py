"""Speed of our sampler compared with transformers + torch and llama.cpp, alternating in one run with the same models.

    .venv/bin/python scripts/bench/sample.py [BATCH ...]        (needs `make setup-test`: torch, llama.cpp's converter)

Models in float32 on CPU: SmolLM2-135M and a random GPTBigCode with 99 million weights; llama.cpp uses its default float16
cache. The first measurement is the time of 128 greedy tokens after prompts of 128 tokens, including prefill, with batch sizes
1, 16 and 64. The second is the time of 20 samples (T 0.2, top-p 0.95) of at most 128 tokens for each of 3 problems of `mini` by
SmolLM2-135M-Instruct; transformers gets one problem at a time, as is usual. Figures are medians over rounds; "times_torch" is
torch's time divided by ours.

Limits of XLA on CPU: (1) a scan over stacked layers copies each layer's weights at every step, so we unstack the blocks; (2) a
KV cache whose layout does not match attention's two products is transposed at every token; (3) with one row, products are
limited by memory bandwidth (30 GB/s of weights, 2.5 times torch's); (4) with 16 rows, products take four fifths of a step. On 2
cores with AVX-512, the YNNPACK kernels that XLA uses reach 95 GFLOP/s with 16 rows, 150 with 64, 185 with 128 and 210 with 512
(torch is 10 to 25 % slower), so prompts are prefilled in chunks of 128. On 2 cores with only AVX2 they reach 30, 85, 100 and
125 (torch 25 to 40 with 16 rows) and XLA's own products 50 with 16 rows, which we use there below 48 rows (core/xla_flags.py).
Attention's two products (0.3 ms per layer at 256 positions) and small operations take the rest; (5) products written as sums
take 20 times as long, a kernel [out, in] instead of [in, out] up to twice as long with 16 rows, and merging two products gains
nothing; (6) bfloat16 and int8 kernels are converted to float32 in every call.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
import transformers
from peers.alternating import compare, time_alternating
from peers.llama import Llama
from peers.models import VOCAB, save_models, to_gguf

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.hf.load_model import open_model
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import load_engine_weights
from wizardcoder_jax.inference.request import GenerationRequest, SamplingParams

ROUNDS = 3
PROMPT, NEW = 128, 128
PROBLEMS, SAMPLES = 3, 20
END = 2  # id of SmolLM2's <|im_end|>


def engine_of(folder: Path, num_slots: int, max_length: int, eos_ids: list[int]) -> Engine:
    """Return our engine, created as in `sample`."""
    model = load_engine_weights(open_model(str(folder)), make_mesh("1x1"), jnp.dtype("float32"))
    return Engine(model, num_slots=num_slots, max_length=max_length, eos_ids=eos_ids, dtype=jnp.float32)


def peer_of(folder: Path) -> Any:
    """Return the model, loaded with transformers."""
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def time_greedy(folder: Path, gguf: Path, rng: np.random.Generator, batch: int) -> dict[str, float]:
    """Time NEW greedy tokens for `batch` random prompts. `equal_to_...` is the fraction of tokens before a difference."""
    prompts, length, found = rng.integers(17, VOCAB, (batch, PROMPT)), PROMPT + NEW, {}
    engine, peer, inputs = engine_of(folder, batch, length, []), peer_of(folder), torch.tensor(prompts)

    def ours() -> None:
        requests = [
            GenerationRequest(prompt=tuple(row.tolist()), key=(0, i), max_length=length) for i, row in enumerate(prompts)
        ]
        answers = dict(engine.generate(requests))
        found["ours"] = np.array([answers[i].tokens for i in range(batch)])

    def torchs() -> None:
        settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
        with torch.no_grad():
            texts = peer.generate(inputs, attention_mask=torch.ones_like(inputs), **settings)
        found["torch"] = texts[:, PROMPT:].numpy()

    with Llama(gguf, batch, length) as llama:

        def llamas() -> None:
            found["llama_cpp"] = np.array(llama.answer(prompts.tolist(), NEW))

        figures = compare(time_alternating({"ours": ours, "torch": torchs, "llama_cpp": llamas}, ROUNDS))
    same = {name: np.logical_and.accumulate(found["ours"] == found[name], axis=1).mean() for name in ("torch", "llama_cpp")}
    rate = round(batch * NEW / figures["ours_s"], 1)
    return {**figures, "ours_tokens_per_s": rate, **{f"equal_to_{name}": round(share, 3) for name, share in same.items()}}


def time_problems(folder: Path) -> dict[str, float]:
    """Time SAMPLES answers to each of PROBLEMS problems."""
    opened, protocol = open_model(str(folder)), get_protocol("chat")
    encode, chat = opened.tokenizer.encode, opened.tokenizer.chat_prompt
    prompts = [tuple(encode(chat(protocol.prompt(problem)))) for problem in load_benchmark("mini").problems[:PROBLEMS]]
    length, peer, counts = max(map(len, prompts)) + NEW, peer_of(folder), {}
    engine = engine_of(folder, SAMPLES, length, [END])

    def ours() -> None:
        hot = SamplingParams(temperature=0.2, top_p=0.95)
        sizes = [(i, k, prompt) for i, prompt in enumerate(prompts) for k in range(SAMPLES)]
        requests = [GenerationRequest(prompt=p, key=(i, k), max_length=len(p) + NEW, params=hot) for i, k, p in sizes]
        counts["ours"] = sum(len(answer.tokens) for _, answer in engine.generate(requests))

    def torchs() -> None:
        settings = {"do_sample": True, "temperature": 0.2, "top_p": 0.95, "top_k": 0, "max_new_tokens": NEW}
        counts["torch"] = 0
        for prompt in prompts:
            inputs = torch.tensor([prompt])
            with torch.no_grad():
                texts = peer.generate(
                    inputs,
                    attention_mask=torch.ones_like(inputs),
                    num_return_sequences=SAMPLES,
                    pad_token_id=0,
                    eos_token_id=END,
                    **settings,
                )
            counts["torch"] += int((texts[:, len(prompt) :] > END).sum())

    figures = compare(time_alternating({"ours": ours, "torch": torchs}, ROUNDS))
    return {**figures, **{f"{name}_tokens": count for name, count in counts.items()}}


def main() -> None:
    """Print one JSON object per measurement."""
    rng, batches = np.random.default_rng(0), [int(batch) for batch in sys.argv[1:]] or [1, 16, 64]
    with tempfile.TemporaryDirectory() as folder:
        for model in (models := save_models(Path(folder))):
            gguf = to_gguf(model)
            for batch in batches:
                figures = time_greedy(model, gguf, rng, batch)
                print(json.dumps({"model": model.name, "sample": f"batch {batch}", **figures}), flush=True)
        told = {"model": models[0].name, "sample": f"{PROBLEMS} problems x {SAMPLES} samples"}
        print(json.dumps({**told, **time_problems(models[0])}), flush=True)


if __name__ == "__main__":
    main()

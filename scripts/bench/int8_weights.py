"""Accuracy, size and speed of int8 weights, on the demo model.

    .venv/bin/python scripts/bench/int8_weights.py

The model is SmolLM2-135M-Instruct (its published GGUF, dequantized) with activations in bfloat16. With bfloat16 weights, it
answers the first 32 problems of mini-dev as chat prompts, greedily and with 64 tokens each. On these prompts and answers, the
logits of the int8 and the bfloat16 model are compared at every position: their cosine, and whether the most likely next token
is equal ("answers" covers only the positions that predict a token of an answer). The logits of the bfloat16 and the float32
model are compared in the same way, as a baseline. Then the int8 model answers the problems, and the tokens before the first
difference are counted. Speeds, with 8 concurrent answers, are medians over rounds in which the models alternate; they are noisy
if the machine has other work.
"""

import json
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from wizardcoder_jax.benchmarks.catalog import load_benchmark
from wizardcoder_jax.benchmarks.protocols import get_protocol
from wizardcoder_jax.core.sharding import make_mesh
from wizardcoder_jax.hf.load_model import OpenedModel, open_model
from wizardcoder_jax.inference.engine import Engine
from wizardcoder_jax.inference.engine_weights import load_engine_weights
from wizardcoder_jax.inference.request import GenerationRequest
from wizardcoder_jax.models.transformer import Transformer

MODEL, BENCHMARK = "smollm2-135m-instruct", "mini-dev"
PROMPTS, NEW, BATCH, ROUNDS = 32, 64, 8, 3


def load(opened: OpenedModel, dtype: str, *, int8: bool = False) -> Transformer:
    """Return the model as `sample` loads it."""
    return load_engine_weights(opened, make_mesh("1x1"), jnp.dtype(dtype), int8=int8)


def make_answer(model: Transformer, dtype: str, max_length: int) -> Callable[[list[tuple[int, ...]]], list[list[int]]]:
    """Return a function that generates NEW greedy tokens for each prompt."""
    engine = Engine(model, num_slots=BATCH, max_length=max_length, eos_ids=[], dtype=jnp.dtype(dtype))

    def answer(prompts: list[tuple[int, ...]]) -> list[list[int]]:
        found = dict(
            engine.generate([GenerationRequest(prompt=prompt, key=(0, 0), max_length=max_length) for prompt in prompts])
        )
        return [found[i].tokens[:NEW] for i in range(len(prompts))]

    return answer


def logits(model: Transformer, text: list[int], length: int, dtype: str) -> np.ndarray:
    """Return the float32 logits [T, V] of one token sequence, padded to `length` so that all sequences share a program."""
    padded = np.zeros((1, length), np.int32)
    padded[0, : len(text)] = text
    return np.asarray(_forward(model, padded, jnp.dtype(dtype))[: len(text)])


def _forward_of(model: Transformer, tokens: jax.Array, dtype: jnp.dtype) -> jax.Array:
    positions = jnp.arange(tokens.shape[1])[None]
    return model.logits(model(tokens, positions, jnp.ones_like(tokens), dtype=dtype))[0, :, : model.arch.vocab_size]


_forward = jax.jit(_forward_of, static_argnames="dtype")


class Agreement:
    """Accumulated agreement between the logits of two models."""

    def __init__(self) -> None:
        self._cosines: list[np.ndarray] = []
        self._same: list[np.ndarray] = []
        self._same_in_answers: list[np.ndarray] = []

    def add(self, ours: np.ndarray, exact: np.ndarray, prompt_length: int) -> None:
        """Add the logits [T, V] of both models for one token sequence."""
        norms = np.linalg.norm(ours, axis=-1) * np.linalg.norm(exact, axis=-1)
        same = ours.argmax(-1) == exact.argmax(-1)
        self._cosines.append((ours * exact).sum(-1) / norms)
        self._same.append(same)
        self._same_in_answers.append(same[prompt_length - 1 : -1])

    def figures(self) -> dict[str, float]:
        """Return the mean and minimum cosine and the fractions of equal next tokens."""
        cosine = np.concatenate(self._cosines)
        return {
            "positions": cosine.size,
            "cosine_mean": round(float(cosine.mean()), 5),
            "cosine_min": round(float(cosine.min()), 5),
            "same_next_token": round(float(np.concatenate(self._same).mean()), 4),
            "same_next_token_answers": round(float(np.concatenate(self._same_in_answers).mean()), 4),
        }


def equal_prefixes(ours: list[list[int]], theirs: list[list[int]]) -> dict[str, float]:
    """Return statistics of the number of tokens before the first difference between two models' answers."""
    pairs = [list(zip(a, b, strict=True)) for a, b in zip(ours, theirs, strict=True)]
    lengths = [next((i for i, (a, b) in enumerate(pair) if a != b), NEW) for pair in pairs]
    mean, whole = round(statistics.mean(lengths), 1), sum(length == NEW for length in lengths)
    return {"answers": len(lengths), "of_tokens": NEW, "equal_prefix_mean": mean, "equal_in_whole": whole}


def tokens_per_s(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the speed of calls that generate BATCH * NEW tokens each, including prefill."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(ROUNDS + 1):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if turn:  # the first call compiles
                seconds[name].append(time.perf_counter() - began)
    return {name: round(BATCH * NEW / statistics.median(found), 1) for name, found in seconds.items()}


def main() -> None:
    """Print one JSON object per line."""
    opened, protocol = open_model(MODEL), get_protocol("chat")
    encode, chat = opened.tokenizer.encode, opened.tokenizer.chat_prompt
    prompts = [tuple(encode(chat(protocol.prompt(problem)))) for problem in load_benchmark(BENCHMARK).problems[:PROMPTS]]
    length = max(map(len, prompts)) + NEW
    plain, int8, exact = load(opened, "bfloat16"), load(opened, "bfloat16", int8=True), load(opened, "float32")
    for part, held in (("all weights", lambda model: model), ("blocks", lambda model: model.blocks)):
        sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(held(model))) for model in (plain, int8)]
        print(json.dumps({"bytes": part, "bfloat16": sizes[0], "int8": sizes[1]}), flush=True)
    answer, answer_int8 = make_answer(plain, "bfloat16", length), make_answer(int8, "bfloat16", length)
    given = answer(prompts)
    print(json.dumps({"greedy": "int8 against bfloat16", **equal_prefixes(answer_int8(prompts), given)}), flush=True)
    ours, yardstick = Agreement(), Agreement()
    for prompt, tokens in zip(prompts, given, strict=True):
        text = [*prompt, *tokens]
        middle = logits(plain, text, length, "bfloat16")
        ours.add(logits(int8, text, length, "bfloat16"), middle, len(prompt))
        yardstick.add(middle, logits(exact, text, length, "float32"), len(prompt))
    print(json.dumps({"logits": "int8 against bfloat16", **ours.figures()}), flush=True)
    print(json.dumps({"logits": "bfloat16 against float32", **yardstick.figures()}), flush=True)
    some = prompts[:BATCH]
    in_float32 = [make_answer(model, "float32", length) for model in (exact, load(opened, "float32", int8=True))]
    names = ("bfloat16", "int8", "float32", "int8, activations in float32")
    calls = {name: lambda call=call: call(some) for name, call in zip(names, (answer, answer_int8, *in_float32), strict=True)}
    print(json.dumps({"tokens_per_s": f"batch {BATCH}, on this machine", **tokens_per_s(calls)}), flush=True)


if __name__ == "__main__":
    main()

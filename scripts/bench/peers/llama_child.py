"""Greedy decoding with llama.cpp, run as `python llama_child.py GGUF BATCH LENGTH`. It answers each JSON line on stdin."""

import json
import os
import sys
from typing import Any

import llama_cpp as lib  # pyright: ignore[reportMissingImports]
import numpy as np


def decode(context: Any, entries: list[tuple[int, int, int, bool]], vocab: int) -> list[int]:
    """Decode entries (token, position, sequence, needs logits); return the next token of each entry that needs logits."""
    batch = lib.llama_batch_init(len(entries), 0, 1)
    batch.n_tokens = len(entries)
    for i, (token, position, sequence, needs_logits) in enumerate(entries):
        batch.token[i], batch.pos[i], batch.logits[i] = token, position, needs_logits
        batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
    if lib.llama_decode(context, batch) != 0:
        raise RuntimeError("llama_decode failed: the context may be too small for the batch")
    indices = [i for i, entry in enumerate(entries) if entry[3]]
    following = [np.ctypeslib.as_array(lib.llama_get_logits_ith(context, i), (vocab,)).argmax() for i in indices]
    lib.llama_batch_free(batch)
    return [int(token) for token in following]


def answer(context: Any, prompts: list[list[int]], num_new: int, vocab: int, max_tokens: int) -> list[list[int]]:
    """Return greedy answers of `num_new` tokens; each prefill call takes as many prompts as fit in `max_tokens`."""
    lib.llama_memory_clear(lib.llama_get_memory(context), True)
    together, found = max_tokens // len(prompts[0]), []
    for first in range(0, len(prompts), together):
        pieces = enumerate(prompts[first : first + together], first)
        entries = [(token, i, s, i == len(prompt) - 1) for s, prompt in pieces for i, token in enumerate(prompt)]
        found += [[token] for token in decode(context, entries, vocab)]
    for step in range(num_new - 1):
        entries = [(tokens[-1], len(prompts[s]) + step, s, True) for s, tokens in enumerate(found)]
        for tokens, token in zip(found, decode(context, entries, vocab), strict=True):
            tokens.append(token)
    return found


def main() -> None:
    """Answer requests until stdin ends."""
    path, batch, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    lib.llama_backend_init()
    model = lib.llama_model_load_from_file(path.encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.n_batch, params.n_ubatch = batch * length, batch, 2048, 512
    params.n_threads = params.n_threads_batch = os.cpu_count()
    context = lib.llama_init_from_model(model, params)
    vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(answer(context, request["prompts"], request["num_new"], vocab, 2048)), flush=True)


if __name__ == "__main__":
    main()

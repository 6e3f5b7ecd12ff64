"""A tokenizer without a model file: one id per byte, and id 0 for the end of text, as in StarCoder."""

import hashlib

import numpy as np

from wizardcoder_jax.core.instruction_template import with_input, wizardcoder_prompt

END = "<|endoftext|>"


class ByteTokenizer:
    eos_id = 0
    eos_token = END
    pad_id = None
    vocab_size = 257

    def __init__(self, version: str = "1"):
        self.fingerprint = hashlib.sha256(version.encode()).hexdigest()

    def encode(self, text):
        ids = []
        for i, part in enumerate(text.split(END)):
            ids += [self.eos_id] * (i > 0) + [byte + 1 for byte in part.encode()]
        return ids

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def encode_truncated(self, texts, max_length):
        return [(ids[:max_length], len(ids) > max_length) for ids in self.encode_batch(texts)]


def tokenize_plainly(examples, tokenizer):
    """Tokenize examples like the seqio Task, but in plain Python and without truncation."""
    for example in examples:
        prompt = tokenizer.encode(wizardcoder_prompt(with_input(example.instruction, example.input)))
        response = [*tokenizer.encode(example.output), tokenizer.eos_id]
        yield np.asarray(prompt + response, np.int32), np.asarray([0.0] * len(prompt) + [1.0] * len(response), np.float32)

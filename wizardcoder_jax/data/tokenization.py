"""Converts prompts and responses to token ids and loss masks, as each training objective requires.

The loss of an objective is in training/objectives/.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wizardcoder_jax.data.tokenizer_protocol import TokenizerProtocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """The token ids and the loss mask of one example, truncated at max_length."""

    tokens: np.ndarray  # [n] token ids, n <= max_length
    loss_mask: np.ndarray  # [n] bool: whether the token is supervised; the first value is ignored
    is_cut: bool  # whether the example was truncated


def truncate(tokens: np.ndarray, loss_mask: np.ndarray, max_length: int) -> TokenizedExample:
    """Return an example with the first `max_length` ids."""
    return TokenizedExample(tokens=tokens[:max_length], loss_mask=loss_mask[:max_length], is_cut=len(tokens) > max_length)


def tokenize_token_mean(
    prompts: Sequence[str], outputs: Sequence[str], tokenizer: TokenizerProtocol, max_length: int
) -> list[TokenizedExample]:
    """Tokenize prompt + response + EOS; the response and EOS are supervised.

    Prompt and response are tokenized separately, so that no token contains parts of both and the loss mask is exact.

    Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py (the response follows the prompt directly).
    """
    pairs = zip(tokenizer.encode_batch(prompts), tokenizer.encode_batch(outputs), strict=True)
    return [_join(prompt, [*response, tokenizer.eos_id], max_length) for prompt, response in pairs]


def _join(prompt: Sequence[int], response: Sequence[int], max_length: int) -> TokenizedExample:
    tokens = np.asarray([*prompt, *response], np.int32)
    return truncate(tokens, np.arange(len(tokens)) >= len(prompt), max_length)


def tokenize_original(
    prompts: Sequence[str], outputs: Sequence[str], tokenizer: TokenizerProtocol, max_length: int
) -> list[TokenizedExample]:
    """Tokenize and mask as the published training script does, including its quirks.

    * The string prompt + response + end token is tokenized as a whole. Special tokens in the string are recognized, and the
      tokenizer adds its usual special tokens (Llama: BOS).
    * The number of masked tokens is the length of the prompt when tokenized alone, without padding tokens. If a token contains
      both the end of the prompt and the start of the response, one token too many is masked.
    * Prompts and whole strings are truncated at max_length ids. A truncated response has no end token. If the prompt fills
      max_length, no token is supervised, but the example stays in the data.

    There are two differences from the script. A non-empty input is already appended to the instruction (with_input), as in the
    authors' data, so the script's second template ("### Input:") is not used. Padding tokens in the string are attended to.

    Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py, _tokenize_fn and preprocess.
    """
    texts = [f"{prompt}{output}{tokenizer.eos_token}" for prompt, output in zip(prompts, outputs, strict=True)]
    examples = []
    prompts_alone = tokenizer.encode_truncated(prompts, max_length)
    for (ids, is_cut), (prompt, _) in zip(tokenizer.encode_truncated(texts, max_length), prompts_alone, strict=True):
        num_masked = sum(token != tokenizer.pad_id for token in prompt)
        loss_mask = np.arange(len(ids)) >= num_masked
        examples.append(TokenizedExample(tokens=np.asarray(ids, np.int32), loss_mask=loss_mask, is_cut=is_cut))
    return examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokenization:
    """How an objective tokenizes examples."""

    tokenize: Callable[[Sequence[str], Sequence[str], TokenizerProtocol, int], list[TokenizedExample]]
    keeps_unsupervised: bool  # whether examples without a supervised token are kept


TOKENIZATIONS: Mapping[str, Tokenization] = {
    "token_mean": Tokenization(tokenize=tokenize_token_mean, keeps_unsupervised=False),
    "original": Tokenization(tokenize=tokenize_original, keeps_unsupervised=True),
}
"""Name of each objective -> its tokenization."""

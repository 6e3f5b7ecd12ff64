"""From prompt and response to token ids and a loss mask: the data half of each training objective.

The other half, the loss, is the file of the same name in training/objectives/.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wizardcoder_jax.data.tokenizer_protocol import TokenizerProtocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """The token ids of one example, at most max_length."""

    tokens: np.ndarray  # [n] integers
    loss_mask: np.ndarray  # [n] bool: whether the token is supervised; the first token's value has no meaning
    is_cut: bool  # whether the example was longer than max_length


def truncate(tokens: np.ndarray, loss_mask: np.ndarray, max_length: int) -> TokenizedExample:
    """Return the example of the first `max_length` ids."""
    return TokenizedExample(tokens=tokens[:max_length], loss_mask=loss_mask[:max_length], is_cut=len(tokens) > max_length)


def tokenize_token_mean(
    prompts: Sequence[str], outputs: Sequence[str], tokenizer: TokenizerProtocol, max_length: int
) -> list[TokenizedExample]:
    """Tokenize prompt + response + EOS, with loss on response and EOS.

    Prompt and response are tokenized separately, so that the boundary between them, and with it the loss mask, is exact.

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

    * The text prompt + response + end token is tokenized as a whole, including special tokens spelled in it; the tokenizer adds
      what it adds to any text (Llama: BOS).
    * The masked part is as long as the prompt tokenized alone, not counting padding tokens in it. Where a merge crosses the
      boundary between prompt and response, that is one token too many: the response's first token is not supervised.
    * Both are truncated at max_length ids, of which max_length - 1 are targets, as the script's model predicts each id but the
      first. A truncated response has no end token; a prompt that fills max_length leaves nothing supervised but stays in the
      data.

    Unlike in the script, a non-empty input is already joined to the instruction (with_input), as it was in the authors' data,
    so the script's second template ("### Input:") is never used; and padding tokens spelled within a text are attended to.

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
    """The data half of an objective."""

    tokenize: Callable[[Sequence[str], Sequence[str], TokenizerProtocol, int], list[TokenizedExample]]
    keeps_unsupervised: bool  # whether examples without a supervised token stay in the data


TOKENIZATIONS: Mapping[str, Tokenization] = {
    "token_mean": Tokenization(tokenize=tokenize_token_mean, keeps_unsupervised=False),
    "original": Tokenization(tokenize=tokenize_original, keeps_unsupervised=True),
}
"""Objective -> its data half."""

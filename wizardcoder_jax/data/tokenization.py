"""From prompt and response to ids and what of them is to be learnt: one function an objective."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from wizardcoder_jax.data.tokenizer_protocol import TokenizerProtocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizedExample:
    """One example's ids, at most max_length of them."""

    tokens: np.ndarray  # [n] integers
    loss_mask: np.ndarray  # [n] bool: whether the token is to be predicted; of the first it has no meaning
    is_cut: bool  # whether ids were left off at max_length


def truncate(tokens: np.ndarray, loss_mask: np.ndarray, max_length: int) -> TokenizedExample:
    """The first `max_length` ids."""
    return TokenizedExample(tokens=tokens[:max_length], loss_mask=loss_mask[:max_length], is_cut=len(tokens) > max_length)


def tokenize_token_mean(
    prompts: Sequence[str], outputs: Sequence[str], tokenizer: TokenizerProtocol, max_length: int
) -> list[TokenizedExample]:
    """Prompt + response + eos, of which response and eos are learnt.

    Prompt and response are tokenised apart, so that the border between them, and with it what is learnt, is exact.

    Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py (the response follows the prompt directly).
    """
    pairs = zip(tokenizer.encode_batch(prompts), tokenizer.encode_batch(outputs), strict=True)
    return [_apart(prompt, [*response, tokenizer.eos_id], max_length) for prompt, response in pairs]


def _apart(prompt: Sequence[int], response: Sequence[int], max_length: int) -> TokenizedExample:
    tokens = np.asarray([*prompt, *response], np.int32)
    return truncate(tokens, np.arange(len(tokens)) >= len(prompt), max_length)


def tokenize_original(
    prompts: Sequence[str], outputs: Sequence[str], tokenizer: TokenizerProtocol, max_length: int
) -> list[TokenizedExample]:
    """As the published training script tokenises and masks, with its quirks.

    * The text prompt + response + end token is tokenised as one, special tokens that it spells included; the tokenizer adds
      what it adds to any text (Llama: BOS).
    * What is not learnt is as long as the prompt tokenised alone, without ids of the padding token in it. Where a merge
      crosses the border between prompt and response, that is one too many: the response's first token is not learnt.
    * Both are cut at max_length ids, of which max_length - 1 are targets, for the script's model predicts each id but the
      first. A cut response has no end token; a prompt that fills max_length leaves nothing to learn and stays in the data.

    Not as in the script: a non-empty input arrives joined to the instruction (with_input), as it was in the authors'
    data, so the script's second template ("### Input:") is never used; and padding tokens spelt within a text are attended to.

    Source: nlpxucan/WizardLM @cd4b4cc, WizardCoder/src/train_wizardcoder.py, _tokenize_fn and preprocess.
    """
    texts = [f"{prompt}{output}{tokenizer.eos_token}" for prompt, output in zip(prompts, outputs, strict=True)]
    found = []
    alone = tokenizer.encode_truncated(prompts, max_length)
    for (ids, is_cut), (prompt, _) in zip(tokenizer.encode_truncated(texts, max_length), alone, strict=True):
        num_unlearnt = sum(token != tokenizer.pad_id for token in prompt)
        found.append(
            TokenizedExample(tokens=np.asarray(ids, np.int32), loss_mask=np.arange(len(ids)) >= num_unlearnt, is_cut=is_cut)
        )
    return found


TOKENISE: Mapping[str, Callable[[Sequence[str], Sequence[str], TokenizerProtocol, int], list[TokenizedExample]]] = {
    "token_mean": tokenize_token_mean,
    "original": tokenize_original,
}
"""Objective -> how its examples are tokenised."""

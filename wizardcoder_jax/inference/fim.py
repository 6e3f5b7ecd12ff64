"""Fill-in-the-middle (FIM) prompts for the model families that were trained with them.

All formats have the order prefix, suffix, middle (PSM; Bavarian et al., arXiv 2207.14255).
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.core.errors import InputError

SEPARATOR = "\u263a"  # no tokenizer merges it with other text, so text after it is encoded as in mid-text

BAR = "\uff5c"  # fullwidth vertical bar in the names of DeepSeek's tokens


class FimEncoder(Protocol):
    """Interface of the tokenizers that FIM prompts need."""

    @property
    def bos_id(self) -> int | None:
        """Id of the begin-of-text token, or None if there is none."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text` without added tokens."""
        ...

    def token_id(self, text: str) -> int | None:
        """Return the id of the token `text`, or None if there is no such token."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class FimFormat:
    """The fill-in-the-middle format of a model family.

    Attributes:
        prefix, suffix, middle: tokens that mark the beginning of each part; the model generates the middle.
        end: token that ends the middle, in addition to the end-of-text token; None if there is none.
        begins_with_bos: whether the prompt starts with the begin-of-text token.
        adds_space: whether the tokenizer adds a space before every string. There must be none before the suffix.
    """

    prefix: str
    suffix: str
    middle: str
    end: str | None = None
    begins_with_bos: bool = False
    adds_space: bool = False


FIM_FORMATS = (
    # StarCoder (arXiv 2305.06161, section 5.2) and StarCoder2
    FimFormat(prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>"),
    # SantaCoder (model card of bigcode/santacoder)
    FimFormat(prefix="<fim-prefix>", suffix="<fim-suffix>", middle="<fim-middle>"),
    # Qwen2.5-Coder (arXiv 2409.12186, section 3.2) and CodeGemma
    FimFormat(prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>"),
    # CodeLlama (meta-llama/codellama @e81b597: infilling_prompt_tokens in generation.py, encode_infilling in tokenizer.py)
    FimFormat(prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>", end="▁<EOT>", begins_with_bos=True, adds_space=True),
    # DeepSeek-Coder (README of deepseek-ai/DeepSeek-Coder, "Code Insertion"), whose tokenizer adds the begin-of-text token
    FimFormat(
        prefix=f"<{BAR}fim▁begin{BAR}>", suffix=f"<{BAR}fim▁hole{BAR}>", middle=f"<{BAR}fim▁end{BAR}>", begins_with_bos=True
    ),
)


def fim_prompt(tokenizer: FimEncoder, prefix: Sequence[int], suffix: str) -> tuple[int, ...]:
    """Return the prompt for the text between the tokens `prefix` and the string `suffix`.

    Raises:
        InputError: the model has no fill-in-the-middle tokens.
    """
    fim_format = _find_format(tokenizer)
    if fim_format is None:
        raise InputError("this model has no fill-in-the-middle tokens; leave out the suffix or use a model that supports it")
    names = (fim_format.prefix, fim_format.suffix, fim_format.middle)
    prefix_id, suffix_id, middle_id = (tokenizer.token_id(name) for name in names)
    assert prefix_id is not None and suffix_id is not None and middle_id is not None
    bos = (tokenizer.bos_id,) if fim_format.begins_with_bos and tokenizer.bos_id is not None else ()
    suffix_tokens = tokenizer.encode(suffix)
    if fim_format.adds_space:
        suffix_tokens = tokenizer.encode(SEPARATOR + suffix)[len(tokenizer.encode(SEPARATOR)) :]
    return (*bos, prefix_id, *prefix, suffix_id, *suffix_tokens, middle_id)


def fim_end_ids(tokenizer: FimEncoder) -> tuple[int, ...]:
    """Return the ids of the tokens that end a fill-in-the-middle answer, other than the end-of-text token."""
    fim_format = _find_format(tokenizer)
    end = None if fim_format is None or fim_format.end is None else tokenizer.token_id(fim_format.end)
    return () if end is None else (end,)


def _find_format(tokenizer: FimEncoder) -> FimFormat | None:
    for fim_format in FIM_FORMATS:
        names = (fim_format.prefix, fim_format.suffix, fim_format.middle)
        if all(tokenizer.token_id(name) is not None for name in names):
            return fim_format
    return None

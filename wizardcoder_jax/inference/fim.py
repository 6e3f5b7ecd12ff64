"""Prompts that ask for what stands between a prefix and a suffix, for the models that were trained to fill in.

The order is that of all of them: prefix, suffix, middle (Bavarian et al., arXiv 2207.14255, "PSM").
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from wizardcoder_jax.core.errors import InputError

MARK = "\u263a"  # no merge of any tokenizer has it: what follows it is encoded as if it began nothing

BAR = "\uff5c"  # a wide one, in DeepSeek's names


class FimEncoder(Protocol):
    """What is asked of a tokenizer."""

    @property
    def bos_id(self) -> int | None:
        """Id of the begin-of-text token, None where there is none."""
        ...

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, nothing added."""
        ...

    def token_id(self, text: str) -> int | None:
        """Id of the token with this text, None where there is none."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Infilling:
    """How a family of models is asked.

    Attributes:
        prefix, suffix, middle: names of the tokens before each part; the answer is the middle.
        end: name of the token that ends it, besides the end of text; None for none.
        begins: whether the begin-of-text token comes before all.
        is_spaced: its tokenizer begins every text with a space, which a suffix must not have.
    """

    prefix: str
    suffix: str
    middle: str
    end: str | None = None
    begins: bool = False
    is_spaced: bool = False


INFILLINGS = (
    # StarCoder (arXiv 2305.06161, section 5.2) and StarCoder2
    Infilling(prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>"),
    # SantaCoder (model card of bigcode/santacoder)
    Infilling(prefix="<fim-prefix>", suffix="<fim-suffix>", middle="<fim-middle>"),
    # Qwen2.5-Coder (arXiv 2409.12186, section 3.2) and CodeGemma
    Infilling(prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>"),
    # CodeLlama (meta-llama/codellama @e81b597: infilling_prompt_tokens in generation.py, encode_infilling in tokenizer.py)
    Infilling(prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>", end="▁<EOT>", begins=True, is_spaced=True),
    # DeepSeek-Coder (README of deepseek-ai/DeepSeek-Coder, "Code Insertion"), whose tokenizer begins every text
    Infilling(prefix=f"<{BAR}fim▁begin{BAR}>", suffix=f"<{BAR}fim▁hole{BAR}>", middle=f"<{BAR}fim▁end{BAR}>", begins=True),
)


def infilling_prompt(tokenizer: FimEncoder, prefix: Sequence[int], suffix: str) -> tuple[int, ...]:
    """The prompt whose answer is what stands between the tokens `prefix` and the text `suffix`.

    Raises:
        InputError: the model has no tokens for it.
    """
    way = _way(tokenizer)
    if way is None:
        raise InputError("this model has no tokens for filling in: it takes no suffix")
    before, after, middle = (tokenizer.token_id(name) for name in (way.prefix, way.suffix, way.middle))
    assert before is not None and after is not None and middle is not None
    beginning = (tokenizer.bos_id,) if way.begins and tokenizer.bos_id is not None else ()
    suffix_ids = tokenizer.encode(suffix)
    if way.is_spaced:
        suffix_ids = tokenizer.encode(MARK + suffix)[len(tokenizer.encode(MARK)) :]
    return (*beginning, before, *prefix, after, *suffix_ids, middle)


def end_ids(tokenizer: FimEncoder) -> tuple[int, ...]:
    """Tokens that end what is filled in, besides the end of text."""
    way = _way(tokenizer)
    end = None if way is None or way.end is None else tokenizer.token_id(way.end)
    return () if end is None else (end,)


def _way(tokenizer: FimEncoder) -> Infilling | None:
    for way in INFILLINGS:
        if all(tokenizer.token_id(name) is not None for name in (way.prefix, way.suffix, way.middle)):
            return way
    return None

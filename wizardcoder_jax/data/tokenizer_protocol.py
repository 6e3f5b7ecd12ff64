"""The tokenizer interface that the data package requires."""

from collections.abc import Sequence
from typing import Protocol


class TokenizerProtocol(Protocol):
    """Converts strings to token ids. Id 0 is an ordinary token, not padding."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Return the token ids of each text. No special tokens are added."""
        ...

    def encode_truncated(self, texts: Sequence[str], max_length: int) -> Sequence[tuple[Sequence[int], bool]]:
        """Return up to `max_length` ids of each text, including added special tokens such as BOS, and whether it was truncated.

        The ids equal those of transformers' tokenizer(text, truncation=True, max_length=max_length).
        """
        ...

    @property
    def eos_id(self) -> int:
        """Return the id of the token that ends a response."""
        ...

    @property
    def eos_token(self) -> str:
        """Return the text of the token that ends a response."""
        ...

    @property
    def pad_id(self) -> int | None:
        """Return the id of the padding token, or None if there is none."""
        ...

    @property
    def vocab_size(self) -> int:
        """Return the size of the vocabulary; all ids are in [0, vocab_size)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the tokenizer's definition; tokenizers with equal fingerprints return equal ids."""
        ...

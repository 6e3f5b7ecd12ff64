"""The interface of a tokenizer that the data package needs."""

from collections.abc import Sequence
from typing import Protocol


class TokenizerProtocol(Protocol):
    """From text to token ids. Id 0 is an ordinary token."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """Return the ids of each text, without adding special tokens before or after."""
        ...

    def encode_truncated(self, texts: Sequence[str], max_length: int) -> Sequence[tuple[Sequence[int], bool]]:
        """Return the first ids of each text, including special tokens (BOS) that are added, and whether it was truncated.

        The ids are those of transformers' tokenizer(text, truncation=True, max_length=max_length): at most `max_length`,
        including special tokens.
        """
        ...

    @property
    def eos_id(self) -> int:
        """Return the id that ends a response."""
        ...

    @property
    def eos_token(self) -> str:
        """Return the text of that id."""
        ...

    @property
    def pad_id(self) -> int | None:
        """Return the id of the padding token, or None if there is none."""
        ...

    @property
    def vocab_size(self) -> int:
        """Return the number of ids: each is in [0, vocab_size)."""
        ...

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the tokenizer's definition: equal fingerprints give equal ids."""
        ...

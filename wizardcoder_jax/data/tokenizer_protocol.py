"""What this room needs of a tokenizer."""

from collections.abc import Sequence
from typing import Protocol


class TokenizerProtocol(Protocol):
    """Text to token ids; any id, 0 too, may be a token like the others."""

    def encode_batch(self, texts: Sequence[str]) -> Sequence[Sequence[int]]:
        """The ids of each text, without special tokens added before or after."""
        ...

    def encode_truncated(self, texts: Sequence[str], max_length: int) -> Sequence[tuple[Sequence[int], bool]]:
        """For each text its first ids, with the special tokens (BOS) that the tokenizer adds, and whether some were cut off.

        The same ids as transformers' tokenizer(text, truncation=True, max_length=max_length): at most `max_length`, special
        tokens included.
        """
        ...

    @property
    def eos_id(self) -> int:
        """The id that ends a response."""
        ...

    @property
    def eos_token(self) -> str:
        """The text of that id."""
        ...

    @property
    def pad_id(self) -> int | None:
        """The id of the padding token, None where there is none."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids: each is in [0, vocab_size)."""
        ...

    @property
    def fingerprint(self) -> str:
        """The sha256 of the tokenizer's definition: equal fingerprints give equal ids."""
        ...

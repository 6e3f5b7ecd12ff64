"""What this room needs of a tokenizer."""

from collections.abc import Sequence
from typing import Protocol


class Tokenizer(Protocol):
    """Text to token ids; any id, 0 too, may be a token like the others."""

    def encode(self, text: str) -> Sequence[int]:
        """The ids of `text`, without special tokens added before or after."""
        ...

    @property
    def eos_id(self) -> int:
        """The id that ends a response."""
        ...

    @property
    def vocab_size(self) -> int:
        """Number of ids: each is in [0, vocab_size)."""
        ...

    @property
    def fingerprint(self) -> str:
        """The sha256 of the tokenizer's definition: equal fingerprints give equal ids."""
        ...

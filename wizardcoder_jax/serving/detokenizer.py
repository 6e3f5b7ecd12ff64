"""Incremental detokenizer: converts tokens to text as they arrive, without incomplete characters or stop strings."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # character that invalid bytes decode to, including those of an incomplete character
WINDOW = 16  # number of tokens in the decoded window before its beginning is dropped
MAX_UNCERTAIN = 64  # tokens without a complete character after which their bytes count as invalid


class IncrementalDetokenizer:
    """Decoder that gets tokens one by one. The strings that it returns, joined, are the text of all tokens.

    Args:
        decode: function that converts tokens to text.
        stops: stop strings. The text ends before the first stop string that occurs.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []
        self._start = 0  # index of the window's first token, at a character boundary
        self._boundary = 0  # token index of the last known character boundary
        self._num_returned = 0  # number of characters of the decoded window that have been returned
        self._pending = ""  # text at the end that may be the beginning of a stop string
        self.is_stopped = False

    def add(self, token: int) -> str:
        """Add a token, and return the text that is now certain."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._start :])
        certain = text.rstrip(REPLACEMENT)
        is_boundary = certain == text or len(self._tokens) - self._boundary > MAX_UNCERTAIN
        new = (text if is_boundary else certain)[self._num_returned :]
        self._num_returned = len(text) if is_boundary else self._num_returned + len(new)
        if is_boundary:
            if len(self._tokens) - self._start >= WINDOW:
                self._start = self._boundary
                self._num_returned = len(self._decode(self._tokens[self._start :]))
            self._boundary = len(self._tokens)
        return self._cut_at_stop(new)

    def end(self) -> str:
        """Return the remaining text, after the last token."""
        rest = self._decode(self._tokens[self._start :])[self._num_returned :]
        new = self._cut_at_stop(rest)
        pending, self._pending = ("" if self.is_stopped else self._pending), ""
        return new + pending

    def _cut_at_stop(self, new: str) -> str:
        text = self._pending + new
        stops = [index for stop in self._stops if (index := text.find(stop)) >= 0]
        if stops:
            self.is_stopped, self._pending = True, ""
            return text[: min(stops)]
        num_pending = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._pending = text[len(text) - num_pending :]
        return text[: len(text) - num_pending]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest proper prefix of `stop` with which `text` ends."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(stop[:n])), 0)

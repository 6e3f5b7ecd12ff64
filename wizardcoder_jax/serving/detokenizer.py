"""Incremental detokenization: the text of an answer as its tokens arrive, without split characters or stop strings."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what invalid bytes decode to, including those of an incomplete character
WINDOW = 16  # number of tokens to decode together before the first ones are dropped
MAX_UNCERTAIN = 64  # after this many tokens that decode to no character, the bytes are invalid and not incomplete


class IncrementalDetokenizer:
    """Convert tokens to text one by one. The pieces it returns join to the text of all tokens.

    Args:
        decode: converts tokens to text.
        stops: strings that end the text; the earliest one and everything after it is left out.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []
        self._start = 0  # first token to decode; decoding from any character boundary gives the same text
        self._boundary = 0  # the last known character boundary, as a token index
        self._num_returned = 0  # characters of the decoded window that have been returned
        self._pending = ""  # text that may be the beginning of a stop string
        self.is_stopped = False

    def add(self, token: int) -> str:
        """Return the text that becomes certain with one more token."""
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
        """Return the text that was held back, once there are no more tokens."""
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
    """Return the number of characters at the end of `text` that begin `stop`."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(stop[:n])), 0)

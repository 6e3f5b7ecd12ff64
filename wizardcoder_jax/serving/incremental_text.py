"""The text of an answer as its tokens come: never half a character, never a part of a stop string."""

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what bytes that are no character decode to, those of half a character too
WINDOW = 16  # tokens that are decoded together before the first are let go
MOST_UNCERTAIN = 64  # tokens that decode to no character: they are bytes without meaning, not half a character


class Transcript:
    """Makes text of tokens, one after the other; what it hands out joins to the whole.

    Args:
        decode: tokens -> text.
        stops: strings that end the text; the first of them and what follows is left out.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()) -> None:
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []
        self._start = 0  # of the tokens that are decoded; decoding is the same from each boundary of characters on
        self._boundary = 0  # the last one known
        self._num_taken = 0  # characters of the decoded text
        self._held = ""  # text that may be the beginning of a stop string
        self.is_stopped = False

    def add(self, token: int) -> str:
        """The text that has become certain with one more token."""
        self._tokens.append(token)
        text = self._decode(self._tokens[self._start :])
        certain = text.rstrip(REPLACEMENT)
        is_boundary = certain == text or len(self._tokens) - self._boundary > MOST_UNCERTAIN
        found = (text if is_boundary else certain)[self._num_taken :]
        self._num_taken = len(text) if is_boundary else self._num_taken + len(found)
        if is_boundary:
            if len(self._tokens) - self._start >= WINDOW:
                self._start = self._boundary
                self._num_taken = len(self._decode(self._tokens[self._start :]))
            self._boundary = len(self._tokens)
        return self._without_stops(found)

    def end(self) -> str:
        """What was held back; the answer is over."""
        rest = self._decode(self._tokens[self._start :])[self._num_taken :]
        found = self._without_stops(rest)
        held, self._held = ("" if self.is_stopped else self._held), ""
        return found + held

    def _without_stops(self, found: str) -> str:
        text = self._held + found
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.is_stopped, self._held = True, ""
            return text[: min(places)]
        num_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    lengths = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in lengths if text.endswith(stop[:n])), 0)

"""What this room says on stderr."""

import sys


def note(message: str) -> None:
    """One line that a user may want to know and need not act on."""
    print(f"data: {message}", file=sys.stderr, flush=True)

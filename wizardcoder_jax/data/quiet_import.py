"""Loading seqio and TensorFlow without their noise, and without losing a Ctrl-C."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Around the first import of TensorFlow: Ctrl-C takes effect after it, its native log goes nowhere."""
    with _interrupts_deferred(), _native_log_muted():
        yield


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Ctrl-C takes effect at the end of the block: amid the imports of TensorFlow it aborts the process or gets lost."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread is ever interrupted
        yield
        return
    pending: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: pending.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if pending:
            signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def _native_log_muted() -> Iterator[None]:
    """Sends what TensorFlow's C++ start-up writes past Python's sys.stderr to nowhere; errors still raise."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)

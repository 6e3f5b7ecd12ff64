"""A context manager for importing seqio and TensorFlow: hides their log output and handles Ctrl-C correctly."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Discard the native log output of a first import of TensorFlow, and defer Ctrl-C until the import has finished."""
    with _interrupts_deferred(), _native_log_muted():
        yield


@contextlib.contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Defer Ctrl-C to the end of the block, because during the import of TensorFlow it aborts the process or is ignored."""
    if threading.current_thread() is not threading.main_thread():  # Ctrl-C interrupts only the main thread
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
    """Discard what TensorFlow's C++ code writes to file descriptor 2 at startup. Python exceptions are still raised."""
    sys.stderr.flush()
    saved, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        os.close(devnull)

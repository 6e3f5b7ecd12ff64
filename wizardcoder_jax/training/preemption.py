"""Handles SIGTERM and Ctrl-C during a run: the current state is saved, then the process exits with status 75.

Python runs signal handlers in the main thread only, between two bytecode instructions, so not while XLA compiles, which can
take minutes. However, Python's C-level handler immediately writes the signal number to a pipe (signal.set_wakeup_fd). A thread
reads this pipe and ends the process at once if there is no unsaved work.
"""

import logging
import os
import signal
import threading
from types import FrameType
from typing import NoReturn

from wizardcoder_jax.core.errors import EXIT_RESUMABLE

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Records whether a signal has asked the run to stop. If there is no unsaved work, the signal ends the process at once.

    A second Ctrl-C raises KeyboardInterrupt even if work is lost. Must be created in the main thread, because Python allows
    only that thread to install signal handlers.

    Attributes:
        requested: whether a signal has been received.
    """

    def __init__(self) -> None:
        self.requested = False
        self._has_unsaved_work, self._num_interrupts = False, 0
        self._lock = threading.Lock()
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()

    def defer_exit(self) -> None:
        """Declare that there is unsaved work from now on: the training loop must check `requested`, save and exit."""
        with self._lock:
            self._has_unsaved_work = True

    def allow_exit(self) -> None:
        """Declare that all work is saved; end the process if a signal has been received in the meantime."""
        with self._lock:
            self._has_unsaved_work = False
            if self.requested:
                _exit()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._num_interrupts += number == signal.SIGINT
        if self._num_interrupts > 1:
            raise KeyboardInterrupt

    def _watch(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] not in _SIGNALS:
                continue
            with self._lock:
                if not self._has_unsaved_work:
                    _exit()
                self.requested = True
            logger.warning("will save and exit after this step; press Ctrl-C again to exit now", extra={"prefix": "stopping"})


def _exit() -> NoReturn:
    logger.warning("no work is lost; the same command resumes", extra={"prefix": "stopped"})
    os._exit(EXIT_RESUMABLE)

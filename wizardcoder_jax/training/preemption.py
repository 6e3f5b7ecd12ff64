"""SIGTERM and Ctrl-C during a run: finished work is saved, then the process exits with status 75.

Python runs a signal handler only between two bytecode instructions, so not during a compilation, which can take minutes. The
C-level handler, however, writes the signal's number to a pipe at once. A thread that reads the pipe ends the process whenever
no work would be lost.
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
    """Whether the run has been asked to stop. While there is nothing to lose, a request ends the process at once.

    A second Ctrl-C ends it regardless of what is lost. Must be created in the main thread, because Python sets signal handlers
    only there.

    Attributes:
        requested: whether a signal has arrived.
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
        """Declare that unsaved work begins: from now on the loop must check `requested`, save and leave."""
        with self._lock:
            self._has_unsaved_work = True

    def allow_exit(self) -> None:
        """Declare that all work is durable; end the process if a signal has arrived meanwhile."""
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
            logger.warning("after this step; press Ctrl-C again to stop at once", extra={"prefix": "stopping"})


def _exit() -> NoReturn:
    logger.warning("nothing is lost; the same command resumes", extra={"prefix": "stopped"})
    os._exit(EXIT_RESUMABLE)

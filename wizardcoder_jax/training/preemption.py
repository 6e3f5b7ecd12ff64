"""SIGTERM and Ctrl-C while a run goes on: what is done is saved, then the process ends with status 75.

Python runs a signal's handler only between two of its own instructions, so never amid a compilation of minutes. The system's
own handler writes the signal's number to a pipe, though, and a thread that waits there ends the process as long as
nothing is lost by it.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

from wizardcoder_jax.core.errors import EXIT_RESUMABLE

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Whether the run was asked to stop. While there is nothing to lose, being asked ends the process at once.

    A second Ctrl-C ends it whatever is lost. Made in the main thread, as Python sets signal handlers there alone.
    """

    def __init__(self) -> None:
        self.asked = False
        self._may_lose, self._interrupts = False, 0
        self._lock = threading.Lock()
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        threading.Thread(target=self._watch, args=(reader,), daemon=True).start()

    def hold(self) -> None:
        """From here on steps are done that are not saved: the loop has to look at `asked`, save and leave."""
        with self._lock:
            self._may_lose = True

    def release(self) -> None:
        """From here on all that is done is durable; ends the process if it was asked to stop meanwhile."""
        with self._lock:
            self._may_lose = False
            if self.asked:
                _leave()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._interrupts += number == signal.SIGINT
        if self._interrupts > 1:
            raise KeyboardInterrupt

    def _watch(self, reader: int) -> None:
        while number := os.read(reader, 1):
            if number[0] not in _SIGNALS:
                continue
            with self._lock:
                if not self._may_lose:
                    _leave()
                self.asked = True
            print("stopping after this step; Ctrl-C again stops at once", file=sys.stderr, flush=True)


def _leave() -> NoReturn:
    print("stopped: nothing is lost; the same command resumes", file=sys.stderr, flush=True)
    os._exit(EXIT_RESUMABLE)

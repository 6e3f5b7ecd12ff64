"""An event loop with a virtual clock, which jumps ahead when all tasks are sleeping."""

import asyncio


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop in which sleeping takes no time; time() returns the sum of all sleeps."""

    def __init__(self):
        super().__init__()
        self._now_s = 0.0
        select = self._selector.select

        def jump(timeout):
            ready = select(0)
            if not ready and timeout:
                self._now_s += timeout
            return ready

        self._selector.select = jump

    def time(self):
        return self._now_s


def run(coroutine):
    """Run a coroutine as asyncio.run does, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)

"""An event loop whose clock is virtual: where all tasks wait for a time, it jumps there."""

import asyncio


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Sleeps cost nothing; time() is the sum of what was slept."""

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
    """asyncio.run in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(coroutine)

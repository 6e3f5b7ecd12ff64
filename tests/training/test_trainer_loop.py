"""The training loop with a fake step: in which order it calls the callbacks, and how it ends."""

import types

import pytest

from wizardcoder_jax.training.callbacks.callback import Callback
from wizardcoder_jax.training.goodput import Stopwatch
from wizardcoder_jax.training.trainer import Trainer

pytestmark = pytest.mark.quick


class Recorder(Callback):
    """A callback that appends every call to a list."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def on_start(self, step, state):
        self.calls.append((self.name, "on_start", step, state))

    def before_step(self, step):
        self.calls.append((self.name, "before_step", step))

    def after_step(self, step, state, metrics):
        self.calls.append((self.name, "after_step", step, state, metrics))

    def on_end(self, step, state):
        self.calls.append((self.name, "on_end", step, state))

    def close(self):
        self.calls.append((self.name, "close"))


def trainer_of(calls, num_steps, *, stop_after=None, fail_at=None):
    """Return a trainer whose state is the number of completed steps."""
    stop = types.SimpleNamespace(requested=False, defer_exit=lambda: calls.append("defer_exit"))

    def read_batch(step):
        calls.append(("read_batch", step))
        return step

    def step(state, batch):
        if batch == fail_at:
            raise OSError("lost")
        stop.requested = batch + 1 == stop_after
        return state + 1, f"metrics {batch}"

    return Trainer(
        step=step,
        read_batch=read_batch,
        num_steps=num_steps,
        callbacks=[Recorder("a", calls), Recorder("b", calls)],
        stop=stop,
        any_process=lambda flag: flag,
        clock=Stopwatch(),
    )


def test_a_resumed_run_takes_the_remaining_steps_and_calls_every_callback_in_order():
    calls = []
    assert trainer_of(calls, 3).run(2, 2) == 3
    assert calls == [
        ("a", "on_start", 2, 2),
        ("b", "on_start", 2, 2),
        ("read_batch", 2),
        "defer_exit",
        ("a", "before_step", 3),
        ("b", "before_step", 3),
        ("a", "after_step", 3, 3, "metrics 2"),
        ("b", "after_step", 3, 3, "metrics 2"),
        ("a", "on_end", 3, 3),
        ("b", "on_end", 3, 3),
        ("a", "close"),
        ("b", "close"),
    ]


def test_a_stop_request_ends_the_loop_after_the_current_step():
    calls = []
    assert trainer_of(calls, 10, stop_after=2).run(0, 0) == 2
    assert calls[-4:] == [("a", "on_end", 2, 2), ("b", "on_end", 2, 2), ("a", "close"), ("b", "close")]


def test_a_finished_run_takes_no_step():
    calls = []
    assert trainer_of(calls, 3).run(3, 3) == 3
    assert [call[1] for call in calls] == ["on_start", "on_start", "on_end", "on_end", "close", "close"]


def test_after_an_error_callbacks_are_closed_but_on_end_is_not_called():
    calls = []
    with pytest.raises(OSError, match="lost"):
        trainer_of(calls, 3, fail_at=1).run(0, 0)
    assert calls[-2:] == [("a", "close"), ("b", "close")]
    assert not [call for call in calls if "on_end" in call]

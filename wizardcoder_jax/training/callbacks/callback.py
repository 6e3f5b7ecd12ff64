"""The interface of callbacks of the training loop."""

from wizardcoder_jax.training.train_step import StepMetrics, TrainState


class Callback:
    """Hooks that the training loop calls; a hook does nothing unless a subclass overrides it.

    Steps are numbered from 1. The state is donated to the next step, so a callback must not keep a reference to it.
    """

    def on_start(self, step: int, state: TrainState) -> None:
        """Run before the loop; `step` is the number of steps completed before the run was resumed (0 for a new run)."""

    def before_step(self, step: int) -> None:
        """Run before step `step` is dispatched."""

    def after_step(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Run after step `step` is dispatched; the devices may still be computing `state` and `metrics`."""

    def on_end(self, step: int, state: TrainState) -> None:
        """Run after the loop has ended without an error; `step` is the number of completed steps."""

    def close(self) -> None:
        """Release resources; always called at the end, even after an error."""

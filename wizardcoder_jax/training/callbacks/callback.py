"""The interface of a callback."""

from wizardcoder_jax.training.train_step import StepMetrics, TrainState


class Callback:
    """Hooks into the training loop; each of them does nothing unless it is overridden.

    Steps count from 1: after step N, N steps are done. A state is donated to the next step, so a callback must not keep it.
    """

    def on_start(self, step: int, state: TrainState) -> None:
        """Run before the loop; `step` steps are done, by earlier processes of this run."""

    def before_step(self, step: int) -> None:
        """Run before step `step` is dispatched."""

    def after_step(self, step: int, state: TrainState, metrics: StepMetrics) -> None:
        """Run after step `step` is dispatched; the devices may still be computing `state` and `metrics`."""

    def on_end(self, step: int, state: TrainState) -> None:
        """Run after the loop has ended normally, with `step` steps done."""

    def close(self) -> None:
        """Release resources; always runs at the end, also after an error."""

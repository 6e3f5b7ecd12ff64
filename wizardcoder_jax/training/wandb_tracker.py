"""Logs to Weights & Biases (an optional dependency). A restarted run continues the same W&B run."""

import os
from collections.abc import Mapping
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_text, write_text

_ID_FILE = "wandb_id.txt"  # file in the run's folder that stores the id of the W&B run
_OFFLINE = ("offline", "disabled", "dryrun")  # values of WANDB_MODE that need no key


class WandbTracker:
    """A Weights & Biases run.

    Args:
        project: the W&B project.
        run_dir: the run's folder, local or gs://; it stores the W&B id that a restarted run continues.
        config: the settings of the run, shown on its W&B page.
        new_run: whether to start a new W&B run instead of continuing the stored one.

    Raises:
        InputError: the package wandb or the API key is missing, or the service cannot be reached.
    """

    def __init__(self, project: str, run_dir: str, config: Mapping[str, Any], new_run: bool = False) -> None:
        try:
            import wandb  # type: ignore[import-not-found]  # an extra
        except ImportError as error:
            raise InputError(
                "wandb_project is set but the package wandb is not installed; run pip install wandb or unset wandb_project"
            ) from error
        if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") not in _OFFLINE:
            raise InputError("wandb_project is set but WANDB_API_KEY is not; set it, or set WANDB_MODE=offline")
        path = os.path.join(run_dir, _ID_FILE)
        run_id = None if new_run or not exists(path) else read_text(path).strip()
        try:
            self._run = wandb.init(project=project, id=run_id, resume="allow", config=dict(config))
        except Exception as error:  # the client raises errors of several libraries
            raise InputError(
                f"cannot open Weights & Biases project {project!r} ({type(error).__name__}); check the API key and the network"
            ) from error
        write_text(path, f"{self._run.id}\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log values of the step `step`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Upload everything that is still buffered."""
        self._run.finish()

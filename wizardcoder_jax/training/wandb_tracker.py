"""Weights & Biases, an optional extra: a restarted run continues the same W&B run. Its key comes from the environment."""

import os
from collections.abc import Mapping
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_text, write_text

_ID_FILE = "wandb_id.txt"  # in the run's folder
_OFFLINE = ("offline", "disabled", "dryrun")  # values of WANDB_MODE that need no key


class WandbTracker:
    """A Weights & Biases run.

    Args:
        project: the W&B project.
        run_dir: the run's folder, local or gs://; it stores the W&B id that a restarted run continues.
        config: the resolved settings, shown with the run.
        new_run: start a new W&B run instead of continuing the stored one.

    Raises:
        InputError: the package or the key is missing, or the service cannot be reached.
    """

    def __init__(self, project: str, run_dir: str, config: Mapping[str, Any], new_run: bool = False) -> None:
        try:
            import wandb  # type: ignore[import-not-found]  # an extra
        except ImportError as error:
            raise InputError(
                "wandb_project is set but the package wandb is missing; install it with: pip install wandb  (or leave it out)"
            ) from error
        if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") not in _OFFLINE:
            raise InputError("wandb_project is set but WANDB_API_KEY is not; set it, or WANDB_MODE=offline")
        path = os.path.join(run_dir, _ID_FILE)
        run_id = None if new_run or not exists(path) else read_text(path).strip()
        try:
            self._run = wandb.init(project=project, id=run_id, resume="allow", config=dict(config))
        except Exception as error:  # the client raises its own errors and those of its transport
            raise InputError(f"cannot open Weights & Biases project {project!r} ({type(error).__name__})") from error
        write_text(path, f"{self._run.id}\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values of a step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Upload everything that is still buffered."""
        self._run.finish()

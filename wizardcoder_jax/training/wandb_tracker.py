"""Weights & Biases, an extra of the package: the same run goes on after a restart, and the key is the environment's alone."""

import os
from collections.abc import Mapping
from typing import Any

from wizardcoder_jax.core.errors import InputError
from wizardcoder_jax.core.filesystem import exists, read_text, write_text

_ID_FILE = "wandb_id.txt"  # in the run's folder
_OFFLINE = ("offline", "disabled", "dryrun")  # values of WANDB_MODE under which no key is needed


class WandbTracker:
    """A run at Weights & Biases.

    Args:
        project: its name there.
        run_dir: the run's folder, local or gs://; keeps the id by which a restarted run goes on.
        config: the resolved settings, which are shown beside the run.
        anew: start another run instead.

    Raises:
        InputError: the package or the key is missing, or the service does not answer.
    """

    def __init__(self, project: str, run_dir: str, config: Mapping[str, Any], anew: bool = False) -> None:
        try:
            import wandb  # type: ignore[import-not-found]  # an extra
        except ImportError as error:
            raise InputError(
                "wandb_project is set but the package wandb is missing; install it with: pip install wandb  (or leave it out)"
            ) from error
        if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") not in _OFFLINE:
            raise InputError("wandb_project is set but WANDB_API_KEY is not; set it, or WANDB_MODE=offline")
        path = os.path.join(run_dir, _ID_FILE)
        known = None if anew or not exists(path) else read_text(path).strip()
        try:
            self._run = wandb.init(project=project, id=known, resume="allow", config=dict(config))
        except Exception as error:  # the client raises its own errors, and those of its transport
            raise InputError(f"Weights & Biases does not open project {project!r} ({type(error).__name__})") from error
        write_text(path, f"{self._run.id}\n")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Adds one logged step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()

"""Environment variables that make the libraries we use quiet and quick to start."""

import os


def use_gcsfs_for_gs() -> None:
    """Make etils, and thereby Orbax, access gs:// through gcsfs instead of TensorFlow, which is slow to load."""
    os.environ.setdefault("EPATH_USE_TF", "false")


def silence_native_logs() -> None:
    """Hide the start-up messages of TensorFlow and XLA on standard error, e.g. "failed call to cuInit" without a GPU.

    Failures still raise exceptions. A log level that the user has set is kept. Call this before importing either library.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

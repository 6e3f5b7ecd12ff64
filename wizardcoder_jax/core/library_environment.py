"""Environment variables that make the libraries we use quiet and quick to start."""

import os


def use_gcsfs_for_gs() -> None:
    """Let etils, and Orbax through it, reach gs:// with gcsfs; their default is TensorFlow, which is slow to load."""
    os.environ.setdefault("EPATH_USE_TF", "false")


def silence_native_logs() -> None:
    """Hide what TensorFlow and XLA write on standard error when they start, e.g. "failed call to cuInit" without a GPU.

    Their failures still raise exceptions. A level that the user has set stays. Call this before either is imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
